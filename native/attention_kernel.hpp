// The kernel itself; a file that includes it says for which instruction set (PENJING_ISA), how many
// floats a vector holds (PENJING_LANES) and how many rows of a product stay in registers
// (PENJING_ROWS, by 2 vectors).
//
// Everything happens in square tiles of queries by keys that stay in the first two caches; a tile
// that no query sees is skipped. One key/value head of one row is one unit of work, done by one
// thread from beginning to end: bits do not depend on the number of threads.
#include "attention.hpp"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstring>
#include <limits>
#include <memory>
#include <new>
#include <system_error>
#include <thread>
#include <vector>

namespace penjing {
namespace PENJING_ISA {
namespace {

constexpr int LANES = PENJING_LANES, PANEL = 2 * LANES, TILE = 64, FULL = PENJING_ROWS;
static_assert(TILE % PANEL == 0 && (TILE % FULL == 0 || TILE % FULL == 4));

typedef float Vector __attribute__((vector_size(4 * LANES), aligned(4), may_alias));
typedef int32_t Integers __attribute__((vector_size(4 * LANES), aligned(4), may_alias));

inline Vector load(const float* from) { return *reinterpret_cast<const Vector*>(from); }
inline void store(float* to, Vector x) { *reinterpret_cast<Vector*>(to) = x; }

// Columns of a padded tile: the width up to the next panel.
inline int64_t padded(int64_t width) { return (width + PANEL - 1) / PANEL * PANEL; }

class Scratch {
  public:
    explicit Scratch(int64_t size)
        : data_(static_cast<float*>(::operator new(size_t(size) * sizeof(float), std::align_val_t(64)))) {}
    ~Scratch() { ::operator delete(data_, std::align_val_t(64)); }
    Scratch(const Scratch&) = delete;
    Scratch& operator=(const Scratch&) = delete;
    float* at(int64_t place) { return data_ + place; }

