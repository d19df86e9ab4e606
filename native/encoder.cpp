// Text to ids by a vocabulary's merges: exact, and linear but for a logarithm in a piece's length.
//
// Pieces of up to 15 bytes are remembered in a cache of fixed size, a caller or thread each; what
// it holds never changes a result. Special tokens are unknown here.
#include <algorithm>
#include <memory>
#include <mutex>
#include <queue>
#include <thread>

#include "bindings.hpp"
#include "short_key.hpp"

namespace penjing {
namespace {

constexpr uint32_t kNone = UINT32_MAX;
constexpr size_t kScanned = 256;      // longer pieces are merged by a heap
constexpr size_t kCacheSlots = 1 << 16;
constexpr size_t kCachedIds = 11;     // makes a slot one cache line
constexpr size_t kAhead = 16;         // pieces whose slots are fetched in advance

// (left, right) -> rank of their merge.
class PairTable {
   public:
    void reserve(size_t pairs) {
        size_t size = 64;
        while (size < 2 * pairs) size *= 2;
        slots_.assign(size, {UINT64_MAX, kNone});
    }

    void set(uint32_t left, uint32_t right, uint32_t rank) {
        const uint64_t key = uint64_t(left) << 32 | right;
        size_t place = home(key);
        while (slots_[place].key != UINT64_MAX && slots_[place].key != key) place = (place + 1) & (slots_.size() - 1);
        if (slots_[place].key == UINT64_MAX) slots_[place] = {key, rank};  // the earlier merge counts
    }

    uint32_t get(uint32_t left, uint32_t right) const {
        const uint64_t key = uint64_t(left) << 32 | right;
        for (size_t place = home(key);; place = (place + 1) & (slots_.size() - 1)) {
            if (slots_[place].key == key) return slots_[place].rank;
            if (slots_[place].key == UINT64_MAX) return kNone;
        }
    }

   private:
    struct Slot {
        uint64_t key;
        uint32_t rank;
    };

    size_t home(uint64_t key) const {
        return size_t((key * 0x9E3779B97F4A7C15ULL) >> 20) & (slots_.size() - 1);
    }

    std::vector<Slot> slots_;
};

struct CacheSlot {
    ShortKey key;
    uint32_t count;
    uint32_t ids[kCachedIds];
};

struct Cache {
    std::vector<CacheSlot> slots = std::vector<CacheSlot>(kCacheSlots, CacheSlot{{0, 0}, 0, {}});
};

// The place of the smallest rank, the first of equals; `count` > 0 is a multiple of 16.
__attribute__((target_clones("avx2", "default"))) size_t smallest(const uint32_t* ranks, size_t count) {
    uint32_t lanes[16];
    for (int lane = 0; lane < 16; ++lane) lanes[lane] = ranks[lane];
    for (size_t place = 16; place < count; place += 16) {
        for (int lane = 0; lane < 16; ++lane) {
            lanes[lane] = ranks[place + lane] < lanes[lane] ? ranks[place + lane] : lanes[lane];
        }
    }
    uint32_t least = lanes[0];
    for (int lane = 1; lane < 16; ++lane) least = lanes[lane] < least ? lanes[lane] : least;
    for (size_t place = 0;; place += 16) {
        uint32_t found = 0;
        for (int lane = 0; lane < 16; ++lane) found |= ranks[place + lane] == least;
        if (!found) continue;
        while (ranks[place] != least) ++place;
        return place;
    }
}

class Encoder {
   public:
    Encoder(const std::vector<nb::bytes>& token_bytes, nb::ndarray<const uint32_t, nb::shape<-1, 3>, nb::c_contig, nb::device::cpu> merges,
            const std::string& pattern, bool whole_words)
        : pattern_(pattern_of(pattern)) {
        const size_t count = merges.shape(0), vocabulary = token_bytes.size();
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
            first_ranks_[pair] = pairs_.get(byte_ids_[pair >> 8], byte_ids_[pair & 255]);
        }
        if (whole_words) remember_whole(token_bytes);
    }

    nb::ndarray<nb::numpy, uint32_t, nb::ndim<1>> encode(const nb::bytes& text) {
        std::vector<uint32_t> ids;
        const Borrowed cache(*this);
        encode_text(reinterpret_cast<const uint8_t*>(text.c_str()), text.size(), text.size(), *cache, ids);
        return array_of(std::move(ids));
    }

