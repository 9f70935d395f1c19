"""Training with some heads masked in every step, so that none is relied on alone.

"Alleviating the Inequality of Attention Heads for Neural Machine Translation" (Sun, Huang, Dai, Chen, COLING 2022,
arXiv:2009.09672): heads are drawn at random (Mask-Rand), or are those that matter most to the batch (Mask-Impt).
Differences from the paper: the absolute value of a gate's gradient is taken example by example where layers allow it,
and importance may also be taken from the step before.
"""

from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Literal, get_args

import numpy as np
import torch
from torch import Tensor, nn

from ..anatomy.layers import PARTS, layers
from ..errors import UserError
from .gates import SITES, Gates, Site
from .losses import loss_in
from .slopes import of_all_processes, rows, size, slopes

try:
    from transformers.trainer_callback import ExportableState, TrainerCallback
except ImportError:  # loops of one's own need no transformers
    ExportableState = TrainerCallback = object  # type: ignore[assignment,misc]

By = Literal["random", "importance"]
Way = Literal["exact", "previous"]
BY: tuple[By, ...] = get_args(By)
WAYS: tuple[Way, ...] = get_args(Way)
_NO_LOSS = 'pass labels, call measure(loss) before the forward pass, or pass importance="previous"'
_SCOPE = ("encoder", "cross", "decoder")


