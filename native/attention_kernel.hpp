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
#include "vectors.hpp"

namespace penjing {
namespace PENJING_ISA {
namespace {

constexpr int PANEL = 2 * LANES, TILE = 64, FULL = PENJING_ROWS;
static_assert(TILE % PANEL == 0 && (TILE % FULL == 0 || TILE % FULL == 4) && FULL % DEPTH == 0);

// Columns of a padded tile: the width up to the next panel.
inline int64_t padded(int64_t width) { return (width + PANEL - 1) / PANEL * PANEL; }

inline int64_t units_of(int64_t elements) { return (elements + DEPTH - 1) / DEPTH; }

enum class Into { set, add };

// `rows` x PANEL of C: A is (rows, depth), or (depth, rows) if it stands transposed.
template <int rows, bool transposed, Into into>
inline void product(const Unit* a, int64_t lda, const Unit* b, int64_t ldb, float* c, int64_t ldc, int64_t depth) {
    Vector sum[rows][2];
#pragma GCC unroll 16
    for (int m = 0; m < rows; ++m) sum[m][0] = sum[m][1] = Vector{};
    for (int64_t k = 0; k < depth; ++k) {
#pragma GCC unroll 16
        for (int m = 0; m < rows; ++m) {
            const Unit factor = transposed ? a[k * lda + m] : a[m * lda + k];
            sum[m][0] = multiply_add(sum[m][0], factor, b + k * ldb);
            sum[m][1] = multiply_add(sum[m][1], factor, b + k * ldb + LANES);
        }
    }
#pragma GCC unroll 16
    for (int m = 0; m < rows; ++m) {
        float* const to = c + m * ldc;
        store(to, into == Into::add ? load(to) + sum[m][0] : sum[m][0]);
        store(to + LANES, into == Into::add ? load(to + LANES) + sum[m][1] : sum[m][1]);
    }
}

// What of a product is needed: on the diagonal a query sees no later key. `below`: C's columns up to
// its row; `lower`: A is zero behind its diagonal (for its transpose: before it).
enum class Part { whole, below, lower };

// TILE x columns of C; `depth` in units.
template <bool transposed, Into into>
void products(const Unit* a, int64_t lda, const Unit* b, int64_t ldb, float* c, int64_t ldc, int64_t columns, int64_t depth, Part part) {
    for (int64_t n = 0; n < columns; n += PANEL) {
        int64_t m = part == Part::below ? n / FULL * FULL : 0;
        for (; m < TILE; m += FULL) {
            const int64_t from = transposed && part == Part::lower ? m / DEPTH : 0;
            const int64_t to = !transposed && part == Part::lower ? std::min<int64_t>(depth, (m + FULL) / DEPTH) : depth;
            const Unit* const left = transposed ? a + from * lda + m : a + m * lda;
            const auto step = m + FULL <= TILE ? product<FULL, transposed, into> : product<4, transposed, into>;
            step(left, lda, b + from * ldb + n, ldb, c + m * ldc + n, ldc, to - from);
        }
    }
}

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
        if (scale == 1.0f) {
            std::copy(from, from + filled, to);
        } else {
            for (int64_t c = 0; c < filled; ++c) to[c] = narrowed(widened(from[c]) * scale);
        }
        std::fill(to + filled, to + columns, Element{});
    }
}

// The same transposed, (units of the width, TILE).
void pack_transposed(const Strided<Element>& x, int64_t b, int64_t h, const AttentionShape& s, int64_t first, Unit* to) {
    const int64_t rows = std::min<int64_t>(TILE, s.tokens - first), whole = s.width / DEPTH;
    if (rows < TILE || s.width % DEPTH) std::fill(to, to + units_of(s.width) * TILE, Unit{});
    for (int64_t r = 0; r < rows; ++r) {
        const Element* const from = x.at(b, first + r, h);
        for (int64_t c = 0; c < whole; ++c) std::memcpy(to + c * TILE + r, from + c * DEPTH, sizeof(Unit));
        if (s.width % DEPTH) std::memcpy(to + whole * TILE + r, from + whole * DEPTH, sizeof(Element));
    }
}

// A computed tile as the left side of a product: in float32 the tile itself.
const Unit* narrowed(const float* tile, Unit* to) {
    if constexpr (DEPTH == 1) {
        return reinterpret_cast<const Unit*>(tile);
    } else {
        Element* const place = reinterpret_cast<Element*>(to);
        for (int64_t c = 0; c < TILE * TILE; c += LANES) store(place + c, load(tile + c));
        return to;
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

// The running softmax of a tile of queries (arXiv:2205.14135, algorithm 1).
struct Running {
    float most[TILE], total[TILE];

    Running() {
        std::fill(most, most + TILE, -std::numeric_limits<float>::infinity());
        std::fill(total, total + TILE, 0.0f);
    }
    // Scores become weights; what was summed in `out` before is scaled to the new maximum.
    void add(float* scores, float* out, int64_t columns) {
        for (int64_t r = 0; r < TILE; ++r, scores += TILE, out += columns) {
            Vector most_v = load(scores);
            for (int64_t c = LANES; c < TILE; c += LANES) {
                const Vector x = load(scores + c);
                most_v = x > most_v ? x : most_v;
            }
            const float before = most[r], now = std::max(before, max_of(most_v));
            if (now == -std::numeric_limits<float>::infinity()) {
                std::fill(scores, scores + TILE, 0.0f);
                continue;
            }
            Vector sum{};
            for (int64_t c = 0; c < TILE; c += LANES) {
                const Vector weight = exponential(load(scores + c) - now);
                store(scores + c, weight);
                sum += weight;
            }
            const float scale = std::exp(before - now);
            most[r] = now;
            total[r] = total[r] * scale + sum_of(sum);
            if (scale != 1.0f) {
                for (int64_t c = 0; c < columns; c += LANES) store(out + c, load(out + c) * scale);
            }
        }
    }
};

int64_t tiles_of(const AttentionShape& s) { return (s.tokens + TILE - 1) / TILE; }

int64_t forward_scratch(const AttentionShape& s) {
    return tiles_of(s) * TILE * (units_of(s.width) + padded(s.width)) + 3 * TILE * padded(s.width) + 2 * TILE * TILE;
}

void forward_unit(const AttentionForward<Element>& f, int64_t b, int64_t n, float* scratch) {
    const AttentionShape& s = f.shape;
    const int64_t columns = padded(s.width), tiles = tiles_of(s), group = s.heads / s.kv_heads;
    const int64_t width = units_of(s.width), across = columns / DEPTH, tile = TILE * columns;
    const int64_t* const starts = s.starts + b * s.tokens;
    float* const out = scratch;
    float* const scores = out + tile;
    Unit* const weights = reinterpret_cast<Unit*>(scores + TILE * TILE);
    Unit* const query = weights + TILE * TILE;
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
                running.add(scores, out, columns);
                products<false, Into::add>(narrowed(scores, weights), TILE / DEPTH, values + j * tile, columns, out, columns, columns, TILE / DEPTH, weighed);
            }
            for (int64_t r = 0; r < std::min<int64_t>(TILE, s.tokens - i * TILE); ++r) {
                const int64_t t = i * TILE + r;
                Element* const to = f.out + ((b * s.tokens + t) * s.heads + h) * s.width;
                for (int64_t c = 0; c < s.width; ++c) to[c] = narrowed(out[r * columns + c] / running.total[r]);
                f.logsums[(b * s.heads + h) * s.tokens + t] = running.most[r] + std::log(running.total[r]);
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
        int64_t c = 0;
        for (; c + LANES <= s.width; c += LANES) sums += load(out + c) * load(grad + c);
        float sum = sum_of(sums);
        for (; c < s.width; ++c) sum += widened(out[c]) * widened(grad[c]);
        to.inner[t] = sum;
        to.logsum[t] = f.logsums[(b * s.heads + h) * s.tokens + t];
    }
}

// Weights and gradients of the scores of one tile, from scores and gradients of the weights.
void differentiate(float* scores, float* grads, const float* logsum, const float* inner, const Sight& sight) {
    for (int64_t r = 0; r < TILE; ++r) {
        for (int64_t c = r * TILE; c < (r + 1) * TILE; c += LANES) {
            store(scores + c, exponential(load(scores + c) - logsum[r]));
        }
    }
    sight.fill(scores, 0.0f);
    for (int64_t r = 0; r < TILE; ++r) {
        for (int64_t c = r * TILE; c < (r + 1) * TILE; c += LANES) {
            store(grads + c, load(scores + c) * (load(grads + c) - inner[r]));
        }
    }
    sight.fill(grads, 0.0f);  // what was never computed may be NaN, and 0 x NaN is NaN
}

void write(const float* from, int64_t columns, float scale, const AttentionShape& s, int64_t first, int64_t heads, int64_t b, int64_t h, Element* to) {
    for (int64_t r = 0; r < std::min<int64_t>(TILE, s.tokens - first); ++r) {
        Element* const place = to + ((b * s.tokens + first + r) * heads + h) * s.width;
        for (int64_t c = 0; c < s.width; ++c) place[c] = narrowed(from[r * columns + c] * scale);
    }
}

int64_t backward_scratch(const AttentionShape& s) {
    return s.heads / s.kv_heads * head_scratch(s) + TILE * (2 * units_of(s.width) + 4 * padded(s.width) + 4 * TILE);
}

void backward_unit(const AttentionBackward<Element>& f, int64_t b, int64_t n, float* scratch) {
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
    Unit* const squares = reinterpret_cast<Unit*>(grads + square);
    Unit* const keys = squares + 2 * square;
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
                differentiate(scores, grads, head.logsum + i * TILE, head.inner + i * TILE, sight);
                const Unit* const weights = deep(narrowed(scores, squares), TILE, squares + square);
                products<true, Into::add>(weights, TILE, head.grad_deep + i * tile, columns, grad_values, columns, columns, depth, weighed);
                const Unit* const slopes = narrowed(grads, squares);
                products<false, Into::add>(slopes, depth, keys, columns, head.grad_query + i * tile, columns, columns, depth, weighed);
                const Unit* const slopes_deep = deep(slopes, TILE, squares + square);
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
