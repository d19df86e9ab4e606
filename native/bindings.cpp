// The module `penjing.text._native`; each file binds what it holds.
#include "bindings.hpp"

NB_MODULE(_native, module) {
    // A tokenizer that lives until the interpreter ends is no leak to tell people of.
    penjing::nb::set_leak_warnings(false);
    module.doc() = "The compiled core of the tokenizer, and of the rows of batches.";
    penjing::bind_split(module);
    penjing::bind_counter(module);
    penjing::bind_encoder(module);
    penjing::bind_json_lines(module);
    penjing::bind_trainer(module);
    penjing::bind_rows(module);
    penjing::bind_fit(module);
}
