"""What is learned from a block: span corruption and masked words, the same for every arm and after a stop."""

import dataclasses

import pytest
import torch

from talking_heads.errors import UserError
from talking_heads.training.blocks import Examples
from talking_heads.training.judge import CLASS, END, FIRST_SENTINEL, IGNORED, MASK, PAD, collate
from talking_heads.training.models import build
from talking_heads.training.objectives import find, names
from talking_heads.training.objectives.masked_lm import hide, mask, word_numbers
from talking_heads.training.objectives.sentence_order import pair
from talking_heads.training.objectives.span_corruption import corrupt
from talking_heads.training.tokens import ENDS_SENTENCE, SENTINELS, SPECIAL, token_marks, train_tokenizer

from .small import SMALL, addresses

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


def test_exactly_15_percent_are_judged_so_that_every_device_has_as_many():
    for length, count in ((2, 1), (20, 3), (128, 19), (512, 77)):
        block = torch.arange(len(SPECIAL), len(SPECIAL) + length)
        assert {int((mask(block, draw(seed))["labels"] != IGNORED).sum()) for seed in range(9)} == {count}


def test_rates_are_those_of_transformers_own_collator():
    """Which draws each token by itself, so that an example would depend on those before it: not used, but compared."""
    from transformers import DataCollatorForLanguageModeling

    tokenizer = train_tokenizer([addresses(True)], 512)
    block = torch.randint(len(SPECIAL), 512, (60_000,), generator=draw(1))
    torch.manual_seed(0)
    theirs = DataCollatorForLanguageModeling(tokenizer, mlm_probability=0.15)([{"input_ids": block}])
    inputs, labels = hide(block, draw(0))
    shares = []
    for given, wanted in ((inputs, labels), (theirs["input_ids"][0], theirs["labels"][0])):
        judged = wanted != IGNORED
        masked, left = given[judged] == tokenizer.mask_token_id, given[judged] == block[judged]
        shares.append([x.float().mean().item() for x in (judged, masked, left)])
    assert shares[0] == pytest.approx(shares[1], abs=0.012)
    assert shares[0] == pytest.approx([0.15, 0.8, 0.1 + 0.1 / 443], abs=0.012)


def test_whole_words_are_masked_together():
    """A word is what stands between white space; worked out from the tokens' names."""
    texts = ["The committee's recommendation, extraordinarily, was unconstitutional. We disagree!"]
    tokenizer = train_tokenizer([addresses(True)], 400)
    marks = token_marks(tokenizer)
    block = torch.tensor(tokenizer(texts[0] * 8)["input_ids"])
    names = tokenizer.convert_ids_to_tokens(block.tolist())
    by_hand, number = [], -1
    for i, name in enumerate(names):
        number += i == 0 or name.startswith("Ġ") or name == "</s>" or names[i - 1] == "</s>"
        by_hand.append(number)
    assert word_numbers(block, marks).tolist() == by_hand
    longer = 0
    for seed in range(30):
        _, labels = hide(block, draw(seed), marks)
        judged = {w for w, label in zip(by_hand, labels.tolist(), strict=True) if label != IGNORED}
        whole = [w in judged for w in by_hand]
        assert whole == (labels != IGNORED).tolist()
        count = sum(whole)
        assert 0 < count <= round(0.15 * len(block))
        longer += count
    assert longer / 30 / len(block) == pytest.approx(0.15, abs=0.01)


def test_a_word_too_long_to_fit_is_masked_alone():
    tokenizer = train_tokenizer([addresses(True)], 400)
    block = torch.tensor(tokenizer("un-con-sti-tu-tion-al xy")["input_ids"])[:-1]
    words = word_numbers(block, token_marks(tokenizer))
    _, labels = hide(block, draw(), token_marks(tokenizer))
    assert words.max() == 1 and (labels != IGNORED).tolist() == (words == words.bincount().argmin()).tolist()


def test_segments_are_exchanged_in_half_of_the_examples_and_marked():
    block = torch.arange(len(SPECIAL), len(SPECIAL) + 64)
    exchanged = 0
    for seed in range(400):
        found = pair(block, draw(seed))
        inputs, types = found["input_ids"], found["token_type_ids"]
        first_end = int((inputs == END).nonzero()[0])
        assert inputs[0] == CLASS and inputs[-1] == END and len(inputs) == 67
        assert types.tolist() == [0] * (first_end + 1) + [1] * (66 - first_end)
        words = torch.where(found["labels"] == IGNORED, inputs, found["labels"])
        segments = [words[1:first_end], words[first_end + 1 : -1]]
        order = int(found["sentence_order_label"])
        restored = torch.cat(segments[::-1] if order else segments)
        assert torch.equal(restored, block) and min(map(len, segments)) >= 16
        assert int((found["labels"] != IGNORED).sum()) == round(0.15 * 64)
        exchanged += order
    assert exchanged / 400 == pytest.approx(0.5, abs=0.07)


def test_segments_are_cut_behind_a_sentence():
    marks = torch.zeros(600, dtype=torch.int32)
    block = torch.arange(len(SPECIAL), len(SPECIAL) + 40)
    marks[block[[3, 14, 25, 38]]] = (
        ENDS_SENTENCE  # by hand: 15 and 26 tokens lie in the middle half, 4 and 39 do not
    )
    found = [pair(block, draw(seed), marks) for seed in range(40)]
    lengths = {(int(x["sentence_order_label"]), int((x["input_ids"] == END).nonzero()[0]) - 1) for x in found}
    assert lengths == {(0, 15), (0, 26), (1, 25), (1, 14)}


def test_the_loss_of_sentence_order_is_both_means():
    objective = find("sentence-order")
    model = build(dataclasses.replace(SMALL, objective="sentence-order"), "talking-heads:2", 0)
    rows = [pair(torch.randint(len(SPECIAL), 512, (32,), generator=draw(i)), draw(i)) for i in range(4)]
    batch = objective.collate(rows)
    given = model(**{name: x for name, x in batch.items() if "label" not in name})
    words = torch.nn.functional.cross_entropy(
        given.prediction_logits.flatten(0, 1), batch["labels"].flatten()
    )
    order = torch.nn.functional.cross_entropy(given.sop_logits, batch["sentence_order_label"])
    assert objective.loss(model, batch).item() == pytest.approx((words + order).item(), rel=1e-6)


def test_span_corruption_of_568_tokens_is_512_in_and_114_out():
    """T5's own lengths."""
    found = corrupt(torch.arange(len(SPECIAL), len(SPECIAL) + 568), draw(), False)
    assert (len(found["input_ids"]), len(found["labels"])) == (512, 114)


def test_span_corruption_by_hand():
    """Ten tokens, two hidden in one span: as many as round(1.5) = 2 and round(2 / 3) = 1 say."""
    block = torch.arange(100, 110)
    found = corrupt(block, draw(), False)
    (sentinel,) = [i for i, x in enumerate(found["input_ids"].tolist()) if is_sentinel(x)]
    assert sentinel == 8  # the one cut of each: eight shown, two hidden at the end
    assert found["input_ids"].tolist() == [*range(100, 108), FIRST_SENTINEL, END]
    assert found["labels"].tolist() == [FIRST_SENTINEL, 108, 109, END]


def test_whole_words_need_an_objective_that_masks():
    with pytest.raises(UserError, match="whole words are masked by masked-lm and sentence-order alone; got"):
        dataclasses.replace(SMALL, whole_words=True)
    assert dataclasses.replace(SMALL, whole_words=True, objective="masked-lm").whole_words


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
    from talking_heads.training import run

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
