// Text to ids by a vocabulary's merges: exact, and linear but for a logarithm in a piece's length.
//
// Pieces of up to 15 bytes are remembered in a cache of fixed size, a caller or thread each, which
// begins with the vocabulary's own tokens; what it holds never changes a result. Special tokens are
// unknown here.
#include <algorithm>
#include <bitset>
#include <memory>
#include <mutex>
#include <queue>
#include <thread>

#include "bindings.hpp"
#include "short_key.hpp"

namespace penjing {
namespace {

constexpr uint32_t kNone = UINT32_MAX;
constexpr uint32_t kMaxIds = 1 << 20;  // so that a pair and its rank fit a word of 64 bits
constexpr size_t kScanned = 64;        // longer pieces are merged by a heap
constexpr size_t kCacheSets = 1 << 16;
constexpr size_t kCachedIds = 3;       // makes a set one cache line
constexpr size_t kAhead = 16;          // pieces whose slots are fetched in advance

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

struct CacheSlot {
    ShortKey key;
    uint32_t ids[kCachedIds];
    uint32_t count;  // of ids; 0: free
};

// A new piece takes the second slot; a piece that is met again goes to the first.
struct alignas(64) CacheSet {
    CacheSlot slots[2] = {};
};

struct Cache {
    std::vector<CacheSet> sets = std::vector<CacheSet>(kCacheSets);

    CacheSlot* set_of(uint64_t hash) { return sets[hash & (kCacheSets - 1)].slots; }

    // Null when it is not there.
    const CacheSlot* find(const ShortKey& key, uint64_t hash) {
        CacheSlot* set = set_of(hash);
        if (set[0].key == key) return set;
        if (!(set[1].key == key)) return nullptr;
        std::swap(set[0], set[1]);
        return set;
    }
};

// Ids in memory that is not cleared before it is written.
class Ids {
   public:
    Ids() = default;
    Ids(Ids&& other) noexcept { *this = std::move(other); }
    Ids& operator=(Ids&& other) noexcept {
        std::swap(data_, other.data_);
        std::swap(size_, other.size_);
        std::swap(capacity_, other.capacity_);
        return *this;
    }
    ~Ids() { std::free(data_); }

    size_t size() const { return size_; }
    const uint32_t* data() const { return data_; }

    // Where `count` more may be written; `wrote` says how many were.
    uint32_t* room(size_t count) {
        if (size_ + count > capacity_) {
            const size_t wanted = std::max(size_ + count, 2 * capacity_ + 64);
            void* moved = std::realloc(data_, wanted * sizeof(uint32_t));
            if (moved == nullptr) throw std::bad_alloc();
            data_ = static_cast<uint32_t*>(moved);
            capacity_ = wanted;
        }
        return data_ + size_;
    }
    void wrote(size_t count) { size_ += count; }
    void add(uint32_t id) {
        *room(1) = id;
        wrote(1);
    }
    void add(const Ids& others) {
        if (others.size_) std::memcpy(room(others.size_), others.data_, others.size_ * sizeof(uint32_t));
        wrote(others.size_);
    }

    nb::ndarray<nb::numpy, uint32_t, nb::ndim<1>> to_numpy() && {
        auto* owned = new Ids(std::move(*this));
        owned->room(1);  // numpy wants an address
        nb::capsule owner(owned, [](void* pointer) noexcept { delete static_cast<Ids*>(pointer); });
        return {owned->data_, {owned->size_}, owner};
    }

   private:
    uint32_t* data_ = nullptr;
    size_t size_ = 0, capacity_ = 0;
};

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

class Encoder {
   public:
    Encoder(const std::vector<nb::bytes>& token_bytes, nb::ndarray<const uint32_t, nb::shape<-1, 3>, nb::c_contig, nb::device::cpu> merges,
            const std::string& pattern, bool whole_words)
        : pattern_(pattern_of(pattern)) {
        const size_t count = merges.shape(0), vocabulary = token_bytes.size();
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
            const uint32_t* merge = merges.data() + 3 * rank;
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
        prepare_characters(token_bytes, merges.data(), count);
        fill_cache(token_bytes);
    }

    nb::ndarray<nb::numpy, uint32_t, nb::ndim<1>> encode(const nb::bytes& text) {
        Ids ids;
        const Borrowed cache(*this);
        encode_text(reinterpret_cast<const uint8_t*>(text.c_str()), text.size(), text.size(), *cache, ids);
        return std::move(ids).to_numpy();
    }

    nb::ndarray<nb::numpy, uint32_t, nb::ndim<1>> encode_word(const nb::bytes& word) const {
        Ids ids;
        if (word.size()) encode_unknown(reinterpret_cast<const uint8_t*>(word.c_str()), word.size(), ids);
        return std::move(ids).to_numpy();
    }

