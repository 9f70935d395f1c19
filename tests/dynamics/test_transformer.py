"""Words of a transformer along its training: against what the operator gives, from models that compare keeps."""

import json

import pytest
import torch
from safetensors.torch import save_file
from transformers import PreTrainedTokenizerFast

from talking_heads import talking_heads_attention
from talking_heads.dynamics import transformer
from talking_heads.dynamics.report import write_report
from talking_heads.dynamics.transformer import find_words, measure, open_model, partial_correlation
from talking_heads.errors import UserError
from talking_heads.training.models import build
from talking_heads.training.run import pretrain
from talking_heads.training.settings import Settings
from talking_heads.training.tokens import blocks, train_tokenizer

TEXT = "the old king of the north saw the young queen of the south and the king of the sea . " * 40
ARMS = ("multi-head:4", "talking-heads:4:random")


def settings(objective: str) -> Settings:
    return Settings(
        arms=ARMS, seeds=(0,), objective=objective, vocabulary=360, width=16, layers=2, feed_forward=16, length=32,
        batch=4, steps=6, judged=8, evaluations=3, learning_rate=1e-2,
    )  # fmt: skip


@pytest.fixture(scope="module", params=["span-corruption", "masked-lm"])
def source(request, tmp_path_factory):
    """A folder as `compare --snapshots` writes it."""
    out = tmp_path_factory.mktemp("compare")
    asked = settings(request.param)
    tokenizer = train_tokenizer([TEXT], asked.vocabulary)
    tokens = blocks(tokenizer, [TEXT] * 3, asked.length)
    tokenizer.save_pretrained(out / "data")
    save_file({"train": tokens, "held_out": tokens[:20].clone()}, out / "data" / "blocks.safetensors")
    (out / "comparison.json").write_text(json.dumps({"settings": {"objective": asked.objective}}))
    for arm in ARMS:
        folder = out / "runs" / arm.replace(":", "-") / "seed-0"
        data = {"train": tokens, "held_out": tokens[:20]}
        pretrain(folder, asked, arm, 0, data, lambda done, total, said: None, snapshots=True)
    return out


def test_models_are_kept_from_the_start_on(source):
    for arm in ARMS:
        steps = source / "runs" / arm.replace(":", "-") / "seed-0" / "steps"
        assert sorted(int(path.name) for path in steps.iterdir()) == [0, 2, 4, 6]
        asked = settings(json.loads((source / "comparison.json").read_text())["settings"]["objective"])
        start, kept = build(asked, arm, 0).state_dict(), open_model(steps / "0").state_dict()
        assert all(torch.equal(x, kept[name]) for name, x in start.items() if name in kept)
        moved = open_model(steps / "6").state_dict()
        assert any(not torch.equal(x, kept[name]) for name, x in moved.items())


def test_words_of_letters_with_their_pieces(source):
    tokenizer = PreTrainedTokenizerFast.from_pretrained(source / "data")
    rows = [tokenizer(" the king . the, queen north")["input_ids"][:-1]] * 10
    tokens = torch.tensor(rows)
    words = find_words(tokenizer, tokens)
    assert words.names == ["king", "north", "queen", "the"]
    assert words.occurrences.tolist() == [10, 10, 10, 20]
    pieces = tokenizer.convert_ids_to_tokens(rows[0])
    for place, piece in enumerate(pieces):
        word = int(words.place[0, place])
        assert (word < 0) == (not piece.lstrip("Ġ").isalpha())
        if word >= 0:
            assert piece.lstrip("Ġ") in words.names[word]
    ones = words.mean(torch.ones(10, 2, len(rows[0])))
    torch.testing.assert_close(ones, torch.ones(2, 4))
    alone = torch.zeros(10, len(rows[0]))
    alone[:, words.place[0] == 0] = 3.0
    torch.testing.assert_close(words.mean(alone), torch.tensor([3.0, 0, 0, 0]))


