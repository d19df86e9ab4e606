// Byte-pair merges from word counts; see trainer.cpp.
#pragma once

#include <cstdint>
#include <functional>
#include <vector>

#include "words.hpp"

namespace penjing {

// Called after a merge with the number of merges so far; it may throw to stop.
using Tick = std::function<void(size_t)>;

struct Merges {
    std::vector<uint32_t> pairs;  // left and right in turn
    std::vector<int64_t> counts;
};

// Merge k joins two ids into id 256 + k, where byte b has id b; `counts`: how often the pair stood
// in the words then. The order of words and blobs does not matter. Throws std::invalid_argument for a damaged blob and
// std::length_error for more than 2^32 - 2 bytes of words or counts that sum over 2^63.
Merges train_merges(const std::vector<Bytes>& blobs, size_t num_merges, const Tick& tick);

}  // namespace penjing
