// All kernels for one instruction set; see vectors.hpp for what a file that includes it says.
#include "attention_kernel.hpp"
#include "gate_kernel.hpp"
#include "head_loss_kernel.hpp"
#include "norm_kernel.hpp"

const penjing::Kernels<penjing::PENJING_ISA::Element> penjing::PENJING_ISA::KERNELS{
    attention_forward, attention_backward, head_loss, add, norm_forward, norm_backward, gate_forward, gate_backward};