@pytest.mark.parametrize("arm", ARMS)
def test_measures_are_the_operators(source, arm):
    """Scores, mixed weights and value norms of layer 0 from its projections by hand, through the operator."""
    model = open_model(source / "runs" / arm.replace(":", "-") / "seed-0" / "steps" / "6")
    tokenizer = PreTrainedTokenizerFast.from_pretrained(source / "data")
    tokens = torch.tensor([tokenizer(TEXT)["input_ids"][:24]] * 20)
    words = find_words(tokenizer, tokens)
    got = measure(model, tokens, words)
    with torch.no_grad():
        query, key, value, bias, scale, mixing = first_layer(model, tokens)
        _, weights, mixed = talking_heads_attention(
            query, key, value, *((mixing.logits_mix, mixing.weights_mix) if mixing else ()),
            attn_mask=bias, scale=scale, return_weights=True,
        )  # fmt: skip
    logs = weights.log()
    torch.testing.assert_close(got["score"][0], words.mean((logs - logs.mean(-1, keepdim=True)).mean(2)))
    share = mixed.mean(2) / mixed.sum(-1).mean(2)[..., None] * tokens.shape[1]
    torch.testing.assert_close(got["mixed"][0], words.mean(share), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(got["value"][0], words.mean(value.norm(dim=-1)))
    embedding = model.get_input_embeddings().weight.detach()[tokens].norm(dim=-1)
    torch.testing.assert_close(got["embedding"], words.mean(embedding))


def first_layer(model, tokens):
    """(query, key, value [batch, heads, positions, size], bias, scale, maps) of the encoder's first layer."""
    split = lambda x: x.unflatten(-1, (4, -1)).transpose(1, 2)  # noqa: E731
    if model.config.is_encoder_decoder:
        block = model.encoder.block[0].layer[0]
        layer, x = block.SelfAttention, block.layer_norm(model.shared(tokens))
        bias = layer.compute_bias(tokens.shape[1], tokens.shape[1])
        parts = layer.q(x), layer.k(x), layer.v(x)
        scale = 1.0
    else:
        layer, x = model.bert.encoder.layer[0].attention.self, model.bert.embeddings(tokens)
        parts = layer.query(x), layer.key(x), layer.value(x)
        bias, scale = None, None
    return *(split(part) for part in parts), bias, scale, getattr(layer, "head_mixing", None)


def test_results_and_report(source, tmp_path):
    found = transformer.run(source, tmp_path / "out", blocks=20)
    assert [(entry["arm"], entry["seed"]) for entry in found["runs"]] == [
        ("multi-head-4", 0),
        ("talking-heads-4-random", 0),
    ]
    for entry in found["runs"]:
        assert entry["steps"] == [0, 2, 4, 6] and entry["words"] >= 8
        for name, relation in entry["relations"].items():
            level = torch.tensor(relation["level"])
            assert level.shape == (4, 2, 1 if name == "sum" else 4) and level.abs().max() <= 1
            assert relation["change"][0][0][0] is None and relation["change"][-1][0][0] is not None
    write_report(tmp_path / "out", found)
    assert (tmp_path / "out" / "report.html").read_text().count("data:image/png;base64,") == 3


def test_a_run_still_in_training_is_looked_at_again(source, tmp_path):
    later = source / "runs" / "multi-head-4" / "seed-0" / "steps"
    begun = source / "runs" / "talking-heads-4-random" / "seed-1" / "steps"
    begun.mkdir(parents=True)
    try:
        for step in ("4", "6"):
            (later / step).rename(tmp_path / step)
        found = transformer.run(source, tmp_path / "out", blocks=20)
    finally:
        for step in ("4", "6"):
            (tmp_path / step).rename(later / step)
    assert [(x["seed"], x["steps"]) for x in found["runs"]] == [(0, [0, 2]), (0, [0, 2, 4, 6])]
    found = transformer.run(source, tmp_path / "out", blocks=20)
    assert [(x["seed"], x["steps"]) for x in found["runs"]] == [(0, [0, 2, 4, 6])] * 2
    begun.rmdir()
    begun.parent.rmdir()


def test_partial_correlation_takes_the_third_out():
    draw = torch.Generator().manual_seed(0)
    common, x, y = (torch.randn(2, 4000, generator=draw) for _ in range(3))
    got = partial_correlation(3 * common + x, 3 * common + y, common[0])
    assert abs(got[0]) < 0.05 and got[1] > 0.8
    torch.testing.assert_close(partial_correlation(x, x.exp(), common[0]), torch.ones(2).double())


def test_a_folder_without_kept_models_is_said(tmp_path):
    with pytest.raises(UserError, match="compare --snapshots"):
        transformer.run(tmp_path, tmp_path / "out")
    (tmp_path / "comparison.json").write_text("{}")
    (tmp_path / "runs" / "multi-head-4" / "seed-0" / "steps").mkdir(parents=True)
    with pytest.raises(UserError, match="compare --snapshots"):
        transformer.run(tmp_path, tmp_path / "out")
