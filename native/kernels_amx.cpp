// Kernels compiled for AVX-512 with tiles of bfloat16.
#define PENJING_ISA amx
#define PENJING_BFLOAT16
#define PENJING_AMX
#define PENJING_LANES 16
#define PENJING_ROWS 32
#include "kernel_table.hpp"
