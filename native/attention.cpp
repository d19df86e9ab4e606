// The module `penjing.model._attention`: attention in float32 for this processor.
#include "attention.hpp"

#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/string.h>

#include <stdexcept>
#include <string>

namespace penjing {

namespace nb = nanobind;

namespace {

using Input = nb::ndarray<const float, nb::ndim<4>, nb::device::cpu>;
using Output = nb::ndarray<float, nb::ndim<4>, nb::c_contig, nb::device::cpu>;
using LogSums = nb::ndarray<float, nb::ndim<3>, nb::c_contig, nb::device::cpu>;
using Starts = nb::ndarray<const int64_t, nb::ndim<2>, nb::c_contig, nb::device::cpu>;

enum class Isa { plain, avx2, avx512 };

Isa best_isa() {
#if defined(PENJING_X86)
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx512f")) return Isa::avx512;
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) return Isa::avx2;
#endif
    return Isa::plain;
}

const Isa ISA = best_isa();

Strided strided(const Input& x, const AttentionShape& s, int64_t heads) {
    const int64_t sizes[] = {s.rows, s.tokens, heads, s.width};
    for (size_t axis = 0; axis < 4; ++axis) {
        if (int64_t(x.shape(axis)) != sizes[axis]) throw std::invalid_argument("shapes do not fit");
    }
    if (s.width > 1 && x.stride(3) != 1) throw std::invalid_argument("the last stride must be 1");
    return {x.data(), x.stride(0), x.stride(1), x.stride(2)};
}

AttentionShape shape_of(const Input& q, const Input& k, const Starts& starts, int threads) {
    const AttentionShape s{int64_t(q.shape(0)), int64_t(q.shape(1)), int64_t(q.shape(2)),
                           int64_t(k.shape(2)), int64_t(q.shape(3)), starts.data(), threads};
    if (!s.kv_heads || s.heads % s.kv_heads) throw std::invalid_argument("heads do not divide");
    if (int64_t(starts.shape(0)) != s.rows || int64_t(starts.shape(1)) != s.tokens) {
        throw std::invalid_argument("starts must be (rows, tokens)");
    }
    return s;
}

void check(const nb::ndarray<>& x, size_t size) {
    if (x.size() != size) throw std::invalid_argument("an output has the wrong size");
}

void attend(const Input& q, const Input& k, const Input& v, const Starts& starts, Output out,
             LogSums logsums, int threads) {
    const AttentionShape s = shape_of(q, k, starts, threads);
    const AttentionForward work{s, strided(q, s, s.heads), strided(k, s, s.kv_heads),
                                strided(v, s, s.kv_heads), out.data(), logsums.data()};
    check(nb::ndarray<>(out), q.size());
    check(nb::ndarray<>(logsums), size_t(s.rows * s.heads * s.tokens));
    nb::gil_scoped_release release;
    switch (ISA) {
        case Isa::avx512: return avx512::attention_forward(work);
        case Isa::avx2: return avx2::attention_forward(work);
        case Isa::plain: return plain::attention_forward(work);
    }
}

void differentiate(const Input& grad, const Input& q, const Input& k, const Input& v, const Starts& starts,
              const Input& out, LogSums logsums, Output grad_q, Output grad_k, Output grad_v, int threads) {
    const AttentionShape s = shape_of(q, k, starts, threads);
    const AttentionBackward work{s,
                                 strided(q, s, s.heads),
                                 strided(k, s, s.kv_heads),
                                 strided(v, s, s.kv_heads),
                                 strided(out, s, s.heads),
                                 strided(grad, s, s.heads),
                                 logsums.data(),
                                 grad_q.data(),
                                 grad_k.data(),
                                 grad_v.data()};
    check(nb::ndarray<>(logsums), size_t(s.rows * s.heads * s.tokens));
    check(nb::ndarray<>(grad_q), q.size());
    check(nb::ndarray<>(grad_k), k.size());
    check(nb::ndarray<>(grad_v), v.size());
    nb::gil_scoped_release release;
    switch (ISA) {
        case Isa::avx512: return avx512::attention_backward(work);
        case Isa::avx2: return avx2::attention_backward(work);
        case Isa::plain: return plain::attention_backward(work);
    }
}

}  // namespace

}  // namespace penjing

NB_MODULE(_attention, module) {
    using namespace nanobind::literals;
    module.doc() = "Causal attention inside documents, float32, for the instruction set of this processor.";
    module.attr("INSTRUCTIONS") = std::string(penjing::ISA == penjing::Isa::avx512 ? "avx512"
                                              : penjing::ISA == penjing::Isa::avx2 ? "avx2"
                                                                                   : "plain");
    module.def("attend", &penjing::attend, "q"_a, "k"_a, "v"_a, "starts"_a, "out"_a, "logsums"_a, "threads"_a);
    module.def("differentiate", &penjing::differentiate, "grad"_a, "q"_a, "k"_a, "v"_a, "starts"_a, "out"_a,
               "logsums"_a, "grad_q"_a, "grad_k"_a, "grad_v"_a, "threads"_a);
}
