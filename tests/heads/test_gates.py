"""Gates and masks: bit-identical at 1, no gradient at 0, right by finite differences, on every kind of layer."""

import pytest
import torch

from talking_heads.errors import UserError
from talking_heads.heads import gates, head_importance, inequality, layers, mask, recording
from talking_heads.heads.importance import ablation, single_ablations
from talking_heads.heads.losses import example_losses
from talking_heads.hf import mixings

from .small import MODELS, Own, call, model, output

COUNTS = {"albert": 4, "t5": 24, "bart": 24}


@pytest.mark.parametrize("site", ["output", "softmax"])
@pytest.mark.parametrize("name", MODELS)
def test_gate_1_changes_no_bit_and_gate_0_takes_the_head_out(name, site):
    made = model(name)
    before, state = output(made), set(made.state_dict())
    with gates(made, site) as found:
        assert torch.equal(output(made), before)
        heads = 16 if "8 softmax" in name and site == "softmax" else COUNTS.get(name.partition(",")[0], 8)
        assert len(found.names) == heads
        head = found.names[-3]
        found[head] = 0.0
        assert found[head] == 0 and not torch.equal(output(made), before)
        found.reset()
        assert torch.equal(output(made), before)
    assert torch.equal(output(made), before) and set(made.state_dict()) == state
    with mask(made, ["*.*:*"], site):
        muted = output(made)
    assert not torch.equal(muted, before)
    assert torch.equal(output(made), before)


def slices(layer):
    """The rows of head 1 in the query projection, and its columns in the output projection."""
    for name in ("query", "q", "q_proj"):
        projection = getattr(layer.module, name, None)
        if projection is not None:
            size = projection.out_features // layer.heads
            return projection.weight, slice(size, 2 * size)
    raise AssertionError(layer.name)


@pytest.mark.parametrize("name", ["bert", "bart", "t5", "mpnet", "deberta"])
def test_a_masked_head_gets_zero_gradient(name):
    made = model(name)
    names = [layer for layer in layers(made)]
    masked = [f"{layer.label}:1" for layer in names]
    with mask(made, masked):
        output(made).pow(2).sum().backward()
    for layer in names:
        if hasattr(layer.module, "query_proj"):
            continue
        weight, rows = slices(layer)
        gradient = weight.grad
        assert (gradient[rows] == 0).all(), layer.name
        assert (gradient != 0).any(), layer.name


def test_masking_is_cutting_the_output_projection():
    made = model("bert")
    with mask(made, ["encoder.1:2"]):
        masked = output(made)
    with torch.no_grad():
        made.bert.encoder.layer[1].attention.output.dense.weight[:, 12:18] = 0
    torch.testing.assert_close(output(made), masked)


def test_the_parts_are_told_apart():
    made = model("t5")
    with gates(made) as found:
        assert {x.split(".")[0] for x in found.names} == {"encoder", "decoder", "cross"}
        found[["cross.0:*", "encoder.*:3"]] = 0.5
        assert [found[x] for x in ("cross.0:2", "cross.1:2", "encoder.1:3", "encoder.1:2")] == [
            0.5,
            1,
            0.5,
            1,
        ]
        with pytest.raises(UserError, match=r"part\.layer:head"):
            found["cross.7:0"] = 0
    with pytest.raises(UserError, match="site must be one of"):
        gates(made, "values")


def test_at_the_softmax_a_gate_is_a_row_of_the_map():
    made = model("bert, talking")
    with mask(made, ["encoder.0:1"], site="softmax"):
        masked = output(made)
    with mask(made, ["encoder.0:1"]):
        at_the_output = output(made)
    with torch.no_grad():
        next(iter(mixings(made).values())).weights_mix[1] = 0
    assert torch.equal(output(made), masked)
    assert not torch.allclose(at_the_output, masked)


def test_fused_attention_stays_fused(monkeypatch):
    from talking_heads import kernels

    plain, talking, seen = model("bert"), model("bert, talking"), []
    sdpa = torch.nn.functional.scaled_dot_product_attention
    monkeypatch.setattr(
        torch.nn.functional,
        "scaled_dot_product_attention",
        lambda *a, **k: seen.append("sdpa") or sdpa(*a, **k),
    )
    fused = {name: backend.attention for name, backend in kernels.BACKENDS.items() if name != "reference"}
    for name, function in fused.items():
        monkeypatch.setattr(
            kernels.BACKENDS[name], "attention", lambda p, f=function, n=name: seen.append(n) or f(p)
        )
    with mask(plain, ["encoder.0:0"]):
        output(plain)
    assert seen == ["sdpa", "sdpa"]
    for site in ("output", "softmax"):
        seen.clear()
        with mask(talking, ["encoder.0:0"], site):
            output(talking)
        assert len(seen) == 2 and set(seen) <= set(fused)


def test_own_layers_and_torch():
    made, x = Own().eval(), torch.randn(2, 5, 12)
    before = made(x)
    with gates(made) as found:
        assert len(found.names) == 2 + 2 + 3
        assert torch.equal(made(x), before)
        found["encoder.*:1"] = 0
        masked = made(x)
    with torch.no_grad():
        made.talk.output_proj.weight[:, 6:] = 0
        made.bilinear.output_proj.weight[:, 12:] = 0
        made.torch.out_proj.weight[:, 4:8] = 0
    torch.testing.assert_close(made(x), masked)
    with gates(made, "softmax") as found:
        assert len(found.names) == 4 + 2 + 3
        found["encoder.0:3"] = 0
        masked = made(x)
    with torch.no_grad():
        made.talk.weights_mix[3] = 0
    torch.testing.assert_close(made(x), masked)


