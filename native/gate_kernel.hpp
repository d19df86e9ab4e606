// SwiGLU's gate, silu(gate) x up, and its gradients: one pass each.
#include "kernels.hpp"
#include "vectors.hpp"

namespace penjing {
namespace PENJING_ISA {
namespace {

// e^-x, as far as it is finite.
inline Vector opposite(Vector x) { return exponential(-higher(x, Vector{} - 87.0f), 0.0f); }

void gate_forward(const GateForward<Element>& f) {
    each_vector_in_parallel(f.size, f.threads, [&](int64_t c, int64_t count) {
        const Vector gate = load_some(f.gate + c, count), up = load_some(f.up + c, count);
        store_some(f.out + c, count, gate * reciprocal(1.0f + opposite(gate)) * up);
    });
}

void gate_backward(const GateBackward<Element>& f) {
    each_vector_in_parallel(f.size, f.threads, [&](int64_t c, int64_t count) {
        const Vector gate = load_some(f.gate + c, count), up = load_some(f.up + c, count);
        const Vector grad = load_some(f.grad + c, count), power = opposite(gate);
        const Vector open = reciprocal(1.0f + power), shut = power * open, silu = gate * open;
        store_some(f.grad_gate + c, count, grad * up * (open + silu * shut));
        store_some(f.grad_up + c, count, grad * silu);
    });
}

}  // namespace
}  // namespace PENJING_ISA
}  // namespace penjing
