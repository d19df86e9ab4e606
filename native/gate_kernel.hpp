// SwiGLU's gate, silu(gate) x up, and its gradients: one pass each.
#include "kernels.hpp"
#include "vectors.hpp"

namespace penjing {
namespace PENJING_ISA {
namespace {

// e^-x, as far as it is finite.
inline Vector opposite(Vector x) { return exponential(-higher(x, Vector{} - 87.0f), 0.0f); }

// `work` does LANES elements at these places; the last ones are copied to where there is room.
template <int ins, int outs, class Work>
void elementwise(const Element* const (&in)[ins], Element* const (&out)[outs], int64_t size, int threads, const Work& work) {
    constexpr int64_t BLOCK = 1 << 14;
    in_parallel((size + BLOCK - 1) / BLOCK, threads, 1, [&](int64_t block, float*) {
        int64_t at = block * BLOCK;
        const int64_t end = std::min(size, at + BLOCK);
        for (; at + LANES <= end; at += LANES) {
            Vector x[ins], y[outs];
            for (int n = 0; n < ins; ++n) x[n] = load(in[n] + at);
            work(x, y);
            for (int n = 0; n < outs; ++n) store(out[n] + at, y[n]);
        }
        if (at == end) return;
        Element room[LANES] = {};
        Vector x[ins], y[outs];
        for (int n = 0; n < ins; ++n) {
            std::copy(in[n] + at, in[n] + end, room);
            x[n] = load(room);
        }
        work(x, y);
        for (int n = 0; n < outs; ++n) {
            store(room, y[n]);
            std::copy(room, room + (end - at), out[n] + at);
        }
    });
}

void gate_forward(const Gate<Element>& f) {
    elementwise<2, 1>({f.gate, f.up}, {f.out}, f.size, f.threads, [](const Vector* x, Vector* y) {
        y[0] = x[0] * reciprocal(1.0f + opposite(x[0])) * x[1];
    });
}

void gate_backward(const Gate<Element>& f) {
    elementwise<3, 2>({f.gate, f.up, f.grad}, {f.grad_gate, f.grad_up}, f.size, f.threads, [](const Vector* x, Vector* y) {
        const Vector power = opposite(x[0]), open = reciprocal(1.0f + power), shut = power * open, silu = x[0] * open;
        y[0] = x[2] * x[1] * (open + silu * shut);
        y[1] = x[2] * silu;
    });
}

}  // namespace
}  // namespace PENJING_ISA
}  // namespace penjing
