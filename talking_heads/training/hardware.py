"""How runs are trained, which changes their figures by rounding alone: sharing, precision, memory, trackers."""

from collections import Counter
from dataclasses import dataclass
from typing import Any

import torch

from ..errors import UserError
from . import together


@dataclass(frozen=True)
class Hardware:
    """Options for large models.

    Args:
        accumulation: parts of a step's batch that are read one after another.
        fsdp: parameters, gradients and optimizer state are divided among the processes (FSDP2) in place of copied (DDP).
        checkpointing: layers are recomputed in the backward pass.
        compiled: torch.compile.
        report_to: trackers, by Trainer's names.
    """

    accumulation: int = 1
    fsdp: bool = False
    checkpointing: bool = False
    compiled: bool = False
    report_to: tuple[str, ...] = ()

    def check(self, batch: int) -> None:
        """Raises UserError, before any work, for what this process or this environment cannot do."""
        together.share_of(batch, self.accumulation)
        if self.fsdp and together.count() == 1:
            raise UserError(
                "parameters are divided among the processes of torchrun",
                "--fsdp without it",
                "start it by torchrun",
            )
        if self.report_to:
            from transformers.integrations import get_available_reporting_integrations

            known = get_available_reporting_integrations()
            for name in self.report_to:
                if name not in known:
                    raise UserError(
                        f"a tracker must be installed and known to Trainer (here: {', '.join(known) or 'none'})",
                        repr(name),
                        f"pip install {name}, or leave --report-to out",
                    )

    def arguments(self, batch: int) -> dict[str, Any]:
        """Of transformers.TrainingArguments, for steps of `batch` examples in all."""
        found: dict[str, Any] = {
            "per_device_train_batch_size": together.share_of(batch, self.accumulation),
            "gradient_accumulation_steps": self.accumulation,
            "torch_compile": self.compiled,
            "report_to": list(self.report_to) or "none",
            # Losses are means over as many numbers in each part of a batch, so the mean of means is theirs.
            "average_tokens_across_devices": False,
        }
        if self.checkpointing:
            found |= {
                "gradient_checkpointing": True,
                "gradient_checkpointing_kwargs": {"use_reentrant": False},
            }
        if self.fsdp:
            # `divide` has divided the model
            config = {"version": 2, "auto_wrap_policy": "NO_WRAP", "state_dict_type": "FULL_STATE_DICT"}
            found |= {"fsdp": True, "fsdp_config": config}
        if together.count() > 1 and not torch.cuda.is_available():
            found["ddp_backend"] = "gloo"
        return found


def divide(model: torch.nn.Module) -> None:
    """FSDP2: a group of parameters for each layer, and one for the rest, where weights may be tied or shared by layers.

    Accelerate would put tied embeddings into two groups, which torch refuses for T5 and BERT; a model that is divided
    already it takes as it is.
    """
    from torch.distributed.fsdp import fully_shard

    uses = Counter(id(x) for _, x in model.named_parameters(remove_duplicate=False))
    layers: Any = getattr(model, "_no_split_modules", None) or ()
    for module in list(model.modules()):
        if type(module).__name__ in layers and all(uses[id(x)] == 1 for x in module.parameters()):
            fully_shard(module)
    fully_shard(model)


PLAIN = Hardware()
