"""HeadMask: exactly n heads in each training step, none in evaluation, the same on every process and after resuming."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import transformers
from torch.utils.data import SequentialSampler

from talking_heads.errors import UserError
from talking_heads.heads import HeadMask, gates, head_importance, mask
from talking_heads.heads.slopes import of_all_processes, slopes
from talking_heads.training.hardware import divide

from ..fsdp import allow_on_cpus
from .small import VOCABULARY, Own, model, output
from .test_gates import labelled

NAMES = (
    "bert",
    "bert, talking",
    "bert, talking, 8 softmax heads",
    "t5, talking",
    "bart",
    "gpt2",
    "deberta",
    "albert",
)
WAYS = ({"by": "random"}, {"by": "importance"}, {"by": "importance", "importance": "previous"})
LEARNS = ("bert", "bert, talking", "bert, talking, 8 softmax heads", "t5, talking", "bart", "gpt2")


def quiet(name):
    """A model without dropout, in training mode."""
    made = model(name)
    for part in made.modules():
        if isinstance(part, torch.nn.Dropout):
            part.p = 0.0
        for key in ("dropout", "attention_dropout", "activation_dropout", "dropout_prob"):
            if isinstance(getattr(part, key, None), float):
                setattr(part, key, 0.0)
    return made.train()


@pytest.mark.parametrize("site", ["output", "softmax"])
@pytest.mark.parametrize("name", NAMES)
def test_exactly_n_heads_in_a_step_and_none_in_evaluation(name, site):
    made = quiet(name)
    whole, state = output(made.eval()), set(made.state_dict())
    made.train()
    with HeadMask(3, seed=4, site=site).attach(made) as found:
        drawn = []
        for _ in range(3):
            with found.step():
                masked = output(made)
                drawn.append(found.masked)
                zeros = sum(int((x == 0).sum()) for x in found.gates.values.values())
                ones = sum(int((x == 1).sum()) for x in found.gates.values.values())
                assert len(set(found.masked)) == zeros == 3 and ones == len(found.heads) - 3
                assert torch.equal(output(made.eval()), whole)  # evaluated in the middle of a step
                assert set(made.state_dict()) == state
                made.train()
            assert found.masked == [] and torch.equal(output(made), whole)
        assert len({tuple(x) for x in drawn}) > 1
    assert torch.equal(output(made), whole)
    with mask(made, drawn[-1], site):
        assert torch.equal(output(made), masked)


@pytest.mark.parametrize("name", LEARNS)
def test_the_most_important_heads_are_masked(name, monkeypatch):
    made = quiet(name)
    batch = labelled(made)
    ranking = head_importance(made, [batch], loss=lambda model, batch: model(**batch).loss[None], per="batch")
    wanted = sorted(ranking.rows, key=lambda row: -row["importance"])[:2]
    made.train()
    with HeadMask(2, by="importance").attach(made) as found:
        whole = lambda gates, loss, examples: slopes(gates, loss, None)  # noqa: E731
        monkeypatch.setattr("talking_heads.heads.headmask.slopes", whole)
        with found.step():
            loss = made(**batch).loss
            assert sorted(found.masked) == sorted(row["head"] for row in wanted)
        assert loss.requires_grad
    with mask(made, [row["head"] for row in wanted]):
        torch.testing.assert_close(made(**batch).loss, loss, rtol=0, atol=0)


@pytest.mark.parametrize("way", ["exact", "previous"])
def test_importance_of_softmax_heads_before_they_are_mixed(way):
    made = quiet("bert, talking, 8 softmax heads")
    batch = labelled(made)
    found = HeadMask(3, by="importance", site="softmax", importance=way)
    with found.attach(made):
        for _ in range(2):
            with found.step():
                made(**batch).loss.backward()
                masked = found.masked
        kept = found.last_importance
    assert len(kept) == 16 and len(masked) == 3
    if way == "exact":
        ranking = head_importance(made, [batch], per="batch", site="softmax")
        wanted = sorted(ranking.rows, key=lambda row: -row["importance"])[:3]
        assert sorted(masked) == sorted(row["head"] for row in wanted)


def test_exact_importance_is_taken_example_by_example():
    made = quiet("bert")
    batch = labelled(made)
    ranking = head_importance(made, [batch], per="example")
    made.train()
    with HeadMask(1, by="importance").attach(made) as found, found.step():
        made(**batch)
        for row in ranking.rows:  # the loss is a mean over examples
            assert found.last_importance[row["head"]] == pytest.approx(row["importance"], rel=1e-4, abs=1e-9)


def test_previous_importance_is_what_the_last_backward_pass_left():
    made = quiet("bart")
    first, second = labelled(made), labelled(made)
    second["input_ids"] = second["input_ids"].flip(1)
    with HeadMask(5, by="importance", importance="previous", seed=2).attach(made) as found:
        with found.step():
            at_random = found.masked
            for batch in (first, second):
                made(**batch).loss.backward()
        kept = found.last_importance
        with found.step():
            assert sorted(found.masked) == sorted(sorted(kept, key=lambda name: -kept[name])[:5])
    with gates(made) as fixed:
        fixed[at_random] = 0.0
        wanted = dict.fromkeys(fixed.names, 0.0)
        for batch in (first, second):
            slopes = torch.autograd.grad(made(**batch).loss, list(fixed.values.values()))
            for label, slope in zip(fixed.values, slopes, strict=True):
                for head, x in enumerate(slope.abs().tolist()):
                    wanted[f"{label}:{head}"] += x
    assert kept == pytest.approx(wanted, rel=1e-4)


def test_the_measuring_pass_leaves_dropout_as_it_would_be():
    made = model("bart").train()
    batch = labelled(made)
    with HeadMask(2, by="importance").attach(made) as found:
        torch.manual_seed(7)
        with found.step():
            loss = made(**batch).loss
            names = found.masked
    with mask(made, names):
        torch.manual_seed(7)
        assert torch.equal(made(**batch).loss, loss)


def test_a_loss_of_ones_own():
    made, x = Own().train(), torch.randn(2, 5, 12)
    with HeadMask(2, by="importance", scope="encoder").attach(made) as found:
        with found.step(), pytest.raises(UserError, match=r"must give a loss.*call measure"):
            made(x)
        with found.step():
            found.measure(lambda: made(x).pow(2).mean(), 2)
            made(x).pow(2).mean().backward()
            assert len(found.masked) == 2


def test_a_layer_without_heads_gives_the_bias_of_its_output():
    made = quiet("bert")
    with torch.no_grad():
        made.bert.encoder.layer[0].attention.output.dense.bias.normal_()
    seen = []
    dense = made.bert.encoder.layer[0].attention.output.dense
    dense.register_forward_hook(lambda _module, _args, out: seen.append(out))
    for site in ("output", "softmax"):
        with HeadMask(share=1.0, scope="encoder", site=site).attach(made) as found, found.step():
            output(made)
            assert len(found.masked) == 8
        assert torch.equal(seen[-1], dense.bias.expand_as(seen[-1]))


class Ordered(transformers.Trainer):
    """Examples in their order; keeps what was masked in each forward pass."""

    def __init__(self, *args, watched=None, **kwargs):
        super().__init__(*args, **kwargs)
        self.watched, self.seen = watched, []

    def _get_train_sampler(self, *args, **kwargs):
        return SequentialSampler(self.train_dataset)

    def training_step(self, *args, **kwargs):
        loss = super().training_step(*args, **kwargs)
        if self.watched is not None:
            self.seen.append(self.watched.masked)
        return loss


def examples(count=16):
    draw = torch.Generator().manual_seed(3)
    ids = torch.randint(4, len(VOCABULARY), (count, 7), generator=draw)
    return [{"input_ids": row, "labels": row.flip(0)} for row in ids]


def trained(folder, found, steps=4, resume=None, made=None, **arguments):
    made = model("bart").train() if made is None else made
    options = {"per_device_train_batch_size": 2, "save_strategy": "no", "learning_rate": 0.01, **arguments}
    options = transformers.TrainingArguments(
        str(folder), max_steps=steps, report_to=[], disable_tqdm=True, use_cpu=True,
        logging_strategy="no", lr_scheduler_type="constant", **options,
    )  # fmt: skip
    callbacks = [] if found is None else [found]
    trainer = Ordered(
        made, options, train_dataset=examples(), eval_dataset=examples(4), callbacks=callbacks, watched=found
    )
    trainer.train(resume_from_checkpoint=resume)
    return trainer


def same(a, b):
    pairs = zip(a.model.state_dict().items(), b.model.state_dict().items(), strict=True)
    return all(name == other and torch.equal(x, y) for (name, x), (other, y) in pairs)


def test_no_heads_is_the_baseline_bit_for_bit(tmp_path):
    plain = trained(tmp_path, None)
    for way in WAYS:
        masked = trained(tmp_path, HeadMask(0, **way))
        assert masked.seen == [[]] * 4 and same(plain, masked)
    assert not same(plain, trained(tmp_path, HeadMask(1)))


@pytest.mark.parametrize("way", WAYS)
def test_resuming_goes_on_with_the_same_sequence(tmp_path, way):
    whole = trained(tmp_path / "whole", HeadMask(3, seed=1, **way))
    assert [len(x) for x in whole.seen] == [3] * 4
    trained(tmp_path / "cut", HeadMask(3, seed=1, **way), steps=2, save_strategy="steps", save_steps=2)
    resumed = trained(
        tmp_path / "cut", HeadMask(3, seed=1, **way), resume=str(tmp_path / "cut" / "checkpoint-2")
    )
    assert resumed.seen == whole.seen[2:] and same(resumed, whole)
    state = json.loads((tmp_path / "cut" / "checkpoint-2" / "trainer_state.json").read_text())
    assert state["stateful_callbacks"]["HeadMask"]["attributes"]["number"] == 1


def test_evaluation_accumulation_and_checkpointing_in_the_trainer(tmp_path):
    """Two batches a step share its heads; recomputed layers have those of the forward pass; evaluation has none."""
    plain = model("bart")
    with_all = trained(
        tmp_path, HeadMask(3), 1, made=plain, eval_strategy="steps", eval_steps=1, learning_rate=0.0
    )
    wanted = with_all.evaluate()["eval_loss"]
    assert next(x["eval_loss"] for x in with_all.state.log_history if "eval_loss" in x) == wanted
    for way in WAYS:
        found = HeadMask(3, seed=5, **way)
        once = trained(tmp_path, found, 2, made=quiet("bart"), gradient_accumulation_steps=2)
        assert once.seen[0] == once.seen[1] and once.seen[2] == once.seen[3] and len(once.seen[0]) == 3
        again = trained(
            tmp_path, HeadMask(3, seed=5, **way), 2, made=quiet("bart"), gradient_accumulation_steps=2,
            gradient_checkpointing=True, gradient_checkpointing_kwargs={"use_reentrant": False},
        )  # fmt: skip
        assert again.seen == once.seen
        for x, y in zip(once.model.parameters(), again.model.parameters(), strict=True):
            torch.testing.assert_close(x, y)


def test_reentrant_checkpoints():
    """They cannot tell gradients of gates alone: refused by "exact", used by "previous"."""
    made = quiet("bart")
    made.gradient_checkpointing_enable({"use_reentrant": True})
    exact = HeadMask(3, by="importance").attach(made)
    with exact, exact.step(), pytest.raises(UserError, match="as with reentrant checkpoints"):
        made(**labelled(made))
    with HeadMask(3, by="importance", importance="previous").attach(made) as found:
        with found.step():
            made(**labelled(made)).loss.backward()
        assert sum(x > 0 for x in found.last_importance.values()) > 12


def test_mixed_precision():
    made = quiet("bart")
    for way in WAYS[1:]:
        with HeadMask(3, **way).attach(made) as found:
            for _ in range(2):
                with found.step(), torch.autocast("cpu", torch.bfloat16):
                    made(**labelled(made)).loss.backward()
                    assert len(found.masked) == 3
            assert any(found.last_importance.values())


@pytest.mark.parametrize("way", [WAYS[0], *(pytest.param(way, marks=pytest.mark.slow) for way in WAYS[1:])])
def test_torch_compile(way):
    """The same losses as uncompiled, and no new compilation when the mask changes."""
    torch._dynamo.reset()
    made = quiet("bert")
    batch = labelled(made)

    def losses(network):
        with HeadMask(2, seed=3, **way).attach(network) as found:
            values, counts = [], []
            for _ in range(4):
                with found.step():
                    loss = network(**batch).loss
                    loss.backward()
                    values.append(loss.item())
                    assert len(found.masked) == 2
                counts.append(torch._dynamo.utils.counters["stats"]["unique_graphs"])
            return values, counts

    wanted, _ = losses(made)
    torch._dynamo.utils.counters.clear()
    values, counts = losses(torch.compile(made, backend="eager"))
    assert values == pytest.approx(wanted, rel=1e-4)
    assert counts[1] == counts[-1] > 0
    torch._dynamo.reset()


def test_a_loop_of_ones_own_resumes():
    made, batch = quiet("bert"), labelled(quiet("bert"))

    def names(found, steps):
        drawn = []
        for _ in range(steps):
            with found.step():
                made(**batch).loss.backward()
                drawn.append(found.masked)
        made.zero_grad()
        return drawn

    for way in WAYS:
        with HeadMask(2, **way).attach(made) as found:
            whole = names(found, 4)
        with HeadMask(2, **way).attach(made) as found:
            first = names(found, 2)
            state = json.loads(json.dumps(found.state_dict()))
        with HeadMask(2, **way).attach(made) as found:
            found.load_state_dict(state)
            assert first + names(found, 2) == whole


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({}, "n or share must be given; got neither"),
        ({"n": 3, "share": 0.5}, "got both"),
        ({"n": 0.25, "share": 0.5}, "got both"),
        ({"n": -1}, "n must be a number of heads"),
        ({"n": True}, "n must be a number of heads"),
        ({"share": 1.5}, "share must be from 0 to 1"),
        ({"n": 3, "by": "luck"}, "by must be one of random, importance"),
        ({"n": 3, "scope": ("encoder", "middle")}, "scope must name parts among encoder, cross, decoder"),
        ({"n": 3, "scope": ()}, "scope must name parts"),
        ({"n": 3, "site": "values"}, "site must be one of output, softmax"),
        ({"n": 3, "importance": "later"}, "importance must be one of exact, previous"),
        ({"n": 3, "seed": -1}, "seed must be"),
        ({"n": 25}, "n must be at most the 24 heads in scope; got 25"),
        ({"n": 9, "scope": "cross"}, "n must be at most the 8 heads in scope; got 9"),
        ({"share": 0.01}, "share must be one of 24 heads or more"),
    ],
)
def test_mistakes(options, said):
    made = model("bart")
    state = set(made.state_dict())
    with pytest.raises(UserError) as told:
        HeadMask(**options).attach(made)
    assert said in str(told.value)
    assert set(made.state_dict()) == state and not list(made.modules())[-1]._forward_pre_hooks


def test_scopes():
    with pytest.raises(
        UserError, match="scope must name parts that have heads; got cross where only encoder has"
    ):
        HeadMask(1, scope=("cross",)).attach(model("bert"))
    with pytest.raises(UserError, match="got decoder"):
        HeadMask(1, scope=("encoder", "decoder")).attach(model("bert"))
    with pytest.raises(UserError, match="must be on a model"):
        HeadMask(1).begin()
    assert len(HeadMask(0.125).attach(model("bart")).heads) == 24  # all three: those that there are
    assert all(name.startswith("cross") for name in HeadMask(8, scope="cross").attach(model("bart")).heads)
    assert len(HeadMask(8).attach(model("gpt2")).heads) == 8
    found = HeadMask(0.25).attach(model("bart"))
    with found.step():
        assert len(found.masked) == 6


def test_every_process_draws_the_same_heads():
    """Of the seed and the step's number alone: nothing of torch's or numpy's state."""
    drawn = []
    for state in (0, 1):
        torch.manual_seed(state)
        with HeadMask(3, seed=9).attach(model("bart")) as found:
            torch.rand(state)
            with found.step(17):
                drawn.append(found.masked)
    assert drawn[0] == drawn[1] and len(drawn[0]) == 3
    values = torch.rand(4, dtype=torch.float64)
    assert of_all_processes(values, torch.device("cpu")) is values


