// Learns byte-pair merges from word counts: exact, deterministic, in about 12 bytes a byte of words.
//
// All words lie in one array of slots, one slot a byte, with an edge between words. A token of n
// bytes is written in its first and its last slot, so both neighbours of a token are found without
// a search, and nothing ever moves. A slot also names its word's weight (the count), by number.
//
// A pair of tokens can only come to be in the step that makes the newer of the two, and afterwards
// only lose occurrences. So its list of places is written once, in ascending order, by that step;
// entries whose place has changed since are passed over. There is no table of pair counts: a
// candidate's count is an upper bound until its list is walked, which is done when it comes to the
// top of the heap; if it has fallen, it goes back with the true count.
//
// Most pairs are too rare to be merged ever. Pairs below `floor_`, a cautious guess of the last
// merge's count, get no list; should the candidates run out above the floor, all pairs are counted
// again, so that the guess never changes the result.
#include "trainer.hpp"

#include <algorithm>
#include <cmath>
#include <memory>
#include <unordered_map>

#if defined(__linux__)
#include <sys/mman.h>
#endif

namespace penjing {
namespace {

constexpr int64_t kMinPairCount = 2;  // a pair seen once is no regularity
constexpr size_t kAhead = 32;         // places fetched in advance: hides most of the memory's latency

using Place = uint32_t;

struct Candidate {
    int64_t count;  // an upper bound
    uint32_t left, right;
    uint32_t size;
    std::unique_ptr<Place[]> places;

    // Order of the heap: the larger count first, then the smaller pair.
    bool operator<(const Candidate& other) const {
        if (count != other.count) return count < other.count;
        return left != other.left ? left > other.left : right > other.right;
    }
};

// Words' sizes and their distinct weights, found in a first pass over the blobs.
struct Survey {
    size_t slots = 1;
    std::vector<int64_t> weights;                      // by number
    std::vector<uint32_t> small;                       // weight -> number, below 2^16
    std::unordered_map<uint64_t, uint32_t> large;      // the others

    explicit Survey(const std::vector<Bytes>& blobs) : small(1 << 16) {
        uint64_t pairs = 0;
        for (const Bytes& blob : blobs) {
            WordReader reader(blob);
            for (Word word{}; reader.next(word);) {
                if (word.length < 2) continue;
                slots += word.length + 1;
                uint64_t mass;
                if (__builtin_mul_overflow(word.length - 1, word.count, &mass) ||
                    __builtin_add_overflow(pairs, mass, &pairs) || pairs > uint64_t(INT64_MAX)) {
                    throw std::length_error("word counts sum over 2^63");
                }
                uint32_t& number = word.count < small.size() ? small[word.count] : large[word.count];
                if (number == 0) {
                    weights.push_back(int64_t(word.count));
                    number = uint32_t(weights.size());  // one more than the index; 0 is "not seen"
                }
            }
        }
        if (slots > UINT32_MAX) {
            throw std::length_error("over 4 GiB of words: train with less train_memory_bytes");
        }
    }

    uint32_t number(uint64_t count) const {
        return (count < small.size() ? small[count] : large.at(count)) - 1;
    }
};

// Pair -> its summed weight, number of places and, later, its list. Open addressing.
class PairTable {
   public:
    struct Entry {
        uint64_t key = UINT64_MAX;
        int64_t weight = 0;
        uint32_t size = 0;
        Place* next = nullptr;
    };

    PairTable() : entries_(1 << 16) {}

    Entry& operator()(uint32_t left, uint32_t right) {
        const uint64_t key = uint64_t(left) << 32 | right;
        Entry* entry = find(key);
        if (entry->key != key) {
            if (++used_ * 3 > entries_.size() * 2) {
                grow();
                entry = find(key);
            }
            entry->key = key;
        }
        return *entry;
    }

    std::vector<Entry>& entries() { return entries_; }

   private:
    Entry* find(uint64_t key) {
        size_t at = size_t((key * 0x9E3779B97F4A7C15u) >> 20) & (entries_.size() - 1);
        while (entries_[at].key != key && entries_[at].key != UINT64_MAX) {
            at = (at + 1) & (entries_.size() - 1);
        }
        return &entries_[at];
    }

    void grow() {
        std::vector<Entry> old(entries_.size() * 2);
        old.swap(entries_);
        for (const Entry& entry : old) {
            if (entry.key != UINT64_MAX) *find(entry.key) = entry;
        }
    }

