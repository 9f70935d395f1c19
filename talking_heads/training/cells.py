"""A comparison in words: its headline, the table's cells, the notes below it."""

import math
from collections.abc import Sequence

from ..results.statistics import LEAST_SEEDS
from .gather import Results


def headline(results: Results) -> list[str]:
    """What must be known before the table is read: runs that stand apart, and whether no arm beats the floors."""
    flags: list[str] = list(results.get("flags", []))
    if results.get("evidence") is not False:
        return flags
    floors = results["floors"]
    order, best = min(floors["kneser_ney"].items(), key=lambda x: x[1])
    said = f"Kneser-Ney {order}-grams reach {best:.3f}"
    without = [arm for arm in results["arms"] if arm["name"].startswith("none")]
    said += "".join(f", {arm['name']} {arm['summary']['loss']['mean']:.3f}" for arm in without)
    return [
        *flags,
        f"This run is no evidence about attention: no arm with attention beats the floors ({said} nats a token on the "
        "same text). Train longer, or a larger model.",
    ]


def _measures(results: Results) -> list[tuple[str, str]]:
    """(the column's name, the measure) of everything that the table shows by seed."""
    if results["settings"].get("equal_time"):
        found = [("loss, equal time", "loss")]
    else:
        found = [("loss, equal steps", "loss"), ("loss, cut at equal time", "equal_time_loss")]
    if results.get("judges_all"):
        found += [("perplexity", "perplexity"), ("bits a byte", "bits_per_byte")]
    found += [(f"loss, {part.removeprefix('other:')}", f"part:{part}") for part in results["parts"]]
    return found + [
        (f"{_metric(task)}, {task['name']}", f"transfer:{task['name']}") for task in results["transfer"]
    ]


def _metric(task: Results) -> str:
    return str(task.get("metric", "accuracy"))


def columns(results: Results) -> list[str]:
    return ["arm", "parameters", "step", *(name for name, _ in _measures(results))]


def rows(results: Results, line: str = "; ") -> list[list[str]]:
    """The table, a row an arm: mean ± spread, then `line` and the difference to the first arm."""
    found = []
    first = results["arms"][0] if results["arms"] else {}
    for arm in results["arms"]:
        cells = [arm["name"], f"{arm['parameters']:,}", _step(arm, first)]
        for _, name in _measures(results):
            parts = [_spread(arm["summary"].get(name)), difference_words(arm["difference"].get(name))]
            cells.append(line.join(part for part in parts if part) or "-")
        found.append(cells)
    return found


def floor_rows(results: Results) -> list[list[str]]:
    """What trivial methods reach, a row each: on the validation text and on the texts judged once."""
    by_text = [results["floors"], *(text["floors"] for text in results["parts"].values())]
    found = [["unigram", *(f"{floors['unigram']:.3f}" for floors in by_text)]]
    for order in results["floors"]["kneser_ney"]:
        losses = [f"{floors['kneser_ney'][order]:.3f}" for floors in by_text]
        found.append([f"Kneser-Ney {order}-grams", *losses])
    return found if results["floors"]["kneser_ney"] else []


def _step(arm: Results, first: Results) -> str:
    seconds, base = arm["summary"].get("step_seconds"), first["summary"].get("step_seconds")
    if not seconds or not base:
        return "-"
    return f"{1000 * seconds['mean']:.0f} ms ({seconds['mean'] / base['mean']:.2f}x)"


def _spread(value: Results | None) -> str:
    if not value:
        return ""
    return f"{value['mean']:.3f}" + (f" ± {value['spread']:.3f}" if value["spread"] is not None else "")


def difference_words(value: Results | None) -> str:
    if not value:
        return ""
    text = f"{value['mean']:+.3f}"
    return text + (" [{:+.3f}, {:+.3f}]".format(*value["interval"]) if value["interval"] else "")


def notes(results: Results) -> list[str]:
    """Context for the table: what was learned from, the floors, how sure the differences are."""
    settings = results["settings"]
    lines = [
        f"Losses are ln(perplexity), nats a token, on held-out text: validation text for the first loss. {_floors(results)}",
        f"Corpus {results['corpus']}: {results['tokens']:,} tokens to learn from; each run saw {results['tokens_seen']:,} "
        f"in {settings['steps']:,} steps{_other_steps(results)}. Seeds: {_counts(results)}.",
        *_paths(results),
        *_resets(results),
        *_rates(results),
        *(_transfer(results, task) for task in results["transfer"]),
    ]
    lines += [] if results["transfer"] else ["Transfer: no task, so none was tried."]
    seeds = max((len(arm["seeds"]) for arm in results["arms"]), default=0)
    if seeds < LEAST_SEEDS:
        lines.append(
            f"± is the standard deviation over seeds, + or - the difference to the first arm; {seeds} seed(s) are too few for an interval."
        )
    else:
        lines.append(
            "± is the standard deviation over seeds; + or - the difference to the first arm, paired by seed, [ ] its 95 % t interval."
        )
    lines.append(_verdict(results))
    return lines


def _floors(results: Results) -> str:
    said = f"Floors on the same text: a model that ignores context {results['floors']['unigram']:.3f}"
    grams = results["floors"]["kneser_ney"]
    if grams:
        said += "; interpolated Kneser-Ney n-grams of orders " + ", ".join(
            f"{order}: {loss:.3f}" for order, loss in grams.items()
        )
        if results.get("tokens_counted", math.inf) < results["tokens"]:
            said += f" (of the first {results['tokens_counted']:,} training tokens)"
    return said + "."


