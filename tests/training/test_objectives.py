"""What is learned from a block: span corruption and masked words, the same for every arm and after a stop."""

import pytest
import torch

from talking_heads.training.blocks import Examples
from talking_heads.training.judge import CLASS, END, FIRST_SENTINEL, IGNORED, MASK, PAD, collate
from talking_heads.training.objectives import find, names
from talking_heads.training.objectives.masked_lm import mask
from talking_heads.training.objectives.span_corruption import corrupt
from talking_heads.training.tokens import SENTINELS, SPECIAL

WORDS = torch.arange(len(SPECIAL), len(SPECIAL) + 128)  # a block in which every token is another


def draw(seed=0):
    return torch.Generator().manual_seed(seed)


def is_sentinel(token):
    return FIRST_SENTINEL <= token < FIRST_SENTINEL + SENTINELS


def spans(labels):
    """The labels' pieces by the sentinel before them."""
    found = {}
    for token in labels:
        if is_sentinel(token):
            found[token] = []
            last = token
        elif token != END:
            found[last].append(token)
    return found


@pytest.mark.parametrize("length", [2, 3, 7, 32, 128, 512, 1500])
def test_span_corruption_hides_15_percent_in_spans_that_restore_the_block(length):
    block = torch.arange(len(SPECIAL), len(SPECIAL) + length)
    for seed in range(20):
        found = corrupt(block, draw(seed), False)
        inputs, labels = found["input_ids"].tolist(), found["labels"].tolist()
        assert inputs.pop() == labels[-1] == END
        hidden = spans(labels)
        assert list(hidden) == [FIRST_SENTINEL + i for i in range(len(hidden))]  # in order, each once
        assert [token for token in inputs if is_sentinel(token)] == list(hidden)
        restored = [x for token in inputs for x in (hidden[token] if is_sentinel(token) else [token])]
        assert restored == block.tolist()
        count = sum(map(len, hidden.values()))
        assert count == max(1, round(0.15 * length)) and min(map(len, hidden.values())) >= 1
        assert len(hidden) == min(max(1, round(count / 3)), SENTINELS)
        assert not is_sentinel(inputs[0])  # as in T5 a block starts with words that are shown


def test_spans_are_of_every_length_and_at_every_place():
    lengths, places = set(), torch.zeros(128)
    for seed in range(300):
        labels = corrupt(WORDS, draw(seed), False)["labels"].tolist()
        lengths |= {len(x) for x in spans(labels).values()}
        places[[x - len(SPECIAL) for x in labels if x >= len(SPECIAL)]] += 1
    assert {1, 2, 3, 4, 5, 6} <= lengths
    # the first is always shown, the last always hidden: spans alternate, as in T5
    assert places[0] == 0 and (places[1:] > 0).all()
    middle = places[8:120] / 300
    assert middle.mean() == pytest.approx(0.15, abs=0.02) and middle.max() < 0.3


def test_judged_the_loss_counts_words_only():
    learnt, judged = (corrupt(WORDS, draw(), judged) for judged in (False, True))
    assert torch.equal(learnt["input_ids"], judged["input_ids"])
    kept = judged["labels"] != IGNORED
    words = learnt["labels"] >= len(SPECIAL)
    assert torch.equal(kept, words) and torch.equal(judged["labels"][kept], learnt["labels"][kept])
    # the decoder still reads what comes before: sentinels and all, after the start
    wanted = torch.cat([torch.tensor([PAD]), learnt["labels"][:-1]])
    assert torch.equal(judged["decoder_input_ids"], wanted)


def test_masked_words_are_80_10_10_of_15_percent():
    block = torch.randint(len(SPECIAL), 5000, (100_000,), generator=draw(1))
    found = mask(block, draw(2))
    inputs, labels = found["input_ids"], found["labels"]
    assert (inputs[0], inputs[-1], labels[0], labels[-1]) == (CLASS, END, IGNORED, IGNORED)
    inputs, labels = inputs[1:-1], labels[1:-1]
    chosen = labels != IGNORED
    assert chosen.float().mean().item() == pytest.approx(0.15, abs=0.005)
    assert torch.equal(labels[chosen], block[chosen]) and torch.equal(inputs[~chosen], block[~chosen])
    masked, left = inputs[chosen] == MASK, inputs[chosen] == block[chosen]
    shares = [x.float().mean().item() for x in (masked, left, ~masked & ~left)]
    assert shares == pytest.approx([0.8, 0.1, 0.1], abs=0.01)
    others = inputs[chosen][~masked & ~left]
    assert others.min() >= len(SPECIAL) and others.unique().numel() > 1000


