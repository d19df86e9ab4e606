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
    each_vector_in_parallel(f.size, f.threads, [&](int64_t c, int64_t count) {
        store_some(f.sum + c, count, load_some(f.sum + c, count) + load_some(f.x + c, count));
    });
}

}  // namespace
}  // namespace PENJING_ISA
}  // namespace penjing
