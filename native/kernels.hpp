// The model's own kernels for a CPU: what is asked for, and one table for each instruction set
// that the same code is compiled for. `T` is float, or uint16_t that holds bfloat16.
#pragma once

#include <cstdint>

namespace penjing {

// Places of a tensor (row, token, head, width) whose last stride is 1.
template <class T>
struct Strided {
    const T* data;
    int64_t row, token, head;
    const T* at(int64_t b, int64_t t, int64_t h) const { return data + b * row + t * token + h * head; }
};

// Attention inside documents. `starts`: (rows, tokens), the first token that each token sees; it sees
// those from there to itself. Each of the key/value heads serves heads / kv_heads query heads.
struct AttentionShape {
    int64_t rows, tokens, heads, kv_heads, width;
    const int64_t* starts;
    int threads;
};

// `out`: (rows, tokens, heads, width); `logsums`: (rows, heads, tokens), the log of each softmax's sum.
template <class T>
struct AttentionForward {
    AttentionShape shape;
    Strided<T> q, k, v;
    T* out;
    float* logsums;
};

// Gradients in the layout of q, k and v, contiguous. Weights are made again from the logsums, as in
// FlashAttention (arXiv:2205.14135, algorithm 4).
template <class T>
struct AttentionBackward {
    AttentionShape shape;
    Strided<T> q, k, v, out, grad;
    const float* logsums;
    T *grad_q, *grad_k, *grad_v;
};

// Logits (rows, columns) are overwritten by their gradients: weight x (softmax - 1 at the target).
// `losses`: weight x -ln p(target) of each row.
template <class T>
struct HeadLoss {
    int64_t rows, columns;
    T* logits;
    const int64_t* targets;
    const float* weights;
    float* losses;
    int threads;
};

// `out`: silu(gate) x up of each element (arXiv:2002.05202).
template <class T>
struct GateForward {
    int64_t size;
    const T *gate, *up;
    T* out;
    int threads;
};

template <class T>
struct GateBackward {
    int64_t size;
    const T *grad, *gate, *up;
    T *grad_gate, *grad_up;
    int threads;
};

// `x` is added to a sum in float32.
template <class T>
struct Addition {
    int64_t size;
    const T* x;
    float* sum;
    int threads;
};

// `out`: each row of (rows, width) by its root mean square, times weight; `scales`: what rows were scaled by.
template <class T>
struct NormForward {
    int64_t rows, width;
    const T* x;
    const float* weight;
    float eps;
    T* out;
    float* scales;
    int threads;
};

template <class T>
struct NormBackward {
    int64_t rows, width;
    const T *grad, *x;
    const float *weight, *scales;
    T* grad_x;
    float* grad_weight;
    int threads;
};

template <class T>
struct Kernels {
    void (*attention_forward)(const AttentionForward<T>&);
    void (*attention_backward)(const AttentionBackward<T>&);
    void (*head_loss)(const HeadLoss<T>&);
    void (*add)(const Addition<T>&);
    void (*norm_forward)(const NormForward<T>&);
    void (*norm_backward)(const NormBackward<T>&);
    void (*gate_forward)(const GateForward<T>&);
    void (*gate_backward)(const GateBackward<T>&);
};

namespace plain { extern const Kernels<float> KERNELS; }
namespace avx2 { extern const Kernels<float> KERNELS; }
namespace avx512 { extern const Kernels<float> KERNELS; }
namespace avx512bf16 { extern const Kernels<uint16_t> KERNELS; }
namespace amx { extern const Kernels<uint16_t> KERNELS; }

}  // namespace penjing
