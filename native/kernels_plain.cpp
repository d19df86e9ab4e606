// Kernels compiled for any processor.
#define PENJING_ISA plain
#define PENJING_LANES 4
#define PENJING_ROWS 6
#include "kernel_table.hpp"
