// Python's view of words.cpp and trainer.cpp.
#include <chrono>

#include "bindings.hpp"
#include "trainer.hpp"
#include "words.hpp"

namespace penjing {
namespace {

constexpr auto kBetweenLooks = std::chrono::milliseconds(50);  // for Ctrl-C and the progress

Bytes view(const nb::bytes& blob) {
    return {reinterpret_cast<const uint8_t*>(blob.data()), blob.size()};
}

std::vector<Bytes> views(const std::vector<nb::bytes>& blobs) {
    std::vector<Bytes> found;
    for (const nb::bytes& blob : blobs) found.push_back(view(blob));
    return found;
}

nb::bytes to_bytes(const std::string& blob) { return nb::bytes(blob.data(), blob.size()); }

nb::tuple train(const std::vector<nb::bytes>& blobs, size_t num_merges, const nb::object& on_progress) {
    const std::vector<Bytes> data = views(blobs);
    auto last = std::chrono::steady_clock::now();
    const auto look = [&](size_t done) {
        const auto now = std::chrono::steady_clock::now();
        if (now - last < kBetweenLooks && done < num_merges) return;
        last = now;
        nb::gil_scoped_acquire holding;
        if (PyErr_CheckSignals() != 0) throw nb::python_error();
        if (!on_progress.is_none()) on_progress(done, num_merges);
    };
    Merges merges;
    {
        nb::gil_scoped_release released;
        merges = train_merges(data, num_merges, look);
    }
    const size_t count = merges.counts.size();
    return nb::make_tuple(array_of(std::move(merges.pairs), {count, 2}),
                          array_of(std::move(merges.counts)));
}

nb::bytes merge(const std::vector<nb::bytes>& blobs) {
    const std::vector<Bytes> data = views(blobs);
    std::string merged;
    {
        nb::gil_scoped_release released;
        merged = merge_words(data);
    }
    return to_bytes(merged);
}

nb::tuple histogram(const nb::bytes& blob) {
    Histogram found;
    {
        nb::gil_scoped_release released;
        found = count_histogram(view(blob));
    }
    return nb::make_tuple(array_of(std::move(found.counts)), array_of(std::move(found.words)),
                          array_of(std::move(found.bytes)));
}

nb::bytes sample(const nb::bytes& blob, int64_t threshold) {
    std::string kept;
    {
        nb::gil_scoped_release released;
        kept = sample_words(view(blob), threshold < 0 ? 0 : uint64_t(threshold));
    }
    return to_bytes(kept);
}

}  // namespace

void bind_trainer(nb::module_& m) {
    m.def("merge_words", &merge, nb::arg("blobs"));
    m.def("count_histogram", &histogram, nb::arg("blob"));
    m.def("sample_words", &sample, nb::arg("blob"), nb::arg("threshold"));
    m.def("train_merges", &train, nb::arg("blobs"), nb::arg("num_merges"), nb::arg("on_progress").none());
}

}  // namespace penjing
