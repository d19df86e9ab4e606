// What the kernels share. A file that includes it says for which instruction set it is compiled
// (PENJING_ISA), how many floats a vector holds (PENJING_LANES), how many rows of a product stay in
// registers (PENJING_ROWS, by 2 vectors), with PENJING_BFLOAT16 that tensors hold bfloat16, and with
// PENJING_AMX that the processor multiplies tiles.
#pragma once

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <memory>
#include <new>
#include <system_error>
#include <thread>
#include <vector>
#if PENJING_LANES == 16
#pragma GCC diagnostic push  // GCC 12 warns of its own header: its bug 105593
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#pragma GCC diagnostic ignored "-Wuninitialized"
#include <immintrin.h>
#pragma GCC diagnostic pop
#endif

namespace penjing {
namespace PENJING_ISA {
namespace {

constexpr int LANES = PENJING_LANES;

typedef float Vector __attribute__((vector_size(4 * LANES), aligned(4), may_alias));
typedef int32_t Integers __attribute__((vector_size(4 * LANES), aligned(4), may_alias));

inline Vector load(const float* from) { return *reinterpret_cast<const Vector*>(from); }
inline void store(float* to, Vector x) { *reinterpret_cast<Vector*>(to) = x; }
inline Vector higher(Vector x, Vector y) { return x > y ? x : y; }

// An element is what tensors hold; a unit is what a product takes at once along its depth.
#if defined(PENJING_BFLOAT16)
using Element = uint16_t;
typedef uint32_t Unit __attribute__((may_alias));  // two neighbours, the first in the lower half

inline float widened(Element x) {
    const uint32_t bits = uint32_t(x) << 16;
    float y;
    std::memcpy(&y, &bits, sizeof(y));
    return y;
}

// To the nearest, ties to even.
inline Element narrowed(float x) {
    uint32_t bits;
    std::memcpy(&bits, &x, sizeof(bits));
    const uint32_t rounded = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
    return Element((bits & 0x7fffffff) > 0x7f800000 ? (bits >> 16) | 0x40 : rounded);
}

inline Vector load(const Element* from) {
    const __m256i half = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from));
    return (Vector)_mm512_slli_epi32(_mm512_cvtepu16_epi32(half), 16);
}

inline void store(Element* to, Vector x) {
    const __m256bh half = _mm512_cvtneps_pbh((__m512)x);
    std::memcpy(to, &half, sizeof(half));
}

inline Vector multiply_add(Vector sum, Unit factor, const Unit* from) {
    const __m512i right = _mm512_loadu_si512(from);
    return (Vector)_mm512_dpbf16_ps((__m512)sum, (__m512bh)right, (__m512bh)_mm512_set1_epi32(int(factor)));
}
#else
using Element = float;
using Unit = float;

inline float widened(Element x) { return x; }
inline Element narrowed(float x) { return x; }
inline Vector multiply_add(Vector sum, Unit factor, const Unit* from) { return sum + factor * load(from); }
#endif

constexpr int DEPTH = sizeof(Unit) / sizeof(Element);

#if defined(PENJING_BFLOAT16)
// e^(x - less), at most e^88 or so, 0 below e^-87, relative error 4e-6: bfloat16 rounds by 4e-3. The
// polynomial is 2^x's minimax between 0 and 1.
inline Vector exponential(Vector x, float less) {
    constexpr float LOG2_E = 1.44269504f;
    const Vector power = x * LOG2_E - less * LOG2_E;
    const __mmask16 counts = _mm512_cmp_ps_mask((__m512)power, _mm512_set1_ps(-126.0f), _CMP_NLT_UQ);
    const Vector rest = (Vector)_mm512_reduce_ps((__m512)power, _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC);
    Vector y = Vector{} + 1.353416792e-02f;
    y = y * rest + 5.201146061e-02f;
    y = y * rest + 2.414427569e-01f;
    y = y * rest + 6.930038345e-01f;
    y = y * rest + 1.000002593e+00f;
    return (Vector)_mm512_maskz_scalef_ps(counts, (__m512)y, (__m512)power);
}
#else
// e^(x - less), at most e^88 or so, 0 below e^-87, relative error 2e-7. Source: Cephes, expf.
inline Vector exponential(Vector x, float less) {
    x = x - less;
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
#endif

// 1 / x: in bfloat16 to 6e-5, a sixtieth of its rounding.
inline Vector reciprocal(Vector x) {
#if defined(PENJING_BFLOAT16)
    return (Vector)_mm512_rcp14_ps((__m512)x);
#else
    return 1.0f / x;
#endif
}

// `work(c, count)` does the LANES elements from c on, or those that are left. These too should go
// through vectors, by `load_some` and `store_some`: scalar loops, which compilers vectorize in their own
// way, rounded 3 norms of 1,000 otherwise than the rest.
template <class Work>
inline void each_vector(int64_t from, int64_t to, const Work& work) {
    for (; from + LANES <= to; from += LANES) work(from, LANES);
    if (from < to) work(from, to - from);
}

// Zero behind the last.
template <class T>
inline Vector load_some(const T* from, int64_t count) {
    if (count == LANES) return load(from);
    T room[LANES] = {};
    std::copy(from, from + count, room);
    return load(room);
}

template <class T>
inline void store_some(T* to, int64_t count, Vector x) {
    if (count == LANES) return store(to, x);
    T room[LANES];
    store(room, x);
    std::copy(room, room + count, to);
}

// The halves meet until one number is left: one after the other would be one long wait.
inline float sum_of(Vector x) {
    float lanes[LANES];
    store(lanes, x);
    for (int half = LANES / 2; half > 0; half /= 2) {
        for (int lane = 0; lane < half; ++lane) lanes[lane] += lanes[lane + half];
    }
    return lanes[0];
}

inline float max_of(Vector x) {
    float lanes[LANES];
    store(lanes, x);
    for (int half = LANES / 2; half > 0; half /= 2) {
        for (int lane = 0; lane < half; ++lane) lanes[lane] = std::max(lanes[lane], lanes[lane + half]);
    }
    return lanes[0];
}

#if PENJING_LANES == 16
constexpr bool TRANSPOSES = true;

// 16 x 16 units change rows and columns: neighbours, pairs, fours and eights in turn.
// `from_stride` in bytes.
inline void transpose(const void* from, int64_t from_stride, Unit* to, int64_t to_stride) {
    __m512i x[16], y[16];
#pragma GCC unroll 16
    for (int n = 0; n < 16; ++n) x[n] = _mm512_loadu_si512(static_cast<const char*>(from) + n * from_stride);
#pragma GCC unroll 16
    for (int n = 0; n < 16; n += 2) {
        y[n] = _mm512_unpacklo_epi32(x[n], x[n + 1]);
        y[n + 1] = _mm512_unpackhi_epi32(x[n], x[n + 1]);
    }
#pragma GCC unroll 16
    for (int n = 0; n < 16; n += 4) {
        x[n] = _mm512_unpacklo_epi64(y[n], y[n + 2]);
        x[n + 1] = _mm512_unpackhi_epi64(y[n], y[n + 2]);
        x[n + 2] = _mm512_unpacklo_epi64(y[n + 1], y[n + 3]);
        x[n + 3] = _mm512_unpackhi_epi64(y[n + 1], y[n + 3]);
    }
#pragma GCC unroll 16
    for (int n = 0; n < 4; ++n) {
        y[n] = _mm512_shuffle_i32x4(x[n], x[n + 4], 0x88);
        y[n + 4] = _mm512_shuffle_i32x4(x[n], x[n + 4], 0xdd);
        y[n + 8] = _mm512_shuffle_i32x4(x[n + 8], x[n + 12], 0x88);
        y[n + 12] = _mm512_shuffle_i32x4(x[n + 8], x[n + 12], 0xdd);
    }
#pragma GCC unroll 16
    for (int n = 0; n < 4; ++n) {
        _mm512_storeu_si512(to + n * to_stride, _mm512_shuffle_i32x4(y[n], y[n + 8], 0x88));
        _mm512_storeu_si512(to + (n + 4) * to_stride, _mm512_shuffle_i32x4(y[n + 4], y[n + 12], 0x88));
        _mm512_storeu_si512(to + (n + 8) * to_stride, _mm512_shuffle_i32x4(y[n], y[n + 8], 0xdd));
        _mm512_storeu_si512(to + (n + 12) * to_stride, _mm512_shuffle_i32x4(y[n + 4], y[n + 12], 0xdd));
    }
}
#else
constexpr bool TRANSPOSES = false;

inline void transpose(const void*, int64_t, Unit*, int64_t) {}
#endif

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

// Units of work are taken one by one until none is left; each thread has scratch of its own, made
// once, as fresh pages cost more than the work in them. Memory that is not there is an exception
// here, before any thread begins; a thread that the system refuses is done without.
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

// `each_vector` over so many elements, by several threads.
template <class Work>
void each_vector_in_parallel(int64_t size, int threads, const Work& work) {
    constexpr int64_t BLOCK = 1 << 14;
    in_parallel((size + BLOCK - 1) / BLOCK, threads, 0, [&](int64_t block, float*) {
        each_vector(block * BLOCK, std::min(size, (block + 1) * BLOCK), work);
    });
}

}  // namespace
}  // namespace PENJING_ISA
}  // namespace penjing
