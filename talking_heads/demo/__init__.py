"""The first minute: what talking heads do, what they cost on this machine, and a pretrained model converted.

run.py from start to end; parts.py the three parts, each kept when it is done; drawing.py what talking heads are, in a
picture; pictures.py the parts' figures; index.py the page.
"""

from .run import Results, Watch, demo

__all__ = ["Results", "Watch", "demo"]
