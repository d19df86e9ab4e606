// What the files that meet Python share: types of arguments, and arrays handed over.
#pragma once

#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/vector.h>

#include <stdexcept>
#include <string>
#include <vector>

#include "scan.hpp"

namespace penjing {

namespace nb = nanobind;

using ByteArray = nb::ndarray<const uint8_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using EndArray = nb::ndarray<const int64_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;

void bind_split(nb::module_& module);
void bind_counter(nb::module_& module);
void bind_encoder(nb::module_& module);
void bind_json_lines(nb::module_& module);
void bind_trainer(nb::module_& module);
void bind_rows(nb::module_& module);
void bind_fit(nb::module_& module);

template <class T>
using Array = nb::ndarray<nb::numpy, T>;

// The vector's values as a numpy array of this shape, without a copy.
template <class T>
Array<T> array_of(std::vector<T>&& values, std::initializer_list<size_t> shape) {
    auto* owned = new std::vector<T>(std::move(values));
    nb::capsule owner(owned, [](void* pointer) noexcept { delete static_cast<std::vector<T>*>(pointer); });
    return Array<T>(owned->data(), shape, owner);
}

template <class T>
Array<T> array_of(std::vector<T>&& values) {
    const size_t size = values.size();
    return array_of(std::move(values), {size});
}

inline Pattern pattern_of(const std::string& name) {
    Pattern pattern;
    if (!pattern_named(name, pattern)) {
        throw std::invalid_argument("no pattern is called '" + name +
                                    "'; there are qwen2, llama3, cl100k, nanochat, gpt2, o200k");
    }
    return pattern;
}

// Raises unless `ends` rise from 0 to at most `size`.
inline void check_ends(const EndArray& ends, size_t size) {
    int64_t last = 0;
    for (size_t index = 0; index < ends.size(); ++index) {
        if (ends.data()[index] < last) throw std::invalid_argument("ends must not fall");
        last = ends.data()[index];
    }
    if (uint64_t(last) > size) {
        throw std::invalid_argument("the last end is " + std::to_string(last) + ", behind the " +
                                    std::to_string(size) + " bytes of data");
    }
}

}  // namespace penjing
