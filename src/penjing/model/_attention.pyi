from torch import Tensor

INSTRUCTIONS: str

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
