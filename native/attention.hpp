// Attention inside documents on a CPU, in float32: what is asked for, and one entry for each
// instruction set that the same code is compiled for.
#pragma once

#include <cstdint>

namespace penjing {

// Places of a tensor (row, token, head, width) whose last stride is 1.
struct Strided {
    const float* data;
    int64_t row, token, head;
    const float* at(int64_t b, int64_t t, int64_t h) const { return data + b * row + t * token + h * head; }
};

// `starts`: (rows, tokens), the first token that each token sees; it sees those from there to itself.
// Each of the key/value heads serves heads / kv_heads query heads.
struct AttentionShape {
    int64_t rows, tokens, heads, kv_heads, width;
    const int64_t* starts;
    int threads;
};

// `out`: (rows, tokens, heads, width); `logsums`: (rows, heads, tokens), the log of each softmax's sum.
struct AttentionForward {
    AttentionShape shape;
    Strided q, k, v;
    float *out, *logsums;
};

// Gradients in the layout of q, k and v, contiguous. Weights are made again from the logsums, as in
// FlashAttention (arXiv:2205.14135, algorithm 4).
struct AttentionBackward {
    AttentionShape shape;
    Strided q, k, v, out, grad;
    const float* logsums;
    float *grad_q, *grad_k, *grad_v;
};

#define PENJING_DECLARE_ATTENTION(isa)             \
    namespace isa {                                \
    void attention_forward(const AttentionForward&);   \
    void attention_backward(const AttentionBackward&); \
    }
PENJING_DECLARE_ATTENTION(plain)
PENJING_DECLARE_ATTENTION(avx2)
PENJING_DECLARE_ATTENTION(avx512)
#undef PENJING_DECLARE_ATTENTION

}  // namespace penjing
