// Products of square tiles, which attention consists of; see vectors.hpp for what a file that
// includes it says. With PENJING_AMX they are the processor's own: a register holds 16 rows of 16
// units, and a product of two of them is one instruction.
#pragma once

#include "vectors.hpp"

namespace penjing {
namespace PENJING_ISA {
namespace {

// What of a product is needed: on the diagonal a query sees no later key. `below`: C's columns up to
// its row; `lower`: A is zero behind its diagonal (for its transpose: before it).
enum class Part { whole, below, lower };

enum class Into { set, add };

// Tiles are TILE long, products made in pieces of FULL rows x PANEL columns, STEP units deep.
constexpr int PANEL = 2 * LANES, TILE = 64, FULL = PENJING_ROWS;

#if defined(PENJING_AMX)

constexpr int STEP = 16;
static_assert(LANES == 16 && FULL == 32 && TILE % FULL == 0);

// The registers' shape, for this thread as long as the object lives.
struct Registers {
    Registers() {
        alignas(64) uint8_t shape[64] = {1};
        for (int n = 0; n < 8; ++n) {
            shape[16 + 2 * n] = 64;
            shape[48 + n] = 16;
        }
        _tile_loadconfig(shape);
    }
    ~Registers() { _tile_release(); }
    Registers(const Registers&) = delete;
    Registers& operator=(const Registers&) = delete;
};

// FULL x PANEL of C = A B; A is (rows, depth).
template <Into into>
inline void product(const Unit* a, int64_t lda, const Unit* b, int64_t ldb, float* c, int64_t ldc, int64_t depth) {
    constexpr int64_t SIZE = sizeof(Unit);
    if constexpr (into == Into::add) {
        _tile_loadd(0, c, ldc * SIZE);
        _tile_loadd(1, c + 16, ldc * SIZE);
        _tile_loadd(2, c + 16 * ldc, ldc * SIZE);
        _tile_loadd(3, c + 16 * ldc + 16, ldc * SIZE);
    } else {
        _tile_zero(0);
        _tile_zero(1);
        _tile_zero(2);
        _tile_zero(3);
    }
    for (int64_t k = 0; k < depth; k += STEP) {
        _tile_loadd(4, a + k, lda * SIZE);
        _tile_loadd(6, b + k * ldb, ldb * SIZE);
        _tile_loadd(7, b + k * ldb + 16, ldb * SIZE);
        _tile_loadd(5, a + k + 16 * lda, lda * SIZE);
        _tile_dpbf16ps(0, 4, 6);
        _tile_dpbf16ps(1, 4, 7);
        _tile_dpbf16ps(2, 5, 6);
        _tile_dpbf16ps(3, 5, 7);
    }
    _tile_stored(0, c, ldc * SIZE);
    _tile_stored(1, c + 16, ldc * SIZE);
    _tile_stored(2, c + 16 * ldc, ldc * SIZE);
    _tile_stored(3, c + 16 * ldc + 16, ldc * SIZE);
}

// TILE x columns of C; `depth` in units.
template <bool transposed, Into into>
void products(const Unit* a, int64_t lda, const Unit* b, int64_t ldb, float* c, int64_t ldc, int64_t columns, int64_t depth, Part part) {
    alignas(64) Unit upright[transposed ? TILE * TILE / DEPTH : 1];
    if constexpr (transposed) {
        for (int64_t k = 0; k < depth; k += STEP) {
            for (int64_t m = 0; m < TILE; m += 16) transpose(a + k * lda + m, lda * sizeof(Unit), upright + m * depth + k, depth);
        }
        a = upright;
        lda = depth;
    }
    for (int64_t m = 0; m < TILE; m += FULL) {
        const int64_t from = transposed && part == Part::lower ? m / DEPTH : 0;
        const int64_t to = !transposed && part == Part::lower ? std::min<int64_t>(depth, (m + FULL) / DEPTH) : depth;
        const int64_t end = part == Part::below ? std::min<int64_t>(columns, m + FULL) : columns;
        for (int64_t n = 0; n < end; n += PANEL) {
            product<into>(a + m * lda + from, lda, b + from * ldb + n, ldb, c + m * ldc + n, ldc, to - from);
        }
    }
}

#else

constexpr int STEP = 1;
static_assert(TILE % PANEL == 0 && (TILE % FULL == 0 || TILE % FULL == 4) && FULL % DEPTH == 0);

struct Registers {};

// `rows` x PANEL of C = A B; A is (rows, depth), or (depth, rows) if it stands transposed.
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

#endif

}  // namespace
}  // namespace PENJING_ISA
}  // namespace penjing