    auto encode_batch(const ByteArray& data, const EndArray& ends, size_t threads) {
        check_ends(ends, data.size());
        const size_t documents = ends.size();
        std::vector<int64_t> id_ends(documents);
        Ids ids;
        {
            nb::gil_scoped_release unlocked;
            threads = std::max<size_t>(1, std::min(threads, documents));
            // Documents are dealt out by bytes, in order, so that the parts only have to be joined.
            std::vector<size_t> firsts(threads + 1, documents);
            firsts[0] = 0;
            const int64_t total = documents ? ends.data()[documents - 1] : 0;
            for (size_t part = 1; part < threads; ++part) {
                const int64_t* found = std::lower_bound(ends.data(), ends.data() + documents, total * int64_t(part) / int64_t(threads));
                firsts[part] = size_t(found - ends.data());
            }
            std::vector<Ids> parts(threads);
            const auto work = [&](size_t part) {
                encode_documents(data, ends, firsts[part], firsts[part + 1], parts[part], id_ends.data());
            };
            std::vector<std::thread> others;
            for (size_t part = 1; part < threads; ++part) others.emplace_back(work, part);
            work(0);
            for (std::thread& other : others) other.join();
            if (threads == 1) {
                ids = std::move(parts[0]);
            } else {
                for (size_t part = 0; part < threads; ++part) {
                    for (size_t place = firsts[part]; place < firsts[part + 1]; ++place) id_ends[place] += int64_t(ids.size());
                    ids.add(parts[part]);
                    parts[part] = Ids();
                }
            }
        }
        return std::make_pair(std::move(ids).to_numpy(), array_of(std::move(id_ends)));
    }

    Encoder(const Encoder&) = delete;
    Encoder& operator=(const Encoder&) = delete;

   private:
    struct Piece {
        ShortKey key;
        uint64_t hash;
        size_t start, length;
    };

    // A cache for the time of one call; another thread's call gets another one.
    class Borrowed {
       public:
        explicit Borrowed(Encoder& encoder) : encoder_(encoder) {
            const std::lock_guard<std::mutex> lock(encoder_.mutex_);
            if (!encoder_.caches_.empty()) {
                cache_ = std::move(encoder_.caches_.back());
                encoder_.caches_.pop_back();
            } else {
                cache_ = std::make_unique<Cache>(encoder.first_cache_);
            }
        }
        ~Borrowed() {
            const std::lock_guard<std::mutex> lock(encoder_.mutex_);
            encoder_.caches_.push_back(std::move(cache_));
        }
        Borrowed(const Borrowed&) = delete;
        Borrowed& operator=(const Borrowed&) = delete;
        Cache& operator*() const { return *cache_; }

       private:
        Encoder& encoder_;
        std::unique_ptr<Cache> cache_;
    };

    void encode_documents(const ByteArray& data, const EndArray& ends, size_t first, size_t stop,
                          Ids& ids, int64_t* id_ends) {
        const Borrowed cache(*this);
        size_t start = first ? size_t(ends.data()[first - 1]) : 0;
        for (size_t document = first; document < stop; ++document) {
            const size_t end = size_t(ends.data()[document]);
            encode_text(data.data() + start, end - start, data.size() - start, *cache, ids);
            id_ends[document] = int64_t(ids.size());
            start = end;
        }
    }

    // `readable`: bytes that may be read from `text` on.
    void encode_text(const uint8_t* text, size_t size, size_t readable, Cache& cache, Ids& ids) {
        Piece waiting[kAhead];
        size_t seen = 0;
        scan(pattern_, text, size, [&](size_t start, size_t end) {
            Piece& piece = waiting[seen % kAhead];
            if (seen++ >= kAhead) encode_piece(text, piece, cache, ids);
            piece.start = start;
            piece.length = end - start;
            if (piece.length > kShortBytes) return;
            piece.key = short_key(text + start, piece.length, readable - start);
            piece.hash = piece.key.hash();
            __builtin_prefetch(cache.set_of(piece.hash));
        });
        for (size_t place = seen > kAhead ? seen - kAhead : 0; place < seen; ++place) {
            encode_piece(text, waiting[place % kAhead], cache, ids);
        }
    }

    void encode_piece(const uint8_t* text, const Piece& piece, Cache& cache, Ids& ids) const {
        const uint8_t* bytes = text + piece.start;
        if (piece.length > kShortBytes) return encode_unknown(bytes, piece.length, ids);
        if (const CacheSlot* slot = cache.find(piece.key, piece.hash)) {
            std::memcpy(ids.room(kCachedIds), slot->ids, sizeof slot->ids);
            ids.wrote(slot->count);
            return;
        }
        const size_t before = ids.size();
        encode_unknown(bytes, piece.length, ids);
        remember(cache.set_of(piece.hash)[1], piece.key, ids, before);
    }

    // Ids from `before` on into a slot, if they fit.
    static void remember(CacheSlot& slot, const ShortKey& key, const Ids& ids, size_t before) {
        const size_t count = ids.size() - before;
        if (count > kCachedIds) return;
        slot.key = key;
        slot.count = uint32_t(count);
        std::copy(ids.data() + before, ids.data() + ids.size(), slot.ids);
    }

