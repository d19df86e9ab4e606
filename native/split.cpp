// Cutting text for a look at it, and the Unicode version of the cutter.
#include "bindings.hpp"
#include "word_hash.hpp"

namespace penjing {
namespace {

Array<int64_t> split_ends(const nb::bytes& text, const std::string& name, size_t cap) {
    const Pattern pattern = pattern_of(name);
    const auto* data = reinterpret_cast<const uint8_t*>(text.c_str());
    std::vector<int64_t> ends;
    scan(pattern, data, text.size(), [&](size_t start, size_t end) {
        while (start < end) {
            start = cap_end(data, start, end, cap);
            ends.push_back(int64_t(start));
        }
    });
    return array_of(std::move(ends));
}

}  // namespace

void bind_split(nb::module_& module) {
    module.def("split_ends", &split_ends, nb::arg("text"), nb::arg("pattern"), nb::arg("cap"));
    module.def("word_hash", [](const nb::bytes& word) {
        return word_hash(reinterpret_cast<const uint8_t*>(word.c_str()), word.size());
    });
    module.def("unicode_version", [] { return kUnicodeVersion; });
}

}  // namespace penjing
