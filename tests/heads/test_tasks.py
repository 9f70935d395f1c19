"""A model on its task: tokenizers and models of many kinds."""

import pytest
import torch
import transformers

from talking_heads import heads
from talking_heads.heads.task import TaskOf
from talking_heads.reading.labelled import Example

from .small import VOCABULARY, model, tokenizer

PAIRS = [("the old dog", "she sing"), ("a ball .", "the dog"), ("the red ball", "a dog sing")]
SIDES = {
    f"{side}_{name}": n
    for side in ("encoder", "decoder")
    for name, n in (("layers", 1), ("attention_heads", 4), ("ffn_dim", 32))
}
TRANSLATORS = {
    "M2M100": ("M2M100ForConditionalGeneration", "M2M100Config"),
    "Blenderbot": ("BlenderbotForConditionalGeneration", "BlenderbotConfig"),
    "BART": ("BartForConditionalGeneration", "BartConfig"),
}


def examples(pairs):
    return [
        Example(text=text, pair=None, label=label, line=number) for number, (text, label) in enumerate(pairs)
    ]


def without_pad():
    made = tokenizer()
    made.pad_token = None
    return made


def importances(task):
    table = heads.head_importance(task.model, task.batches(), total=len(task))
    return {row["head"]: row["importance"] for row in table.rows}


def test_a_tokenizer_without_a_pad_token_takes_examples_one_by_one():
    t5 = model("t5").eval()
    with_pad, without = (TaskOf(t5, x, examples(PAIRS), 2) for x in (tokenizer(), without_pad()))
    assert [len(batch["labels"]) for batch in without.batches()] == [1, 1, 1]
    padded = importances(with_pad)
    assert importances(without) == pytest.approx(padded, rel=1e-3, abs=1e-6) and max(padded.values()) > 0
    assert without.score() == pytest.approx(with_pad.score())


def test_sentences_of_a_tokenizer_without_a_pad_token():
    texts = ["the old dog chased a ball", "the dog"]
    found = [
        {x.number: x.maps for x in heads.record(model("bert"), reader, texts)}
        for reader in (tokenizer(), without_pad())
    ]
    for number, maps in found[0].items():
        torch.testing.assert_close(torch.tensor(maps), torch.tensor(found[1][number]))


@pytest.mark.parametrize("name", TRANSLATORS)
def test_importance_of_translators(name):
    kind, config = (getattr(transformers, x) for x in TRANSLATORS[name])
    torch.manual_seed(0)
    ends = {"pad_token_id": 0, "bos_token_id": 2, "eos_token_id": 3, "decoder_start_token_id": 3}
    made = kind(config(vocab_size=len(VOCABULARY), d_model=24, **SIDES, **ends)).eval()
    task = TaskOf(made, tokenizer(), examples(PAIRS), 3)
    found = importances(task)
    assert {head.partition(".")[0] for head in found} == {"encoder", "decoder", "cross"} and len(found) == 12
    one_by_one = importances(TaskOf(made, tokenizer(), examples(PAIRS), 1))
    assert found == pytest.approx(one_by_one, rel=1e-3, abs=1e-6)
