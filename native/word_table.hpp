// Words and their counts: records in the order in which words were met, and a small index of them.
//
// A large table with the words in it scatters the frequent ones over memory, each on a page of its
// own. Here they stand together, since they are met first, and the index has four bytes a place.
#pragma once

#include <memory>
#include <stdexcept>
#include <utility>
#include <vector>

#include "short_key.hpp"
#include "words.hpp"

namespace penjing {

// A word that is looked up: equal words have equal keys, and equal long ones equal bytes as well.
struct WordKey {
    ShortKey key;  // of a long word its length, and its hash instead of a short one's last bytes
    uint64_t hash;
    const uint8_t* bytes;
    size_t length;
};

constexpr uint64_t kLong = 0xFFULL << 56;  // in place of a short key's length

// `readable`: bytes that may be read from `bytes` on, at least `length`.
inline WordKey word_key(const uint8_t* bytes, size_t length, size_t readable) {
    if (length <= kShortBytes) {
        const ShortKey key = short_key(bytes, length, readable);
        return {key, key.hash(), bytes, length};
    }
    const uint64_t hash = word_hash(bytes, length);
    return {{length, kLong | hash >> 8}, hash, bytes, length};
}

class WordTable {
   public:
    struct Record {
        ShortKey key;
        uint64_t count;  // then a long word's bytes, filled up to whole units

        bool is_long() const { return key.high >= kLong; }
        size_t length() const { return is_long() ? key.low : key.length(); }
        // Of a long word without the lowest byte, which the table does not use.
        uint64_t hash() const { return is_long() ? key.high << 8 : key.hash(); }
        const uint8_t* bytes() const {
            return is_long() ? reinterpret_cast<const uint8_t*>(this + 1) : reinterpret_cast<const uint8_t*>(&key);
        }
        Word word() const { return {bytes(), length(), count}; }
    };

    WordTable() : index_(kFirstPlaces), shift_(64 - __builtin_ctzll(kFirstPlaces)) {
        add_blocks(1);
        blocks_[0].used = 1;  // so that no record is unit 0, which stands for none
        --room_;
    }

    // Called for a word a while apart, each of these two fetches what the next call reads.
    void expect(uint64_t hash) const { __builtin_prefetch(&index_[hash >> shift_]); }

    // The record that is the word's, if it has one and few are alike; 0: none was found.
    uint32_t candidate(uint64_t hash) const {
        const uint32_t entry = index_[place_of(hash, [](uint32_t) { return true; })];
        if (entry) __builtin_prefetch(&record(entry & kUnits));
        return entry & kUnits;
    }

    void count(const WordKey& word, uint32_t candidate) {
        if (candidate && same(record(candidate), word)) {
            ++record(candidate).count;
        } else {
            find(word);
        }
    }

    size_t size() const { return size_; }
    size_t memory_bytes() const { return index_.size() * sizeof(uint32_t) + blocks_.size() * kBlockUnits * 8; }

    const Record& record(uint32_t unit) const {
        return *reinterpret_cast<const Record*>(blocks_[unit / kBlockUnits].units + unit % kBlockUnits);
    }

    // Calls on_record(unit, record) for each, in the order in which words were met.
    template <class OnRecord>
    void each(OnRecord&& on_record) const {
        for (size_t block = 0; block < blocks_.size(); ++block) {
            for (size_t at = block == 0; at < blocks_[block].used;) {
                const uint32_t unit = uint32_t(block * kBlockUnits + at);
                const Record& one = record(unit);
                on_record(unit, one);
                at += units_of(one.is_long() ? one.length() : 0);
            }
        }
    }

   private:
    static constexpr size_t kFirstPlaces = 1 << 12;
    static constexpr uint32_t kBlockUnits = 1 << 15;  // of eight bytes
    static constexpr int kUnitBits = 27;              // 1 GB of records; the rest is a tag
    static constexpr uint32_t kUnits = (1u << kUnitBits) - 1;

    struct Block {
        uint64_t* units;
        size_t used;  // 0 where it only goes on with a word of the one before
    };

    static uint32_t tag_of(uint64_t hash) { return uint32_t(hash >> 8) << kUnitBits; }
    static size_t units_of(size_t long_bytes) { return sizeof(Record) / 8 + (long_bytes + 7) / 8; }

    static bool same(const Record& record, const WordKey& word) {
        return record.key == word.key &&
               (word.length <= kShortBytes || std::memcmp(record.bytes(), word.bytes, word.length) == 0);
    }

    // The first place, from the word's own on, that is empty or has its tag and is accepted.
    template <class Accept>
    size_t place_of(uint64_t hash, Accept&& accept) const {
        const size_t mask = index_.size() - 1;
        const uint32_t tag = tag_of(hash);
        for (size_t place = hash >> shift_;; place = (place + 1) & mask) {
            const uint32_t entry = index_[place];
            if (entry == 0 || ((entry ^ tag) <= kUnits && accept(entry & kUnits))) return place;
        }
    }

    Record& record(uint32_t unit) { return const_cast<Record&>(std::as_const(*this).record(unit)); }

    void find(const WordKey& word) {
        const size_t place = place_of(word.hash, [&](uint32_t unit) { return same(record(unit), word); });
        if (index_[place]) {
            ++record(index_[place] & kUnits).count;
            return;
        }
        index_[place] = tag_of(word.hash) | add(word);
        if (++size_ * 2 > index_.size()) grow();
    }

    uint32_t add(const WordKey& word) {
        const bool is_long = word.length > kShortBytes;
        const size_t units = units_of(is_long ? word.length : 0);
        if (units > room_) add_blocks((units + kBlockUnits - 1) / kBlockUnits);
        Block& block = blocks_[first_];
        const uint32_t unit = uint32_t(first_ * kBlockUnits + block.used);
        auto* made = reinterpret_cast<Record*>(block.units + block.used);
        *made = {word.key, 1};
        if (is_long) std::memcpy(made + 1, word.bytes, word.length);
        block.used += units;
        room_ -= units;
        return unit;
    }

    // Room for the next records; more than one block is for one word alone.
    void add_blocks(size_t count) {
        if ((blocks_.size() + count) * kBlockUnits > kUnits) {
            throw std::length_error("more than 1 GB of different words: lower tokenizer.memory_bytes");
        }
        memory_.emplace_back(new uint64_t[count * kBlockUnits]);
        first_ = blocks_.size();
        room_ = count * kBlockUnits;
        for (size_t block = 0; block < count; ++block) {
            blocks_.push_back({memory_.back().get() + block * kBlockUnits, 0});
        }
    }

    void grow() {
        index_ = std::vector<uint32_t>(index_.size() * 2);
        --shift_;
        each([&](uint32_t unit, const Record& one) {
            index_[place_of(one.hash(), [](uint32_t) { return false; })] = tag_of(one.hash()) | unit;
        });
    }

    std::vector<uint32_t> index_;
    int shift_;
    size_t size_ = 0;
    std::vector<std::unique_ptr<uint64_t[]>> memory_;
    std::vector<Block> blocks_;
    size_t first_ = 0, room_ = 0;  // where the next record goes
};

}  // namespace penjing
