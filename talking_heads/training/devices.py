"""The device that runs are trained and timed on."""

import os

import torch

from ..errors import UserError


def device() -> str:
    """The first GPU, if there is one."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def autocast() -> torch.autocast:
    """Mixed precision as runs are trained: bfloat16 where the GPU has it."""
    half = device() == "cuda" and torch.cuda.is_bf16_supported()
    return torch.autocast(device(), torch.bfloat16, enabled=half)


def refuse_torchrun() -> None:
    """Raises UserError under torchrun, which would make other batches of the same settings."""
    processes = os.environ.get("WORLD_SIZE", "1")
    if processes != "1" or "TORCHELASTIC_RUN_ID" in os.environ:
        raise UserError(
            "compare must be started without torchrun: it trains each run on one device",
            f"WORLD_SIZE={processes}",
            "start the same command once a GPU: they share the runs",
        )
