"""The CPU kernel against the reference on random calls, as many as one likes.

    python -m tests.kernels.cpu.random_calls --count 2000 --seed 0

Each call is checked as every other (tests/cases.py); exit code 1 if any is wrong. A call found wrong is
printed as the Case that makes it.
"""

import argparse
import random
import sys
from dataclasses import replace

import torch

from tests.cases import DYNAMIC, Case, check
from tests.kernels.cpu.common import threads


def draw(seed: int) -> Case:
    """Sizes are mostly small; now and then one spans several blocks of queries or tiles of keys."""
    pick = random.Random(seed)
    heads = lambda: pick.choice([1, 2, 3, 4, 5, 7, 8, 12, 16, 25, 33])  # noqa: E731
    size = lambda: pick.choice([*range(1, 18), 24, 31, 32, 33, 48, 64, 65])  # noqa: E731
    length = lambda: pick.choice([pick.randint(1, 20), pick.randint(1, 70), pick.randint(50, 300)])  # noqa: E731
    case = Case(
        b=pick.choice([1, 1, 2, 3, 5]),
        i=heads(),
        h=heads(),
        j=heads(),
        n=length(),
        m=length(),
        k=size(),
        v=size(),
        logits_mix=pick.random() < 0.7,
        weights_mix=pick.random() < 0.7,
        mask=pick.choice(["none", "none", "bool", "float", "dead"]),
        mask_shape=tuple(pick.choice([0, 1]) for _ in range(4)),
        is_causal=pick.random() < 0.4,
        dropout_p=pick.choice([0.0, 0.0, 0.1, 0.5]),
        scale=pick.choice([None, None, 1.0, 0.01]),
        dynamic=tuple(name for name in DYNAMIC if pick.random() < pick.choice([0.0, 0.0, 0.5])),
        layout=pick.choice(["plain", "heads_inside", "gaps"]),
        dtype=pick.choice([torch.float32, torch.float32, torch.float64, torch.bfloat16, torch.float16]),
        seed=seed,
    )
    most = 100_000 if seed % 50 == 0 else 8_000  # numbers in the largest of the weights
    while case.b * case.n * case.m * max(case.i, case.h, case.j) > most and (case.n, case.m) != (1, 1):
        case = replace(case, n=(case.n + 1) // 2, m=(case.m + 1) // 2)
    bias = case.mask == "none" and not case.is_causal and pick.random() < 0.5
    return replace(case, bias=bias)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--count", type=int, default=2000, help="calls to check (2000)")
    parser.add_argument("--seed", type=int, default=0, help="of the first; the others' follow it (0)")
    parser.add_argument("--threads", type=int, default=2, help="of the kernel (2)")
    arguments = parser.parse_args()
    wrong = []
    with threads(arguments.threads):
        for done, seed in enumerate(range(arguments.seed, arguments.seed + arguments.count), 1):
            try:
                check(draw(seed), "cpu")
            except AssertionError as error:
                wrong.append(seed)
                print(f"\nseed {seed}: {error}", flush=True)
            print(
                f"\r{done} of {arguments.count} calls, {len(wrong)} wrong",
                end="",
                file=sys.stderr,
                flush=True,
            )
    print(f"\n{arguments.count} calls from seed {arguments.seed}: {len(wrong)} wrong", *wrong)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
