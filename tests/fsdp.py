"""FSDP2 on CPUs: accelerate divides parameters on GPUs only and leaves processes on CPUs to DDP, without a word."""

import transformers
from accelerate import DistributedType, FullyShardedDataParallelPlugin, PartialState

_create = transformers.Trainer.create_accelerator_and_postprocess


def allow_on_cpus() -> None:
    """From now on a Trainer of this process divides parameters where it is asked to, as it does on GPUs."""
    transformers.Trainer.create_accelerator_and_postprocess = _divided


def _divided(trainer: transformers.Trainer) -> None:
    _create(trainer)
    if trainer.args.fsdp:
        state = trainer.accelerator.state
        state.distributed_type = PartialState._shared_state["distributed_type"] = DistributedType.FSDP
        state.fsdp_plugin = FullyShardedDataParallelPlugin(**trainer.args.fsdp_plugin_args)
        trainer.is_fsdp_enabled = True
