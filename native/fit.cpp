// Pieces to rows: best fit, then the emptiest rows given up to fill the gaps of the others.
#include "bindings.hpp"

#include <algorithm>
#include <numeric>
#include <set>

namespace penjing {

namespace {

struct Part {
    int64_t piece, offset, length;
};
using Row = std::vector<Part>;

// The fullest row that still takes a piece, of several as full the one opened first; else a new one.
std::vector<Row> best_fit(const EndArray& lengths, int64_t width, std::vector<int64_t>& gaps) {
    std::vector<Row> rows;
    std::set<std::pair<int64_t, int64_t>> open;  // free positions, row
    for (size_t index = 0; index < lengths.size(); ++index) {
        const int64_t length = lengths.data()[index];
        if (length < 1 || length > width) {
            throw std::invalid_argument("piece " + std::to_string(index) + " does not fit any row");
        }
        int64_t row = int64_t(rows.size());
        const auto found = open.lower_bound({length, 0});
        if (found == open.end()) {
            rows.emplace_back();
            gaps.push_back(width);
        } else {
            row = found->second;
            open.erase(found);
        }
        rows[row].push_back({int64_t(index), 0, length});
        gaps[row] -= length;
        if (gaps[row]) open.emplace(gaps[row], row);
    }
    return rows;
}

// Gives rows up, the emptiest first, until at most `free` positions are empty, or less than a row;
// a row that is left without pieces is no row any more.
void fill_gaps(std::vector<Row>& rows, std::vector<int64_t>& gaps, int64_t width, int64_t free) {
    std::vector<size_t> order(rows.size());
    std::iota(order.begin(), order.end(), size_t(0));
    std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) { return gaps[a] > gaps[b]; });
    int64_t empty = std::accumulate(gaps.begin(), gaps.end(), int64_t(0));
    size_t next = 0;
    bool taking = false;
    size_t taker = 0;
    // A whole row's worth of gaps: so those of the others take all that the given-up row holds.
    while (empty > free && empty >= width) {
        Row& giver = rows[order[next++]];
        while (!giver.empty()) {
            if (!taking || !gaps[taker]) {
                taker = order[next++];
                taking = true;
            }
            Part& part = giver.back();
            const int64_t moved = std::min(part.length, gaps[taker]);
            rows[taker].push_back({part.piece, part.offset, moved});
            gaps[taker] -= moved;
            part.offset += moved;
            part.length -= moved;
            if (!part.length) giver.pop_back();
        }
        empty -= width;
    }
}

// (piece, offset, length) of every part, row after row, and the parts of each row.
nb::tuple pack_rows(EndArray lengths, int64_t width, int64_t free) {
    std::vector<int64_t> gaps, parts, counts;
    std::vector<Row> rows = best_fit(lengths, width, gaps);
    if (free >= 0) fill_gaps(rows, gaps, width, free);
    for (const Row& row : rows) {
        if (row.empty()) continue;
        counts.push_back(int64_t(row.size()));
        for (const Part& part : row) parts.insert(parts.end(), {part.piece, part.offset, part.length});
    }
    const size_t total = parts.size() / 3;
    return nb::make_tuple(array_of(std::move(parts), {total, 3}), array_of(std::move(counts)));
}

}  // namespace

void bind_fit(nb::module_& module) { module.def("pack_rows", &pack_rows); }

}  // namespace penjing
