// The ids of one word by a vocabulary's merges: exact, and linear but for a logarithm.
#pragma once

#include <bitset>
#include <string>
#include <utility>
#include <vector>

#include "ids.hpp"

namespace penjing {

constexpr uint32_t kNone = UINT32_MAX;

// (left, right) -> rank of their merge.
class PairTable {
   public:
    void reserve(size_t pairs) {
        size_t size = 64;
        while (size < 2 * pairs) size *= 2;
        slots_.assign(size, kEmpty);
    }

    void set(uint32_t left, uint32_t right, uint32_t rank) {
        const uint64_t key = key_of(left, right);
        size_t place = home(key);
        while (slots_[place] != kEmpty && slots_[place] >> kRankBits != key) place = (place + 1) & (slots_.size() - 1);
        if (slots_[place] == kEmpty) slots_[place] = key << kRankBits | rank;  // the earlier merge counts
    }

    uint32_t get(uint32_t left, uint32_t right) const {
        const uint64_t key = key_of(left, right);
        for (size_t place = home(key);; place = (place + 1) & (slots_.size() - 1)) {
            const uint64_t slot = slots_[place];
            if (slot >> kRankBits == key) return uint32_t(slot) & ((1U << kRankBits) - 1);
            if (slot == kEmpty) return kNone;
        }
    }

   private:
    static constexpr uint64_t kEmpty = UINT64_MAX;
    static constexpr int kRankBits = 20;

    static uint64_t key_of(uint32_t left, uint32_t right) { return uint64_t(left) << 20 | right; }
    size_t home(uint64_t key) const {
        return size_t((key * 0x9E3779B97F4A7C15ULL) >> 32) & (slots_.size() - 1);
    }

    std::vector<uint64_t> slots_;
};

class Merger {
   public:
    // `merges`: left, right and merged id of each, earliest first; `whole_words`: a word that is a
    // token is that token, whatever the merges say. Throws std::invalid_argument.
    Merger(const std::vector<nb::bytes>& token_bytes, const uint32_t* merges, size_t count, bool whole_words);

    // Adds the ids of a word of at least one byte.
    void merge(const uint8_t* bytes, size_t length, Ids& ids) const;

   private:
    void merge_by_scan(uint32_t* ids, size_t count, Ids& out) const;
    void merge_by_heap(const uint8_t* bytes, size_t length, Ids& out) const;
    uint32_t ranked(uint32_t left, uint32_t right, size_t place) const;
    size_t first_tokens(const uint8_t* bytes, size_t length, uint32_t* ids) const;
    void prepare_characters(const std::vector<nb::bytes>& token_bytes, const uint32_t* merges, size_t count);
    void remember_whole(const std::vector<nb::bytes>& token_bytes);
    std::pair<const uint8_t*, size_t> whole_bytes(size_t id) const;
    uint32_t whole_token(const uint8_t* bytes, size_t length) const;

    uint32_t byte_ids_[256];
    PairTable pairs_;
    bool by_characters_ = false;
    std::bitset<256> ragged_[256];      // [last byte of the left token], first of the right one
    std::vector<uint32_t> characters_;  // code point up to 2^16 -> its token if it is one
    std::vector<uint32_t> merged_;        // rank -> id
    std::vector<uint32_t> first_ranks_;   // two ids below 256 -> rank
    std::string whole_text_;
    std::vector<size_t> whole_ends_;
    std::vector<uint32_t> whole_slots_;
};

}  // namespace penjing
