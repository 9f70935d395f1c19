"""Each example's loss is the model's own, whatever its class and whatever it is wrapped in; so is what heads owe to it."""

import pytest
import torch
import transformers

from talking_heads.errors import UserError
from talking_heads.heads import example_losses, gates, head_importance, losses

from .small import model

SMALL = {
    "vocab_size": 99,
    "hidden_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 4,
    "intermediate_size": 37,
}
SEES = {name: x for name, x in SMALL.items() if name != "vocab_size"} | {"image_size": 32, "patch_size": 8}
ENDS = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 2}
SIDES = {f"{side}_{name}": n for side in ("encoder", "decoder")
         for name, n in (("layers", 1), ("attention_heads", 4), ("ffn_dim", 37))}  # fmt: skip
DRAW = torch.Generator().manual_seed(0)
IDS = torch.randint(4, 90, (2, 7), generator=DRAW)
TOKENS = {"input_ids": IDS, "labels": IDS.masked_fill(torch.arange(7) >= torch.tensor([[5], [7]]), -100)}
PICTURES = {"pixel_values": torch.randn(2, 3, 32, 32, generator=DRAW), "labels": torch.tensor([0, 1])}
SOUND = {"input_features": torch.randn(2, 8, 32, generator=DRAW), "labels": TOKENS["labels"]}
CHOICES = {"input_ids": torch.stack([IDS, IDS.flip(1)], 1), "labels": torch.tensor([0, 1])}
ANSWERS = {"input_ids": IDS, "start_positions": torch.tensor([1, 2]), "end_positions": torch.tensor([3, 4])}
SWIN = {"image_size": 32, "patch_size": 4, "embed_dim": 16, "depths": [2], "num_heads": [2], "window_size": 4}
WHISPER = {"d_model": 32, "num_mel_bins": 8, "max_source_positions": 16, "max_target_positions": 32}
LLAVA = {
    "text_config": transformers.LlamaConfig(**SMALL, pad_token_id=0),
    "vision_config": transformers.CLIPVisionConfig(**SEES),
    "image_token_id": 98,
}


def made(kind, config, **options):
    torch.manual_seed(0)
    found = getattr(transformers, kind)(getattr(transformers, config)(**options)).eval()
    with torch.no_grad():
        for weight in found.parameters():
            if weight.dim() == 2:
                weight.add_(0.2 * torch.randn_like(weight))  # heads that differ
    return found


def bert(kind="BertForSequenceClassification", **more):
    return made(kind, "BertConfig", **SMALL, pad_token_id=0, **more)


def llama():
    return made("LlamaForCausalLM", "LlamaConfig", **SMALL, pad_token_id=0, bos_token_id=1, eos_token_id=2)


class Reader(transformers.LlamaForCausalLM):
    """A class of one's own."""


class Wrapped(torch.nn.Module):
    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, **inputs):
        return self.inner(**inputs)


def subclassed():
    torch.manual_seed(0)
    return Reader(llama().config).eval()