def _other_steps(results: Results) -> str:
    """Of arms that got another number, by equal time."""
    said = []
    for arm in results["arms"]:
        ratio = arm.get("ratio")
        if ratio:
            text = f"{arm['name']} {arm['steps']:,} (a step takes {ratio['mean']:.2f} times as long"
            said.append(
                text + (" [{:.2f}, {:.2f}])".format(*ratio["interval"]) if ratio["interval"] else ")")
            )
    return f"; others in the same time: {', '.join(said)}" if said else ""


def _paths(results: Results) -> list[str]:
    """Which function computed attention, arms of the same together."""
    by_path: dict[str, list[str]] = {}
    for arm in results["arms"]:
        if arm.get("backend"):
            by_path.setdefault(f"{arm['backend']} ({arm['reason']})", []).append(arm["name"])
    said = "; ".join(f"{', '.join(names)}: {path}" for path, names in by_path.items())
    return [f"Attention is computed by: {said}."] if said else []


def _resets(results: Results) -> list[str]:
    """The loss of trained models whose maps are set to the identity."""
    found = []
    for arm in results["arms"]:
        values = [x for x in arm.get("parts", {}).get("maps reset", []) if x is not None]
        if values:
            found.append(f"{arm['name']} {sum(values) / len(values):.3f}")
    return (
        [f"Validation loss with the trained maps reset to the identity: {', '.join(found)}."] if found else []
    )


def _rates(results: Results) -> list[str]:
    """The learning rates that a pilot chose."""
    found = []
    for arm, chosen in results.get("rates", {}).items():
        tried = ", ".join(f"{rate}: {_mean(losses)}" for rate, losses in chosen["losses"].items())
        edge = "; at the edge of those tried" if chosen["at_the_edge"] else ""
        found.append(f"{arm} {chosen['rate']} ({tried}{edge})")
    return [f"Learning rates, by validation loss of pilot seeds: {'; '.join(found)}."] if found else []


def _mean(losses: list[float | None]) -> str:
    finite = [x for x in losses if x is not None]
    return f"{sum(finite) / len(finite):.3f}" if len(finite) == len(losses) else "diverged"


_FLOOR_NAMES = ("always naming the most frequent class gives", "logistic regression on a bag of words")


def _transfer(results: Results, task: Results) -> str:
    classes = f" ({', '.join(task['classes'])})" if "classes" in task else ""
    said = f"Transfer: {task['name']}{classes} of {task['test']:,} unseen texts after learning from {task['train']:,}"
    if "majority" in task:
        majority, words = task.get("floor_names", _FLOOR_NAMES)
        said += f"; {majority} {task['majority']:.3f}"
    bag = task.get("bag_of_words")
    if bag is not None:
        said += f", {words} {bag:.3f}"
        means = [arm["summary"].get(f"transfer:{task['name']}") for arm in results["arms"]]
        scores = [x["mean"] for x in means if x]
        if scores and max(scores) <= max(bag, task["majority"]):
            said += "; no arm does better, so this score is no evidence about attention"
    return f"{said}.{_missing(results, task['name'])}"


def _counts(results: Results) -> str:
    """How many seeds: one number, or where they differ the most frequent one last."""
    names: dict[int, list[str]] = {}
    for arm in results["arms"]:
        names.setdefault(len(arm["seeds"]), []).append(arm["name"])
    *rare, usual = sorted(names, key=lambda count: len(names[count])) or [0]
    said = [f"{count} of {', '.join(names[count])}" for count in rare]
    return "; ".join([*said, f"{usual} of the others"]) if said else str(usual)


def _missing(results: Results, task: str) -> str:
    """Which arms have fewer seeds there than in their loss."""
    lacks = {arm["name"]: arm["transfer"][task].count(None) for arm in results["arms"]}
    said = ", ".join(f"{count} of {name}" for name, count in lacks.items() if count)
    return f" Seeds not judged yet: {said}." if said else ""


def table_lines(results: Results) -> list[str]:
    """Headline, table and notes in Markdown."""
    first = headline(results)
    lines = [
        *first,
        *([""] if first else []),
        *markdown(columns(results), rows(results)),
        "",
        *notes(results),
    ]
    for other in results.get("apart", []):
        lines += ["", "Apart from these:", "", *table_lines(other)]
    return lines


def markdown(names: Sequence[str], cells: Sequence[Sequence[str]]) -> list[str]:
    """Lines of a Markdown table, all columns but the first aligned to the right."""
    lines = ["| " + " | ".join(names) + " |", "|---|" + "---:|" * (len(names) - 1)]
    return [*lines, *("| " + " | ".join(row) + " |" for row in cells)]


def _verdict(results: Results) -> str:
    said = []
    for arm in results["arms"][1:]:
        for name, words in _clocks(results):
            difference = arm["difference"].get(name)
            if not difference:
                continue
            interval = difference["interval"]
            if not math.isfinite(difference["mean"]):
                said.append(f"{arm['name']} {words}: training diverged, here or in the first arm")
            elif interval is None:
                said.append(f"{arm['name']} {words}: {difference['mean']:+.3f}, too few seeds to say")
            elif interval[0] <= 0 <= interval[1]:
                said.append(f"{arm['name']} {words}: no difference shown")
            else:
                said.append(f"{arm['name']} {words}: {'lower' if interval[1] < 0 else 'higher'} loss")
    return "Against the first arm: " + ("; ".join(said) or "nothing to compare yet") + "."


def _clocks(results: Results) -> list[tuple[str, str]]:
    if results["settings"].get("equal_time"):
        return [("loss", "at equal time")]
    return [("loss", "at equal steps"), ("equal_time_loss", "cut at equal time")]
