// RMS norm of rows, and its gradients (arXiv:1910.07467, equation 4).
#include "kernels.hpp"
#include "vectors.hpp"

namespace penjing {
namespace PENJING_ISA {
namespace {

// Rows that one thread does at a time: their number decides the order of sums, threads do not.
int64_t norm_block(int64_t width) { return std::max<int64_t>(1, (1 << 15) / std::max<int64_t>(width, 1)); }

void norm_forward_row(const NormForward<Element>& f, int64_t r) {
    const Element* const x = f.x + r * f.width;
    Vector squares{};
    each_vector(0, f.width, [&](int64_t c, int64_t count) {
        const Vector y = load_some(x + c, count);
        squares += y * y;
    });
    const float scale = f.scales[r] = 1.0f / std::sqrt(sum_of(squares) / float(f.width) + f.eps);
    each_vector(0, f.width, [&](int64_t c, int64_t count) {
        store_some(f.out + r * f.width + c, count, load_some(x + c, count) * scale * load_some(f.weight + c, count));
    });
}

void norm_forward(const NormForward<Element>& f) {
    const int64_t size = norm_block(f.width);
    in_parallel((f.rows + size - 1) / size, f.threads, 0, [&](int64_t block, float*) {
        for (int64_t r = block * size; r < std::min(f.rows, (block + 1) * size); ++r) norm_forward_row(f, r);
    });
}

// One row; what the weight's gradient is of it is added to `sums`.
void norm_backward_row(const NormBackward<Element>& f, int64_t r, float* sums) {
    const Element* const x = f.x + r * f.width;
    const Element* const grad = f.grad + r * f.width;
    const float scale = f.scales[r];
    Vector products{};
    each_vector(0, f.width, [&](int64_t c, int64_t count) {
        const Vector pull = load_some(grad + c, count) * load_some(x + c, count) * scale;
        store_some(sums + c, count, load_some(sums + c, count) + pull);
        products += pull * load_some(f.weight + c, count);
    });
    const float back = sum_of(products) / float(f.width) * scale;
    each_vector(0, f.width, [&](int64_t c, int64_t count) {
        const Vector own = load_some(grad + c, count) * load_some(f.weight + c, count);
        store_some(f.grad_x + r * f.width + c, count, (own - load_some(x + c, count) * back) * scale);
    });
}

void norm_backward(const NormBackward<Element>& f) {
    const int64_t size = norm_block(f.width), blocks = (f.rows + size - 1) / size;
    std::vector<float> sums(blocks * f.width, 0.0f);
    in_parallel(blocks, f.threads, 0, [&](int64_t block, float*) {
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
