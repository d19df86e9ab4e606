// Cuts UTF-8 text into pieces before any merge, as the named patterns of `text.patterns` do.
//
// Written by hand, since a regular expression is twenty times slower. Every function is a step of
// the expressions, in their order; a test holds them equal to `regex`. Invalid UTF-8 is read as
// U+FFFD, one for each maximal ill-formed part (Unicode 15, section 3.9), and its bytes are kept.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string_view>
#include <vector>

#include "ascii_window.hpp"
#include "unicode_table.hpp"

namespace penjing {

enum class Pattern { qwen2, llama3, cl100k, nanochat, gpt2, o200k };

inline bool pattern_named(std::string_view name, Pattern& out) {
    constexpr std::string_view names[] = {"qwen2", "llama3", "cl100k", "nanochat", "gpt2", "o200k"};
    for (int index = 0; index < 6; ++index) {
        if (names[index] == name) {
            out = Pattern(index);
            return true;
        }
    }
    return false;
}

constexpr uint8_t kNewline = 32;   // \r and \n
constexpr uint32_t kReplacement = 0xFFFD;

// The classes of every code point, one byte each.
inline const uint8_t* class_table() {
    static const std::vector<uint8_t> table = [] {
        std::vector<uint8_t> made(0x110000);
        const size_t runs = sizeof kClassRuns / sizeof *kClassRuns;
        for (size_t run = 0; run < runs; ++run) {
            const uint32_t stop = run + 1 < runs ? kClassRuns[run + 1].first : 0x110000;
            for (uint32_t point = kClassRuns[run].first; point < stop; ++point) {
                made[point] = kClassRuns[run].classes;
            }
        }
        made['\r'] |= kNewline;
        made['\n'] |= kNewline;
        return made;
    }();
    return table.data();
}

struct Decoded {
    uint32_t point;
    uint32_t size;
};

// The character at `at` < `end`, or U+FFFD for the bytes that begin none.
inline Decoded decode(const uint8_t* at, const uint8_t* end) {
    const uint32_t lead = at[0];
    if (lead < 0x80) return {lead, 1};
    if (lead >> 4 == 0xE && end - at >= 3) {  // nearly all of what is not ASCII in much text
        const uint32_t point = (lead & 0xF) << 12 | (at[1] & 0x3FU) << 6 | (at[2] & 0x3FU);
        const bool follow = (at[1] & 0xC0) == 0x80 && (at[2] & 0xC0) == 0x80;
        if (follow && point >= 0x800 && point >> 11 != 0x1B) return {point, 3};
    }
    if (lead < 0xC2 || lead > 0xF4) return {kReplacement, 1};
    const uint32_t size = lead < 0xE0 ? 2 : lead < 0xF0 ? 3 : 4;
    uint32_t low = 0x80, high = 0xBF;  // of the second byte: no overlong forms, no surrogates
    if (lead == 0xE0) low = 0xA0;
    if (lead == 0xED) high = 0x9F;
    if (lead == 0xF0) low = 0x90;
    if (lead == 0xF4) high = 0x8F;
    uint32_t point = lead & (0x7F >> size);
    for (uint32_t place = 1; place < size; ++place) {
        if (at + place == end || at[place] < low || at[place] > high) return {kReplacement, place};
        point = point << 6 | (at[place] & 0x3F);
        low = 0x80;
        high = 0xBF;
    }
    return {point, size};
}

// The end of the first part of a piece: at most `cap` bytes, never inside a character. 0: no cap.
inline size_t cap_end(const uint8_t* text, size_t start, size_t end, size_t cap) {
    if (cap == 0 || end - start <= cap) return end;
    size_t stop = start + cap;
    while (stop > start && (text[stop] & 0xC0) == 0x80) --stop;
    return stop > start ? stop : start + cap;
}

// One pass over a text. `kDigits`: longest run of numbers in a piece, 0 for any.
template <Pattern kPattern>
class Scanner {
   public:
    Scanner(const uint8_t* text, size_t size) : begin_(text), end_(text + size), table_(class_table()) {}

    template <class OnPiece>
    void run(OnPiece&& on_piece) {
        const auto found = [&](const uint8_t* from, const uint8_t* to) {
            on_piece(size_t(from - begin_), size_t(to - begin_));
            return to;
        };
        const uint8_t* plain = begin_;  // a window that told nothing is not asked again at once
        for (const uint8_t* at = begin_; at != end_;) {
            if (kWindows && at >= plain && size_t(end_ - at) >= kWindowBytes && is_ascii(at)) {
                const uint8_t* window = at;
                for (uint64_t starts = window_starts<kDigits>(window); starts; starts &= starts - 1) {
                    at = found(at, window + __builtin_ctzll(starts));
                }
                if (at != window) continue;
                plain = at + kWindowBytes / 4;
            }
            at = found(at, piece(at));
        }
    }

