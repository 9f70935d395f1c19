"""Speed and memory of the operator and of other forms of the same function, all measured in one run.

shapes.py which sizes; forms.py what competes; check.py right before fast; measure.py the clock;
worker.py a process that may run out of memory; memory.py peaks; table.py words.
"""

from .run import Options, bench

__all__ = ["Options", "bench"]
