"""A pruned model is smaller, computes what the masked one does, and loads again."""

import pytest
import torch
import transformers

from talking_heads.errors import UserError
from talking_heads.heads import Table, layers, load_pruned, mask, open_model, prune, random_copy, save_pruned

from .small import SIZES, VOCABULARY, call, model, output, tokenizer


def ranking(made, seed=0):
    draw = torch.Generator().manual_seed(seed)
    names = [f"{x.label}:{h}" for x in layers(made) for h in range(x.heads)]
    worth = torch.rand(len(names), generator=draw).tolist()
    return Table(
        [{"head": n, "importance": w} for n, w in zip(names, worth, strict=True)], ("head",), "importance"
    )


def size(made):
    return sum(p.numel() for p in made.parameters())


def distilbert():
    transformers.set_seed(0)
    config = transformers.DistilBertConfig(
        vocab_size=len(VOCABULARY), dim=24, n_layers=2, n_heads=4, hidden_dim=32
    )
    return transformers.DistilBertForSequenceClassification(config).eval()


@pytest.mark.parametrize("name", ["bert", "bart", "t5", "distilbert"])
def test_pruned_computes_what_masked_does(name, tmp_path):
    made = distilbert() if name == "distilbert" else model(name)
    ranks, before = ranking(made), size(made)
    all_heads = {f"{x.name}:{h}": f"{x.label}:{h}" for x in layers(made) for h in range(x.heads)}
    twin = distilbert() if name == "distilbert" else model(name)
    kept = prune(made, ranks, 0.5)
    gone = [head for full, head in all_heads.items() if int(full[-1]) not in kept[full[:-2]]]
    assert len(gone) == len(all_heads) // 2
    assert len({len(x) for x in kept.values()}) == 1 or name != "t5"
    with mask(twin, gone):
        torch.testing.assert_close(output(made), output(twin), rtol=1e-4, atol=1e-5)
    assert size(made) < before
    save_pruned(made, tokenizer(), tmp_path / "small")
    again, _ = open_model(str(tmp_path / "small"))
    assert type(again) is type(made) and size(again) == size(made)
    assert torch.equal(output(again), output(made))
    if name == "t5":
        plain = transformers.T5ForConditionalGeneration.from_pretrained(tmp_path / "small").eval()
        assert plain.config.num_heads == 2 and torch.equal(output(plain), output(made))
        ids = call(plain)["input_ids"]
        assert torch.equal(plain.generate(ids, max_new_tokens=4), made.generate(ids, max_new_tokens=4))
    else:
        with pytest.raises(RuntimeError):  # never silently as another model
            type(made).from_pretrained(tmp_path / "small")
        assert torch.equal(output(load_pruned(tmp_path / "small")), output(made))
    assert size(random_copy(again)) == size(made)


def test_a_layer_keeps_its_best_head_and_training_goes_on():
    made = model("bert")
    ranks = Table(
        [{"head": f"encoder.{n}:{h}", "importance": 10.0 * n + h} for n in range(2) for h in range(4)],
        ("head",), "importance",
    )  # fmt: skip
    kept = prune(made, ranks, 0.5)
    assert list(kept.values()) == [[1, 2, 3], [3]] or list(kept.values()) == [[3], [1, 2, 3]]
    assert kept["bert.encoder.layer.0.attention.self"] == [3]
    output(made).sum().backward()
    assert all(p.grad is not None for n, p in made.named_parameters() if "attention" in n)


def test_what_cannot_be_pruned_is_refused(tmp_path):
    with pytest.raises(UserError, match="whose heads are mixed"):
        prune(model("bert, talking"), ranking(model("bert")), 0.5)
    with pytest.raises(UserError, match="separate query, key"):
        prune(model("gpt2"), ranking(model("gpt2")), 0.5)  # one matrix for all three
    with pytest.raises(UserError, match="MPNetModel, which fails with fewer"):
        prune(model("mpnet"), ranking(model("mpnet")), 0.5)
    with pytest.raises(UserError, match="above 0"):
        prune(model("bert"), ranking(model("bert")), 0)
    transformers.BertModel(transformers.BertConfig(vocab_size=50, **SIZES)).save_pretrained(
        tmp_path / "plain"
    )
    with pytest.raises(UserError, match="needs a pruned model"):
        load_pruned(tmp_path / "plain")
    with pytest.raises(UserError, match="new or empty"):
        save_pruned(model("bert"), tokenizer(), tmp_path / "plain")


ENDS = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
DECODERS = {
    "Helium": {
        "num_key_value_heads": 4,
        "head_dim": 6,
    },  # its config names sizes that its class does not take
    "Olmo2": {},  # queries of all heads are normalised together
    "StableLm": {"num_key_value_heads": 4},  # reshapes by the model's width
    "Doge": {},  # a parameter of each head decides what is masked
}


def decoder(kind):
    transformers.set_seed(0)
    config = getattr(transformers, f"{kind}Config")(
        vocab_size=len(VOCABULARY), **SIZES, **ENDS, **DECODERS[kind]
    )
    return getattr(transformers, f"{kind}ForCausalLM")(config).eval()


@pytest.mark.parametrize("kind", DECODERS)
def test_what_pruning_would_break_is_refused_before_anything_changes(kind, tmp_path):
    made, twin = decoder(kind), decoder(kind)
    before = output(made)
    if kind != "Helium":
        with pytest.raises(UserError, match=r"which fails with fewer.*mask heads instead"):
            prune(made, ranking(made), 0.5)
        assert torch.equal(output(made), before)
        return
    kept = prune(made, ranking(made), 0.5)
    gone = [f"{x.label}:{h}" for x in layers(twin) for h in range(x.heads) if h not in kept[x.name]]
    with mask(twin, gone):
        torch.testing.assert_close(output(made), output(twin), rtol=1e-4, atol=1e-5)
    save_pruned(made, tokenizer(), tmp_path / "small")
    torch.testing.assert_close(output(load_pruned(tmp_path / "small")), output(made))


class Mine(transformers.BertModel):
    pass


def test_a_class_that_nobody_could_open_again_is_pruned_but_not_saved(tmp_path):
    transformers.set_seed(0)
    made = Mine(transformers.BertConfig(vocab_size=len(VOCABULARY), **SIZES)).eval()
    prune(made, ranking(made), 0.5)
    assert sum(layer.heads for layer in layers(made)) == 4
    with pytest.raises(
        UserError, match=r"of a class that transformers names; got .*\.Mine; keep it in memory"
    ):
        save_pruned(made, tokenizer(), tmp_path / "out")
    assert not (tmp_path / "out").exists()
