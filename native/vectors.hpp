// What the kernels share. A file that includes it says for which instruction set it is compiled
// (PENJING_ISA), how many floats a vector holds (PENJING_LANES), how many rows of a product stay in
// registers (PENJING_ROWS, by 2 vectors), and with PENJING_BFLOAT16 that tensors hold bfloat16.
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
#if defined(PENJING_BFLOAT16)
#include <immintrin.h>
#endif

namespace penjing {
namespace PENJING_ISA {
namespace {

constexpr int LANES = PENJING_LANES;

typedef float Vector __attribute__((vector_size(4 * LANES), aligned(4), may_alias));
typedef int32_t Integers __attribute__((vector_size(4 * LANES), aligned(4), may_alias));

inline Vector load(const float* from) { return *reinterpret_cast<const Vector*>(from); }
inline void store(float* to, Vector x) { *reinterpret_cast<Vector*>(to) = x; }

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

}  // namespace
}  // namespace PENJING_ISA
}  // namespace penjing
