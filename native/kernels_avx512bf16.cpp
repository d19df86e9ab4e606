// Kernels compiled for AVX-512 with products of bfloat16.
#define PENJING_ISA avx512bf16
#define PENJING_BFLOAT16
#define PENJING_LANES 16
#define PENJING_ROWS 12
#include "kernel_table.hpp"