   private:
    static constexpr int kDigits = kPattern == Pattern::qwen2      ? 1
                                   : kPattern == Pattern::nanochat ? 2
                                   : kPattern == Pattern::gpt2     ? 0
                                                                   : 3;

    static constexpr uint64_t kHighBits = 0x8080808080808080ULL;

    static constexpr bool kWindows = kHasWindows && kPattern != Pattern::gpt2 && kPattern != Pattern::o200k;

    struct Here {
        uint8_t classes;
        uint32_t size;
    };

    Here here(const uint8_t* at) const {
        if (*at < 0x80) return {table_[*at], 1};
        const Decoded found = decode(at, end_);
        return {table_[found.point], found.size};
    }

    bool is(const uint8_t* at, uint8_t classes) const { return at != end_ && (here(at).classes & classes); }

    const uint8_t* run_of(const uint8_t* at, uint8_t classes) const {
        while (at != end_) {
            const Here found = here(at);
            if (!(found.classes & classes)) break;
            at += found.size;
        }
        return at;
    }

    // \p{L}*, eight bytes at a time while they are ASCII.
    const uint8_t* letters(const uint8_t* at) const {
        for (uint64_t chunk; end_ - at >= 8; at += 8) {
            std::memcpy(&chunk, at, 8);
            const uint64_t others = kHighBits & ~ascii_letters(chunk);
            if (others == 0) continue;
            at += __builtin_ctzll(others) / 8;
            if (*at < 0x80) return at;
            break;
        }
        return run_of(at, kLetter);
    }

    // Whether sixteen bytes are: less than that is not worth a window.
    static bool is_ascii(const uint8_t* at) {
        uint64_t first, second;
        std::memcpy(&first, at, 8);
        std::memcpy(&second, at + 8, 8);
        return ((first | second) & kHighBits) == 0;
    }

    // The highest bit of each byte that is A to Z or a to z.
    static uint64_t ascii_letters(uint64_t chunk) {
        constexpr uint64_t kEach = 0x0101010101010101ULL;
        const uint64_t low = (chunk | 0x20 * kEach) & 0x7F * kEach;
        const uint64_t from_a = low + (0x80 - 'a') * kEach, behind_z = low + (0x7F - 'z') * kEach;
        return from_a & ~behind_z & ~chunk & kHighBits;
    }

    // [^\s\p{L}\p{N}]+, from a place where it may match nothing.
    const uint8_t* symbols(const uint8_t* at) const {
        while (at != end_) {
            const Here found = here(at);
            if (found.classes & (kLetter | kNumber | kSpace)) break;
            at += found.size;
        }
        return at;
    }

    // What follows an apostrophe: s, t, re, ve, m, ll or d; the apostrophe's place where nothing does.
    const uint8_t* contraction(const uint8_t* at) const {
        const uint8_t* after = at + 1;
        if (after == end_) return at;
        constexpr bool kFold = kPattern != Pattern::gpt2;
        const auto letter = [](uint8_t byte) { return kFold && byte >= 'A' && byte <= 'Z' ? byte | 0x20 : byte; };
        const int first = letter(*after);
        if (first == 's' || first == 't' || first == 'm' || first == 'd') return after + 1;
        if (after + 1 != end_) {
            const int second = letter(after[1]);
            if ((first == 'r' || first == 'v') && second == 'e') return after + 2;
            if (first == 'l' && second == 'l') return after + 2;
            if (kFold && *after == 0xC5 && after[1] == 0xBF) return after + 2;  // U+017F folds to s
        }
        return at;
    }

    const uint8_t* numbers(const uint8_t* at) const {
        for (int count = 0; at != end_ && (kDigits == 0 || count < kDigits); ++count) {
            const Here found = here(at);
            if (!(found.classes & kNumber)) break;
            at += found.size;
        }
        return at;
    }

    // White space, up to its last newline, or all but its last character where a word follows.
    const uint8_t* spaces(const uint8_t* at) const {
        const uint8_t *after_newline = nullptr, *last = at, *stop = at;
        while (stop != end_) {
            const Here found = here(stop);
            if (!(found.classes & kSpace)) break;
            last = stop;
            stop += found.size;
            if (found.classes & kNewline) after_newline = stop;
        }
        if (kPattern == Pattern::cl100k && stop == end_) return stop;
        if (kPattern != Pattern::gpt2 && after_newline) return after_newline;
        return stop == end_ || last == at ? stop : last;
    }

