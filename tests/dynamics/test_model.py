"""The bag form of attention against the operator, the authors' start, and what trains."""

import pytest
import torch
from torch.nn.utils.rnn import pad_sequence

from talking_heads import talking_heads_attention
from talking_heads.dynamics.bags import PAPER, TopicData, bags
from talking_heads.dynamics.model import Setup, WordAttention
from talking_heads.dynamics.train import evenly, ever_rarer, train

SENTENCES = [[0, 3, 3, 5], [1], [2, 4, 5, 6, 0, 1, 3], [6, 6], [5, 2, 4]]
LABELS = [0, 1, 2, 1, 0]


def model(**options) -> WordAttention:
    setup = Setup(
        frozen=(), key_std=1.0, embedding_std=1.0, query_std=1.0, key_size=3, embedding_size=4, **options
    )
    return WordAttention(setup, 7, 3)


def operator_contexts(made: WordAttention) -> torch.Tensor:
    """The same from padded arrays and a mask, through the operator's reference."""
    index = pad_sequence([torch.tensor(x) for x in SENTENCES], batch_first=True, padding_value=0)
    lengths = torch.tensor([len(x) for x in SENTENCES])
    mask = torch.arange(index.shape[1]) < lengths[:, None]
    output = talking_heads_attention(
        made.query[None, :, None].expand(len(index), -1, -1, -1),
        made.keys[index].transpose(1, 2),
        made.embeddings[index].transpose(1, 2),
        made.mixing.logits_mix,
        made.mixing.weights_mix,
        attn_mask=mask[:, None, None],
        scale=1.0,
        backend="reference",
    )
    return output[:, :, 0]


@pytest.mark.parametrize(
    ("heads", "logits_mix", "weights_mix"),
    [
        (1, "", ""),
        (3, "", ""),
        (3, "random", ""),
        (3, "", "random"),
        (3, "random", "random"),
        (2, "orthogonal", "identity"),
    ],
)
def test_bags_compute_what_the_operator_does(heads, logits_mix, weights_mix):
    made = model(heads=heads, logits_mix=logits_mix, weights_mix=weights_mix)
    sentences = bags(SENTENCES, LABELS, 7)
    got, wanted = made.contexts(sentences), operator_contexts(made)
    torch.testing.assert_close(got, wanted, rtol=1e-12, atol=1e-12)
    leaves = [made.query, made.keys, made.embeddings, *made.mixing.parameters()]
    weight = torch.randn_like(wanted)
    for mine, theirs in zip(
        torch.autograd.grad(got, leaves, weight), torch.autograd.grad(wanted, leaves, weight), strict=True
    ):
        torch.testing.assert_close(mine, theirs, rtol=1e-11, atol=1e-12)


def test_attention_is_the_mean_weight_over_a_words_places():
    made = model(heads=2)
    got = made.attention(bags(SENTENCES, LABELS, 7))
    logits = made.logits().detach()
    places: dict[int, list[torch.Tensor]] = {}
    for sentence in SENTENCES:
        for word, weight in zip(sentence, logits[sentence].softmax(0), strict=True):
            places.setdefault(word, []).append(weight)
    for word, weights in places.items():
        torch.testing.assert_close(got[word], torch.stack(weights).mean(0))


def test_large_scores_stay_finite():
    made = model()
    made.keys.data *= 200
    wanted = operator_contexts(made)
    torch.testing.assert_close(made.contexts(bags(SENTENCES, LABELS, 7)), wanted, rtol=1e-9, atol=1e-12)


def test_empty_sentences_are_refused():
    with pytest.raises(ValueError, match="each sentence must have a word"):
        bags([[1], []], [0, 1], 3)


def test_start_3_is_the_authors():
    """Their modules' draws in their order: an embedding by default and again, a query likewise, the classifier."""
    before = torch.get_rng_state()
    made = {name: WordAttention(Setup(name), 50, 4) for name in ("fixed", "trainable", "two-layer")}
    assert torch.equal(torch.get_rng_state(), before)
    for name, mine in made.items():
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(3)
            embeddings = torch.nn.Embedding(50, 10)
            embeddings.weight.data.normal_(0, 1e-6)
            query = torch.randn(1, 10).normal_(0, 0.3)
            if name == "fixed":
                classifier = [torch.randn(10, 4).fill_diagonal_(1).T]
            elif name == "trainable":
                classifier = list(torch.nn.Linear(10, 4, bias=False).parameters())
            else:
                classifier = [*torch.nn.Linear(10, 10).parameters(), *torch.nn.Linear(10, 4).parameters()]
        assert torch.equal(mine.query.float(), query)
        assert torch.equal(mine.embeddings[:, 0].float(), embeddings.weight)
        assert not mine.keys.any()
        for parameter, theirs in zip(mine.classifier.parameters(), classifier, strict=True):
            assert torch.equal(parameter.float(), theirs)


