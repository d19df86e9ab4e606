// Texts to ids: cut into pieces, whose ids merger.cpp finds.
//
// Pieces of up to 15 bytes are remembered in a cache of fixed size, a caller or thread each, which
// begins with the vocabulary's own tokens; what it holds never changes a result. Special tokens are
// unknown here.
#include <algorithm>
#include <exception>
#include <memory>
#include <mutex>
#include <thread>

#include "bindings.hpp"
#include "merger.hpp"
#include "short_key.hpp"

namespace penjing {
namespace {

constexpr size_t kCacheSets = 1 << 16;
constexpr size_t kCachedIds = 3;  // makes a set one cache line
constexpr size_t kAhead = 16;     // pieces whose slots are fetched in advance

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

class Encoder {
   public:
    Encoder(const std::vector<nb::bytes>& token_bytes, nb::ndarray<const uint32_t, nb::shape<-1, 3>, nb::c_contig, nb::device::cpu> merges,
            const std::string& pattern, bool whole_words)
        : pattern_(pattern_of(pattern)), merger_(token_bytes, merges.data(), merges.shape(0), whole_words) {
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
        if (word.size()) merger_.merge(reinterpret_cast<const uint8_t*>(word.c_str()), word.size(), ids);
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
            std::vector<std::exception_ptr> failures(threads);
            const auto work = [&](size_t part) {
                try {
                    encode_documents(data, ends, firsts[part], firsts[part + 1], parts[part], id_ends.data());
                } catch (...) {  // memory ran out: told below, once no thread works any more
                    failures[part] = std::current_exception();
                }
            };
            std::vector<std::thread> others;
            for (size_t part = 1; part < threads; ++part) others.emplace_back(work, part);
            work(0);
            for (std::thread& other : others) other.join();
            for (const std::exception_ptr& failure : failures) {
                if (failure) std::rethrow_exception(failure);
            }
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
        if (piece.length > kShortBytes) return merger_.merge(bytes, piece.length, ids);
        if (const CacheSlot* slot = cache.find(piece.key, piece.hash)) {
            std::memcpy(ids.room(kCachedIds), slot->ids, sizeof slot->ids);
            ids.wrote(slot->count);
            return;
        }
        const size_t before = ids.size();
        merger_.merge(bytes, piece.length, ids);
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
            merger_.merge(bytes, token.size(), ids);
            remember(slot, key, ids, before);
        }
    }

    Pattern pattern_;
    Merger merger_;
    Cache first_cache_;  // what every cache begins as
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
