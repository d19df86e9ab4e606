// What is done with word counts between counting and training: merge, describe, sample.
//
// Source of the sampling: Duffield, Lund and Thorup, "Learn more, sample less" (2005), there by
// chance; here the word's own hash decides, so that order, chunks and machines do not matter.
#include <algorithm>
#include <map>

#include "word_hash.hpp"
#include "words.hpp"

namespace penjing {
namespace {

struct Run {
    WordReader reader;
    Word word;

    // The next word; words must ascend, or equal ones would not meet.
    bool advance() {
        const Word last = word;
        if (!reader.next(word)) return false;
        if (last.bytes && compare(last, word) >= 0) reader.fail("a word out of order");
        return true;
    }
};

bool later(const Run* a, const Run* b) { return compare(a->word, b->word) > 0; }

}  // namespace

std::string merge_words(const std::vector<Bytes>& blobs) {
    std::vector<Run> runs;
    for (const Bytes& blob : blobs) runs.push_back({WordReader(blob), Word{}});
    std::vector<Run*> heap;
    for (Run& run : runs) {
        if (run.advance()) heap.push_back(&run);
    }
    std::make_heap(heap.begin(), heap.end(), later);
    std::string merged;
    while (!heap.empty()) {
        Word sum = heap.front()->word;
        sum.count = 0;
        while (!heap.empty() && compare(heap.front()->word, sum) == 0) {
            std::pop_heap(heap.begin(), heap.end(), later);
            sum.count += heap.back()->word.count;  // below 2^64: both are below 2^63
            if (sum.count > uint64_t(INT64_MAX)) throw std::length_error("a word's count is over 2^63");
            if (heap.back()->advance()) {
                std::push_heap(heap.begin(), heap.end(), later);
            } else {
                heap.pop_back();
            }
        }
        write_word(merged, sum);
    }
    return merged;
}

Histogram count_histogram(Bytes blob) {
    struct Bin {
        int64_t words = 0, bytes = 0;
    };
    std::vector<Bin> small(1 << 12);  // nearly all words
    std::map<uint64_t, Bin> large;
    WordReader reader(blob);
    for (Word word{}; reader.next(word);) {
        Bin& bin = word.count < small.size() ? small[word.count] : large[word.count];
        ++bin.words;
        bin.bytes += int64_t(word.length);
    }
    Histogram found;
    const auto add = [&found](uint64_t count, const Bin& bin) {
        if (bin.words == 0) return;
        found.counts.push_back(int64_t(count));
        found.words.push_back(bin.words);
        found.bytes.push_back(bin.bytes);
    };
    for (size_t count = 1; count < small.size(); ++count) add(count, small[count]);
    for (const auto& [count, bin] : large) add(count, bin);
    return found;
}

std::string sample_words(Bytes blob, uint64_t threshold) {
    if (threshold == 0 || threshold > uint64_t(INT64_MAX)) {
        throw std::invalid_argument("a sampling threshold of " + std::to_string(threshold) +
                                    ": wanted 1 (keep all) or more, below 2^63");
    }
    std::string kept;
    WordReader reader(blob);
    for (Word word{}; reader.next(word);) {
        if (word.count < threshold) {
            // hash / 2^64 < count / threshold, without rounding
            const auto scaled = (unsigned __int128)word_hash(word.bytes, word.length) * threshold;
            if (uint64_t(scaled >> 64) >= word.count) continue;
            word.count = threshold;
        }
        write_word(kept, word);
    }
    return kept;
}

}  // namespace penjing
