"""The rows of one subject as Markdown."""

import collections
import statistics
from collections.abc import Sequence

from benchmarks import figures
from benchmarks.diffusion import rivals, runs

_COLUMNS = {
    "unlearning_accuracy": "UA",
    "retain_accuracy": "kept",
    "max_group_drop": "worst group's loss",
    "paraphrase_recall": "paraphrases",
    "composition_shift": "compositions' loss",
    "unconditional_recall": "without a prompt",
    "adversarial_recall": "by attack",
    "feature_distance": "feature distance",
}


def table(name: str, rows: Sequence[runs.Row], first: int) -> str:
    """A line for each method, at the setting that was best on the first seed.

    Where there are retrained nets it says how near to them pictures go, and what it costs beside
    them.
    """
    found = [row for row in rows if "values" in row]
    shown = [key for key in _COLUMNS if any(key in row["values"] for row in found)]
    retrained = [row for row in found if row["key"] == rivals.RETRAINED]
    further = ["goes elsewhere than retraining", "seconds", "cost"] if retrained else ["seconds"]
    heads = ["", *(_COLUMNS[key] for key in shown), *further]
    lines = [
        f"**{name}** (n = {len({row['seed'] for row in rows})} seeds, one base model)",
        "",
        _line(heads),
        "| --- |" + " ---: |" * (len(heads) - 1),
        _original(found, shown, further),
    ]
    for key in rivals.RIVALS:
        if any(row["key"] == key for row in found):
            setting = runs.best(rows, key, first)
            own = [row for row in rows if row["key"] == key and row["setting"] == setting]
            lines.append(_of_rival(key, own, shown, retrained))
    return "\n".join(lines)


def _original(found: Sequence[runs.Row], shown: Sequence[str], further: Sequence[str]) -> str:
    before: dict[str, list[float]] = collections.defaultdict(list)
    for row in found:
        for key, value in row["original"].items():
            before[key].append(value)
    return _line(
        ["original", *(figures.spread(before[key], 3) for key in shown), *("" for _ in further)]
    )


def _of_rival(
    key: str, ran: Sequence[runs.Row], shown: Sequence[str], retrained: Sequence[runs.Row]
) -> str:
    rival, own = rivals.RIVALS[key], [row for row in ran if "values" in row]
    seconds = [row["seconds"] for row in own]
    cells = [
        figures.spread([row["values"][c] for row in own if c in row["values"]], 3) for c in shown
    ]
    if retrained:
        whole = statistics.mean(row["seconds"] for row in retrained)
        cells += [
            figures.spread([_elsewhere(row, retrained) for row in own], 3),
            figures.spread(seconds, 0),
            figures.spread([own / whole for own in seconds], 3),
        ]
    else:
        cells.append(figures.spread(seconds, 0))
    notes = [rivals.shown(ran[0]["setting"])] if len(rival.tried) > 1 else []
    notes += [f"{len(ran) - len(own)} diverged"] if len(ran) > len(own) else []
    note = f" ({'; '.join(notes)})" if notes else ""
    return _line([f"{rival.title}{note}", *cells])


def _elsewhere(row: runs.Row, retrained: Sequence[runs.Row]) -> float:
    """Half the sum of differences of where pictures go, to other seeds' mean retrained net."""
    others = [one["goes_to"]["after"] for one in retrained if one is not row]
    own = row["goes_to"]["after"]
    terms = {*own, *(term for one in others for term in one)}
    means = {term: statistics.mean(one.get(term, 0.0) for one in others) for term in terms}
    return float(sum(abs(own.get(term, 0.0) - means[term]) for term in terms) / 2.0)


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"