    std::vector<Entry> entries_;
    size_t used_ = 0;
};

// The same for bytes alone, before the first merge.
class BytePairTable {
   public:
    BytePairTable() : entries_(1 << 16) {
        for (size_t pair = 0; pair < entries_.size(); ++pair) {
            entries_[pair].key = uint64_t(pair >> 8) << 32 | (pair & 0xFF);
        }
    }

    PairTable::Entry& operator()(uint32_t left, uint32_t right) { return entries_[left << 8 | right]; }
    std::vector<PairTable::Entry>& entries() { return entries_; }

   private:
    std::vector<PairTable::Entry> entries_;
};

// What stands on one side of the merged pair, by token.
struct Side {
    struct Tally {
        int64_t weight = 0;
        uint32_t size = 0;
        Place* next = nullptr;
    };
    struct Found {
        uint32_t token;
        Place place;
    };
    std::vector<Tally> tallies;
    std::vector<uint32_t> tokens;  // those with a tally
    std::vector<Found> found;

    void note(uint32_t token, int64_t weight, Place place) {
        Tally& tally = tallies[token];
        tally.weight += weight;
        if (tally.size++ == 0) tokens.push_back(token);
        found.push_back({token, place});
    }

    void clear() {
        for (const uint32_t token : tokens) tallies[token] = Tally();
        tokens.clear();
        found.clear();
    }
};

template <class Number>  // uint16_t or uint32_t, for ids and for numbers of weights
class Trainer {
   public:
    static constexpr Number kEdge = Number(-1);  // between words; also where a token began that is gone

    Trainer(const std::vector<Bytes>& blobs, Survey&& survey, size_t num_merges)
        : wanted_(num_merges), weights_(std::move(survey.weights)), size_(survey.slots) {
        slots_.reset(static_cast<Slot*>(std::aligned_alloc(kPage, (size_ * sizeof(Slot) + kPage - 1) / kPage * kPage)));
        if (!slots_) throw std::bad_alloc();
#if defined(__linux__)
        madvise(slots_.get(), size_ * sizeof(Slot), MADV_HUGEPAGE);
#endif
        Slot* slot = slots_.get();
        *slot++ = {kEdge, 0};
        for (const Bytes& blob : blobs) {
            WordReader reader(blob);
            for (Word word{}; reader.next(word);) {
                if (word.length < 2) continue;
                const Number weight = Number(survey.number(word.count));
                for (size_t i = 0; i < word.length; ++i) *slot++ = {word.bytes[i], weight};
                *slot++ = {kEdge, 0};
            }
        }
        lengths_.assign(256, 1);
        for (Side* side : {&before_, &after_}) side->tallies.resize(256 + num_merges);
    }

    Merges run(const Tick& tick) {
        list_all(BytePairTable(), kMinPairCount);
        Merges merges;
        merges.pairs.reserve(2 * wanted_);
        while (merges.counts.size() < wanted_) {
            if (heap_.empty() || heap_.front().count < floor_) {
                if (floor_ <= kMinPairCount) break;
                may_guess_ = false;
                list_all(PairTable(), kMinPairCount);
                continue;
            }
            std::pop_heap(heap_.begin(), heap_.end());
            Candidate best = std::move(heap_.back());
            heap_.pop_back();
            const int64_t bound = best.count;
            recount(best);
            if (best.count < bound) {
                if (best.count >= floor_) push(std::move(best));
                continue;
            }
            merges.pairs.push_back(best.left);
            merges.pairs.push_back(best.right);
            merges.counts.push_back(best.count);
            guess_floor(best.count, merges.counts.size());
            merge(best);
            tick(merges.counts.size());
        }
        return merges;
    }

   private:
    struct Slot {
        Number token;
        Number weight;
    };
    struct Free {
        void operator()(Slot* slots) const { std::free(slots); }
    };
    static constexpr size_t kPage = 1 << 21;

    void push(Candidate&& candidate) {
        heap_.push_back(std::move(candidate));
        std::push_heap(heap_.begin(), heap_.end());
    }

    template <class Visit>
    void for_each_pair(const Visit& visit) const {
        for (size_t at = 1; at < size_;) {
            const Number left = slots_[at].token;
            const size_t next = at + lengths_[left];
            const Number right = slots_[next].token;
            if (right != kEdge) visit(left, right, at);
            at = right == kEdge ? next + 1 : next;
        }
    }

