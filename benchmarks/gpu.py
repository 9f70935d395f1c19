"""Time and memory on the GPU at hand, every form checked before it is timed: `talking-heads bench --device cuda`.

    python benchmarks/gpu.py    # within 8 minutes; prints its table last, writes benchmarks/results/gpu.json

Takes that command's options, too. Without a GPU that torch can see: one line, exit code 2.
"""

import sys
from pathlib import Path

from talking_heads.cli import main

RESULTS = Path(__file__).parent / "results" / "gpu.json"

if __name__ == "__main__":
    sys.argv[1:1] = ["bench", "--device", "cuda", "--json", str(RESULTS)]
    main()
