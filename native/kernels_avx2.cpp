// Kernels compiled for AVX2 and FMA.
#define PENJING_ISA avx2
#define PENJING_LANES 8
#define PENJING_ROWS 6
#include "kernel_table.hpp"