  private:
    float* data_;
};

enum class Into { set, add };

// `rows` x PANEL of C: A is (rows, depth), or (depth, rows) if it stands transposed.
template <int rows, bool transposed, Into into>
inline void product(const float* a, int64_t lda, const float* b, int64_t ldb, float* c, int64_t ldc, int64_t depth) {
    Vector sum[rows][2];
#pragma GCC unroll 16
    for (int m = 0; m < rows; ++m) sum[m][0] = sum[m][1] = Vector{};
    for (int64_t k = 0; k < depth; ++k) {
        const Vector left = load(b + k * ldb), right = load(b + k * ldb + LANES);
#pragma GCC unroll 16
        for (int m = 0; m < rows; ++m) {
            const float factor = transposed ? a[k * lda + m] : a[m * lda + k];
            sum[m][0] += factor * left;
            sum[m][1] += factor * right;
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

// TILE x columns of C.
template <bool transposed, Into into>
void products(const float* a, int64_t lda, const float* b, int64_t ldb, float* c, int64_t ldc, int64_t columns, int64_t depth, Part part) {
    for (int64_t n = 0; n < columns; n += PANEL) {
        int64_t m = part == Part::below ? n / FULL * FULL : 0;
        for (; m < TILE; m += FULL) {
            const int64_t from = transposed && part == Part::lower ? m : 0;
            const int64_t to = !transposed && part == Part::lower ? std::min<int64_t>(depth, m + FULL) : depth;
            const float* const left = transposed ? a + from * lda + m : a + m * lda;
            const auto step = m + FULL <= TILE ? product<FULL, transposed, into> : product<4, transposed, into>;
            step(left, lda, b + from * ldb + n, ldb, c + m * ldc + n, ldc, to - from);
        }
    }
}

// e^x for x <= 88 or so, 0 below -87; relative error 2e-7. Source: Cephes, expf.
inline Vector exponential(Vector x) {
    const Vector low = Vector{} - 87.0f;
    const Vector bounded = x < low ? low : x;
    constexpr float SHIFT = 12582912.0f;  // 1.5 x 2^23: adding it rounds to an integer
    const Vector shifted = bounded * 1.44269504f + SHIFT;
    const Vector whole = shifted - SHIFT;
    const Vector rest = bounded - whole * 0.693359375f + whole * 2.12194440e-4f;
    Vector y = Vector{} + 1.9875691500e-4f;
    y = y * rest + 1.3981999507e-3f;
    y = y * rest + 8.3334519073e-3f;
    y = y * rest + 4.1665795894e-2f;
    y = y * rest + 1.6666665459e-1f;
    y = y * rest + 5.0000001201e-1f;
    y = y * (rest * rest) + rest + 1.0f;
    int32_t bias;
    std::memcpy(&bias, &SHIFT, sizeof(bias));
    const Integers power = ((Integers)shifted - (bias - 127)) << 23;
    return x < low ? Vector{} : y * (Vector)power;
}

inline float sum_of(Vector x) {
    float total = 0;
    for (int lane = 0; lane < LANES; ++lane) total += x[lane];
    return total;
}

inline float max_of(Vector x) {
    float most = x[0];
    for (int lane = 1; lane < LANES; ++lane) most = x[lane] > most ? x[lane] : most;
    return most;
}

// Units are taken one by one until none is left; each thread has scratch of its own, made once, as
// fresh pages cost more than the work in them. Memory that is not there is an exception here, before
// any thread begins; a thread that the system refuses is done without.
template <class Work>
void in_parallel(int64_t units, int threads, int64_t scratch_size, const Work& work) {
    std::vector<std::unique_ptr<Scratch>> scratch;
    for (int64_t count = std::clamp<int64_t>(threads, 1, std::max<int64_t>(units, 1)); count > 0; --count) {
        scratch.push_back(std::make_unique<Scratch>(scratch_size));
    }
    std::vector<std::thread> others;
    others.reserve(scratch.size());
    std::atomic<int64_t> next{0};
    const auto run = [&](Scratch& own) {
        for (int64_t unit; (unit = next.fetch_add(1)) < units;) work(unit, own.at(0));
    };
    try {
        for (size_t k = 1; k < scratch.size(); ++k) others.emplace_back([&, k] { run(*scratch[k]); });
    } catch (const std::system_error&) {
    }
    run(*scratch[0]);
    for (std::thread& other : others) other.join();
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
void pack(const Strided& x, int64_t b, int64_t h, const AttentionShape& s, int64_t first, int64_t columns, float scale, float* to) {
    for (int64_t r = 0; r < TILE; ++r, to += columns) {
        int64_t c = 0;
        if (first + r < s.tokens) {
            const float* const from = x.at(b, first + r, h);
            for (; c < s.width; ++c) to[c] = from[c] * scale;
        }
        std::fill(to + c, to + columns, 0.0f);
    }
}

// The same transposed, (width, TILE).
void pack_transposed(const Strided& x, int64_t b, int64_t h, const AttentionShape& s, int64_t first, float* to) {
    const int64_t rows = std::min<int64_t>(TILE, s.tokens - first);
    if (rows < TILE) std::fill(to, to + s.width * TILE, 0.0f);
    for (int64_t r = 0; r < rows; ++r) {
        const float* const from = x.at(b, first + r, h);
        for (int64_t c = 0; c < s.width; ++c) to[c * TILE + r] = from[c];
    }
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
    return (tiles_of(s) + 1) * TILE * (s.width + padded(s.width)) + TILE * TILE;
}

void forward_unit(const AttentionForward& f, int64_t b, int64_t n, float* scratch) {
    const AttentionShape& s = f.shape;
    const int64_t columns = padded(s.width), tiles = tiles_of(s), group = s.heads / s.kv_heads;
    const int64_t* const starts = s.starts + b * s.tokens;
    float* const keys = scratch;
    float* const values = keys + tiles * TILE * s.width;
    float* const query = values + tiles * TILE * columns;
    float* const scores = query + TILE * s.width;
    float* const out = scores + TILE * TILE;
    for (int64_t j = 0; j < tiles; ++j) {
        pack_transposed(f.k, b, n, s, j * TILE, keys + j * TILE * s.width);
        pack(f.v, b, n, s, j * TILE, columns, 1.0f, values + j * TILE * columns);
    }
    const float scale = 1.0f / std::sqrt(float(s.width));
    for (int64_t h = n * group; h < (n + 1) * group; ++h) {
        for (int64_t i = 0; i < tiles; ++i) {
            pack(f.q, b, h, s, i * TILE, s.width, scale, query);
            std::fill(out, out + TILE * columns, 0.0f);
            Running running;
            for (int64_t j = 0; j <= i; ++j) {
                const Sight sight(starts, s.tokens, i * TILE, j * TILE);
                if (!sight.any) continue;
                const Part seen = i == j ? Part::below : Part::whole, weighed = i == j ? Part::lower : Part::whole;
                products<false, Into::set>(query, s.width, keys + j * TILE * s.width, TILE, scores, TILE, TILE, s.width, seen);
                sight.fill(scores, -std::numeric_limits<float>::infinity());
                running.add(scores, out, columns);
                products<false, Into::add>(scores, TILE, values + j * TILE * columns, columns, out, columns, columns, TILE, weighed);
            }
            for (int64_t r = 0; r < std::min<int64_t>(TILE, s.tokens - i * TILE); ++r) {
                const int64_t t = i * TILE + r;
                float* const to = f.out + ((b * s.tokens + t) * s.heads + h) * s.width;
                for (int64_t c = 0; c < s.width; ++c) to[c] = out[r * columns + c] / running.total[r];
                f.logsums[(b * s.heads + h) * s.tokens + t] = running.most[r] + std::log(running.total[r]);
            }
        }
    }
}

// One query head's part of a backward unit, packed once: (tiles, TILE, columns) each.
struct Head {
    float *query, *grad, *grad_query, *inner, *logsum;
};

int64_t head_scratch(const AttentionShape& s) { return tiles_of(s) * TILE * (3 * padded(s.width) + 2); }

Head head_of(float* scratch, const AttentionShape& s, int64_t g) {
    const int64_t tokens = tiles_of(s) * TILE, size = tokens * padded(s.width);
    float* const at = scratch + g * head_scratch(s);
    return {at, at + size, at + 2 * size, at + 3 * size, at + 3 * size + tokens};
}

void pack_head(const AttentionBackward& f, int64_t b, int64_t h, int64_t columns, const Head& to) {
    const AttentionShape& s = f.shape;
    const int64_t tiles = tiles_of(s);
    const float scale = 1.0f / std::sqrt(float(s.width));
    for (int64_t i = 0; i < tiles; ++i) {
        pack(f.q, b, h, s, i * TILE, columns, scale, to.query + i * TILE * columns);
        pack(f.grad, b, h, s, i * TILE, columns, 1.0f, to.grad + i * TILE * columns);
    }
    std::fill(to.grad_query, to.grad_query + tiles * TILE * columns, 0.0f);
    std::fill(to.inner, to.inner + tiles * TILE, 0.0f);
    std::fill(to.logsum, to.logsum + tiles * TILE, 0.0f);
    for (int64_t t = 0; t < s.tokens; ++t) {
        const float* const out = f.out.at(b, t, h);
        const float* const grad = to.grad + t * columns;
        Vector sums{};
        int64_t c = 0;
        for (; c + LANES <= s.width; c += LANES) sums += load(out + c) * load(grad + c);
        float sum = sum_of(sums);
        for (; c < s.width; ++c) sum += out[c] * grad[c];
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

void write(const float* from, int64_t columns, float scale, const AttentionShape& s, int64_t first, int64_t heads, int64_t b, int64_t h, float* to) {
    for (int64_t r = 0; r < std::min<int64_t>(TILE, s.tokens - first); ++r) {
        float* const place = to + ((b * s.tokens + first + r) * heads + h) * s.width;
        for (int64_t c = 0; c < s.width; ++c) place[c] = from[r * columns + c] * scale;
    }
}


int64_t backward_scratch(const AttentionShape& s) {
    return s.heads / s.kv_heads * head_scratch(s) + TILE * (2 * s.width + 3 * padded(s.width) + 2 * TILE);
}

void backward_unit(const AttentionBackward& f, int64_t b, int64_t n, float* scratch) {
    const AttentionShape& s = f.shape;
    const int64_t columns = padded(s.width), tiles = tiles_of(s), group = s.heads / s.kv_heads;
    const int64_t* const starts = s.starts + b * s.tokens;
    const int64_t tile = TILE * columns, square = TILE * TILE;
    for (int64_t g = 0; g < group; ++g) pack_head(f, b, n * group + g, columns, head_of(scratch, s, g));
    float* const place = scratch + group * head_scratch(s);
    float* const keys_across = place;
    float* const values_across = keys_across + TILE * s.width;
    float* const keys = values_across + TILE * s.width;
    float* const grad_keys = keys + tile;
    float* const grad_values = grad_keys + tile;
    float* const scores = grad_values + tile;
    float* const grads = scores + square;
    for (int64_t j = 0; j < tiles; ++j) {
        pack(f.k, b, n, s, j * TILE, columns, 1.0f, keys);
        pack_transposed(f.k, b, n, s, j * TILE, keys_across);
        pack_transposed(f.v, b, n, s, j * TILE, values_across);
        std::fill(grad_keys, grad_keys + 2 * tile, 0.0f);
        for (int64_t i = j; i < tiles; ++i) {
            const Sight sight(starts, s.tokens, i * TILE, j * TILE);
            if (!sight.any) continue;
            const Part seen = i == j ? Part::below : Part::whole, weighed = i == j ? Part::lower : Part::whole;
            for (int64_t g = 0; g < group; ++g) {
                const Head head = head_of(scratch, s, g);
                const float* const query = head.query + i * tile;
                const float* const grad = head.grad + i * tile;
                products<false, Into::set>(query, columns, keys_across, TILE, scores, TILE, TILE, s.width, seen);
                products<false, Into::set>(grad, columns, values_across, TILE, grads, TILE, TILE, s.width, seen);
                differentiate(scores, grads, head.logsum + i * TILE, head.inner + i * TILE, sight);
                products<true, Into::add>(scores, TILE, grad, columns, grad_values, columns, columns, TILE, weighed);
                products<true, Into::add>(grads, TILE, query, columns, grad_keys, columns, columns, TILE, weighed);
                products<false, Into::add>(grads, TILE, keys, columns, head.grad_query + i * tile, columns, columns, TILE, weighed);
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

}  // namespace

void attention_forward(const AttentionForward& f) {
    const AttentionShape& s = f.shape;
    in_parallel(s.rows * s.kv_heads, s.threads, forward_scratch(s), [&](int64_t unit, float* scratch) {
        forward_unit(f, unit / s.kv_heads, unit % s.kv_heads, scratch);
    });
}

void attention_backward(const AttentionBackward& f) {
    const AttentionShape& s = f.shape;
    in_parallel(s.rows * s.kv_heads, s.threads, backward_scratch(s), [&](int64_t unit, float* scratch) {
        backward_unit(f, unit / s.kv_heads, unit % s.kv_heads, scratch);
    });
}

}  // namespace PENJING_ISA
}  // namespace penjing
