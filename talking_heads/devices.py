"""Devices and dtypes by the names that users give them. Imports torch when it is needed only: --help reads DTYPES."""

from typing import TYPE_CHECKING

from .errors import UserError, one_of

if TYPE_CHECKING:
    import torch

DTYPES = ("float32", "bfloat16", "float16", "float64")


def device(name: str = "auto") -> "torch.device":
    """cpu, cuda, cuda:N, or auto: the first GPU that torch sees, else the CPU.

    Raises:
        UserError: another name, or a GPU that is not there.
    """
    import torch

    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    kind, colon, number = name.partition(":")
    if kind not in ("cpu", "cuda") or (colon and not (kind == "cuda" and number.isdecimal())):
        raise one_of("--device", name, ("cpu", "cuda", "cuda:N", "auto"))
    if kind == "cuda":
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if int(number or 0) >= count:
            seen = f"{count} GPUs that torch sees" if count else "no GPU that torch sees"
            raise UserError(f"--device {name} needs that GPU", seen, "pass --device cpu or --device auto")
    return torch.device(name)


def dtype(name: str | None) -> "torch.dtype | None":
    """The torch dtype of that name; None for None.

    Raises:
        UserError: another name.
    """
    if name is None:
        return None
    if name not in DTYPES:
        raise one_of("--dtype", name, DTYPES)
    import torch

    found: torch.dtype = getattr(torch, name)
    return found