class HeadMask(TrainerCallback, ExportableState):  # type: ignore[misc]
    """Masks exactly `n` heads in each training step, and none in evaluation.

    A callback of transformers' Trainer:

        Trainer(..., callbacks=[HeadMask(6)])

    or in a loop of one's own:

        with HeadMask(6, by="importance").attach(model) as mask:
            for batch in batches:
                with mask.step():
                    model(**batch).loss.backward()
                optimizer.step()
                optimizer.zero_grad()

    The heads of a step are a function of the seed and the step's number alone ("random"), or of that and the model
    ("importance"): the same on every process of a distributed run, and after resuming. With gradient accumulation all
    batches of a step have the same heads masked. A layer whose heads are all masked gives the bias of its output
    projection. In torch.compile'd models the mask changes without a new compilation; the measuring pass of "exact"
    runs uncompiled.

    Args:
        n: heads to mask: a number (int), or a share of the heads in scope (float from 0 to 1, rounded). 0 trains as
            without HeadMask, bit for bit.
        by: "random", or "importance": the heads with the largest |dLoss/dgate|.
        scope: parts of the model whose heads are masked: "encoder", "cross" (from decoder to encoder), "decoder".
            All three stands for those that the model has.
        seed: of random heads.
        share: another way to give a share: HeadMask(share=0.125).
        site: "output" or "softmax" (before talking heads are mixed), see `gates`.
        importance: "exact": a first forward and backward pass over the batch, without masks and with the same dropout,
            tells its importance, then the step follows. It needs no gradients of weights: two thirds of a step's products
            more. With gradient accumulation it is measured on the step's first batch.
            "previous": the gates' gradients in the step before, all its batches, with its masks on; costs next to
            nothing; the first step's heads are random. Absolute values are taken batch by batch.

    Attributes:
        masked: names of the heads that are masked now, "encoder.2:5"; empty outside of steps.
        last_importance: {head: |dLoss/dgate|} that was measured last; sums over examples (exact) or batches.

    Raises:
        UserError: more heads than there are, a scope without heads, an unknown word; on `attach` also what `gates`
            refuses.
    """

    def __init__(
        self,
        n: int | float | None = None,
        by: By = "random",
        scope: str | Collection[str] = _SCOPE,
        seed: int = 0,
        *,
        share: float | None = None,
        site: Site = "output",
        importance: Way = "exact",
    ) -> None:
        if isinstance(n, float) and share is None:
            n, share = None, n
        self.n, self.share = _checked(n, share)
        for name, value, known in (("by", by, BY), ("site", site, SITES), ("importance", importance, WAYS)):
            if value not in known:
                raise UserError(f"{name} must be one of {', '.join(known)}", repr(value), "name one")
        self.by, self.site, self.way = by, site, importance
        self.scope = (scope,) if isinstance(scope, str) else tuple(scope)
        if not self.scope or set(self.scope) - set(PARTS):
            raise UserError(
                f"scope must name parts among {', '.join(_SCOPE)}", self.scope or "none", "name one or more"
            )
        if isinstance(seed, bool) or not isinstance(seed, int) or seed < 0:
            raise UserError("seed must be a number from 0 on", repr(seed), "pass one")
        self.seed = seed
        self.number = -1
        self.masked: list[str] = []
        self.last_importance: dict[str, float] = {}
        self.gates: Gates | None = None
        self._waits = False  # for the first forward pass of a step, which tells importance
        self._sums: dict[str, Tensor] = {}
        self._hook: Any = None

    def attach(self, model: nn.Module) -> "HeadMask":
        """Puts gates on the model's heads in scope; `remove`, or a `with`, takes them off."""
        self.remove()
        chosen = [layer for layer in layers(model) if layer.part in self.scope]
        lacking = [part for part in self.scope if not any(layer.part == part for layer in chosen)]
        if not chosen or (lacking and set(self.scope) != set(PARTS)):
            there = ", ".join(dict.fromkeys(layer.part for layer in layers(model)))
            raise UserError(
                "scope must name parts that have heads",
                f"{', '.join(lacking)} where only {there} has",
                "name those",
            )
        self.gates = _TrainingGates(model, self.site, [layer.label for layer in chosen])
        total = len(self.heads)
        self.count = self.n if self.n is not None else round((self.share or 0) * total)
        try:
            self._check_count(total)
        except UserError:
            self.remove()
            raise
        self._learns = self.by == "importance" and self.count > 0
        for gate in self.gates.values.values():
            gate.requires_grad_(self._learns and self.way == "previous")
        if self._learns:
            self._hook = model.register_forward_pre_hook(self._before, with_kwargs=True, prepend=True)
        return self

    def _check_count(self, total: int) -> None:
        if self.count > total:
            raise UserError(
                f"n must be at most the {total} heads in scope", self.count, "mask fewer, or widen scope"
            )
        if self.share and not self.count:
            raise UserError(
                f"share must be one of {total} heads or more", self.share, "raise it, or pass n=0"
            )

    def remove(self) -> None:
        """Takes the gates off the model."""
        if self._hook is not None:
            self._hook.remove()
        if self.gates is not None:
            self.gates.remove()
        self._hook, self.gates, self.masked, self._waits = None, None, [], False

    def __enter__(self) -> "HeadMask":
        return self

    def __exit__(self, *error: Any) -> None:
        self.remove()

    @property
    def heads(self) -> list[str]:
        """Names of all heads in scope."""
        return self._attached().names

    @contextmanager
    def step(self, number: int | None = None) -> Iterator["HeadMask"]:
        """One training step: forward and backward passes go inside, the optimizer's step may.

        number: of the step, from 0; default one more than the last.
        """
        self.begin(number)
        try:
            yield self
        finally:
            self.end()

    def begin(self, number: int | None = None) -> None:
        """Starts a training step: masks its heads (with "exact" importance its first forward pass does)."""
        self._attached()
        self.number = self.number + 1 if number is None else number
        self._sums = {}
        if self._learns and self.way == "exact":
            self._waits = True
        elif self._learns and self.last_importance:
            self._mask(self._most_important())
        else:
            draw = np.random.default_rng([self.seed, self.number])
            self._mask([self.heads[i] for i in sorted(draw.permutation(len(self.heads))[: self.count])])

    def end(self) -> None:
        """Ends a training step: no head is masked."""
        if self._learns and self.way == "previous":
            self._collect()
            if self._sums:
                self._keep(self._sums)
        self._waits = False
        self._mask([])

    def measure(self, loss: Callable[[], Tensor], examples: int | None = None) -> None:
        """Tells the step's importance from loss() and masks its heads; does nothing if none is to be measured.

        For models that do not give their loss: call it before the step's first forward pass.

        Args:
            loss: runs the model; a scalar. examples: rows of the batch, for absolute values example by example.
        """
        if not self._waits:
            return
        self._waits = False
        self._keep(slopes(self._attached(), loss, examples))
        self._mask(self._most_important())

    def state_dict(self) -> dict[str, Any]:
        """What resuming in a loop of one's own needs; `load_state_dict` takes it. JSON can hold it."""
        return {"number": self.number, "last_importance": dict(self.last_importance)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.number, self.last_importance = state["number"], dict(state["last_importance"])

    # What transformers' Trainer calls.

    def state(self) -> dict[str, Any]:
        """For the Trainer's checkpoints."""
        args = {"n": self.n, "share": self.share, "by": self.by, "scope": list(self.scope), "seed": self.seed}
        return {"args": args | {"site": self.site, "importance": self.way}, "attributes": self.state_dict()}

    def on_train_begin(self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any) -> None:
        self.attach(model)
        if not state.global_step:
            self.last_importance = {}
            return
        kept = state.stateful_callbacks.get(type(self).__name__, [])
        for one in kept if isinstance(kept, list) else [kept]:
            if one["args"] == self.state()["args"]:
                self.load_state_dict(one["attributes"])

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.begin(state.global_step)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.end()

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.remove()

    # How importance is measured.

    @torch.compiler.disable
    def _before(self, model: nn.Module, args: Any, kwargs: Any) -> None:
        if not (model.training and torch.is_grad_enabled()):
            return
        if self.way == "previous":
            self._collect()
        elif self._waits:
            self.measure(lambda: loss_in(model, model(*args, **kwargs), _NO_LOSS), rows(args, kwargs))

    def _collect(self) -> None:
        """Adds up what the last backward pass has left in the gates."""
        for name, gate in self._attached().values.items():
            if gate.grad is not None:
                self._sums[name] = self._sums.get(name, 0) + size(gate, gate.grad)
                gate.grad = None

    def _keep(self, sums: dict[str, Tensor]) -> None:
        gates = self._attached().values
        flat = torch.cat(
            [sums.get(name, torch.zeros(x.shape[-1], dtype=torch.float64)) for name, x in gates.items()]
        )
        flat = of_all_processes(flat, next(iter(gates.values())).device)
        self.last_importance = dict(zip(self.heads, flat.tolist(), strict=True))

    def _most_important(self) -> list[str]:
        """The `count` heads of the largest importance; of equal ones the first."""
        values = np.array([self.last_importance.get(name, 0.0) for name in self.heads])
        order = np.argsort(-values, kind="stable")  # NaN comes last
        return [self.heads[i] for i in sorted(order[: self.count])]

    def _mask(self, names: list[str]) -> None:
        found = self._attached()
        found.reset()
        if names:
            found[names] = 0.0
        self.masked = names

    def _attached(self) -> Gates:
        if self.gates is None:
            raise UserError("HeadMask must be on a model", "none", "call attach(model) first")
        return self.gates


class _TrainingGates(Gates):
    """Gates that act in training mode only."""

    def _reader(self, label: str) -> Callable[[], Tensor]:
        module = next(layer.module for layer in self.layers if layer.label == label)
        return lambda: self.values[label] if module.training else torch.ones_like(self.values[label])


def _checked(n: Any, share: Any) -> tuple[int | None, float | None]:
    if (n is None) == (share is None):
        raise UserError(
            "n or share must be given", "both" if share is not None else "neither", "pass for example n=6"
        )
    if n is not None and (isinstance(n, bool) or not isinstance(n, int) or n < 0):
        raise UserError(
            "n must be a number of heads from 0 on, or a share below 1",
            repr(n),
            "pass for example 6 or 0.125",
        )
    if share is not None and not (isinstance(share, int | float) and 0 <= share <= 1):
        raise UserError("share must be from 0 to 1", repr(share), "pass for example 0.125")
    return n, share
