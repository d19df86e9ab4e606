// Counts words: an open-addressing table whose short keys lie in it, and long ones in blocks.
//
// Pieces are looked up sixteen late, so that their slots are fetched meanwhile: the table is far
// larger than any cache. Which of several counters' words belong together is the caller's duty.
#include <algorithm>
#include <memory>

#include "bindings.hpp"
#include "short_key.hpp"
#include "words.hpp"

namespace penjing {
namespace {

constexpr size_t kAhead = 16;
constexpr size_t kFirstSlots = 1 << 12;
constexpr size_t kBlockBytes = 1 << 18;
constexpr uint64_t kLong = 0xFFULL << 56;  // in place of a short key's length

class WordCounter {
   public:
    WordCounter(const std::string& pattern, size_t cap) : pattern_(pattern_of(pattern)), cap_(cap) { clear(); }
    WordCounter(const WordCounter&) = delete;
    WordCounter& operator=(const WordCounter&) = delete;

    void add(const ByteArray& data, const EndArray& ends) {
        check_ends(ends, data.size());
        const uint8_t* text = data.data();
        const int64_t* stops = ends.data();
        const size_t count = ends.size(), size = data.size();
        nb::gil_scoped_release unlocked;
        size_t start = 0;
        for (size_t document = 0; document < count; ++document) {
            const size_t stop = size_t(stops[document]);
            const uint8_t* base = text + start;
            scan(pattern_, base, stop - start, [&](size_t from, size_t to) {
                while (from < to) {
                    const size_t cut = cap_end(base, from, to, cap_);
                    push(base + from, cut - from, size - start - from);
                    from = cut;
                }
            });
            start = stop;
        }
        flush();
        documents_ += count;
        bytes_ += start;
    }

    void add_words(const std::vector<nb::bytes>& words) {
        for (const nb::bytes& word : words) {
            if (word.size() == 0) throw std::invalid_argument("a word has no bytes");
            push(reinterpret_cast<const uint8_t*>(word.c_str()), word.size(), word.size());
            flush();
            bytes_ += word.size();
        }
    }

    std::vector<nb::bytes> take(size_t partitions) {
        if (partitions == 0 || (partitions & (partitions - 1)) || partitions > (1 << 20)) {
            throw std::invalid_argument("partitions must be a power of two up to 2^20");
        }
        std::vector<std::string> blobs;
        {
            nb::gil_scoped_release unlocked;
            blobs = packed(partitions);
            clear();
        }
        std::vector<nb::bytes> out;
        for (std::string& blob : blobs) {
            out.emplace_back(blob.data(), blob.size());
            std::string().swap(blob);
        }
        return out;
    }

    uint64_t documents_, bytes_, pieces_, unique_;

    size_t memory_bytes() const { return slots_.capacity() * sizeof(Slot) + block_bytes_; }

   private:
    struct Slot {
        ShortKey key;
        int64_t count;
    };
    struct Pending {
        ShortKey key;
        uint64_t hash;
        const uint8_t* bytes;
        size_t length;
    };

    void clear() {
        slots_ = std::vector<Slot>(kFirstSlots);
        blocks_.clear();
        block_left_ = block_bytes_ = pending_count_ = 0;
        documents_ = bytes_ = pieces_ = unique_ = 0;
    }

    void push(const uint8_t* bytes, size_t length, size_t readable) {
        Pending& late = pending_[pending_count_++ % kAhead];
        if (pending_count_ > kAhead) count(late);
        late.bytes = bytes;
        late.length = length;
        if (length <= kShortBytes) {
            late.key = short_key(bytes, length, readable);
            late.hash = late.key.hash();
        } else {
            late.hash = word_hash(bytes, length);
            late.key = {0, kLong | late.hash >> 8};
        }
        __builtin_prefetch(&slots_[home(late.hash)]);
    }

    void flush() {
        const size_t waiting = std::min(pending_count_, kAhead);
        for (size_t place = pending_count_ - waiting; place < pending_count_; ++place) {
            count(pending_[place % kAhead]);
        }
        pending_count_ = 0;
    }

    void count(const Pending& word) {
        ++pieces_;
        Slot* slot = find(word);
        if (slot->count++) return;
        slot->key = word.key;
        if (word.length > kShortBytes) slot->key.low = reinterpret_cast<uint64_t>(keep(word));
        if (++unique_ * 8 > slots_.size() * 5) grow();
    }

    Slot* find(const Pending& word) {
        const size_t mask = slots_.size() - 1;
        for (size_t place = home(word.hash);; place = (place + 1) & mask) {
            Slot& slot = slots_[place];
            if (slot.count == 0) return &slot;
            if (slot.key.high != word.key.high) continue;
            if (word.length <= kShortBytes ? slot.key.low == word.key.low : same(slot, word)) return &slot;
        }
    }

    size_t home(uint64_t hash) const { return hash >> 8 & (slots_.size() - 1); }