    // Lists every pair of at least `floor` anew.
    template <class Table>
    void list_all(Table table, int64_t floor) {
        heap_.clear();
        floor_ = floor;
        for_each_pair([&](Number left, Number right, size_t at) {
            auto& entry = table(left, right);
            entry.weight += weights_[slots_[at].weight];
            ++entry.size;
        });
        for (auto& entry : table.entries()) {
            if (entry.weight < floor) continue;
            heap_.push_back(listed(entry.weight, uint32_t(entry.key >> 32), uint32_t(entry.key), entry.size, entry.next));
        }
        std::make_heap(heap_.begin(), heap_.end());
        for_each_pair([&](Number left, Number right, size_t at) {
            auto& entry = table(left, right);
            if (entry.next) *entry.next++ = Place(at);
        });
    }

    static Candidate listed(int64_t count, uint32_t left, uint32_t right, uint32_t size, Place*& next) {
        std::unique_ptr<Place[]> places(new Place[size]);
        next = places.get();
        return {count, left, right, size, std::move(places)};
    }

    bool stands(const Candidate& pair, Place place, uint32_t length) const {
        return slots_[place].token == pair.left && slots_[place + length].token == pair.right;
    }

    // Sets the true count, and leaves only the places where the pair still stands.
    void recount(Candidate& pair) const {
        const uint32_t length = lengths_[pair.left];
        Place* places = pair.places.get();
        uint32_t kept = 0;
        int64_t count = 0;
        for (uint32_t i = 0; i < pair.size; ++i) {
            if (i + kAhead < pair.size) __builtin_prefetch(&slots_[places[i + kAhead]]);
            const Place place = places[i];
            if (!stands(pair, place, length)) continue;
            count += weights_[slots_[place].weight];
            places[kept++] = place;
        }
        pair.count = count;
        pair.size = kept;
    }

    void merge(const Candidate& pair) {
        const uint32_t token = uint32_t(lengths_.size());
        const uint32_t first = lengths_[pair.left], length = first + lengths_[pair.right];
        lengths_.push_back(length);
        for (uint32_t i = 0; i < pair.size; ++i) {
            if (i + kAhead < pair.size) __builtin_prefetch(&slots_[pair.places[i + kAhead]]);
            const Place place = pair.places[i];
            if (!stands(pair, place, first)) continue;  // it overlapped the one before
            const int64_t weight = weights_[slots_[place].weight];
            slots_[place + first].token = kEdge;
            slots_[place].token = slots_[place + length - 1].token = Number(token);
            const Number left = slots_[place - 1].token, right = slots_[place + length].token;
            if (left != kEdge) {
                before_.note(left, weight, place - lengths_[left]);
                // That neighbour took our left part for its right neighbour; its place is stale.
                if (left == token) after_.tallies[pair.left].weight -= weight;
            }
            if (right != kEdge) after_.note(right, weight, place);
        }
        for (const uint32_t left : before_.tokens) list_new(left, token, before_.tallies[left]);
        for (const uint32_t right : after_.tokens) list_new(token, right, after_.tallies[right]);
        for (Side* side : {&before_, &after_}) {
            for (const auto& found : side->found) {
                Place*& next = side->tallies[found.token].next;
                if (next) *next++ = found.place;
            }
            side->clear();
        }
    }

    void list_new(uint32_t left, uint32_t right, Side::Tally& tally) {
        if (tally.weight >= floor_) push(listed(tally.weight, left, right, tally.size, tally.next));
    }

    // Counts of successive merges fall about as k^-1.2; half of k^-1.5 leaves room for error.
    void guess_floor(int64_t count, size_t done) {
        if (!may_guess_) return;
        const double guess = 0.5 * double(count) * std::pow(double(done) / double(wanted_), 1.5);
        floor_ = std::max(floor_, int64_t(guess));
    }

    size_t wanted_;
    std::vector<int64_t> weights_;
    size_t size_;
    std::unique_ptr<Slot[], Free> slots_;
    std::vector<uint32_t> lengths_;  // bytes of every token
    std::vector<Candidate> heap_;
    Side before_, after_;
    int64_t floor_ = kMinPairCount;
    bool may_guess_ = true;
};

}  // namespace

Merges train_merges(const std::vector<Bytes>& blobs, size_t num_merges, const Tick& tick) {
    Survey survey(blobs);
    if (256 + num_merges <= UINT16_MAX && survey.weights.size() <= UINT16_MAX) {
        return Trainer<uint16_t>(blobs, std::move(survey), num_merges).run(tick);
    }
    if (num_merges > UINT32_MAX - 257) throw std::length_error("over 2^32 - 257 merges");
    return Trainer<uint32_t>(blobs, std::move(survey), num_merges).run(tick);
}

}  // namespace penjing