def test_a_block_always_has_something_to_judge():
    for seed in range(50):
        assert (mask(WORDS[:2], draw(seed))["labels"] != IGNORED).any()
        assert (mask(torch.full((4,), END), draw(seed))["labels"] != IGNORED).any()


OBJECTIVES = names()
BLOCKS = torch.arange(len(SPECIAL), len(SPECIAL) + 10 * 32, dtype=torch.int32).view(10, 32)


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_an_example_is_a_function_of_seed_and_number_alone(objective):
    numbers = [13, 2, 27, 2, 0]
    want = {i: Examples(BLOCKS, 30, 4, find(objective).example)[i] for i in numbers}
    torch.manual_seed(9)
    examples = Examples(BLOCKS, 30, 4, find(objective).example)
    assert all(same(examples[i], want[i]) for i in reversed(numbers))
    other = Examples(BLOCKS, 30, 5, find(objective).example)
    assert not all(same(other[i], want[i]) for i in numbers)


def block_of(example):
    words = [x for x in example["input_ids"].tolist() if x >= len(SPECIAL)]
    return (words[0] - len(SPECIAL)) // 32


def test_each_pass_sees_every_block_once_in_an_order_of_its_own():
    examples = Examples(BLOCKS, 30, 0, corrupt)
    order = [block_of(examples[i]) for i in range(30)]
    passes = [order[:10], order[10:20], order[20:]]
    assert all(sorted(x) == list(range(10)) for x in passes)
    assert passes[0] != passes[1] != passes[2]
    first = [i for i in range(30) if order[i] == 3]
    assert not same(examples[first[0]], examples[first[1]])  # and corrupts it in another way


def test_what_is_judged_is_the_same_for_every_run():
    judged = Examples(BLOCKS, 12, 0, corrupt, judged=True)
    assert [block_of(judged[i]) for i in range(12)] == [*range(10), 0, 1]


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_every_arm_sees_the_same_batches_in_the_same_order(objective, tmp_path):
    """Through the trainer itself, and from the middle on where a run goes on from a checkpoint."""
    import dataclasses

    from talking_heads.training import run

    from .small import SMALL

    settings = dataclasses.replace(SMALL, objective=objective, steps=6, evaluations=3)
    blocks = torch.randint(len(SPECIAL), 512, (7, settings.length), generator=draw(3))
    seen = {}

    def watch(name):
        def collate(rows):
            seen.setdefault(name, []).append([row["input_ids"].tolist() for row in rows])
            return original(rows)

        return collate

    original = find(objective).collate
    data = {"train": blocks, "held_out": blocks[:1]}
    for arm in settings.arms:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(find(objective), "collate", watch(arm))
            patch.setattr(find(objective), "evaluate", lambda model, examples: 0.0)
            run.pretrain(tmp_path / arm[:5], settings, arm, 0, data, lambda *news: None)
    assert len(seen["multi-head:2"]) == 6 and seen["multi-head:2"] == seen["talking-heads:2"]
    examples = Examples(blocks, 24, 0, find(objective).example)
    wanted = [[examples[i]["input_ids"].tolist() for i in range(4 * k, 4 * k + 4)] for k in range(6)]
    assert seen["multi-head:2"] == wanted


def test_collate_pads_to_the_longest():
    rows = [
        {"input_ids": torch.tensor([7, 8, 9]), "labels": torch.tensor([7, 8, 9])},
        {"input_ids": torch.tensor([7]), "labels": torch.tensor([7])},
    ]
    batch = collate(rows)
    assert batch["input_ids"].tolist() == [[7, 8, 9], [7, PAD, PAD]]
    assert batch["labels"].tolist() == [[7, 8, 9], [7, IGNORED, IGNORED]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1], [1, 0, 0]]
    classes = collate([{"input_ids": torch.tensor([7]), "labels": torch.tensor(2)}] * 2)
    assert classes["labels"].tolist() == [2, 2]