SHARED = {
    "copied": {"ddp_backend": "gloo", "ddp_find_unused_parameters": False},
    "divided": {
        "ddp_backend": "gloo",
        "fsdp": True,
        "fsdp_config": {"version": 2, "auto_wrap_policy": "NO_WRAP", "state_dict_type": "FULL_STATE_DICT"},
    },
}


def whole(weight):
    return weight.full_tensor() if hasattr(weight, "full_tensor") else weight


def main(folder):
    """One process of two, by DDP and by FSDP2: other examples than the other's, the same heads."""
    allow_on_cpus()
    torch.distributed.init_process_group("gloo")
    rank = torch.distributed.get_rank()
    found = {}
    for how, options in SHARED.items():
        for number, way in enumerate(WAYS):
            made = quiet("bart")
            if how == "divided":
                divide(made)
            place = folder / f"{how}-{number}"
            trainer = trained(place, HeadMask(3, seed=2, **way), 3, made=made, **options)
            weights = torch.cat([whole(x).detach().reshape(-1) for x in trainer.model.parameters()])
            found[f"{how} {number}"] = {
                "masked": trainer.seen,
                "weights": float(weights.double().abs().sum()),
                "divided": any(hasattr(x, "full_tensor") for x in trainer.model.parameters()),
            }
    (folder / f"rank-{rank}.json").write_text(json.dumps(found))
    torch.distributed.destroy_process_group()


@pytest.mark.slow
def test_two_processes_mask_the_same_heads(tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = os.environ | {
        "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "OMP_NUM_THREADS": "1",
    }  # fmt: skip
    command = [sys.executable, "-m", "tests.heads.test_headmask", str(tmp_path)]
    ranks = [environment | {"RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(2)]
    running = [subprocess.Popen(command, env=one, cwd=Path(__file__).parents[2]) for one in ranks]
    assert [one.wait(300) for one in running] == [0, 0]
    first, second = (json.loads((tmp_path / f"rank-{rank}.json").read_text()) for rank in range(2))
    assert first == second and all(len(x) == 3 for way in first.values() for x in way["masked"])
    for number in range(len(WAYS)):
        copied, divided = first[f"copied {number}"], first[f"divided {number}"]
        assert divided["masked"] == copied["masked"] and divided["divided"] and not copied["divided"]
        assert divided["weights"] == pytest.approx(copied["weights"], rel=1e-4)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
