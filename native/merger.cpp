// Merging the bytes of a word: short ones by searching the smallest rank, long ones by a heap.
#include "merger.hpp"

#include <queue>

#include "word_hash.hpp"

namespace penjing {
namespace {

constexpr uint32_t kMaxIds = 1 << 20;  // so that a pair and its rank fit a word of 64 bits
constexpr size_t kScanned = 64;        // longer words are merged by a heap

// The smallest of `count` > 0 numbers, a multiple of 16.
__attribute__((target_clones("avx2", "default"))) uint32_t smallest(const uint32_t* numbers, size_t count) {
    uint32_t lanes[16];
    for (int lane = 0; lane < 16; ++lane) lanes[lane] = numbers[lane];
    for (size_t place = 16; place < count; place += 16) {
        for (int lane = 0; lane < 16; ++lane) {
            lanes[lane] = numbers[place + lane] < lanes[lane] ? numbers[place + lane] : lanes[lane];
        }
    }
    for (int half = 8; half; half /= 2) {
        for (int lane = 0; lane < half; ++lane) {
            lanes[lane] = lanes[lane + half] < lanes[lane] ? lanes[lane + half] : lanes[lane];
        }
    }
    return lanes[0];
}

// Whether every merge comes after those that made its parts.
bool ordered(const uint32_t* merges, size_t count, size_t vocabulary) {
    std::vector<uint32_t> made(vocabulary, 0);  // 1 + rank
    for (size_t rank = 0; rank < count; ++rank) made[merges[3 * rank + 2]] = uint32_t(rank + 1);
    for (size_t rank = 0; rank < count; ++rank) {
        if (made[merges[3 * rank]] > rank || made[merges[3 * rank + 1]] > rank) return false;
    }
    return true;
}

// Whether a token's last character is all there.
bool ends_whole(const nb::bytes& token) {
    size_t place = token.size();
    while (place && (token.c_str()[place - 1] & 0xC0) == 0x80) --place;
    if (place == 0) return false;
    const auto lead = uint8_t(token.c_str()[place - 1]);
    return token.size() - place + 1 == (lead < 0xC0 ? 1u : lead < 0xE0 ? 2u : lead < 0xF0 ? 3u : 4u);
}

}  // namespace

Merger::Merger(const std::vector<nb::bytes>& token_bytes, const uint32_t* merges, size_t count, bool whole_words) {
    const size_t vocabulary = token_bytes.size();
    if (std::max(count, vocabulary) > kMaxIds) {
        throw std::invalid_argument("over " + std::to_string(kMaxIds) + " ids or merges");
    }
    std::fill(byte_ids_, byte_ids_ + 256, kNone);
    for (size_t id = 0; id < vocabulary; ++id) {
        if (token_bytes[id].size() == 1) {
            uint32_t& known = byte_ids_[uint8_t(token_bytes[id].c_str()[0])];
            known = std::min(known, uint32_t(id));
        }
    }
    for (int byte = 0; byte < 256; ++byte) {
        if (byte_ids_[byte] == kNone) {
            throw std::invalid_argument("the vocabulary has no token for byte " + std::to_string(byte));
        }
    }
    pairs_.reserve(count);
    for (size_t rank = 0; rank < count; ++rank) {
        const uint32_t* merge = merges + 3 * rank;
        if (std::max({merge[0], merge[1], merge[2]}) >= vocabulary) {
            throw std::invalid_argument("merge " + std::to_string(rank) + " names an id outside the vocabulary");
        }
        pairs_.set(merge[0], merge[1], uint32_t(rank));
        merged_.push_back(merge[2]);
    }
    first_ranks_.resize(1 << 16);
    for (int pair = 0; pair < 1 << 16; ++pair) {
        first_ranks_[pair] = pairs_.get(pair >> 8, pair & 255);
    }
    if (whole_words) remember_whole(token_bytes);
    prepare_characters(token_bytes, merges, count);
}

void Merger::merge(const uint8_t* bytes, size_t length, Ids& ids) const {
    if (const uint32_t whole = whole_token(bytes, length); whole != kNone) return ids.add(whole);
    if (length == 1) return ids.add(byte_ids_[*bytes]);
    uint32_t first[kScanned];
    if (const size_t count = first_tokens(bytes, length, first)) return merge_by_scan(first, count, ids);
    merge_by_heap(bytes, length, ids);
}

// The smallest rank again and again, leftmost first. Places of tokens are bits of a word.
// `ids`: the `count` tokens to begin with, of kScanned places; changed.
void Merger::merge_by_scan(uint32_t* ids, size_t count, Ids& out) const {
    uint32_t ranks[kScanned];  // ranks[i]: that of tokens i and the next, and i
    const size_t padded = (count + 15) / 16 * 16;
    for (size_t place = 0; place + 1 < count; ++place) ranks[place] = ranked(ids[place], ids[place + 1], place);
    std::fill(ranks + count - 1, ranks + padded, kNone);
    uint64_t standing = ~0ULL >> (64 - count);
    for (;;) {
        const uint32_t best = smallest(ranks, padded);
        if (best == kNone) break;
        const size_t place = best & 63;
        ids[place] = merged_[best >> 6];
        uint64_t behind = standing & ~1ULL << place;
        const int gone = __builtin_ctzll(behind);
        ranks[gone] = kNone;
        standing &= ~(1ULL << gone);
        behind &= behind - 1;
        const uint64_t before = standing & ((1ULL << place) - 1);
        ranks[place] = behind ? ranked(ids[place], ids[__builtin_ctzll(behind)], place) : kNone;
        if (before) {
            const size_t other = size_t(63 - __builtin_clzll(before));
            ranks[other] = ranked(ids[other], ids[place], other);
        }
    }
    uint32_t* found = out.room(count);
    size_t left = 0;
    for (; standing; standing &= standing - 1) found[left++] = ids[__builtin_ctzll(standing)];
    out.wrote(left);
}

uint32_t Merger::ranked(uint32_t left, uint32_t right, size_t place) const {
    const uint32_t rank = left < 256 && right < 256 ? first_ranks_[left << 8 | right] : pairs_.get(left, right);
    return rank == kNone ? kNone : rank << 6 | uint32_t(place);
}

// A piece's tokens to begin with, at most kScanned of them, or 0 if there are more: its bytes,
// or its characters where each is one token.
//
// Why that gives the same ids: call a merge ragged when it joins two tokens where a character
// ends but the left one begins, or the right one ends, inside a character. Where no ragged merge
// can apply, every token is a part of one character or a row of whole ones. Then merges inside
// a character do not see its neighbours, and merges of whole characters are later than those
// that made them (ordered()), so doing the inner ones first changes nothing.
size_t Merger::first_tokens(const uint8_t* bytes, size_t length, uint32_t* ids) const {
    size_t count = 0, at = 0;
    while (by_characters_ && at < length) {
        const uint8_t lead = bytes[at];
        if (at && ragged_[bytes[at - 1]].test(lead)) break;
        const size_t size = lead < 0x80 ? 1 : lead < 0xC2 ? 0 : lead < 0xE0 ? 2 : lead < 0xF0 ? 3 : lead < 0xF5 ? 4 : 0;
        if (size == 0 || at + size > length || count + size > kScanned) break;
        uint32_t point = lead & (0xFF >> (size + (size > 1)));
        bool valid = true;
        for (size_t more = 1; more < size; ++more) {
            valid &= (bytes[at + more] & 0xC0) == 0x80;
            point = point << 6 | (bytes[at + more] & 0x3F);
        }
        if (!valid || (size == 3 && point < 0x800)) break;
        const uint32_t whole = size == 2 || size == 3 ? characters_[point] : kNone;
        if (whole != kNone) {
            ids[count++] = whole;
            at += size;
        } else {
            for (size_t more = 0; more < size; ++more) ids[count++] = byte_ids_[bytes[at++]];
        }
    }
    if (at == length) return count;
    if (length > kScanned) return 0;
    for (at = 0; at < length; ++at) ids[at] = byte_ids_[bytes[at]];
    return length;
}

void Merger::prepare_characters(const std::vector<nb::bytes>& token_bytes, const uint32_t* merges, size_t count) {
    for (size_t rank = 0; rank < count; ++rank) {
        const nb::bytes &left = token_bytes[merges[3 * rank]], &right = token_bytes[merges[3 * rank + 1]];
        if (left.size() == 0 || right.size() == 0) return;
        const auto first = uint8_t(right.c_str()[0]);
        if ((first & 0xC0) == 0x80) continue;
        if ((left.c_str()[0] & 0xC0) == 0x80 || !ends_whole(right)) {
            ragged_[uint8_t(left.c_str()[left.size() - 1])].set(first);
        }
    }
    characters_.assign(1 << 16, kNone);
    Ids found;
    for (uint32_t point = 0x80; point < 1 << 16; ++point) {
        uint8_t bytes[3] = {uint8_t(0xE0 | point >> 12), uint8_t(0x80 | (point >> 6 & 0x3F)), uint8_t(0x80 | (point & 0x3F))};
        uint32_t ids[kScanned];
        if (point < 0x800) bytes[1] = uint8_t(0xC0 | point >> 6);
        const size_t size = point < 0x800 ? 2 : 3, before = found.size();
        for (size_t place = 0; place < size; ++place) ids[place] = byte_ids_[bytes[3 - size + place]];
        merge_by_scan(ids, size, found);
        if (found.size() == before + 1) characters_[point] = found.data()[before];
    }
    by_characters_ = ordered(merges, count, token_bytes.size());
}

// The same by a heap over a linked list: n log n.
void Merger::merge_by_heap(const uint8_t* bytes, size_t length, Ids& out) const {
    struct Node {
        uint32_t id, rank;
        size_t before, after;
    };
    std::vector<Node> nodes(length);
    using Entry = std::pair<uint32_t, size_t>;  // rank, place: the leftmost of equals first
    std::vector<Entry> first;
    for (size_t place = 0; place < length; ++place) {
        const uint32_t rank = place + 1 < length ? pairs_.get(byte_ids_[bytes[place]], byte_ids_[bytes[place + 1]]) : kNone;
        nodes[place] = {byte_ids_[bytes[place]], rank, place - 1, place + 1};
        if (rank != kNone) first.emplace_back(rank, place);
    }
    std::priority_queue<Entry, std::vector<Entry>, std::greater<Entry>> heap(std::greater<Entry>(), std::move(first));
    const auto rate = [&](size_t place) {
        Node& node = nodes[place];
        node.rank = node.after < length ? pairs_.get(node.id, nodes[node.after].id) : kNone;
        if (node.rank != kNone) heap.emplace(node.rank, place);
    };
    while (!heap.empty()) {
        const auto [rank, place] = heap.top();
        heap.pop();
        Node& node = nodes[place];
        if (node.id == kNone || node.rank != rank) continue;  // stale
        Node& gone = nodes[node.after];
        node.id = merged_[rank];
        node.after = gone.after;
        gone.id = kNone;
        if (node.after < length) nodes[node.after].before = place;
        rate(place);
        if (place) rate(node.before);
    }
    for (size_t place = 0; place < length; place = nodes[place].after) out.add(nodes[place].id);
}

// Tokens by their bytes, for vocabularies that take a piece whole before they merge.
void Merger::remember_whole(const std::vector<nb::bytes>& token_bytes) {
    for (size_t id = 0; id < token_bytes.size(); ++id) {
        const auto* bytes = token_bytes[id].c_str();
        if (token_bytes[id].size()) whole_text_.append(bytes, token_bytes[id].size());
        whole_ends_.push_back(whole_text_.size());
    }
    size_t size = 64;
    while (size < 2 * token_bytes.size()) size *= 2;
    whole_slots_.assign(size, kNone);
    for (size_t id = 0; id < token_bytes.size(); ++id) {
        const auto [bytes, length] = whole_bytes(id);
        if (length == 0) continue;
        size_t place = word_hash(bytes, length) & (size - 1);
        while (whole_slots_[place] != kNone) place = (place + 1) & (size - 1);
        whole_slots_[place] = uint32_t(id);
    }
}

std::pair<const uint8_t*, size_t> Merger::whole_bytes(size_t id) const {
    const size_t start = id ? whole_ends_[id - 1] : 0;
    return {reinterpret_cast<const uint8_t*>(whole_text_.data()) + start, whole_ends_[id] - start};
}

uint32_t Merger::whole_token(const uint8_t* bytes, size_t length) const {
    if (whole_slots_.empty()) return kNone;
    const size_t mask = whole_slots_.size() - 1;
    for (size_t place = word_hash(bytes, length) & mask; whole_slots_[place] != kNone; place = (place + 1) & mask) {
        const auto [known, size] = whole_bytes(whole_slots_[place]);
        if (size == length && std::memcmp(known, bytes, length) == 0) return whole_slots_[place];
    }
    return kNone;
}

}  // namespace penjing
