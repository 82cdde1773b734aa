"""The rows as Markdown, JSON and a plot."""

import collections
import json
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib import figure, ticker

from benchmarks import figures
from benchmarks.quality import scenarios

_COLUMNS = ("UA", "RA", "TA", "MIA", "AUC", "resurfacing")
_CLASS_COLUMNS = (*_COLUMNS, "relearn", "shortcut")
_STEPS = ("relearn",)  # all others are shares
_NOTE = (
    "Mean ± sd over the draws, in percent and points. Each rival shows, for every draw, the one of "
    "its settings with the least gap, which a service could not know. Resurfacing: accuracy on the "
    "forget set less that on holdout samples of its classes (for a class the accuracy itself), "
    "after two passes of fine-tuning on retain samples alone; 0 is the aim. Relearn: steps until "
    "the forget set is known again, 50 stands for never; shortcut: what of the class is known "
    "with the original's bias put back; of a class a retrained net's are the aim. Seconds: "
    "processor time with verification; cost: as a share of retraining."
)
_Rows = Sequence[Mapping[str, Any]]


def write(folder: Path, rows: _Rows, evidence: Mapping[str, Any]) -> str:
    """``results.json``, ``results.md`` and ``results.png``; returns the Markdown."""
    (folder / "results.json").write_text(json.dumps({**evidence, "rows": list(rows)}, indent=1))
    parts = [_table(name, own) for name in scenarios.NAMES if (own := _of(rows, name))]
    told = "\n".join(f"- {name}: {value}" for name, value in evidence.items())
    text = "\n\n".join([*parts, _NOTE, told]) + "\n"
    (folder / "results.md").write_text(text)
    _plot(folder / "results.png", rows)
    return text


def _of(rows: _Rows, name: str) -> _Rows:
    return [row for row in rows if row["scenario"] == name]


def _table(name: scenarios.Name, rows: _Rows) -> str:
    """A line for each net; its number of seeds where that is not the scenario's."""
    seeds = len({row["seed"] for row in rows})
    columns = _CLASS_COLUMNS if name == "class" else _COLUMNS
    heads = ("net", "average gap", *columns, "seconds", "cost")
    lines = [
        f"**{scenarios.TITLES[name].capitalize()}** (n = {seeds})",
        "",
        "| " + " | ".join(heads) + " |",
        "| --- |" + " ---: |" * (len(heads) - 1),
    ]
    for title, own in _by_net(rows).items():
        values = [row["values"] for row in own]
        cells = [
            figures.spread([100 * row["gap"] for row in own], 2),
            *(figures.spread(_shown(values, key), 1) for key in columns),
            figures.spread([row["seconds"] for row in own], 1),
            figures.spread([row["cost"] for row in own], 2),
        ]
        count = "" if len(own) == seeds else f" (n = {len(own)})"
        lines.append(f"| {title}{count} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _shown(values: Sequence[Mapping[str, float]], key: str) -> list[float]:
    """In percent or steps; what older results do not have is left out."""
    scale = 1 if key in _STEPS else 100
    return [scale * value[key] for value in values if key in value]


def _by_net(rows: _Rows) -> dict[str, list[Mapping[str, Any]]]:
    found: dict[str, list[Mapping[str, Any]]] = collections.defaultdict(list)
    for row in rows:
        found[row["net"]].append(row)
    return found


def _plot(path: Path, rows: _Rows) -> None:
    """Average gap against cost, one panel for each scenario; lower left is better."""
    names = [name for name in scenarios.NAMES if _of(rows, name)]
    drawn = figure.Figure(figsize=(5.2 * len(names), 4.6), layout="constrained")
    panels = drawn.subplots(1, len(names), squeeze=False)[0]
    for name, axes in zip(names, panels, strict=True):
        own = _by_net(_of(rows, name))
        floor = statistics.mean(100 * row["gap"] for row in own["retrained again"])
        axes.axhline(floor, color="0.5", linestyle="--", linewidth=1)
        axes.annotate("two retrained nets", (0.01, floor), color="0.4", fontsize=8, va="bottom")
        for index, (title, found) in enumerate(own.items()):
            if title in {"original", "retrained", "retrained again"}:
                continue
            gaps = [100 * row["gap"] for row in found]
            costs = [row["cost"] for row in found]
            axes.errorbar(
                statistics.mean(costs),
                statistics.mean(gaps),
                yerr=statistics.stdev(gaps) if len(gaps) > 1 else 0.0,
                marker="osD^vPX*<>"[index % 10],
                capsize=3,
                linestyle="none",
                label=title,
            )
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter(ticker.ScalarFormatter())
        axes.yaxis.set_minor_formatter(ticker.NullFormatter())
        axes.set_xlim(0.0, 1.05)
        axes.set_title(scenarios.TITLES[name])
        axes.set_xlabel("cost / retraining")
        axes.set_ylabel("average gap to retraining, points")
        axes.legend(fontsize=7, loc="upper center", bbox_to_anchor=(0.5, -0.14), ncols=2)
    drawn.savefig(path, dpi=110)
