"""The survey's result as a page of markdown."""

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

from .run import EQUAL, NOT_BUILT, PARTLY, REFUSED, WRONG

# Folders of what is used most, to be seen at a glance.
MOST_USED = (
    *("bert", "roberta", "distilbert", "albert", "electra", "xlm_roberta", "modernbert", "gpt2", "llama"),
    *("mistral", "qwen2", "qwen3", "gemma3", "phi3", "t5", "bart", "marian", "whisper", "vit"),
    *("clip", "wav2vec2", "opt"),
)
_MEANING = {
    EQUAL: "every attention class of the folder ran, and nothing differed",
    PARTLY: "some classes are equal; of the others the column says what became of them",
    REFUSED: "`convert` raises, naming what is in the way",
    NOT_BUILT: "no toy model or inputs were found on which the plain model runs",
    WRONG: "converted, and something differed",
}


def markdown(result: dict[str, Any], others: Sequence[dict[str, Any]] = ()) -> str:
    """The page of a survey; `others` are surveys with other releases of transformers, of which the counts are given."""
    return "\n".join(_lines(result, others)) + "\n"


def counts(rows: list[dict[str, Any]]) -> dict[str, int]:
    """{verdict: folders}"""
    found = Counter(row["verdict"] for row in rows)
    return {verdict: found[verdict] for verdict in _MEANING}


def _lines(result: dict[str, Any], others: Sequence[dict[str, Any]]) -> Iterator[str]:
    rows, about = result["rows"], result["provenance"]
    versions = ", ".join(f"{name} {version}" for name, version in about["versions"].items())
    yield "# Architectures"
    yield ""
    yield "Written by `talking-heads convert --survey --json docs/results/survey.json > docs/architectures.md`."
    yield ""
    yield "Every model folder of transformers whose attention asks the attention-function registry: its models are"
    yield "built at toy size with random parameters in float64, converted with identity maps, and compared with"
    yield "themselves before: every float output and the gradient of every old parameter, to 1e-8 of the largest"
    yield "element; both maps must get a gradient. Then `logits_mix` is set to a permutation and `weights_mix` to its"
    yield "inverse, which must change nothing either, and would if a map were ignored or in the wrong place."
    yield ""
    yield f"{versions}; commit {about['commit']}; {about['machine']['processor']}."
    yield ""
    yield "| verdict | folders | meaning |"
    yield "|---|---:|---|"
    for verdict, number in counts(rows).items():
        yield f"| {verdict} | {number} | {_MEANING[verdict]} |"
    yield f"| all | {len(rows)} | largest error of those equal: {max(row['error'] for row in rows if not row['wrong']):.1e} |"
    if others:
        yield from _other_releases(others)
    known = {row["folder"]: row["verdict"] for row in rows}
    yield ""
    yield "The most used: " + ", ".join(f"{name} ({known.get(name, 'absent')})" for name in MOST_USED) + "."
    yield ""
    yield "| folder | verdict | equal | the rest |"
    yield "|---|---|---|---|"
    for row in rows:
        rest = [
            f"{name}: {_short(why)}"
            for what in ("refused", "not built", "wrong")
            for name, why in row[what].items()
        ]
        yield f"| {row['folder']} | {row['verdict']} | {', '.join(sorted(row['equal']))} | {'; '.join(rest)} |"


def _other_releases(others: Sequence[dict[str, Any]]) -> Iterator[str]:
    yield ""
    yield "The same with other releases of transformers:"
    yield ""
    yield f"| transformers | {' | '.join(_MEANING)} | all | commit |"
    yield f"|---|{'---:|' * len(_MEANING)}---:|---|"
    for other in others:
        numbers = " | ".join(str(number) for number in counts(other["rows"]).values())
        about = other["provenance"]
        yield f"| {about['versions']['transformers']} | {numbers} | {len(other['rows'])} | {about['commit']} |"


def _short(why: Any) -> str:
    """A refusal's reason without what is said of all of them."""
    text = why if isinstance(why, str) else ", ".join(why)
    found = re.search(r"; got (.*?)(; convert another model|$)", text)
    return (found[1] if found else text).replace("|", "\\|").replace("\n", " ")