    auto encode_batch(const ByteArray& data, const EndArray& ends, size_t threads) {
        check_ends(ends, data.size());
        const size_t documents = ends.size();
        std::vector<int64_t> id_ends(documents);
        std::vector<uint32_t> ids;
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
            std::vector<std::vector<uint32_t>> parts(threads);
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
                    ids.insert(ids.end(), parts[part].begin(), parts[part].end());
                    std::vector<uint32_t>().swap(parts[part]);
                }
            }
        }
        return std::make_pair(array_of(std::move(ids)), array_of(std::move(id_ends)));
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
                cache_ = std::make_unique<Cache>();
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
                          std::vector<uint32_t>& ids, int64_t* id_ends) {
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
    void encode_text(const uint8_t* text, size_t size, size_t readable, Cache& cache, std::vector<uint32_t>& ids) {
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
            __builtin_prefetch(&cache.slots[piece.hash & (kCacheSlots - 1)]);
        });
        for (size_t place = seen > kAhead ? seen - kAhead : 0; place < seen; ++place) {
            encode_piece(text, waiting[place % kAhead], cache, ids);
        }
    }

    void encode_piece(const uint8_t* text, const Piece& piece, Cache& cache, std::vector<uint32_t>& ids) {
        const uint8_t* bytes = text + piece.start;
        if (piece.length > kShortBytes) {
            if (const uint32_t whole = whole_token(bytes, piece.length); whole != kNone) {
                ids.push_back(whole);
            } else {
                merge(bytes, piece.length, ids);
            }
            return;
        }
        CacheSlot& slot = cache.slots[piece.hash & (kCacheSlots - 1)];
        if (slot.key == piece.key) {
            ids.insert(ids.end(), slot.ids, slot.ids + slot.count);
            return;
        }
        const size_t before = ids.size();
        if (const uint32_t whole = whole_token(bytes, piece.length); whole != kNone) {
            ids.push_back(whole);
        } else {
            merge(bytes, piece.length, ids);
        }
        const size_t count = ids.size() - before;
        if (count > kCachedIds) return;
        slot.key = piece.key;
        slot.count = uint32_t(count);
        std::copy(ids.begin() + int64_t(before), ids.end(), slot.ids);
    }

    void merge(const uint8_t* bytes, size_t length, std::vector<uint32_t>& ids) const {
        if (length == 1) {
            ids.push_back(byte_ids_[*bytes]);
        } else if (length <= kScanned) {
            merge_by_scan(bytes, length, ids);
        } else {
            merge_by_heap(bytes, length, ids);
        }
    }

    // The smallest rank again and again, leftmost first: a short list is searched faster than sorted.
    void merge_by_scan(const uint8_t* bytes, size_t length, std::vector<uint32_t>& out) const {
        uint32_t ids[kScanned], ranks[kScanned + 16];
        for (size_t place = 0; place < length; ++place) ids[place] = byte_ids_[bytes[place]];
        for (size_t place = 0; place + 1 < length; ++place) ranks[place] = first_ranks_[bytes[place] << 8 | bytes[place + 1]];
        size_t count = length;  // tokens; ranks[i] is that of tokens i and i + 1
        const size_t padded = ((length - 1) / 16 + 1) * 16;
        for (size_t place = length - 1; place < padded; ++place) ranks[place] = kNone;
        while (count > 1) {
            const size_t place = smallest(ranks, ((count - 2) / 16 + 1) * 16);
            const uint32_t rank = ranks[place];
            if (rank == kNone) break;
            ids[place] = merged_[rank];
            const size_t moved = count - place - 2;  // tokens behind the pair
            std::memmove(ids + place + 1, ids + place + 2, moved * 4);
            if (moved) std::memmove(ranks + place, ranks + place + 1, moved * 4);
            --count;
            ranks[count - 1] = kNone;
            if (moved) ranks[place] = pairs_.get(ids[place], ids[place + 1]);
            if (place) ranks[place - 1] = pairs_.get(ids[place - 1], ids[place]);
        }
        out.insert(out.end(), ids, ids + count);
    }

    // The same by a heap over a linked list: n log n.
    void merge_by_heap(const uint8_t* bytes, size_t length, std::vector<uint32_t>& out) const {
        struct Node {
            uint32_t id, rank;
            size_t before, after;
        };
        std::vector<Node> nodes(length);
        using Entry = std::pair<uint32_t, size_t>;  // rank, place: the leftmost of equals first
        std::vector<Entry> first;
        for (size_t place = 0; place < length; ++place) {
            const uint32_t rank = place + 1 < length ? first_ranks_[bytes[place] << 8 | bytes[place + 1]] : kNone;
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
        for (size_t place = 0; place < length; place = nodes[place].after) out.push_back(nodes[place].id);
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
    std::vector<uint32_t> merged_;        // rank -> id
    std::vector<uint32_t> first_ranks_;   // two bytes -> rank
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
        .def("encode_batch", &Encoder::encode_batch, nb::arg("data"), nb::arg("ends"), nb::arg("threads"));
}

}  // namespace penjing
