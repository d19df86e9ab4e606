// Byte-pair merges from word counts; see trainer.cpp.
#pragma once

#include <cstdint>
#include <functional>
#include <vector>

#include "words.hpp"

namespace penjing {

// Called after a merge with the number of merges so far; it may throw to stop.
using Tick = std::function<void(size_t)>;

// Pairs of ids, left and right in turn: byte b has id b, merge k makes id 256 + k. The order of
// words and blobs does not matter. Throws std::invalid_argument for a damaged blob and
// std::length_error for more than 2^32 - 2 bytes of words or counts that sum over 2^63.
std::vector<uint32_t> train_merges(const std::vector<Bytes>& blobs, size_t num_merges, const Tick& tick);

}  // namespace penjing