@pytest.mark.parametrize("frozen", [(), ("query",), ("query", "keys"), ("embeddings", "maps")])
def test_frozen_parts_stay_and_others_move(frozen):
    setup = Setup("trainable", epochs=3, rate=0.5, frozen=frozen, heads=2, logits_mix="random", weights_mix="identity",
                  key_std=0.5, embedding_std=0.5)  # fmt: skip
    made = WordAttention(setup, 7, 3)
    parts = {"query": made.query, "keys": made.keys, "embeddings": made.embeddings,
             "maps": made.mixing.logits_mix, "classifier": made.classifier.weight}  # fmt: skip
    before = {name: x.detach().clone() for name, x in parts.items()}
    train(made, bags(SENTENCES, LABELS, 7), lambda model: {}, [3])
    assert {name for name, x in parts.items() if torch.equal(x, before[name])} == set(frozen)


def test_the_fixed_classifier_never_trains():
    made = WordAttention(Setup("fixed", epochs=2), 7, 3)
    before = made.classifier.weight.clone()
    course = train(made, bags(SENTENCES, LABELS, 7), lambda model: {}, evenly(2, 2))
    assert torch.equal(made.classifier.weight, before)
    assert course["epoch"].tolist() == [0, 1, 2] and course["loss"][2] < course["loss"][0]


def test_a_killed_run_goes_on_to_the_same_end(tmp_path, monkeypatch):
    monkeypatch.setattr("talking_heads.dynamics.train.SAVE_SECONDS", 0.0)
    sentences, file = bags(SENTENCES, LABELS, 7), tmp_path / "run.safetensors"

    def measure(model: WordAttention) -> dict:
        return {"score": model.scores()[:, 0]}

    def start() -> WordAttention:
        return WordAttention(Setup("trainable", epochs=9, rate=0.5, embedding_std=0.5), 7, 3)

    def killed(done: int, total: int) -> None:
        if done == 6:
            raise KeyboardInterrupt

    whole = train(start(), sentences, measure, [0, 2, 5, 6, 9])
    with pytest.raises(KeyboardInterrupt):
        train(start(), sentences, measure, [0, 2, 5, 6, 9], kept=file, progress=killed)
    assert file.exists()
    seen: list[int] = []
    rest = train(
        start(),
        sentences,
        measure,
        [0, 2, 5, 6, 9],
        kept=file,
        progress=lambda done, total: seen.append(done),
    )
    assert seen == [6, 9] and not file.exists()
    for name in ("epoch", "loss", "score"):
        assert torch.equal(rest[name], whole[name])


def test_epochs_kept():
    assert evenly(10, 3) == [0, 3, 6, 9, 10] and evenly(3, 100) == [0, 1, 2, 3]
    assert ever_rarer(1000, 3) == [0, 1, 10, 100, 1000]


def test_topics_are_drawn_as_the_paper_says():
    data = PAPER.draw(0)
    assert [len(part.labels) for part in data[:3]] == [3999, 50, 950]
    assert data.train.counts.shape == (3999, 5008) and (data.train.lengths == 21).all()
    topic = data.train.counts.to_dense()[:, :8]
    assert (topic.sum(1) == 1).all() and torch.equal(topic.argmax(1) // 2, data.train.labels)
    assert torch.equal(data.train.counts.to_dense(), data.train.transposed.to_dense().T)
    counts = data.train.labels.bincount()
    assert counts.min() > 900 and len(counts) == 4
    assert not torch.equal(PAPER.draw(1).train.labels, data.train.labels)


def test_one_sentence_and_one_other_word():
    data = TopicData(topics=2, words_per_topic=1, vocabulary=1, others=1, sizes=(1, 1, 1)).draw(0)
    made = WordAttention(Setup(epochs=1), 3, 2)
    assert made(data.train).shape == (1, 2)