    const uint8_t* piece(const uint8_t* at) const {
        if constexpr (kPattern == Pattern::gpt2) return piece_gpt2(at);
        if constexpr (kPattern == Pattern::o200k) return piece_o200k(at);
        if (*at == '\'') {
            if (const uint8_t* stop = contraction(at); stop != at) return stop;
        }
        const Here first = here(at);
        const uint8_t* second = at + first.size;
        if (first.classes & kLetter) return letters(second);
        if (first.classes & kNumber) return numbers(at);
        if (!(first.classes & kNewline) && is(second, kLetter)) return letters(second);
        return rest(at, first, second);
    }

    // What is neither a word nor a number: symbols, with a space before, or white space.
    const uint8_t* rest(const uint8_t* at, Here first, const uint8_t* second) const {
        if (first.classes & kSpace) {
            if (*at != ' ') return spaces(at);
            const uint8_t* stop = symbols(second);
            return stop == second ? spaces(at) : line_ends(stop);
        }
        return line_ends(symbols(second));
    }

    const uint8_t* line_ends(const uint8_t* at) const {
        while (at != end_ && (*at == '\n' || *at == '\r' || (kPattern == Pattern::o200k && *at == '/'))) ++at;
        return at;
    }

    const uint8_t* piece_gpt2(const uint8_t* at) const {
        if (*at == '\'') {
            if (const uint8_t* stop = contraction(at); stop != at) return stop;
        }
        const uint8_t* word = at + (*at == ' ');
        if (word == end_) return end_;
        const Here first = here(word);
        if (first.classes & kLetter) return letters(word);
        if (first.classes & kNumber) return numbers(word);
        if (first.classes & kSpace) return spaces(at);
        return symbols(word);
    }

    const uint8_t* piece_o200k(const uint8_t* at) const {
        const Here first = here(at);
        const uint8_t* second = at + first.size;
        const bool prefix = !(first.classes & (kLetter | kNumber | kNewline));
        if (prefix && second != end_) {
            if (const uint8_t* stop = ends_low(second)) return stop;
        }
        if (const uint8_t* stop = ends_low(at)) return stop;
        if (prefix && second != end_) {
            if (const uint8_t* stop = begins_high(second)) return stop;
        }
        if (const uint8_t* stop = begins_high(at)) return stop;
        if (first.classes & kNumber) return numbers(at);
        return rest(at, first, second);
    }

    // Upper* Lower+ with its contraction; null where it does not match.
    const uint8_t* ends_low(const uint8_t* at) const {
        const uint8_t *stop = at, *after_low = nullptr;  // the end of the last that is both
        while (stop != end_) {
            const Here found = here(stop);
            if (!(found.classes & kUpper)) break;
            stop += found.size;
            if (found.classes & kLower) after_low = stop;
        }
        const uint8_t* low = run_of(stop, kLower);
        if (low == stop) low = after_low;  // Upper* gives back what Lower+ needs
        return low ? with_contraction(low) : nullptr;
    }

    // Upper+ Lower* with its contraction. Where `ends_low` failed no Lower follows.
    const uint8_t* begins_high(const uint8_t* at) const {
        const uint8_t* stop = run_of(at, kUpper);
        return stop == at ? nullptr : with_contraction(run_of(stop, kLower));
    }

    const uint8_t* with_contraction(const uint8_t* at) const {
        return at != end_ && *at == '\'' ? contraction(at) : at;
    }

    const uint8_t *begin_, *end_;
    const uint8_t* table_;
};

// Calls on_piece(start, end) for every piece, in order.
template <class OnPiece>
void scan(Pattern pattern, const uint8_t* text, size_t size, OnPiece&& on_piece) {
    switch (pattern) {
        case Pattern::qwen2: return Scanner<Pattern::qwen2>(text, size).run(on_piece);
        case Pattern::llama3: return Scanner<Pattern::llama3>(text, size).run(on_piece);
        case Pattern::cl100k: return Scanner<Pattern::cl100k>(text, size).run(on_piece);
        case Pattern::nanochat: return Scanner<Pattern::nanochat>(text, size).run(on_piece);
        case Pattern::gpt2: return Scanner<Pattern::gpt2>(text, size).run(on_piece);
        case Pattern::o200k: return Scanner<Pattern::o200k>(text, size).run(on_piece);
    }
}

}  // namespace penjing
