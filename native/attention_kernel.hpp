// Causal attention inside documents, forward and backward; see vectors.hpp for what a file that
// includes it says.
//
// Everything happens in square tiles of queries by keys that stay in the first two caches; a tile
// that no query sees is skipped. One key/value head of one row is one unit of work, done by one
// thread from beginning to end: bits do not depend on the number of threads.
//
// Products sum over their depth by units (a float, or two bfloat16). A tile is the left side of one
// with its units along each row; the right side of one, or a left side that stands transposed, has
// them along each column: it is "deep". In float32 both are the same memory.
#include "kernels.hpp"
#include "products.hpp"
#include "vectors.hpp"

namespace penjing {
namespace PENJING_ISA {
namespace {

inline int64_t units_of(int64_t elements) { return (elements + DEPTH * STEP - 1) / (DEPTH * STEP) * STEP; }

// Columns of a padded tile: the width up to the next panel.
inline int64_t padded(int64_t width) { return (width + PANEL - 1) / PANEL * PANEL; }

// One tile of queries against one of keys: which keys each query sees, as columns [from, to).
struct Sight {
    int64_t from[TILE], to[TILE];
    bool any = false, all = true;

    Sight(const int64_t* starts, int64_t tokens, int64_t first_query, int64_t first_key) {
        for (int64_t r = 0; r < TILE; ++r) {
            const int64_t query = first_query + r;
            const int64_t start = query < tokens ? starts[query] : tokens;
            from[r] = std::clamp<int64_t>(start - first_key, 0, TILE);
            to[r] = std::clamp<int64_t>(query + 1 - first_key, from[r], TILE);
            if (query >= tokens) to[r] = from[r];
            any |= from[r] < to[r];
            all &= from[r] == 0 && to[r] == TILE;
        }
    }
    void fill(float* tile, float value) const {
        if (all) return;
        for (int64_t r = 0; r < TILE; ++r) {
            std::fill(tile + r * TILE, tile + r * TILE + from[r], value);
            std::fill(tile + r * TILE + to[r], tile + (r + 1) * TILE, value);
        }
    }
};

// A tile of tokens of one head, (TILE, columns), zero behind the last token and the last column.
void pack(const Strided<Element>& x, int64_t b, int64_t h, const AttentionShape& s, int64_t first, int64_t columns, float scale, Unit* tile) {
    Element* to = reinterpret_cast<Element*>(tile);
    for (int64_t r = 0; r < TILE; ++r, to += columns) {
        const int64_t filled = first + r < s.tokens ? s.width : 0;
        const Element* const from = filled ? x.at(b, first + r, h) : nullptr;
        each_vector(0, filled, [&](int64_t c, int64_t count) { store_some(to + c, count, load_some(from + c, count) * scale); });
        std::fill(to + filled, to + columns, Element{});
    }
}

// The same transposed, (units of the width, TILE).
void pack_transposed(const Strided<Element>& x, int64_t b, int64_t h, const AttentionShape& s, int64_t first, Unit* to) {
    const int64_t rows = std::min<int64_t>(TILE, s.tokens - first), whole = s.width / DEPTH;
    if (rows < TILE || units_of(s.width) * DEPTH > s.width) std::fill(to, to + units_of(s.width) * TILE, Unit{});
    const int64_t even = TRANSPOSES ? rows / LANES * LANES : 0, across = whole / LANES * LANES;
    for (int64_t r = 0; r < even; r += LANES) {
        for (int64_t c = 0; c < across; c += LANES) {
            transpose(x.at(b, first + r, h) + c * DEPTH, x.token * sizeof(Element), to + c * TILE + r, TILE);
        }
    }
    for (int64_t r = 0; r < rows; ++r) {
        const Element* const from = x.at(b, first + r, h);
        for (int64_t c = r < even ? across : 0; c < whole; ++c) std::memcpy(to + c * TILE + r, from + c * DEPTH, sizeof(Unit));
        if (s.width % DEPTH) std::memcpy(to + whole * TILE + r, from + whole * DEPTH, sizeof(Element));
    }
}

// A packed tile with its units along the columns: in float32 the tile itself.
const Unit* deep(const Unit* tile, int64_t columns, Unit* to) {
#if defined(PENJING_BFLOAT16)
    const int64_t half = columns / 2;  // two rows of `half` units become one of `columns`
    for (int64_t r = 0; r < TILE; r += 2) {
        for (int64_t c = 0; c < half; ++c) {
            const uint32_t above = tile[r * half + c], below = tile[(r + 1) * half + c];
            to[r * half + 2 * c] = (above & 0xffff) | (below << 16);
            to[r * half + 2 * c + 1] = (above >> 16) | (below & 0xffff0000);
        }
    }
    return to;
#else
    (void)columns, (void)to;
    return tile;
#endif
}

// A tile of tokens of one head, deep.
void pack_deep(const Strided<Element>& x, int64_t b, int64_t h, const AttentionShape& s, int64_t first, int64_t columns, Unit* staging, Unit* to) {
    Unit* const packed = DEPTH == 1 ? to : staging;
    pack(x, b, h, s, first, columns, 1.0f, packed);
    deep(packed, columns, to);
}

// The highest score of each query. Where it is possible rows become columns, so that a vector has one
// number for each query, instead of meeting within itself.
void find_highest(const float* scores, float* highest) {
    alignas(64) float rows[LANES * LANES], turned[LANES * LANES];
    for (int64_t r = 0; r < TILE; r += LANES) {
        for (int64_t n = 0; n < LANES; ++n) {
            Vector most = load(scores + (r + n) * TILE);
            for (int64_t c = LANES; c < TILE; c += LANES) most = higher(most, load(scores + (r + n) * TILE + c));
            if constexpr (TRANSPOSES) {
                store(rows + n * LANES, most);
            } else {
                highest[r + n] = max_of(most);
            }
        }
        if constexpr (TRANSPOSES) {
            transpose(rows, LANES * sizeof(float), reinterpret_cast<Unit*>(turned), LANES);
            Vector most = load(turned);
            for (int64_t n = 1; n < LANES; ++n) most = higher(most, load(turned + n * LANES));
            store(highest + r, most);
        }
    }
}

// The running softmax of a tile of queries (arXiv:2205.14135, algorithm 1).
struct Running {
    float most[TILE], totals[TILE * LANES];

