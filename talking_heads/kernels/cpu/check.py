"""`python -m talking_heads.kernels.cpu.check`: whether an installation has the compiled kernel and computes with it.

Needs torch only: what is run after a wheel is installed in a new environment.
"""

import sys

import torch

from ... import explain, talking_heads_attention
from . import binding


def main() -> None:
    """Exits with 1 where the kernel is missing or differs from the reference."""
    if binding.MISSING is not None:
        sys.exit(f"no kernel: {binding.MISSING}")
    torch.manual_seed(0)
    query, key, value = (torch.randn(2, 4, 70, 16, requires_grad=True) for _ in range(3))
    mix = torch.randn(4, 4, requires_grad=True)
    choice = explain(query, key, value, mix, mix).backend
    found = []
    for backend in ("cpu", "reference"):
        output = talking_heads_attention(query, key, value, mix, mix, is_causal=True, backend=backend)
        found.append([output, *torch.autograd.grad(output.square().sum(), (query, key, value, mix))])
    for got, want in zip(*found, strict=True):
        torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-4)
    print(f"{choice}: {binding.library().talking_heads_set().decode()}, output and gradients right")
    sys.exit(choice != "cpu")


if __name__ == "__main__":
    main()