    static bool same(const Slot& slot, const Pending& word) {
        const Word kept = long_word(slot);
        return kept.length == word.length && std::memcmp(kept.bytes, word.bytes, word.length) == 0;
    }

    static Word long_word(const Slot& slot) {
        const auto* at = reinterpret_cast<const uint8_t*>(slot.key.low);
        uint64_t length;
        std::memcpy(&length, at, 8);
        return {at + 8, size_t(length), uint64_t(slot.count)};
    }

    static Word word_of(const Slot& slot) {
        if (slot.key.high >> 56 == 0xFF) return long_word(slot);
        return {reinterpret_cast<const uint8_t*>(&slot.key), slot.key.length(), uint64_t(slot.count)};
    }

    const uint8_t* keep(const Pending& word) {
        const size_t size = word.length + 8;
        if (size > block_left_) {
            block_left_ = std::max(size, kBlockBytes);
            blocks_.emplace_back(new uint8_t[block_left_]);
            block_at_ = blocks_.back().get();
            block_bytes_ += block_left_;
        }
        uint8_t* kept = block_at_;
        const uint64_t length = word.length;
        std::memcpy(kept, &length, 8);
        std::memcpy(kept + 8, word.bytes, word.length);
        block_at_ += size;
        block_left_ -= size;
        return kept;
    }

    void grow() {
        std::vector<Slot> old(slots_.size() * 2);
        old.swap(slots_);
        const size_t mask = slots_.size() - 1;
        for (const Slot& slot : old) {
            if (slot.count == 0) continue;
            // A long word's key holds its hash but for the lowest byte, which home() leaves out.
            const bool is_long = slot.key.high >> 56 == 0xFF;
            size_t place = home(is_long ? slot.key.high << 8 : slot.key.hash());
            while (slots_[place].count) place = (place + 1) & mask;
            slots_[place] = slot;
        }
    }

    std::vector<std::string> packed(size_t partitions) {
        // Places grouped by partition first: whole entries of all words would double the memory.
        const auto part_of = [&](const Slot& slot) {
            const Word word = word_of(slot);
            return partitions == 1 ? 0 : size_t(word_hash(word.bytes, word.length) >> (64 - __builtin_ctzll(partitions)));
        };
        std::vector<uint32_t> sizes(partitions);
        for (const Slot& slot : slots_) {
            if (slot.count) ++sizes[part_of(slot)];
        }
        std::vector<std::vector<const Slot*>> members(partitions);
        for (size_t part = 0; part < partitions; ++part) members[part].reserve(sizes[part]);
        for (const Slot& slot : slots_) {
            if (slot.count) members[part_of(slot)].push_back(&slot);
        }
        std::vector<std::string> blobs;
        for (std::vector<const Slot*>& part : members) {
            blobs.push_back(sorted_blob(part));
            std::vector<const Slot*>().swap(part);
        }
        return blobs;
    }

    static std::string sorted_blob(const std::vector<const Slot*>& slots) {
        struct Entry {
            uint64_t first;  // eight bytes as a number: decides nearly every comparison
            Word word;
        };
        std::vector<Entry> entries;
        entries.reserve(slots.size());
        for (const Slot* slot : slots) {
            const Word word = word_of(*slot);
            uint64_t first = 0;
            std::memcpy(&first, word.bytes, std::min<size_t>(8, word.length));
            entries.push_back({__builtin_bswap64(first), word});
        }
        std::sort(entries.begin(), entries.end(), [](const Entry& a, const Entry& b) {
            return a.first != b.first ? a.first < b.first : compare(a.word, b.word) < 0;
        });
        std::string blob;
        for (const Entry& entry : entries) write_word(blob, entry.word);
        return blob;
    }

    Pattern pattern_;
    size_t cap_;
    std::vector<Slot> slots_;
    std::vector<std::unique_ptr<uint8_t[]>> blocks_;
    uint8_t* block_at_ = nullptr;
    size_t block_left_, block_bytes_;
    Pending pending_[kAhead];
    size_t pending_count_;
};

}  // namespace

void bind_counter(nb::module_& module) {
    nb::class_<WordCounter>(module, "WordCounter")
        .def(nb::init<const std::string&, size_t>(), nb::arg("pattern"), nb::arg("cap"))
        .def("add", &WordCounter::add, nb::arg("data"), nb::arg("ends"))
        .def("add_words", &WordCounter::add_words, nb::arg("words"))
        .def("take", &WordCounter::take, nb::arg("partitions"))
        .def_ro("documents", &WordCounter::documents_)
        .def_ro("bytes", &WordCounter::bytes_)
        .def_ro("pieces", &WordCounter::pieces_)
        .def_ro("unique", &WordCounter::unique_)
        .def_prop_ro("memory_bytes", &WordCounter::memory_bytes);
}

}  // namespace penjing
