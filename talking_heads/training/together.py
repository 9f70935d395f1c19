"""Several processes that train one run together, under torchrun: who writes, and what all of them know.

Without torchrun there is one process, which leads.
"""

import contextlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import torch
import torch.distributed as dist

from ..errors import UserError
from ..results import folders

T = TypeVar("T")


def count() -> int:
    """How many processes torchrun started."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def leads() -> bool:
    """Whether this is the process that writes."""
    return int(os.environ.get("RANK", "0")) == 0


def join() -> None:
    """Meet the other processes, on GPUs by NCCL and else by gloo, as accelerate would."""
    if count() > 1 and not dist.is_initialized():
        from accelerate import PartialState

        PartialState(cpu=not torch.cuda.is_available())


def first(work: Callable[[], T]) -> T:
    """What the first process finds; the others wait for it, and fail as it does."""
    if count() == 1:
        return work()
    join()
    told: list[Any] = [None, None]
    if leads():
        try:
            told[0] = work()
        except UserError as mistake:
            told[1] = str(mistake)
    dist.broadcast_object_list(told, src=0)
    if told[1] is not None:
        raise UserError.of(ValueError(told[1]))
    found: T = told[0]
    return found


def any_of(flag: bool) -> bool:
    """Whether it holds for any process; all must ask at the same moment."""
    if count() == 1:
        return flag
    join()
    found = torch.tensor(float(flag), device="cuda" if torch.cuda.is_available() else "cpu")
    dist.all_reduce(found, op=dist.ReduceOp.MAX)
    return bool(found.item())


def wait() -> None:
    """Until all processes are here."""
    if count() > 1:
        join()
        dist.barrier()


@contextlib.contextmanager
def lock(folder: Path, name: str = "", *, wait: bool = True) -> Iterator[bool]:
    """`folders.lock` for all processes at once: the first one holds it."""
    if count() == 1:
        with folders.lock(folder, name, wait=wait) as mine:
            yield mine
        return
    with contextlib.ExitStack() as held:
        yield first(lambda: held.enter_context(folders.lock(folder, name, wait=wait)))


def share_of(batch: int, accumulation: int = 1) -> int:
    """Examples that one process reads at once of a step's `batch`.

    Raises:
        UserError: the batch cannot be divided evenly.
    """
    parts = count() * accumulation
    if batch % parts:
        raise UserError(
            "a step's batch must be a multiple of processes times accumulation",
            f"{batch} for {count()} x {accumulation}",
            "choose another --batch, or other numbers",
        )
    return batch // parts
