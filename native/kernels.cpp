// The module `penjing.model._kernels`: attention, norms, the gate and the head's loss, for this processor.
#include "kernels.hpp"

#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/string.h>

#include <stdexcept>
#include <string>
#if defined(PENJING_AMX)
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace penjing {

namespace nb = nanobind;

namespace {

// `T` is float, or uint16_t for bfloat16, which tensors show as 16-bit integers.
template <class T>
using Input = nb::ndarray<const T, nb::ndim<4>, nb::device::cpu>;
template <class T>
using Output = nb::ndarray<T, nb::ndim<4>, nb::c_contig, nb::device::cpu>;
template <class T>
using Matrix = nb::ndarray<T, nb::ndim<2>, nb::c_contig, nb::device::cpu>;
template <class T>
using Column = nb::ndarray<T, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
template <class T>
using Flat = nb::ndarray<T, nb::c_contig, nb::device::cpu>;
using LogSums = nb::ndarray<float, nb::ndim<3>, nb::c_contig, nb::device::cpu>;
using Starts = Matrix<const int64_t>;

struct Choice {
    const char* float32_name;
    const Kernels<float>* float32;
    const char* bfloat16_name;
    const Kernels<uint16_t>* bfloat16;
};

#if defined(PENJING_AMX)
// Whether the processor multiplies tiles of bfloat16 and the system lets this process do it.
bool has_tiles() {
    unsigned a, b, c, d;
    if (!__get_cpuid_count(7, 0, &a, &b, &c, &d)) return false;
    constexpr unsigned BFLOAT16 = 1u << 22, TILES = 1u << 24;
    if (!(d & BFLOAT16) || !(d & TILES)) return false;
    constexpr long REQUEST = 0x1023, TILE_DATA = 18;  // Linux: Documentation/arch/x86/xstate.rst
    return syscall(SYS_arch_prctl, REQUEST, TILE_DATA) == 0;
}
#endif

Choice best() {
#if defined(PENJING_X86)
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx512f")) {
#if defined(PENJING_AVX512BF16)
        if (__builtin_cpu_supports("avx512bf16") && __builtin_cpu_supports("avx512vl") &&
            __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq")) {
#if defined(PENJING_AMX)
            if (has_tiles()) return {"avx512", &avx512::KERNELS, "amx", &amx::KERNELS};
#endif
            return {"avx512", &avx512::KERNELS, "bfloat16", &avx512bf16::KERNELS};
        }
#endif
        return {"avx512", &avx512::KERNELS, "", nullptr};
    }
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) {
        return {"avx2", &avx2::KERNELS, "", nullptr};
    }
#endif
    return {"plain", &plain::KERNELS, "", nullptr};
}

const Choice CHOICE = best();

template <class T>
const Kernels<T>& kernels();
template <>
const Kernels<float>& kernels() {
    return *CHOICE.float32;
}
template <>
const Kernels<uint16_t>& kernels() {
    if (!CHOICE.bfloat16) throw std::invalid_argument("there is no kernel for bfloat16 on this processor");
    return *CHOICE.bfloat16;
}

template <class T>
Strided<T> strided(const Input<T>& x, const AttentionShape& s, int64_t heads) {
    const int64_t sizes[] = {s.rows, s.tokens, heads, s.width};
    for (size_t axis = 0; axis < 4; ++axis) {
        if (int64_t(x.shape(axis)) != sizes[axis]) throw std::invalid_argument("shapes do not fit");
    }
    if (s.width > 1 && x.stride(3) != 1) throw std::invalid_argument("the last stride must be 1");
    return {x.data(), x.stride(0), x.stride(1), x.stride(2)};
}

template <class T>
AttentionShape shape_of(const Input<T>& q, const Input<T>& k, const Starts& starts, int threads) {
    const AttentionShape s{int64_t(q.shape(0)), int64_t(q.shape(1)), int64_t(q.shape(2)),
                           int64_t(k.shape(2)), int64_t(q.shape(3)), starts.data(), threads};
    if (!s.kv_heads || s.heads % s.kv_heads) throw std::invalid_argument("heads do not divide");
    if (int64_t(starts.shape(0)) != s.rows || int64_t(starts.shape(1)) != s.tokens) {
        throw std::invalid_argument("starts must be (rows, tokens)");
    }
    return s;
}

void check(size_t found, size_t wanted) {
    if (found != wanted) throw std::invalid_argument("an output has the wrong size");
}

template <class T>
void attend(const Input<T>& q, const Input<T>& k, const Input<T>& v, const Starts& starts, Output<T> out,
            LogSums logsums, int threads) {
    const AttentionShape s = shape_of<T>(q, k, starts, threads);
    const AttentionForward<T> work{s, strided<T>(q, s, s.heads), strided<T>(k, s, s.kv_heads),
                                   strided<T>(v, s, s.kv_heads), out.data(), logsums.data()};
    check(out.size(), q.size());
    check(logsums.size(), size_t(s.rows * s.heads * s.tokens));
    nb::gil_scoped_release release;
    kernels<T>().attention_forward(work);
}

