// Words of at most 15 bytes as two registers: compared, hashed and kept without a pointer.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

#include "word_hash.hpp"

namespace penjing {

constexpr size_t kShortBytes = 15;

// The word's bytes from the first on, zeros, and its length in the last byte (little-endian).
struct ShortKey {
    uint64_t low, high;

    bool operator==(const ShortKey& other) const { return low == other.low && high == other.high; }
    size_t length() const { return size_t(high >> 56); }
    uint64_t hash() const {
        const size_t size = length();
        uint64_t hash = hash_step(kHash0, low);
        if (size > 8) hash = hash_step(hash, high & 0x00FFFFFFFFFFFFFFULL);
        return hash_end(hash, size);
    }
};

// `readable`: bytes that may be read from `bytes` on, at least `length`.
inline ShortKey short_key(const uint8_t* bytes, size_t length, size_t readable) {
    ShortKey key{0, 0};
    if (readable >= 16) {
        std::memcpy(&key, bytes, 16);
        if (length < 8) key.low &= (1ULL << 8 * length) - 1;
        key.high &= length <= 8 ? 0 : (1ULL << 8 * (length - 8)) - 1;
    } else {
        std::memcpy(&key, bytes, length);
    }
    key.high |= uint64_t(length) << 56;
    return key;
}

}  // namespace penjing
