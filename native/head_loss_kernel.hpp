// The softmax of the head, its loss and its gradient, in place of the logits; and sums of gradients.
#include "kernels.hpp"
#include "vectors.hpp"

namespace penjing {
namespace PENJING_ISA {
namespace {

void loss_of_row(const HeadLoss<Element>& f, int64_t row, float* powers) {
    Element* const logits = f.logits + row * f.columns;
    const int64_t whole = f.columns / LANES * LANES;
    float most = -std::numeric_limits<float>::infinity();
    if (whole) {
        Vector highest = load(logits);
        for (int64_t c = LANES; c < whole; c += LANES) highest = higher(highest, load(logits + c));
        most = max_of(highest);
    }
    for (int64_t c = whole; c < f.columns; ++c) most = std::max(most, widened(logits[c]));
    Vector sums{};
    for (int64_t c = 0; c < whole; c += LANES) {
        const Vector power = exponential(load(logits + c), most);
        store(powers + c, power);
        sums += power;
    }
    float sum = sum_of(sums);
    for (int64_t c = whole; c < f.columns; ++c) sum += powers[c] = std::exp(widened(logits[c]) - most);
    const int64_t target = f.targets[row];
    const float weight = f.weights[row], scale = weight / sum;
    f.losses[row] = (std::log(sum) + most - widened(logits[target])) * weight;
    for (int64_t c = 0; c < whole; c += LANES) store(logits + c, load(powers + c) * scale);
    for (int64_t c = whole; c < f.columns; ++c) logits[c] = narrowed(powers[c] * scale);
    logits[target] = narrowed(powers[target] * scale - weight);
}

void head_loss(const HeadLoss<Element>& f) {
    in_parallel(f.rows, f.threads, f.columns, [&](int64_t row, float* powers) { loss_of_row(f, row, powers); });
}

void add(const Addition<Element>& f) {
    constexpr int64_t BLOCK = 1 << 15;
    in_parallel((f.size + BLOCK - 1) / BLOCK, f.threads, 1, [&](int64_t block, float*) {
        int64_t at = block * BLOCK;
        const int64_t end = std::min(f.size, at + BLOCK);
        for (; at + LANES <= end; at += LANES) store(f.sum + at, load(f.sum + at) + load(f.x + at));
        for (; at < end; ++at) f.sum[at] += widened(f.x[at]);
    });
}

}  // namespace
}  // namespace PENJING_ISA
}  // namespace penjing
