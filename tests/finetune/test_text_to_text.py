"""T5's prompts and answers."""

import pytest
import torch

from talking_heads.finetune.data import Example
from talking_heads.finetune.tasks import find
from talking_heads.finetune.text_to_text import NO_ANSWER, TextToText, candidates, prompt, target
from talking_heads.training.answers import Question

from .small import save_model, tokenizer

PROMPTS = {
    "sst2": (Example("good", label=1), "sst2 sentence: good", "positive"),
    "cola": (Example("x", label=0), "cola sentence: x", "unacceptable"),
    "mrpc": (Example("a", "b", label=1), "mrpc sentence1: a sentence2: b", "equivalent"),
    "stsb": (Example("a", "b", label=3.25), "stsb sentence1: a sentence2: b", "3.2"),
    "rte": (Example("a", "b", label=1), "rte sentence1: a sentence2: b", "not_entailment"),
    "qnli": (Example("a", "b", label=0), "qnli question: a sentence: b", "entailment"),
    "qqp": (Example("a", "b", label=1), "qqp question1: a question2: b", "duplicate"),
    "mnli": (Example("p", "h", label=2), "mnli hypothesis: h premise: p", "contradiction"),
    "copa": (
        Example("p", None, ("a", "b"), "cause", 1),
        "copa choice1: a choice2: b premise: p question: cause",
        "choice2",
    ),
    "squad": (Question("1", "", "q", "c x", ("x",), (2,)), "question: q context: c x", "x"),
    "squad2": (Question("1", "", "q", "c", (), ()), "question: q context: c", NO_ANSWER),
}


@pytest.mark.parametrize("name", PROMPTS)
def test_prompts_and_targets(name):
    row, read, written = PROMPTS[name]
    assert prompt(find(name), row) == read and target(find(name), row) == written


def test_similarities_are_written_in_steps():
    names = candidates(find("stsb"))
    assert len(names) == 26 and (names[0], names[13], names[-1]) == ("0.0", "2.6", "5.0")


def test_the_likeliest_label_is_predicted(tmp_path):
    """Against the loss of each label by itself, in its own batch of one."""
    from transformers import AutoModelForSeq2SeqLM

    model = AutoModelForSeq2SeqLM.from_pretrained(save_model(tmp_path / "t5", "t5", "talking-heads:2")).eval()
    with torch.no_grad():
        for x in model.parameters():
            x.add_(0.3 * torch.randn(x.shape, generator=torch.Generator().manual_seed(len(x))))
    task = find("rte")
    form = TextToText(task, tokenizer(), 64)
    rows = [Example(f"The state {i} of things", "is " + "good " * i, label=0) for i in range(6)]
    found = form.predict(model, rows)
    for row, number in zip(rows, found, strict=True):
        sums = []
        for label in range(2):
            batch = form.collate(form.examples([Example(row.text, row.pair, label=label)], learn=True))
            with torch.no_grad():
                sums.append(model(**batch).loss.item() * int((batch["labels"] != -100).sum()))
        assert number == sums.index(min(sums))


def test_encoders_read_a_class_token_first_and_albert_types_of_texts(tmp_path):
    from transformers import AutoTokenizer

    from talking_heads.training.judge import CLASS, END

    for name, classes in (("bert", True), ("albert", True), ("t5", False)):
        kept = AutoTokenizer.from_pretrained(save_model(tmp_path / name, name))
        found = kept("a cat", "a dog")
        assert (found["input_ids"][0] == CLASS) == classes and found["input_ids"].count(END) == 2
        assert (1 in found.get("token_type_ids", [])) == (name == "albert")
        assert kept.decode(kept("a cat")["input_ids"], skip_special_tokens=True) == "a cat"
