"""The device that runs are trained and timed on, and whether in mixed precision."""

import os

import torch

from ..devices import device as find_device
from ..errors import UserError, one_of

_DTYPES = ("float32", "bfloat16")
_chosen: dict[str, str | None] = {"device": "auto", "dtype": None}


def choose(device: str = "auto", dtype: str | None = None) -> None:
    """Sets both for this process; see `device` and `is_mixed` for the defaults.

    Raises:
        UserError: a device or dtype that runs cannot be trained on or in.
    """
    if find_device(device).index:
        raise UserError(
            "a run is trained on the first GPU that torch sees",
            device,
            "set CUDA_VISIBLE_DEVICES and pass cuda",
        )
    if dtype is not None and dtype not in _DTYPES:
        raise one_of("the --dtype of training", dtype, _DTYPES)
    _chosen.update(device=device, dtype=dtype)


def device() -> str:
    """cpu or cuda; default the first GPU, if there is one."""
    return find_device(str(_chosen["device"])).type


def is_mixed() -> bool:
    """Whether training is in mixed precision (bfloat16); default where the GPU has it."""
    if _chosen["dtype"] is not None:
        return _chosen["dtype"] == "bfloat16"
    return device() == "cuda" and torch.cuda.is_bf16_supported()


def autocast() -> torch.autocast:
    """Mixed precision as runs are trained."""
    return torch.autocast(device(), torch.bfloat16, enabled=is_mixed())


def refuse_torchrun() -> None:
    """Raises UserError under torchrun, which would make other batches of the same settings."""
    processes = os.environ.get("WORLD_SIZE", "1")
    if processes != "1" or "TORCHELASTIC_RUN_ID" in os.environ:
        raise UserError(
            "compare must be started without torchrun: it trains each run on one device",
            f"WORLD_SIZE={processes}",
            "start the same command once a GPU: they share the runs",
        )
