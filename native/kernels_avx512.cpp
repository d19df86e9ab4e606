// Kernels compiled for AVX-512.
#define PENJING_ISA avx512
#define PENJING_LANES 16
#define PENJING_ROWS 12
#include "kernel_table.hpp"