# name: (model, batch, whether one forward pass tells each example's loss)
CASES = {
    "classes": (bert, {"input_ids": IDS, "labels": torch.tensor([0, 1])}, True),
    "numbers": (lambda: bert(num_labels=1), {"input_ids": IDS, "labels": torch.tensor([0.5, 2.0])}, True),
    "several labels": (
        lambda: bert(num_labels=3, problem_type="multi_label_classification"),
        {"input_ids": IDS, "labels": torch.tensor([[1.0, 0, 1], [0, 0, 1]])},
        True,
    ),
    "choices": (lambda: bert("BertForMultipleChoice"), CHOICES, True),
    "answers": (lambda: bert("BertForQuestionAnswering"), ANSWERS, False),
    "masked": (lambda: bert("BertForMaskedLM"), TOKENS, True),
    "tags": (lambda: bert("BertForTokenClassification", num_labels=99), TOKENS, True),
    "causal": (llama, TOKENS, True),
    "compiled": (lambda: torch.compile(llama(), backend="eager"), TOKENS, True),
    "wrapped": (lambda: Wrapped(llama()).eval(), TOKENS, True),
    "subclass": (subclassed, TOKENS, True),
    "pictures and text": (
        lambda: made("LlavaForConditionalGeneration", "LlavaConfig", **LLAVA), TOKENS, True),
    "unshifted decoder": (
        lambda: made("BartForCausalLM", "BartConfig", vocab_size=99, d_model=32, **SIDES, **ENDS), TOKENS, True),
    "masked by another name": (
        lambda: made("XLMWithLMHeadModel", "XLMConfig", vocab_size=99, emb_dim=32, n_layers=1, n_heads=4, pad_index=0),
        TOKENS, True),
    "translation": (
        lambda: made("M2M100ForConditionalGeneration", "M2M100Config", vocab_size=99, d_model=32, **SIDES, **ENDS),
        TOKENS, True),
    "speech": (
        lambda: made("WhisperForConditionalGeneration", "WhisperConfig", vocab_size=99, **WHISPER, **SIDES, **ENDS),
        SOUND, True),
    "windows": (lambda: made("SwinForImageClassification", "SwinConfig", **SWIN, num_labels=2), PICTURES, True),
}  # fmt: skip


def rows_of(batch):
    return [{name: x[i : i + 1] for name, x in batch.items()} for i in range(2)]


@pytest.mark.parametrize("name", CASES)
def test_losses_and_importance_are_the_models_own(name):
    make, batch, one_pass = CASES[name]
    found = make()
    each = torch.stack([found(**row).loss for row in rows_of(batch)])
    torch.testing.assert_close(example_losses(found, batch), each, rtol=1e-4, atol=1e-5)
    assert (losses.in_one_pass(found, batch) is not None) == one_pass
    got = {row["head"]: row["importance"] for row in head_importance(found, [batch]).rows}
    want = dict.fromkeys(got, 0.0)
    plain = getattr(found, "_orig_mod", found)
    with gates(plain) as gated:
        for row in rows_of(batch):
            slopes = torch.autograd.grad(plain(**row).loss, list(gated.values.values()), allow_unused=True)
            for label, slope in zip(gated.values, slopes, strict=True):
                for head in range(0 if slope is None else len(slope)):
                    want[f"{label}:{head}"] += abs(float(slope[head])) / 2
    assert got == pytest.approx(want, rel=1e-3, abs=1e-3 * max(want.values()))


def test_talking_heads_and_encoder_decoders():
    for name in ("bert, talking", "t5", "bart"):
        found = model(name).eval()
        batch = {
            "input_ids": IDS % 30 + 4,
            "labels": IDS % 30 + 4 if name != "bert, talking" else torch.tensor([0, 1]),
        }
        each = torch.stack([found(**row).loss for row in rows_of(batch)])
        torch.testing.assert_close(example_losses(found, batch), each, rtol=1e-4, atol=1e-5)


def test_two_forms_that_agree_are_not_guessed_between():
    """Logits that are the same everywhere give the same loss shifted or not: each example is run by itself."""
    found = llama()
    with torch.no_grad():
        found.lm_head.weight.zero_()
    assert losses.in_one_pass(found, TOKENS) is None
    torch.testing.assert_close(example_losses(found, TOKENS), torch.full((2,), 99.0).log())


def test_no_loss_and_rows_that_are_no_examples_are_refused():
    with pytest.raises(UserError, match=r"must give a loss.*pass loss="):
        example_losses(bert("BertModel"), {"input_ids": IDS})
    packed = ANSWERS | {"attention_mask": torch.ones(14, 7)}
    with pytest.raises(UserError, match="one row an example, here 2; got other rows in attention_mask"):
        losses.examples(packed)


def test_modes_are_as_they_were():
    found = bert().train()
    found.bert.embeddings.eval()
    found.bert.embeddings.requires_grad_(False)
    before = [(x.training) for x in found.modules()], [p.requires_grad for p in found.parameters()]
    head_importance(found, [{"input_ids": IDS, "labels": torch.tensor([0, 1])}])
    assert before == ([(x.training) for x in found.modules()], [p.requires_grad for p in found.parameters()])
