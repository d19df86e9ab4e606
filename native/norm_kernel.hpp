// RMS norm of rows, and its gradients (arXiv:1910.07467, equation 4).
#include "kernels.hpp"
#include "vectors.hpp"

namespace penjing {
namespace PENJING_ISA {
namespace {

// Rows that one thread does at a time: their number decides the order of sums, threads do not.
int64_t norm_block(int64_t width) { return std::max<int64_t>(1, (1 << 15) / std::max<int64_t>(width, 1)); }

void norm_forward(const NormForward<Element>& f) {
    const int64_t size = norm_block(f.width), whole = f.width / LANES * LANES;
    in_parallel((f.rows + size - 1) / size, f.threads, 1, [&](int64_t block, float*) {
        for (int64_t r = block * size; r < std::min(f.rows, (block + 1) * size); ++r) {
            const Element* const x = f.x + r * f.width;
            Element* const out = f.out + r * f.width;
            Vector squares{};
            for (int64_t c = 0; c < whole; c += LANES) squares += load(x + c) * load(x + c);
            float sum = sum_of(squares);
            for (int64_t c = whole; c < f.width; ++c) sum += widened(x[c]) * widened(x[c]);
            const float scale = f.scales[r] = 1.0f / std::sqrt(sum / float(f.width) + f.eps);
            for (int64_t c = 0; c < whole; c += LANES) store(out + c, load(x + c) * scale * load(f.weight + c));
            for (int64_t c = whole; c < f.width; ++c) out[c] = narrowed(widened(x[c]) * scale * f.weight[c]);
        }
    });
}

// One row; what the weight's gradient is of it is added to `sums`.
void norm_backward_row(const NormBackward<Element>& f, int64_t r, float* sums) {
    const int64_t whole = f.width / LANES * LANES;
    const Element* const x = f.x + r * f.width;
    const Element* const grad = f.grad + r * f.width;
    Element* const to = f.grad_x + r * f.width;
    const float scale = f.scales[r];
    Vector products{};
    for (int64_t c = 0; c < whole; c += LANES) {
        const Vector pull = load(grad + c) * load(x + c) * scale;
        store(sums + c, load(sums + c) + pull);
        products += pull * load(f.weight + c);
    }
    float along = sum_of(products);
    for (int64_t c = whole; c < f.width; ++c) {
        const float pull = widened(grad[c]) * widened(x[c]) * scale;
        sums[c] += pull;
        along += pull * f.weight[c];
    }
    const float back = along / float(f.width) * scale;
    for (int64_t c = 0; c < whole; c += LANES) {
        store(to + c, (load(grad + c) * load(f.weight + c) - load(x + c) * back) * scale);
    }
    for (int64_t c = whole; c < f.width; ++c) {
        to[c] = narrowed((widened(grad[c]) * f.weight[c] - widened(x[c]) * back) * scale);
    }
}

void norm_backward(const NormBackward<Element>& f) {
    const int64_t size = norm_block(f.width), blocks = (f.rows + size - 1) / size;
    std::vector<float> sums(blocks * f.width, 0.0f);
    in_parallel(blocks, f.threads, 1, [&](int64_t block, float*) {
        for (int64_t r = block * size; r < std::min(f.rows, (block + 1) * size); ++r) {
            norm_backward_row(f, r, sums.data() + block * f.width);
        }
    });
    std::fill(f.grad_weight, f.grad_weight + f.width, 0.0f);
    for (int64_t block = 0; block < blocks; ++block) {
        for (int64_t c = 0; c < f.width; ++c) f.grad_weight[c] += sums[block * f.width + c];
    }
}

}  // namespace
}  // namespace PENJING_ISA
}  // namespace penjing
