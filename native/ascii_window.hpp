// Where pieces begin in 64 bytes of ASCII, found for all of them at once.
//
// Each class of characters becomes a number with a bit for every byte, and the steps of the pattern
// become a few operations on these: no branch for a word, and no wrong guess of the processor. What
// is not plain (apostrophes, other characters than ASCII, spaces before a newline) ends the window;
// so does its last run, which may go on behind it. The scanner itself cuts there.
#pragma once

#include <cstddef>
#include <cstdint>

#ifdef __SSE2__
#include <emmintrin.h>
#endif

namespace penjing {

constexpr size_t kWindowBytes = 64;

#ifdef __SSE2__

constexpr bool kHasWindows = true;

struct AsciiClasses {
    uint64_t letter = 0, digit = 0, blank = 0, tab = 0, newline = 0, odd = 0;

    explicit AsciiClasses(const uint8_t* text) {
        for (int part = 0; part < 4; ++part) {
            const __m128i bytes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(text) + part);
            const auto is = [bytes](char byte) { return _mm_cmpeq_epi8(bytes, _mm_set1_epi8(byte)); };
            // Unsigned comparisons by signed ones: the range begins at the smallest signed byte.
            const auto below = [](__m128i values, char first, char count) {
                const __m128i moved = _mm_add_epi8(values, _mm_set1_epi8(char(-128 - first)));
                return _mm_cmplt_epi8(moved, _mm_set1_epi8(char(-128 + count)));
            };
            const auto put = [part](uint64_t& mask, __m128i found) {
                mask |= uint64_t(uint32_t(_mm_movemask_epi8(found))) << 16 * part;
            };
            const __m128i ends = _mm_or_si128(is('\n'), is('\r')), tabs = is('\t');
            const __m128i control = _mm_cmplt_epi8(bytes, _mm_set1_epi8(' '));  // and all but ASCII
            put(letter, below(_mm_or_si128(bytes, _mm_set1_epi8(' ')), 'a', 26));
            put(digit, below(bytes, '0', 10));
            put(blank, is(' '));
            put(tab, tabs);
            put(newline, ends);
            put(odd, _mm_or_si128(_mm_andnot_si128(_mm_or_si128(ends, tabs), control), is('\'')));
        }
    }
};

// Bits of the bytes, but the first, at which pieces of the patterns qwen2, llama3, cl100k and
// nanochat begin, as far as the window tells; the first byte must begin one. `digits`: of a piece.
template <int digits>
uint64_t window_starts(const uint8_t* text) {
    const AsciiClasses of(text);
    const uint64_t inner = of.blank | of.tab, space = inner | of.newline;
    const uint64_t symbol = ~(of.letter | of.digit | space | of.odd);
    // The window ends before what is odd, and before white space that a newline follows.
    const uint64_t stop = of.odd | (inner & of.newline >> 1);
    const uint64_t inside = (stop & -stop) - 1;
    const auto go_on = [](uint64_t mask) { return mask & mask << 1; };
    const uint64_t runs = inside & ~(go_on(of.letter) | go_on(of.digit) | go_on(space) | go_on(symbol));
    if (runs <= 1) return 0;
    const uint64_t told = ~0ULL >> __builtin_clzll(runs);  // up to where the last run begins

    // Newlines right after symbols belong to their piece.
    const uint64_t taken = of.newline & ~(of.newline + (of.newline & symbol << 1));
    const uint64_t left = space & ~taken;
    const uint64_t words = of.letter & ~(of.letter << 1);
    const uint64_t signs = symbol & ~(symbol << 1) & ~(of.blank << 1);
    const uint64_t prefix = inner | signs;  // a sign right before a word is one alone
    uint64_t numbers = of.digit;
    if (digits > 1) {
        numbers &= ~(of.digit << 1);
        uint64_t whole = of.digit;  // digits after which `digits` more stand
        for (int step = 1; step < digits; ++step) whole &= of.digit << step;
        for (uint64_t next; (next = numbers << digits & whole) & ~numbers;) numbers |= next;
    }
    const uint64_t spaces = (left & ~(left << 1)) | (inner & of.newline << 1) | (inner & ~(space >> 1));
    return (numbers | spaces | signs | (words & ~(prefix << 1))) & told & ~1ULL;
}

#else

constexpr bool kHasWindows = false;
template <int digits>
uint64_t window_starts(const uint8_t*) { return 0; }

#endif

}  // namespace penjing
