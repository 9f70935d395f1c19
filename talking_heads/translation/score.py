"""BLEU and chrF by sacrebleu, with their signatures."""

from collections.abc import Sequence
from typing import Any

from ..errors import UserError


def scores(translations: Sequence[str], references: Sequence[str]) -> dict[str, Any]:
    """bleu and chrf of the text as it is; lowercase_tokenized_bleu, both sides in lower case, of words and marks apart.

    Tokens are sacrebleu's 13a. Signatures say how each was made.
    """
    from sacrebleu.metrics import BLEU, CHRF

    cased, lower, chrf = BLEU(), BLEU(lowercase=True, tokenize="13a", force=True), CHRF()
    found = {
        name: metric.corpus_score(list(translations), [list(references)]).score
        for name, metric in (("bleu", cased), ("chrf", chrf), ("lowercase_tokenized_bleu", lower))
    }
    return found | {
        "signature": str(cased.get_signature()),
        "chrf_signature": str(chrf.get_signature()),
        "lowercase_signature": str(lower.get_signature()),
        "sentences": len(references),
    }


def bleu(translations: Sequence[str], references: Sequence[str]) -> float:
    """Cased BLEU."""
    from sacrebleu.metrics import BLEU

    return float(BLEU().corpus_score(list(translations), [list(references)]).score)


def statistics(translations: Sequence[str], references: Sequence[str]) -> list[list[int]]:
    """What cased BLEU is computed from, sentence by sentence: lengths, and n-grams matched and there. `bootstrap` draws
    from them; they can be kept where the text cannot.

    Raises:
        UserError: other numbers of sentences.
    """
    from sacrebleu.metrics import BLEU

    if len(translations) != len(references):
        raise UserError(
            f"systems must translate the same {len(references)} sentences",
            len(translations),
            "evaluate all on the same files",
        )
    metric = BLEU()
    metric._ref_cache = metric._cache_references([list(references)])
    return [list(map(int, row)) for row in metric._extract_corpus_statistics(list(translations), None)]


def bootstrap(
    systems: Sequence[Sequence[Sequence[int]]], draws: int = 1000, seed: int = 12345
) -> list[dict[str, Any]]:
    """Paired bootstrap over sentences of cased BLEU: of each system its score with a 95 % interval, and of those after
    the first their difference from it with its interval.

    Args:
        systems: `statistics` of translations of the same sentences.

    Raises:
        UserError: systems of other sentences.
    """
    import numpy as np
    from sacrebleu.metrics import BLEU

    metric, stats = BLEU(), [np.array(x) for x in systems]
    if any(x.shape != stats[0].shape or (x[:, 1] != stats[0][:, 1]).any() for x in stats):
        raise UserError(
            "systems must translate the same sentences",
            "references of other lengths",
            "evaluate all on the same files",
        )
    drawn = np.random.default_rng(seed).integers(0, len(stats[0]), (draws, len(stats[0])))
    counted = np.stack([np.bincount(row, minlength=len(stats[0])) for row in drawn])
    points = [metric._compute_score_from_stats(x.sum(0).tolist()).score for x in stats]
    spread = [[metric._compute_score_from_stats(row).score for row in (counted @ x).tolist()] for x in stats]
    rows: list[dict[str, Any]] = []
    for point, values in zip(points, spread, strict=True):
        row: dict[str, Any] = {"bleu": point, "interval": _middle(values)}
        if rows:
            apart = [a - b for a, b in zip(values, spread[0], strict=True)]
            row |= {"difference": point - points[0], "difference_interval": _middle(apart)}
        rows.append(row)
    return rows


def _middle(values: Sequence[float]) -> list[float]:
    """The 2.5th and 97.5th percentile."""
    import numpy as np

    return [float(x) for x in np.percentile(values, (2.5, 97.5))]
