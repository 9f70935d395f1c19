"""The backends. Each module has `refuses(problem) -> reason or None` and `attention(problem) -> output`."""

from types import ModuleType

from . import chunked, cpu, decode, reference, triton

# In the order in which "auto" asks them; the reference is the oracle, the last resort.
BACKENDS: dict[str, ModuleType] = {
    "triton": triton,
    "cpu": cpu,
    "chunked": chunked,
    "reference": reference,
}
ORDER = tuple(BACKENDS)

# Asked before them all, in inference only; it alone takes grouped keys and values as they lie.
INFERENCE: dict[str, ModuleType] = {"decode": decode}
ALL = INFERENCE | BACKENDS
