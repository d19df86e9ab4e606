// The 64-bit hash of a word that decides its partition and its luck in sampling; also the tables'.
//
// It is part of the run files' format: `text.native_twin.word_hash` computes the same.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

namespace penjing {

// The high and the low half of a product, folded: every bit of both factors reaches every bit.
inline uint64_t fold(uint64_t a, uint64_t b) {
    const auto product = static_cast<unsigned __int128>(a) * b;
    return uint64_t(product) ^ uint64_t(product >> 64);
}

constexpr uint64_t kHash0 = 0xA0761D6478BD642FULL;  // wyhash's constants
constexpr uint64_t kHash1 = 0xE7037ED1A0B428DBULL;
constexpr uint64_t kHash2 = 0x8EBC6AF09C88C6E3ULL;

inline uint64_t hash_step(uint64_t hash, uint64_t chunk) { return fold(hash ^ chunk, kHash1); }

inline uint64_t hash_end(uint64_t hash, size_t length) { return fold(hash ^ length, kHash2); }

inline uint64_t word_hash(const uint8_t* bytes, size_t length) {
    uint64_t hash = kHash0, chunk = 0;
    size_t place = 0;
    for (; place + 8 <= length; place += 8) {
        std::memcpy(&chunk, bytes + place, 8);
        hash = hash_step(hash, chunk);
    }
    if (place < length) {
        chunk = 0;
        std::memcpy(&chunk, bytes + place, length - place);
        hash = hash_step(hash, chunk);
    }
    return hash_end(hash, length);
}

}  // namespace penjing
