// Counts the words of texts. Which of several counters' words belong together is the caller's duty.
//
// A word is looked up some words late, in two steps: its place in the index, then its record are
// fetched from memory meanwhile.
#include <algorithm>

#include "bindings.hpp"
#include "word_table.hpp"

namespace penjing {
namespace {

constexpr size_t kAhead = 32;
constexpr size_t kNear = 16;

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

    uint64_t documents_, bytes_, pieces_;

    size_t memory_bytes() const { return table_.memory_bytes(); }
    uint64_t unique() const { return table_.size(); }

   private:
    struct Pending {
        WordKey word;
        uint32_t candidate;
    };

    void clear() {
        table_ = WordTable();
        pushed_ = 0;
        documents_ = bytes_ = pieces_ = 0;
    }

    void push(const uint8_t* bytes, size_t length, size_t readable) {
        Pending& place = pending_[pushed_ % kAhead];
        if (pushed_ >= kAhead) table_.count(place.word, place.candidate);
        place = {word_key(bytes, length, readable), 0};
        table_.expect(place.word.hash);
        if (++pushed_ > kNear) {
            Pending& near = pending_[(pushed_ - 1 - kNear) % kAhead];
            near.candidate = table_.candidate(near.word.hash);
        }
    }

    void flush() {
        for (size_t at = pushed_ - std::min(pushed_, kAhead); at < pushed_; ++at) {
            table_.count(pending_[at % kAhead].word, 0);
        }
        pieces_ += pushed_;
        pushed_ = 0;
    }

    struct Entry {
        uint64_t first;  // eight bytes as a number: decides nearly every comparison
        uint32_t unit;
    };

    // The words of each partition, which the highest bits of their hash name.
    std::vector<std::string> packed(size_t partitions) {
        const int shift = 64 - __builtin_ctzll(partitions);
        const auto part_of = [&](const WordTable::Record& one) { return partitions == 1 ? 0 : one.hash() >> shift; };
        std::vector<size_t> ends(partitions + 1);
        table_.each([&](uint32_t, const WordTable::Record& one) { ++ends[part_of(one) + 1]; });
        for (size_t part = 1; part <= partitions; ++part) ends[part] += ends[part - 1];
        std::vector<size_t> next(ends.begin(), ends.end() - 1);
        std::vector<Entry> entries(table_.size()), spare;
        table_.each([&](uint32_t unit, const WordTable::Record& one) {
            entries[next[part_of(one)]++] = {first_bytes(one), unit};
        });
        std::vector<std::string> blobs(partitions);
        for (size_t part = 0; part < partitions; ++part) {
            blobs[part] = sorted_blob(entries.data() + ends[part], ends[part + 1] - ends[part], spare);
        }
        return blobs;
    }

    static uint64_t first_bytes(const WordTable::Record& one) {
        uint64_t first = 0;
        std::memcpy(&first, one.bytes(), std::min<size_t>(8, one.length()));
        return __builtin_bswap64(first);
    }

    std::string sorted_blob(Entry* entries, size_t size, std::vector<Entry>& spare) const {
        sort_by_first(entries, size, spare);
        const auto in_order = [&](const Entry& a, const Entry& b) {
            return compare(table_.record(a.unit).word(), table_.record(b.unit).word()) < 0;
        };
        for (size_t from = 0, to; from < size; from = to) {
            for (to = from + 1; to < size && entries[to].first == entries[from].first;) ++to;
            if (to - from > 1) std::sort(entries + from, entries + to, in_order);
        }
        std::string blob;
        for (size_t at = 0; at < size; ++at) {
            if (at + kAhead < size) __builtin_prefetch(&table_.record(entries[at + kAhead].unit));
            write_word(blob, table_.record(entries[at].unit).word());
        }
        return blob;
    }

    // Radix sort, lowest byte first; bytes that are alike everywhere are passed over.
    static void sort_by_first(Entry* entries, size_t size, std::vector<Entry>& spare) {
        spare.resize(std::max(spare.size(), size));
        Entry *from = entries, *to = spare.data();
        for (int shift = 0; shift < 64; shift += 8) {
            size_t starts[257] = {};
            for (size_t at = 0; at < size; ++at) ++starts[(from[at].first >> shift & 255) + 1];
            if (std::find(starts + 1, starts + 257, size) != starts + 257) continue;
            for (int digit = 0; digit < 256; ++digit) starts[digit + 1] += starts[digit];
            for (size_t at = 0; at < size; ++at) to[starts[from[at].first >> shift & 255]++] = from[at];
            std::swap(from, to);
        }
        if (from != entries) std::copy(from, from + size, entries);
    }

    Pattern pattern_;
    size_t cap_;
    WordTable table_;
    Pending pending_[kAhead];
    size_t pushed_;
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
        .def_prop_ro("unique", &WordCounter::unique)
        .def_prop_ro("memory_bytes", &WordCounter::memory_bytes);
}

}  // namespace penjing