def test_gates_may_be_stacked():
    made = model("bert, talking")
    with gates(made, "softmax") as outer, gates(made, "softmax") as inner:
        outer["encoder.0:0"], inner["encoder.0:1"] = 0.0, 0.0
        both = output(made)
        inner.remove()
        outer["encoder.0:1"] = 0.0
        assert torch.equal(output(made), both)


def labelled(made):
    labels = torch.tensor([0, 1]) if "Classification" in type(made).__name__ else None
    batch = call(made)
    if labels is None:
        labels = batch.get("decoder_input_ids", batch["input_ids"]).clone()
        labels[1, 4:] = -100
        batch.pop("decoder_input_ids", None)
    return batch | {"labels": labels}


@pytest.mark.parametrize("site", ["output", "softmax"])
@pytest.mark.parametrize("name", ["bert", "bert, talking", "t5", "mpnet" + " head"])
def test_importance_by_finite_differences(name, site):
    if name.startswith("mpnet"):
        made, loss = model("mpnet").double(), lambda m, b: m(**b).last_hidden_state[:, 0].pow(2).sum(-1)
        batch = call(made)
    else:
        made, loss = model(name).double(), example_losses
        batch = labelled(made)
    table = head_importance(made, [batch], loss=None if loss is example_losses else loss, site=site)
    assert (
        table.meta["importance"] == "mean over each example of |dLoss/dgate|" and table.meta["examples"] == 2
    )
    step = 3e-4  # T5's norm is in float32
    with gates(made, site) as found:
        found.values = {k: v.detach().double() for k, v in found.values.items()}
        for row in table.rows[::3]:
            each = []
            for sign in (1, -1):
                found[row["head"]] = 1 + sign * step
                each.append(loss(made, batch).detach())
                found[row["head"]] = 1.0
            want = ((each[0] - each[1]) / (2 * step)).abs().mean().item()
            assert row["importance"] == pytest.approx(want, rel=3e-3, abs=1e-7), row["head"]


def test_importance_per_example_and_per_batch():
    made = model("bert").train()
    batch = labelled(made)
    one = {k: x[:1] for k, x in batch.items()}
    other = {k: x[1:] for k, x in batch.items()}
    get = lambda batches, **x: [r["importance"] for r in head_importance(made, batches, **x).rows]  # noqa: E731
    together, apart = get([batch]), get([one, other])
    assert together == pytest.approx(apart, rel=1e-3)
    batched = get([batch], per="batch")
    assert all(b <= e * (1 + 1e-4) + 1e-9 for b, e in zip(batched, together, strict=True))
    assert batched != pytest.approx(together, rel=1e-2)  # what cancels between examples is hidden
    assert made.training and all(p.requires_grad and p.grad is None for p in made.parameters())


def test_inequality_by_hand():
    even, one = inequality([2.0] * 10), inequality([0.0] * 9 + [5.0])
    assert (
        even["gini"] == pytest.approx(0) and even["variance"] == 0 and even["top 10%"] == pytest.approx(0.1)
    )
    assert (
        one["gini"] == pytest.approx(0.9)
        and one["top 10%"] == 1
        and one["coefficient of variation"] == pytest.approx(3)
    )
    found = inequality([1.0, 2.0, 3.0])
    assert found["gini"] == pytest.approx(2 / 9) and found["variance"] == pytest.approx(2 / 3)
    with pytest.raises(UserError, match="above 0"):
        inequality([0.0, 0.0])


def test_ablation_curves():
    made = model("bert")
    batch = labelled(made)
    judge = lambda m: m(**batch).loss.item()  # noqa: E731
    ranking = head_importance(made, [batch])
    curves = {
        order: ablation(made, judge, ranking, order=order, points=4) for order in ("most", "least", "random")
    }
    for curve in curves.values():
        assert [r["masked"] for r in curve.rows] == [0, 2, 4, 6, 8]
        assert (
            curve.rows[0]["score"] == judge(made)
            and curve.rows[-1]["score"] == curves["most"].rows[-1]["score"]
        )
    for row in curves["random"].rows:
        assert row["range"][0] <= row["score"] <= row["range"][1]
    best = max(ranking.rows, key=lambda r: r["importance"])["head"]
    costs = {r["head"]: r["cost"] for r in single_ablations(made, judge).rows}
    with mask(made, [best]):
        assert costs[best] == costs[best] and costs[best] == pytest.approx(
            -(judge(made)) + curves["most"].rows[0]["score"]
        )
    with pytest.raises(UserError, match="order must be"):
        ablation(made, judge, ranking, order="first")


def test_a_model_compiled_and_used_before_takes_gates_and_gives_maps():
    """torch.compile does not look for hooks again: without care gates would act on nothing."""
    plain = model("bert").eval()
    compiled, batch = torch.compile(plain, backend="eager"), call(plain)
    with torch.no_grad():
        before = compiled(**batch).logits
        with mask(plain, ["encoder.0:1"]):
            want = plain(**batch).logits
        for given in (compiled, plain):  # either name of the same model
            with mask(given, ["encoder.0:1"]):
                torch.testing.assert_close(compiled(**batch).logits, want)
        torch.testing.assert_close(compiled(**batch).logits, before)
        with recording(compiled) as tape:
            compiled(**batch)
    assert [maps.label for maps in tape.take()] == ["encoder.0", "encoder.1"]


def test_other_models_compile_as_one_graph_after_gates():
    """What gates register stays in transformers' table, whose keys torch.compile hashes."""
    used, other = model("bert"), model("bert")
    batch = call(used)
    with gates(used):
        used(**batch)
    torch._dynamo.reset()
    compiled = torch.compile(other, backend="eager", fullgraph=True)
    assert torch.equal(compiled(**batch).logits, other(**batch).logits)