    void encode_unknown(const uint8_t* bytes, size_t length, Ids& ids) const {
        if (const uint32_t whole = whole_token(bytes, length); whole != kNone) return ids.add(whole);
        if (length == 1) return ids.add(byte_ids_[*bytes]);
        uint32_t first[kScanned];
        if (const size_t count = first_tokens(bytes, length, first)) return merge_by_scan(first, count, ids);
        merge_by_heap(bytes, length, ids);
    }

    // The vocabulary's tokens as pieces, those of small ids first: most pieces of a text are such.
    void fill_cache(const std::vector<nb::bytes>& token_bytes) {
        Ids ids;
        for (const nb::bytes& token : token_bytes) {
            if (token.size() == 0 || token.size() > kShortBytes) continue;
            const auto* bytes = reinterpret_cast<const uint8_t*>(token.c_str());
            const ShortKey key = short_key(bytes, token.size(), token.size());
            CacheSlot* set = first_cache_.set_of(key.hash());
            CacheSlot& slot = set[0].count ? set[1] : set[0];
            if (slot.count) continue;
            const size_t before = ids.size();
            encode_unknown(bytes, token.size(), ids);
            remember(slot, key, ids, before);
        }
    }

    // The smallest rank again and again, leftmost first. Places of tokens are bits of a word.
    // `ids`: the `count` tokens to begin with, of kScanned places; changed.
    void merge_by_scan(uint32_t* ids, size_t count, Ids& out) const {
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

    uint32_t ranked(uint32_t left, uint32_t right, size_t place) const {
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
    size_t first_tokens(const uint8_t* bytes, size_t length, uint32_t* ids) const {
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

    // Whether every merge comes after those that made its parts.
    static bool ordered(const uint32_t* merges, size_t count, size_t vocabulary) {
        std::vector<uint32_t> made(vocabulary, 0);  // 1 + rank
        for (size_t rank = 0; rank < count; ++rank) made[merges[3 * rank + 2]] = uint32_t(rank + 1);
        for (size_t rank = 0; rank < count; ++rank) {
            if (made[merges[3 * rank]] > rank || made[merges[3 * rank + 1]] > rank) return false;
        }
        return true;
    }

    void prepare_characters(const std::vector<nb::bytes>& token_bytes, const uint32_t* merges, size_t count) {
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

    // Whether a token's last character is all there.
    static bool ends_whole(const nb::bytes& token) {
        size_t place = token.size();
        while (place && (token.c_str()[place - 1] & 0xC0) == 0x80) --place;
        if (place == 0) return false;
        const auto lead = uint8_t(token.c_str()[place - 1]);
        return token.size() - place + 1 == (lead < 0xC0 ? 1u : lead < 0xE0 ? 2u : lead < 0xF0 ? 3u : 4u);
    }

    // The same by a heap over a linked list: n log n.
    void merge_by_heap(const uint8_t* bytes, size_t length, Ids& out) const {
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
    void remember_whole(const std::vector<nb::bytes>& token_bytes) {
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

    std::pair<const uint8_t*, size_t> whole_bytes(size_t id) const {
        const size_t start = id ? whole_ends_[id - 1] : 0;
        return {reinterpret_cast<const uint8_t*>(whole_text_.data()) + start, whole_ends_[id] - start};
    }

    uint32_t whole_token(const uint8_t* bytes, size_t length) const {
        if (whole_slots_.empty()) return kNone;
        const size_t mask = whole_slots_.size() - 1;
        for (size_t place = word_hash(bytes, length) & mask; whole_slots_[place] != kNone; place = (place + 1) & mask) {
            const auto [known, size] = whole_bytes(whole_slots_[place]);
            if (size == length && std::memcmp(known, bytes, length) == 0) return whole_slots_[place];
        }
        return kNone;
    }

    Pattern pattern_;
    uint32_t byte_ids_[256];
    PairTable pairs_;
    Cache first_cache_;  // what every cache begins as
    bool by_characters_ = false;
    std::bitset<256> ragged_[256];      // [last byte of the left token], first of the right one
    std::vector<uint32_t> characters_;  // code point up to 2^16 -> its token if it is one
    std::vector<uint32_t> merged_;        // rank -> id
    std::vector<uint32_t> first_ranks_;   // two ids below 256 -> rank
    std::string whole_text_;
    std::vector<size_t> whole_ends_;
    std::vector<uint32_t> whole_slots_;
    std::mutex mutex_;
    std::vector<std::unique_ptr<Cache>> caches_;
};

}  // namespace

void bind_encoder(nb::module_& module) {
    nb::class_<Encoder>(module, "Encoder")
        .def(nb::init<const std::vector<nb::bytes>&, nb::ndarray<const uint32_t, nb::shape<-1, 3>, nb::c_contig, nb::device::cpu>, const std::string&, bool>(),
             nb::arg("token_bytes"), nb::arg("merges"), nb::arg("pattern"), nb::arg("whole_words"))
        .def("encode", &Encoder::encode, nb::arg("text"))
        .def("encode_word", &Encoder::encode_word, nb::arg("word"))
        .def("encode_batch", &Encoder::encode_batch, nb::arg("data"), nb::arg("ends"), nb::arg("threads"));
}

}  // namespace penjing
