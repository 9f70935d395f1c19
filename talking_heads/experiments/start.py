"""Runs an experiment in its folder, by `training.compare`, in one process or several side by side."""

import contextlib
import json
import os
import shlex
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from ..errors import UserError
from ..results import folders, stopping
from ..results.progress import silent
from ..results.provenance import command
from ..training import devices, together
from ..training.gather import Results
from ..training.hardware import PLAIN, Hardware
from ..training.settings import Settings
from .transfer import check, transfer


@dataclass(frozen=True)
class Start:
    """What a process needs to know to take part."""

    name: str
    scale: str
    settings: Settings
    out: Path
    text: tuple[Path, ...] = ()
    hub: str | None = None
    transfer: tuple[str, ...] = ("none",)
    hardware: Hardware = PLAIN
    stream: bool = False
    tasks: tuple[str, ...] = ()
    data: str | None = None

    def run(self, jobs: int = 1, **news: Any) -> Results:
        """Trains what the folder lacks; see `training.compare.compare` for `news` and what is returned.

        Raises:
            UserError: another process runs in the folder, or it holds another experiment.
        """
        from ..training.compare import is_comparison

        if jobs > 1 and together.count() > 1:
            raise UserError(
                "side by side are either --jobs or torchrun's processes",
                f"--jobs {jobs} under torchrun",
                "leave one out",
            )
        if self.tasks and together.count() > 1:
            raise UserError(
                "models are fine-tuned by one process each",
                "--task under torchrun",
                "rerun without torchrun, with --task",
            )
        if self.hardware.fsdp and self.transfer != ("none",):
            raise UserError(
                "models are fine-tuned whole, parameters not divided",
                "--fsdp with --transfer",
                "leave one out; finetune takes the models that are kept",
            )
        devices.choose(dtype=self.settings.dtype or None)
        self.hardware.check(self.settings.batch)
        check(self.tasks, self.data)
        together.first(lambda: folders.claim(self.out, "compare", known=is_comparison(self.out)))
        with together.lock(self.out, "experiment", wait=False) as mine:
            if not mine:
                raise UserError(
                    "one process may run in an experiment's folder",
                    f"another at work in {self.out}",
                    "wait for it, or name another folder with --out",
                )
            return self._run(jobs, **news)

    def _run(self, jobs: int, **news: Any) -> Results:
        with self._helpers(jobs - 1):
            return self.take_part(**news)

    def take_part(self, **news: Any) -> Results:
        """Trains runs that no other process has."""
        from ..training.compare import compare
        from ..training.corpus import choose_corpus
        from ..training.tasks import choose_tasks

        corpus = choose_corpus(self.text, self.hub, stream=self.stream)
        tasks = choose_tasks(corpus, self.transfer, self.settings.transfer_examples)
        named = {"name": self.name, "scale": self.scale}
        found = compare(
            self.settings, corpus, tasks, self.out, experiment=named, hardware=self.hardware, **news
        )
        if self.tasks:
            transfer(self.out, self.settings, self.tasks, self.data, news.get("progress", silent))
        return found

    @contextlib.contextmanager
    def _helpers(self, count: int) -> Iterator[None]:
        """Further processes that share the runs, each on a GPU of its own where there are some; they end with us."""
        children = [self._helper(number + 1, count + 1) for number in range(count)]
        try:
            yield
            codes = [child.wait() for child in children]
        finally:
            for child in children:
                child.stdin.close()
                child.wait()
        failed = [code for code in codes if code]
        if failed:
            raise UserError(
                "every process of --jobs must end well",
                f"exit code {failed[0]} of one",
                "see its message above",
            )

    def _helper(self, number: int, count: int) -> Any:
        environment = dict(os.environ)
        environment.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // count)))
        gpus = environment.get("CUDA_VISIBLE_DEVICES", "").split(",")
        if len(gpus) > 1:
            environment["CUDA_VISIBLE_DEVICES"] = gpus[number % len(gpus)]
        child = subprocess.Popen(
            [sys.executable, "-c", "from talking_heads.experiments.start import share; share()"],
            stdin=subprocess.PIPE,
            env=environment,
            text=True,
        )
        assert child.stdin is not None
        child.stdin.write(self.to_json() + "\n")
        child.stdin.flush()
        return child

    def to_json(self) -> str:
        return json.dumps(asdict(self) | {"command": command()}, default=str)

    @classmethod
    def of_json(cls, text: str) -> "Start":
        given: dict[str, Any] = json.loads(text)
        sys.argv = shlex.split(given.pop("command"))  # what the runs' folders keep
        fields: dict[str, Any] = {
            x: tuple(y) if isinstance(y, list) else y for x, y in given["settings"].items()
        }
        settings = Settings(**fields)
        hardware = Hardware(**given["hardware"] | {"report_to": tuple(given["hardware"]["report_to"])})
        start = cls(**given | {"settings": settings, "out": Path(given["out"]), "hardware": hardware})
        return replace(
            start, text=tuple(map(Path, start.text)), transfer=tuple(start.transfer), tasks=tuple(start.tasks)
        )


def share() -> None:
    """The whole life of a helper: a line of JSON says what to do; it stops when its parent is gone."""
    text = sys.stdin.readline()

    def watch() -> None:
        sys.stdin.read()
        if not done:
            os.kill(os.getpid(), signal.SIGTERM)

    done: list[bool] = []
    with stopping.signals():
        threading.Thread(target=watch, daemon=True).start()
        try:
            start = Start.of_json(text)
            devices.choose(dtype=start.settings.dtype or None)
            start.take_part()
        except UserError as mistake:
            print(f"talking-heads: {mistake}", file=sys.stderr)
            sys.exit(2)
        except stopping.Stopped:
            sys.exit(0)
        finally:
            done.append(True)
