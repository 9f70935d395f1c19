"""The figures of docs/results.md, from the JSON files that `retell measure` writes."""

from collections import defaultdict
from pathlib import Path
from statistics import fmean

from retell.files import read_json


def _where(found: dict) -> str:
    m = found["machine"]
    versions = ", ".join(f"{name} {version}" for name, version in m["versions"].items())
    return (
        f"{m['time'][:10]}, {m['cpu']}, {m['cores']} cores, load {m['load_at_start']:.1f} when it began, Python {m['python']}, "
        f"{versions}; code {str(m.get('code'))[:12]}."
    )


def _table(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def search(result: dict) -> str:
    rows = [
        [
            minutes,
            f"{r['phones']:,}",
            f"{r['cpu_ms_median']:.1f}",
            f"{r['wall_ms_least']:.1f}",
            str(r["pieces"]),
            f"{r['exact_phones']:.0%}",
        ]
        for minutes, r in result["by_minutes"].items()
    ]
    head = ["minutes", "phones", "processor ms, median", "wall ms, least", "pieces", "exact phones"]
    return (
        f"{result['equal_to_brute_force']} of {result['cases']} random small cases equal brute force. A query of ten words "
        f"({result['query_phones']} phones, a speaker outside the repository), one thread, 15 searches. Times on the wall include waiting for whatever else the machine did:\n\n"
        + _table(head, rows)
    )


def retargeting(result: dict) -> str:
    errors, closures = defaultdict(list), defaultdict(list)
    for r in result["rows"]:
        key = (r["own"], r["target_seconds"], r["method"])
        errors[key].append(r["nrmse"])
        closures[key].append(r["closure"])
    owns = sorted({k[0] for k in errors})
    lengths = sorted({k[1] for k in errors})
    names = list(dict.fromkeys(r["method"] for r in result["rows"]))
    parts = [
        f"Error over standard deviation on {result['test_seconds']} s of test sentences, mean of {result['pairs']} pairs of drawn "
        "speakers (range); 1 is what predicting the mean gives. `own` is the spread of the mouth targets that belong to one "
        "speaker alone. Copies do not learn, so their error does not depend on the target's length."
    ]
    for own in owns:
        rows = []
        for name in names:
            found = [errors.get((own, seconds, name)) for seconds in lengths]
            cells = [f"{fmean(f):.3f} ({min(f):.2f}-{max(f):.2f})" if f else "" for f in found]
            last = closures.get((own, lengths[-1], name))
            rows.append([name, *cells, f"{fmean(last):.2f}" if last else ""])
        head = [f"own {own}", *[f"{s} s of target" for s in lengths], f"error at p, b, m, {lengths[-1]} s"]
        parts.append(_table(head, [row for row in rows if any(row[1:])]))
    gains = []
    for own in owns:
        for seconds in lengths:
            with_source = errors[own, seconds, "ridge on source window and phones"]
            without = errors[own, seconds, "no source: ridge on phones"]
            wins = sum(a < b for a, b in zip(with_source, without, strict=True))
            gains.append(
                [
                    str(own),
                    str(seconds),
                    f"{fmean(without) - fmean(with_source):+.3f}",
                    f"{wins} of {len(without)}",
                ]
            )
    parts.append("What the source adds to the same regression on phones alone (positive: it helps):")
    parts.append(
        _table(
            [
                "own",
                "seconds of target",
                "error without minus with source",
                "pairs in which the source helps",
            ],
            gains,
        )
    )
    return "\n\n".join(parts)


def edit(result: dict) -> str:
    kinds = {k: v for k, v in result.items() if isinstance(v, dict)}
    stages = list(dict.fromkeys(s for v in kinds.values() for s in v["seconds"]))
    rows = [
        [
            k.replace("_", " "),
            f"{v['frames_encoded']} of {v['frames']}",
            *[f"{v['seconds'].get(s, 0):.2f}" for s in stages],
            f"{v['processor_seconds']:.1f}",
        ]
        for k, v in kinds.items()
    ]
    width, height = result["size"]
    return (
        f"A drawn clip of {result['clip_seconds']:.1f} s at {width}x{height} with a repository of 60 minutes; seconds by stage, waiting for other programs included. "
        f"Ingest, without tracking: {result['ingest_seconds']:.1f} s.\n\n"
        + _table(["edit", "frames encoded", *stages, "processor, all threads"], rows)
    )


def clips(result: dict) -> str:
    found, t = result["clips"], result["transplant"]
    frames = sum(c["frames"] for c in found)
    return (
        f"{sum(c['words'] == 6 for c in found)} of {len(found)} clips aligned with all six words, "
        f"{sum(c['frames_tracked'] for c in found)} of {frames} frames tracked "
        f"({frames / sum(c['track_seconds'] for c in found):.0f} frames/s). Opening of open vowels ({result['open_vowels']}) against "
        f"p and b ({result['closed_phones']}) in the middle of the phone: AUC {result['opening_auc']:.3f}.\n\n"
        f"A mouth transplanted between two sentences of one speaker ({t['frames']} frames, {t['ms_per_frame']:.0f} ms each): "
        f"opening asked for and tracked again correlate with r = {t['opening_asked_and_tracked_correlation']:.3f}; outside the region "
        f"the frames are unchanged before encoding, and at least {t['outside_psnr_db_after_encoding']:.1f} dB after it."
    )


SECTIONS = {"search": search, "retargeting": retargeting, "edit": edit, "clips": clips}


def report(folder: Path) -> str:
    parts = [
        "# Results",
        "Printed by `retell figures`; each section's JSON is in `docs/results/`, written by the command named.",
    ]
    for name, section in SECTIONS.items():
        found = read_json(folder / f"{name}.json")
        parts += [f"## {name.capitalize()}: `retell measure {name}`", section(found["result"]), _where(found)]
    return "\n\n".join(parts) + "\n"
