// Words blobs: word counts as bytes, read with every bound checked, and written.
//
// A blob is a concatenation of records `varint(length) varint(count) bytes[length]` (LEB128),
// sorted by bytes, each word once. What is done with the words is other files' duty.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <stdexcept>
#include <string>
#include <vector>

namespace penjing {

struct Bytes {
    const uint8_t* data;
    size_t size;
};

struct Word {
    const uint8_t* bytes;
    size_t length;
    uint64_t count;
};

inline int compare(const Word& a, const Word& b) {
    const size_t shared = a.length < b.length ? a.length : b.length;
    if (const int order = std::memcmp(a.bytes, b.bytes, shared)) return order;
    return a.length < b.length ? -1 : int(a.length > b.length);
}

inline void write_varint(std::string& out, uint64_t value) {
    for (; value >= 0x80; value >>= 7) out.push_back(char(value | 0x80));
    out.push_back(char(value));
}

inline void write_word(std::string& out, const Word& word) {
    write_varint(out, word.length);
    write_varint(out, word.count);
    out.append(reinterpret_cast<const char*>(word.bytes), word.length);
}

// Reads the records of a blob in order; a damaged one is an std::invalid_argument.
class WordReader {
   public:
    explicit WordReader(Bytes blob) : begin_(blob.data), at_(blob.data), end_(blob.data + blob.size) {}

    // False at the end. Words are non-empty and their counts positive.
    bool next(Word& word) {
        if (at_ == end_) return false;
        record_ = at_;
        word.length = varint();
        word.count = varint();
        if (word.length == 0) fail("a word of no bytes");
        if (word.count == 0 || word.count > uint64_t(INT64_MAX)) fail("a count out of 1..2^63-1");
        if (word.length > size_t(end_ - at_)) fail("a word that ends behind the blob");
        word.bytes = at_;
        at_ += word.length;
        return true;
    }

    [[noreturn]] void fail(const std::string& what) const {
        throw std::invalid_argument("damaged words blob: " + what + " at byte " +
                                    std::to_string(record_ - begin_) + " of " +
                                    std::to_string(end_ - begin_) + "; count these files again");
    }

   private:
    uint64_t varint() {
        uint64_t value = 0;
        for (int shift = 0; shift < 64; shift += 7) {
            if (at_ == end_) fail("a number that ends behind the blob");
            const uint8_t byte = *at_++;
            if (shift == 63 && byte > 1) break;
            value |= uint64_t(byte & 0x7F) << shift;
            if (byte < 0x80) return value;
        }
        fail("a number over 64 bits");
    }

    const uint8_t* begin_;
    const uint8_t* at_;
    const uint8_t* end_;
    const uint8_t* record_ = nullptr;
};

// Several blobs as one: counts of equal words are summed. Throws std::invalid_argument for a damaged
// or unsorted blob, std::length_error for a count over 2^63.
std::string merge_words(const std::vector<Bytes>& blobs);

// The distinct counts of a blob, ascending, with how many words have each and those words' bytes.
struct Histogram {
    std::vector<int64_t> counts, words, bytes;
};
Histogram count_histogram(Bytes blob);

// Threshold sampling: a word stays if its count is at least the threshold, else if its hash says so,
// with probability count / threshold; its count becomes max(count, threshold).
std::string sample_words(Bytes blob, uint64_t threshold);

}  // namespace penjing