template <class T>
void differentiate(const Input<T>& grad, const Input<T>& q, const Input<T>& k, const Input<T>& v,
                   const Starts& starts, const Input<T>& out, LogSums logsums, Output<T> grad_q,
                   Output<T> grad_k, Output<T> grad_v, int threads) {
    const AttentionShape s = shape_of<T>(q, k, starts, threads);
    const AttentionBackward<T> work{s,
                                    strided<T>(q, s, s.heads),
                                    strided<T>(k, s, s.kv_heads),
                                    strided<T>(v, s, s.kv_heads),
                                    strided<T>(out, s, s.heads),
                                    strided<T>(grad, s, s.heads),
                                    logsums.data(),
                                    grad_q.data(),
                                    grad_k.data(),
                                    grad_v.data()};
    check(logsums.size(), size_t(s.rows * s.heads * s.tokens));
    check(grad_q.size(), q.size());
    check(grad_k.size(), k.size());
    check(grad_v.size(), v.size());
    nb::gil_scoped_release release;
    kernels<T>().attention_backward(work);
}

template <class T>
void lose(Matrix<T> logits, const Column<const int64_t>& targets, const Column<const float>& weights,
          Column<float> losses, int threads) {
    const HeadLoss<T> work{int64_t(logits.shape(0)), int64_t(logits.shape(1)), logits.data(),
                           targets.data(), weights.data(), losses.data(), threads};
    check(targets.size(), logits.shape(0));
    check(weights.size(), logits.shape(0));
    check(losses.size(), logits.shape(0));
    for (int64_t row = 0; row < work.rows; ++row) {
        if (work.targets[row] < 0 || work.targets[row] >= work.columns) {
            throw std::invalid_argument("a target lies outside the vocabulary");
        }
    }
    nb::gil_scoped_release release;
    kernels<T>().head_loss(work);
}

template <class T>
void add(Flat<float> sum, const Flat<const T>& x, int threads) {
    check(x.size(), sum.size());
    nb::gil_scoped_release release;
    kernels<T>().add({int64_t(x.size()), x.data(), sum.data(), threads});
}

template <class T>
void open_gate(const Flat<const T>& gate, const Flat<const T>& up, Flat<T> out, int threads) {
    check(up.size(), gate.size());
    check(out.size(), gate.size());
    nb::gil_scoped_release release;
    kernels<T>().gate_forward({int64_t(gate.size()), gate.data(), up.data(), out.data(), threads});
}

template <class T>
void differentiate_gate(const Flat<const T>& grad, const Flat<const T>& gate, const Flat<const T>& up, Flat<T> grad_gate,
                        Flat<T> grad_up, int threads) {
    for (const size_t size : {grad.size(), up.size(), grad_gate.size(), grad_up.size()}) check(size, gate.size());
    nb::gil_scoped_release release;
    kernels<T>().gate_backward({int64_t(gate.size()), grad.data(), gate.data(), up.data(), grad_gate.data(),
                                grad_up.data(), threads});
}

template <class T>
void normalize(const Flat<const T>& x, const Column<const float>& weight, double eps, Flat<T> out, Column<float> scales,
               int threads) {
    check(scales.size() * weight.size(), x.size());
    check(out.size(), x.size());
    nb::gil_scoped_release release;
    kernels<T>().norm_forward({int64_t(scales.size()), int64_t(weight.size()), x.data(), weight.data(), float(eps), out.data(),
                               scales.data(), threads});
}

template <class T>
void differentiate_norm(const Flat<const T>& grad, const Flat<const T>& x, const Column<const float>& weight,
                        const Column<const float>& scales, Flat<T> grad_x, Column<float> grad_weight, int threads) {
    for (const size_t size : {grad.size(), grad_x.size()}) check(size, x.size());
    check(scales.size() * weight.size(), x.size());
    check(grad_weight.size(), weight.size());
    nb::gil_scoped_release release;
    kernels<T>().norm_backward({int64_t(scales.size()), int64_t(weight.size()), grad.data(), x.data(), weight.data(),
                                scales.data(), grad_x.data(), grad_weight.data(), threads});
}

template <class T>
void define(nb::module_& module) {
    using namespace nanobind::literals;
    // A converted array would be a copy: results written to it are lost.
    const auto array = [](const char* name) { return nb::arg(name).noconvert(); };
    module.def("attend", &attend<T>, array("q"), array("k"), array("v"), array("starts"), array("out"), array("logsums"), "threads"_a);
    module.def("differentiate", &differentiate<T>, array("grad"), array("q"), array("k"), array("v"), array("starts"), array("out"),
               array("logsums"), array("grad_q"), array("grad_k"), array("grad_v"), "threads"_a);
    module.def("normalize", &normalize<T>, array("x"), array("weight"), "eps"_a, array("out"), array("scales"), "threads"_a);
    module.def("differentiate_norm", &differentiate_norm<T>, array("grad"), array("x"), array("weight"), array("scales"), array("grad_x"),
               array("grad_weight"), "threads"_a);
    module.def("add", &add<T>, array("sum"), array("x"), "threads"_a);
    module.def("open_gate", &open_gate<T>, array("gate"), array("up"), array("out"), "threads"_a);
    module.def("differentiate_gate", &differentiate_gate<T>, array("grad"), array("gate"), array("up"), array("grad_gate"), array("grad_up"),
               "threads"_a);
    module.def("head_loss", &lose<T>, array("logits"), array("targets"), array("weights"), array("losses"), "threads"_a);
}

}  // namespace

}  // namespace penjing

NB_MODULE(_kernels, module) {
    module.doc() = "Attention inside documents, norms, the gate and the head's loss, for this processor's instructions.";
    module.attr("INSTRUCTIONS") = std::string(penjing::CHOICE.float32_name);
    module.attr("BFLOAT16") = std::string(penjing::CHOICE.bfloat16_name);
    penjing::define<float>(module);
    penjing::define<uint16_t>(module);
}
