// Pieces of documents, from the ids of a shard to the rows of a batch.
#include "bindings.hpp"

namespace penjing {

namespace {

template <class T>
using Ids = nb::ndarray<const T, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
template <class T>
using Rows = nb::ndarray<T, nb::ndim<2>, nb::c_contig, nb::device::cpu>;
using Pieces = nb::ndarray<const int64_t, nb::ndim<2>, nb::c_contig, nb::device::cpu>;

struct Arrays {
    int64_t *tokens, *targets, *document_ids;
    float* weights;
    int64_t rows, width;

    Arrays(const Rows<int64_t>& tokens_, const Rows<int64_t>& targets_, const Rows<float>& weights_,
           const Rows<int64_t>& document_ids_)
        : tokens(tokens_.data()), targets(targets_.data()), document_ids(document_ids_.data()),
          weights(weights_.data()), rows(int64_t(tokens_.shape(0))), width(int64_t(tokens_.shape(1))) {
        for (size_t axis = 0; axis < 2; ++axis) {
            const size_t size = tokens_.shape(axis);
            if (targets_.shape(axis) != size || weights_.shape(axis) != size ||
                document_ids_.shape(axis) != size) {
                throw std::invalid_argument("the arrays of a batch must have one shape");
            }
        }
    }
};

// Columns of `pieces`: row, first position, first id, length, number within the row, and whether
// the document ends with it. Its last target is then `end`, trained unless there is a mask.
template <class T>
void fill_rows(Ids<T> ids, ByteArray mask, Pieces pieces, Rows<int64_t> tokens, Rows<int64_t> targets,
               Rows<float> weights, Rows<int64_t> document_ids, int64_t end) {
    const Arrays batch(tokens, targets, weights, document_ids);
    const T* from = ids.data();
    const uint8_t* trained = mask.size() ? mask.data() : nullptr;
    const int64_t size = int64_t(ids.size());
    if (pieces.shape(1) != 6) throw std::invalid_argument("a piece has six numbers");
    if (trained && mask.size() != ids.size()) throw std::invalid_argument("a mask has one byte an id");
    for (size_t index = 0; index < pieces.shape(0); ++index) {
        const int64_t* piece = pieces.data() + 6 * index;
        const int64_t row = piece[0], first = piece[1], begin = piece[2], length = piece[3];
        const bool ends = piece[5] != 0;
        const int64_t known = length - (ends ? 1 : 0);
        if (row < 0 || row >= batch.rows || first < 0 || length < 1 || length > batch.width - first ||
            begin < 0 || begin > size - known - 1) {
            throw std::invalid_argument("piece " + std::to_string(index) + " is outside its arrays");
        }
        const int64_t offset = row * batch.width + first;
        int64_t* token = batch.tokens + offset;
        int64_t* target = batch.targets + offset;
        float* weight = batch.weights + offset;
        int64_t* document = batch.document_ids + offset;
        const T* id = from + begin;
        for (int64_t place = 0; place < length; ++place) token[place] = id[place];
        for (int64_t place = 0; place < known; ++place) target[place] = id[place + 1];
        for (int64_t place = 0; place < length; ++place) document[place] = piece[4];
        if (trained) {
            for (int64_t place = 0; place < known; ++place) weight[place] = trained[begin + place + 1];
        } else {
            for (int64_t place = 0; place < known; ++place) weight[place] = 1.0f;
        }
        if (ends) {
            target[length - 1] = end;
            weight[length - 1] = trained ? 0.0f : 1.0f;
        }
    }
}

// What a row has behind its first `filled` positions becomes padding.
void pad_rows(EndArray filled, Rows<int64_t> tokens, Rows<int64_t> targets, Rows<float> weights,
              Rows<int64_t> document_ids, int64_t end) {
    const Arrays batch(tokens, targets, weights, document_ids);
    if (int64_t(filled.size()) != batch.rows) throw std::invalid_argument("one number for each row");
    for (int64_t row = 0; row < batch.rows; ++row) {
        const int64_t first = filled.data()[row];
        if (first < 0 || first > batch.width) throw std::invalid_argument("filled is outside its row");
        for (int64_t at = row * batch.width + first; at < (row + 1) * batch.width; ++at) {
            batch.tokens[at] = batch.targets[at] = end;
            batch.weights[at] = 0.0f;
            batch.document_ids[at] = -1;
        }
    }
}

}  // namespace

void bind_rows(nb::module_& module) {
    module.def("fill_rows", &fill_rows<uint16_t>);
    module.def("fill_rows", &fill_rows<uint32_t>);
    module.def("pad_rows", &pad_rows);
}

}  // namespace penjing