    Running() {
        std::fill(most, most + TILE, -std::numeric_limits<float>::infinity());
        std::fill(totals, totals + TILE * LANES, 0.0f);
    }
    // Scores become weights; what was summed in `out` before is scaled to the new maximum.
    void add(const float* scores, Element* weights, float* out, int64_t columns) {
        float scales[TILE], highest[TILE];
        find_highest(scores, highest);
        for (int64_t r = 0; r < TILE; r += LANES) {
            const Vector before = load(most + r), now = higher(before, load(highest + r));
            store(most + r, now);
            const Vector seen = now > -std::numeric_limits<float>::infinity() ? now : Vector{};
            store(highest + r, seen);
            store(scales + r, exponential(before - seen, 0.0f));
        }
        for (int64_t r = 0; r < TILE; ++r) {
            Vector sum = load(totals + r * LANES) * scales[r];
            for (int64_t c = r * TILE; c < (r + 1) * TILE; c += LANES) {
                const Vector weight = exponential(load(scores + c), highest[r]);
                store(weights + c, weight);
                sum += weight;
            }
            store(totals + r * LANES, sum);
            if (scales[r] == 1.0f) continue;
            for (int64_t c = r * columns; c < (r + 1) * columns; c += LANES) store(out + c, load(out + c) * scales[r]);
        }
    }
};

void write_row(const float* from, float scale, int64_t width, Element* to) {
    each_vector(0, width, [&](int64_t c, int64_t count) { store_some(to + c, count, load_some(from + c, count) * scale); });
}

int64_t tiles_of(const AttentionShape& s) { return (s.tokens + TILE - 1) / TILE; }

int64_t forward_scratch(const AttentionShape& s) {
    return tiles_of(s) * TILE * (units_of(s.width) + padded(s.width)) + 3 * TILE * padded(s.width) + 2 * TILE * TILE;
}

void forward_unit(const AttentionForward<Element>& f, int64_t b, int64_t n, float* scratch) {
    [[maybe_unused]] const Registers registers;
    const AttentionShape& s = f.shape;
    const int64_t columns = padded(s.width), tiles = tiles_of(s), group = s.heads / s.kv_heads;
    const int64_t width = units_of(s.width), across = columns / DEPTH, tile = TILE * columns;
    const int64_t* const starts = s.starts + b * s.tokens;
    float* const out = scratch;
    float* const scores = out + tile;
    Unit* const weights = reinterpret_cast<Unit*>(scores) + (DEPTH == 1 ? 0 : TILE * TILE);
    Unit* const query = reinterpret_cast<Unit*>(scores) + 2 * TILE * TILE;
    Unit* const staging = query + tile;
    Unit* const keys = staging + tile;
    Unit* const values = keys + tiles * TILE * width;
    for (int64_t j = 0; j < tiles; ++j) {
        pack_transposed(f.k, b, n, s, j * TILE, keys + j * TILE * width);
        pack_deep(f.v, b, n, s, j * TILE, columns, staging, values + j * tile);
    }
    const float scale = 1.0f / std::sqrt(float(s.width));
    for (int64_t h = n * group; h < (n + 1) * group; ++h) {
        for (int64_t i = 0; i < tiles; ++i) {
            pack(f.q, b, h, s, i * TILE, columns, scale, query);
            std::fill(out, out + TILE * columns, 0.0f);
            Running running;
            for (int64_t j = 0; j <= i; ++j) {
                const Sight sight(starts, s.tokens, i * TILE, j * TILE);
                if (!sight.any) continue;
                const Part seen = i == j ? Part::below : Part::whole, weighed = i == j ? Part::lower : Part::whole;
                products<false, Into::set>(query, across, keys + j * TILE * width, TILE, scores, TILE, TILE, width, seen);
                sight.fill(scores, -std::numeric_limits<float>::infinity());
                running.add(scores, reinterpret_cast<Element*>(weights), out, columns);
                products<false, Into::add>(weights, TILE / DEPTH, values + j * tile, columns, out, columns, columns, TILE / DEPTH, weighed);
            }
            for (int64_t r = 0; r < std::min<int64_t>(TILE, s.tokens - i * TILE); ++r) {
                const int64_t t = i * TILE + r;
                const float total = sum_of(load(running.totals + r * LANES));
                write_row(out + r * columns, 1.0f / total, s.width, f.out + ((b * s.tokens + t) * s.heads + h) * s.width);
                f.logsums[(b * s.heads + h) * s.tokens + t] = running.most[r] + std::log(total);
            }
        }
    }
}

// One query head's part of a backward unit, packed once: (tiles, TILE, columns) each.
struct Head {
    Unit *query, *query_deep, *grad, *grad_deep;
    float *grad_query, *inner, *logsum;
};

int64_t head_scratch(const AttentionShape& s) { return tiles_of(s) * TILE * (5 * padded(s.width) + 2); }

Head head_of(float* scratch, const AttentionShape& s, int64_t g) {
    const int64_t tokens = tiles_of(s) * TILE, size = tokens * padded(s.width);
    float* const at = scratch + g * head_scratch(s);
    Unit* const units = reinterpret_cast<Unit*>(at + size + 2 * tokens);
    const int64_t apart = DEPTH == 1 ? 0 : 2 * size;
    return {units, units + apart, units + size, units + size + apart, at, at + size, at + size + tokens};
}

void pack_head(const AttentionBackward<Element>& f, int64_t b, int64_t h, int64_t columns, const Head& to) {
    const AttentionShape& s = f.shape;
    const int64_t tiles = tiles_of(s), tile = TILE * columns;
    const float scale = 1.0f / std::sqrt(float(s.width));
    for (int64_t i = 0; i < tiles; ++i) {
        pack(f.q, b, h, s, i * TILE, columns, scale, to.query + i * tile);
        pack(f.grad, b, h, s, i * TILE, columns, 1.0f, to.grad + i * tile);
        deep(to.query + i * tile, columns, to.query_deep + i * tile);
        deep(to.grad + i * tile, columns, to.grad_deep + i * tile);
    }
    std::fill(to.grad_query, to.grad_query + tiles * tile, 0.0f);
    std::fill(to.inner, to.inner + tiles * TILE, 0.0f);
    std::fill(to.logsum, to.logsum + tiles * TILE, 0.0f);
    for (int64_t t = 0; t < s.tokens; ++t) {
        const Element* const out = f.out.at(b, t, h);
        const Element* const grad = f.grad.at(b, t, h);
        Vector sums{};
        each_vector(0, s.width, [&](int64_t c, int64_t count) { sums += load_some(out + c, count) * load_some(grad + c, count); });
        to.inner[t] = sum_of(sums);
        to.logsum[t] = f.logsums[(b * s.heads + h) * s.tokens + t];
    }
}

// Weights, and gradients of the scores, of one tile, from scores and gradients of the weights.
void differentiate(float* scores, float* grads, const float* logsum, const float* inner, const Sight& sight, Unit* weights, Unit* slopes) {
    sight.fill(scores, -std::numeric_limits<float>::infinity());
    sight.fill(grads, 0.0f);  // what was never computed may be NaN, and 0 x NaN is NaN
    for (int64_t r = 0; r < TILE; ++r) {
        for (int64_t c = r * TILE; c < (r + 1) * TILE; c += LANES) {
            const Vector weight = exponential(load(scores + c), logsum[r]);
            const Vector slope = weight * (load(grads + c) - inner[r]);
            store(reinterpret_cast<Element*>(weights) + c, weight);
            store(reinterpret_cast<Element*>(slopes) + c, slope);
        }
    }
}

void write(const float* from, int64_t columns, float scale, const AttentionShape& s, int64_t first, int64_t heads, int64_t b, int64_t h, Element* to) {
    for (int64_t r = 0; r < std::min<int64_t>(TILE, s.tokens - first); ++r) {
        write_row(from + r * columns, scale, s.width, to + ((b * s.tokens + first + r) * heads + h) * s.width);
    }
}

int64_t backward_scratch(const AttentionShape& s) {
    return s.heads / s.kv_heads * head_scratch(s) + TILE * (2 * units_of(s.width) + 4 * padded(s.width) + 5 * TILE);
}

void backward_unit(const AttentionBackward<Element>& f, int64_t b, int64_t n, float* scratch) {
    [[maybe_unused]] const Registers registers;
    const AttentionShape& s = f.shape;
    const int64_t columns = padded(s.width), tiles = tiles_of(s), group = s.heads / s.kv_heads;
    const int64_t* const starts = s.starts + b * s.tokens;
    const int64_t tile = TILE * columns, square = TILE * TILE;
    const int64_t width = units_of(s.width), across = columns / DEPTH, depth = TILE / DEPTH;
    for (int64_t g = 0; g < group; ++g) pack_head(f, b, n * group + g, columns, head_of(scratch, s, g));
    float* const grad_keys = scratch + group * head_scratch(s);
    float* const grad_values = grad_keys + tile;
    float* const scores = grad_values + tile;
    float* const grads = scores + square;
    Unit* const squares = reinterpret_cast<Unit*>(scores);
    Unit* const weights = squares + (DEPTH == 1 ? 0 : 2 * square);
    Unit* const slopes = weights + square;
    Unit* const keys = squares + 5 * square;
    Unit* const staging = keys + tile;
    Unit* const keys_across = staging + tile;
    Unit* const values_across = keys_across + TILE * width;
    for (int64_t j = 0; j < tiles; ++j) {
        pack_deep(f.k, b, n, s, j * TILE, columns, staging, keys);
        pack_transposed(f.k, b, n, s, j * TILE, keys_across);
        pack_transposed(f.v, b, n, s, j * TILE, values_across);
        std::fill(grad_keys, grad_keys + 2 * tile, 0.0f);
        for (int64_t i = j; i < tiles; ++i) {
            const Sight sight(starts, s.tokens, i * TILE, j * TILE);
            if (!sight.any) continue;
            const Part seen = i == j ? Part::below : Part::whole, weighed = i == j ? Part::lower : Part::whole;
            for (int64_t g = 0; g < group; ++g) {
                const Head head = head_of(scratch, s, g);
                products<false, Into::set>(head.query + i * tile, across, keys_across, TILE, scores, TILE, TILE, width, seen);
                products<false, Into::set>(head.grad + i * tile, across, values_across, TILE, grads, TILE, TILE, width, seen);
                differentiate(scores, grads, head.logsum + i * TILE, head.inner + i * TILE, sight, weights, slopes);
                const Unit* const weights_deep = deep(weights, TILE, squares + 4 * square);
                products<true, Into::add>(weights_deep, TILE, head.grad_deep + i * tile, columns, grad_values, columns, columns, depth, weighed);
                products<false, Into::add>(slopes, depth, keys, columns, head.grad_query + i * tile, columns, columns, depth, weighed);
                const Unit* const slopes_deep = deep(slopes, TILE, squares + 4 * square);
                products<true, Into::add>(slopes_deep, TILE, head.query_deep + i * tile, columns, grad_keys, columns, columns, depth, weighed);
            }
        }
        write(grad_keys, columns, 1.0f, s, j * TILE, s.kv_heads, b, n, f.grad_k);
        write(grad_values, columns, 1.0f, s, j * TILE, s.kv_heads, b, n, f.grad_v);
    }
    const float scale = 1.0f / std::sqrt(float(s.width));
    for (int64_t g = 0; g < group; ++g) {
        for (int64_t i = 0; i < tiles; ++i) {
            write(head_of(scratch, s, g).grad_query + i * tile, columns, scale, s, i * TILE, s.heads, b, n * group + g, f.grad_q);
        }
    }
}

void attention_forward(const AttentionForward<Element>& f) {
    const AttentionShape& s = f.shape;
    in_parallel(s.rows * s.kv_heads, s.threads, forward_scratch(s), [&](int64_t unit, float* scratch) {
        forward_unit(f, unit / s.kv_heads, unit % s.kv_heads, scratch);
    });
}

void attention_backward(const AttentionBackward<Element>& f) {
    const AttentionShape& s = f.shape;
    in_parallel(s.rows * s.kv_heads, s.threads, backward_scratch(s), [&](int64_t unit, float* scratch) {
        backward_unit(f, unit / s.kv_heads, unit % s.kv_heads, scratch);
    });
}

}  // namespace
}  // namespace PENJING_ISA
}  // namespace penjing
