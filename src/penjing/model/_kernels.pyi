from torch import Tensor

INSTRUCTIONS: str
BFLOAT16: str

def attend(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    starts: Tensor,
    out: Tensor,
    logsums: Tensor,
    threads: int,
) -> None: ...
def differentiate(
    grad: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    starts: Tensor,
    out: Tensor,
    logsums: Tensor,
    grad_q: Tensor,
    grad_k: Tensor,
    grad_v: Tensor,
    threads: int,
) -> None: ...
def normalize(
    x: Tensor, weight: Tensor, eps: float, out: Tensor, scales: Tensor, threads: int
) -> None: ...
def differentiate_norm(
    grad: Tensor,
    x: Tensor,
    weight: Tensor,
    scales: Tensor,
    grad_x: Tensor,
    grad_weight: Tensor,
    threads: int,
) -> None: ...
def add(sum: Tensor, x: Tensor, threads: int) -> None: ...
def open_gate(gate: Tensor, up: Tensor, out: Tensor, threads: int) -> None: ...
def differentiate_gate(
    grad: Tensor,
    gate: Tensor,
    up: Tensor,
    grad_gate: Tensor,
    grad_up: Tensor,
    threads: int,
) -> None: ...
def head_loss(
    logits: Tensor,
    targets: Tensor,
    weights: Tensor,
    losses: Tensor,
    threads: int,
) -> None: ...
