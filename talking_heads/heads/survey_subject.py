"""What the survey of instruments is tried on: toy models of an architecture, and labels for which they give a loss."""

from collections.abc import Iterator
from functools import cached_property
from inspect import signature
from typing import Any

import torch
from torch import Tensor

from ..anatomy import trial
from ..anatomy.inputs import inputs
from ..errors import UserError
from ..hf.survey import exceptions
from ..hf.survey.folders import models
from ..hf.survey.run import build
from .losses import own_loss
from .record import text_part

_MOST = 6  # classes of a folder that are tried for a text, for a loss


class Nothing(Exception):
    """Nothing of that kind in the architecture."""


class Subject:
    """The toy models of a folder: the whole one, the one that reads text, those that give a loss."""

    def __init__(self, folder: str) -> None:
        self.folder, self.fault = folder, ""

    def _built(self) -> Iterator[tuple[Any, dict[str, Any]]]:
        """(model in float32, its inputs) of the classes that run."""
        for kind in models(self.folder):
            for variant in exceptions.variants(kind.__name__):
                try:
                    model = build(kind, variant).float()
                    given = {name: _single(x) for name, x in inputs(model, variant).items()}
                    if trial.run(model, given).isnan().any():
                        raise ValueError("outputs that are not numbers")
                except Exception as problem:  # whatever a model class raises of a toy config
                    said = " ".join(f"{type(problem).__name__}: {problem}".split())[:150]
                    self.fault = self.fault or f"{kind.__name__}: {said}"
                    continue
                yield model, given
                break

    @cached_property
    def whole(self) -> Any:
        return next(self._built(), None)

    @cached_property
    def text(self) -> Any:
        """The first model of which a part reads text."""
        refusal: UserError | None = None
        for tried, (model, _) in enumerate(self._built()):
            try:
                text_part(model)
                return model
            except UserError as problem:
                refusal = refusal or problem
            if tried + 1 == _MOST:
                break
        assert refusal is not None
        raise refusal

    @property
    def reads_text(self) -> bool:
        try:
            return self.text is not None
        except UserError:
            return False

    @cached_property
    def with_loss(self) -> list[tuple[Any, dict[str, Tensor]]]:
        """(model, batch with labels) of the classes that give a loss for labels that are tensors."""
        found = []
        for model, given in self._built():
            batch = _with_labels(model, given)
            if batch is not None:
                found.append((model, batch))
            if len(found) == _MOST:
                break
        if not found:
            raise Nothing("no class gives a loss for labels in a tensor")
        return found


def _single(x: Any) -> Any:
    """Floats in single precision; no padding, whose rows are not defined."""
    if not isinstance(x, Tensor):
        return x
    if x.is_floating_point():
        return x.float()
    return torch.ones_like(x) if x.dim() == 2 and x.max() == 1 and x.min() == 0 else x


def _with_labels(model: Any, given: dict[str, Any]) -> dict[str, Tensor] | None:
    asked = signature(model.forward).parameters
    tensors = {name: x for name, x in given.items() if isinstance(x, Tensor)}
    ids = tensors.get("decoder_input_ids", tensors.get("input_ids"))
    classes = torch.tensor([0, 1])
    kinds: list[dict[str, Tensor]] = []
    if "start_positions" in asked:
        kinds.append({"start_positions": torch.tensor([1, 2]), "end_positions": torch.tensor([3, 3])})
    if "labels" in asked:
        if "Classification" in type(model).__name__ or ids is None:
            kinds += [{"labels": classes}]
        if ids is not None:
            kinds += [{"labels": ids}, {"labels": ids % 2}]
        kinds += [{"labels": classes}, {"labels": torch.tensor([[5, 6, 7], [8, 9, 5]])}]
    if "next_sentence_label" in asked:
        kinds = [kind | {"next_sentence_label": classes} for kind in kinds]
    before = getattr(model.config, "problem_type", None)
    for kind in kinds:
        model.config.problem_type = before  # a classifier sets it by the first labels it sees
        try:
            torch.manual_seed(0)
            loss = own_loss(model, tensors | kind)
            if loss.dim() == 0 and loss.isfinite() and loss.requires_grad:
                return tensors | kind
        except Exception:  # labels of another kind
            continue
    return None
