// Python's view of words.cpp and trainer.cpp.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>

#include <chrono>

#include "trainer.hpp"
#include "words.hpp"

namespace nb = nanobind;

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

std::vector<nb::bytes> owned(const nb::sequence& blobs) {
    std::vector<nb::bytes> found;
    for (nb::handle blob : blobs) found.push_back(nb::cast<nb::bytes>(blob));
    return found;
}

nb::bytes to_bytes(const std::string& blob) { return nb::bytes(blob.data(), blob.size()); }

template <class T>
using Array = nb::ndarray<nb::numpy, T>;

template <class T>
Array<T> to_array(std::vector<T>&& values, std::initializer_list<size_t> shape) {
    auto* kept = new std::vector<T>(std::move(values));
    nb::capsule owner(kept, [](void* p) noexcept { delete static_cast<std::vector<T>*>(p); });
    return Array<T>(kept->data(), shape, owner);
}

template <class T>
Array<T> to_array(std::vector<T>&& values) {
    const size_t size = values.size();
    return to_array(std::move(values), {size});
}

nb::tuple train(const nb::sequence& blobs, size_t num_merges, const nb::object& on_progress) {
    const std::vector<nb::bytes> kept = owned(blobs);
    const std::vector<Bytes> data = views(kept);
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
    return nb::make_tuple(to_array(std::move(merges.pairs), {count, 2}),
                          to_array(std::move(merges.counts)));
}

nb::bytes merge(const nb::sequence& blobs) {
    const std::vector<nb::bytes> kept = owned(blobs);
    const std::vector<Bytes> data = views(kept);
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
    return nb::make_tuple(to_array(std::move(found.counts)), to_array(std::move(found.words)),
                          to_array(std::move(found.bytes)));
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
