"""The plots of a verification report, each a list of small SVG panels to stand inside HTML.

Panels are narrow, so that a page may set them side by side or, on a phone, below each other.
Pure, and safe in threads.
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib import ticker

from service import report_drawing, report_values

_COLOURS = report_drawing.COLOURS
_LONGEST_INCHES = 7.0
_MOST_CLASSES = 20
_MOST_RECEIVERS = 12
_ONE_COLUMN = 20
_SETS = {"forget": "solid", "holdout": "dashed", "retain": "dotted"}
_NETS = {
    "before": "Before",
    "after": "After",
    "retrained": "Retrained without the data",
}


@dataclasses.dataclass(frozen=True)
class Key:
    """One entry of a legend: a colour of ours, and ``fill`` or the style of a line."""

    name: str
    colour: str
    style: str = "fill"


@dataclasses.dataclass(frozen=True)
class Plot:
    """Panels that belong together, with what they show in words."""

    title: str
    caption: str
    panels: Sequence[report_drawing.Panel]
    keys: Sequence[Key] = ()


def all_plots(report: Mapping[str, Any]) -> list[Plot]:
    """Every plot for which the report has the numbers."""
    drawn = (
        confidence(report),
        class_accuracy(report),
        receivers(report),
        losses(report),
        seconds(report),
        layer_density(report),
    )
    return [plot for plot in drawn if plot is not None]


def confidence(report: Mapping[str, Any]) -> Plot | None:
    """Logit-scaled confidence in the true class: forget, holdout, retain; one panel a net."""
    histograms = report_values.mapping(
        report_values.mapping(report.get("evidence")).get("histograms")
    )
    edges = _numbers_in(histograms.get("bin_edges"))
    shares: dict[str, dict[str, np.ndarray]] = {}
    for net in report_values.ordered(set(histograms) - {"bin_edges"}, _NETS):
        found = _shares(histograms[net], len(edges) - 1)
        if found:
            shares[net] = found
    if not shares:
        return None
    every = [item for found in shares.values() for item in found.values()]
    filled = np.flatnonzero(np.sum(every, axis=0))
    limits = edges[max(filled[0] - 1, 0)], edges[min(filled[-1] + 2, len(edges) - 1)]
    top = 1.08 * max(float(item.max()) for item in every)
    panels: list[report_drawing.Panel] = []
    for net, found in shares.items():
        title = _NETS.get(net, net)
        drawn, axis = report_drawing.axes_of(
            2.5, x="confidence in the true class (logit)", y="share of samples"
        )
        for name, values in found.items():
            colour = _COLOURS[name]
            axis.stairs(values, edges, color=colour, fill=True, alpha=0.14)
            axis.stairs(values, edges, color=colour, linestyle=_SETS[name], linewidth=1.6)
        axis.set_xlim(*limits)
        axis.xaxis.set_major_locator(ticker.MaxNLocator(6, steps=[1, 2, 5, 10], integer=True))
        axis.set_ylim(0, top)
        axis.yaxis.set_major_formatter(ticker.PercentFormatter(1, decimals=0))
        panels.append(report_drawing.panel(drawn, f"confidence-{len(panels)}", title))
    names = [name for name in _SETS if any(name in found for found in shares.values())]
    return Plot(
        title="How sure the net is",
        caption=(
            "How sure the net is of the right answer, for what it was to forget, for what it never "
            f"saw (holdout) and for what it keeps (retain). {_wanted(report)}"
        ),
        panels=panels,
        keys=[Key(name, name, _SETS[name]) for name in names],
    )


def class_accuracy(report: Mapping[str, Any]) -> Plot | None:
    """Accuracy by class before and after, on retain and test; what came before is after + drop."""
    drops = report_values.mapping(report_values.detail(report, "max_class_drop").get("drops"))
    found: dict[str, dict[str, tuple[float | None, float]]] = {}
    for split in ("retain", "test"):
        detail = report_values.detail(report, f"{split}_accuracy")
        drop = report_values.numbers(drops.get(split))
        after = report_values.numbers(detail.get("per_class_accuracy"))
        if after:
            found[split] = {
                label: (value + drop[label] if label in drop else None, value)
                for label, value in after.items()
            }
    if not found:
        return None
    every = report_values.ordered({label for rows in found.values() for label in rows})
    shown = _most_changed(every, found)
    names = report_values.label_names(report)
    panels = [
        _class_panel(f"accuracy-{split}", f"On the {split} set", shown, names, rows)
        for split, rows in found.items()
    ]
    left_out = f" Shown are the {len(shown)} of {len(every)} classes that changed most."
    return Plot(
        title="Accuracy by class",
        caption=(
            "Share of right answers for each class that is kept; the figure behind a bar is the "
            "change in percentage points." + (left_out if len(shown) < len(every) else "")
        ),
        panels=panels,
        keys=[Key("before", "before"), Key("after", "after")],
    )


def receivers(report: Mapping[str, Any]) -> Plot | None:
    """Which classes a forgotten class's samples are taken for now."""
    detail = report_values.detail(report, "unlearning_accuracy")
    shares = report_values.numbers(detail.get("predicted_as"))
    if not shares:
        return None
    own = set(report_values.mapping(detail.get("per_class_accuracy")))
    names = report_values.label_names(report)
    labels = sorted(report_values.ordered(shares), key=lambda label: -shares[label])
    shown = labels[:_MOST_RECEIVERS]
    drawn, axis = report_drawing.axes_of(0.24 * len(shown) + 0.6)
    colours = [_COLOURS["forget" if label in own else "bar"] for label in shown]
    stand_ins = report_drawing.rows(axis, [names.get(label, f"class {label}") for label in shown])
    axis.barh(range(len(shown)), [shares[label] for label in shown], color=colours, height=0.7)
    for row, label in enumerate(shown):
        report_drawing.note(axis, shares[label] + 0.015, row, f"{shares[label]:.1%}")
    axis.set_xlim(0, 1.14)
    report_drawing.percent_axis(axis)
    left = sum(shares[label] for label in labels[_MOST_RECEIVERS:])
    rest = f" {len(labels) - len(shown)} more classes share {left:.1%}." if left else ""
    return Plot(
        title="What the forgotten class is taken for",
        caption="Share of the forgotten class's training samples by the answer given now." + rest,
        panels=[report_drawing.panel(drawn, "receivers", "", stand_ins)],
        keys=[
            Key("another class", "bar"),
            *([Key("itself", "forget")] if own & set(shown) else []),
        ],
    )


def losses(report: Mapping[str, Any]) -> Plot | None:
    """Loss in the course of it on the retain and the forget set, where the method kept it."""
    method = report_values.mapping(report_values.mapping(report.get("evidence")).get("method"))
    epochs = method.get("losses")
    if not isinstance(epochs, list | tuple):
        return None
    drawn, axis = report_drawing.axes_of(2.3, x="part of the run", y="loss")
    keys = []
    for name in ("retain", "forget"):
        values = [report_values.number(report_values.mapping(epoch).get(name)) for epoch in epochs]
        if any(value is not None for value in values):
            places = np.arange(1, len(values) + 1)
            floats = [np.nan if value is None else value for value in values]
            style = _SETS[name]
            axis.plot(
                places, floats, color=_COLOURS[name], linestyle=style, marker="o", markersize=3
            )
            keys.append(Key(name, name, style))
    if not keys:
        return None
    axis.xaxis.set_major_locator(ticker.MaxNLocator(integer=True, min_n_ticks=1))
    return Plot(
        title="Loss while unlearning",
        caption="Mean training loss of each part of the run (epochs; eighths of a generator's), on "
        "what is kept and on what is forgotten.",
        panels=[report_drawing.panel(drawn, "losses", "")],
        keys=keys,
    )


def seconds(report: Mapping[str, Any]) -> Plot | None:
    """Seconds by stage."""
    found = report_values.numbers(report.get("seconds"))
    if not found:
        return None
    stages = report_values.ordered(found, ("mask", "unlearn", "verify"))
    longest = max(max(found.values()), 1e-9)
    drawn, axis = report_drawing.axes_of(0.28 * len(stages) + 0.6, x="seconds")
    stand_ins = report_drawing.rows(axis, stages)
    axis.barh(
        range(len(stages)),
        [found[name] for name in stages],
        color=_COLOURS["bar"],
        height=0.6,
    )
    for row, name in enumerate(stages):
        report_drawing.note(axis, found[name] + 0.015 * longest, row, f"{found[name]:.3g} s")
    axis.set_xlim(0, 1.2 * longest)
    return Plot(
        title="Where the time went",
        caption=f"{sum(found.values()):.3g} seconds of work in all; waiting is not counted.",
        panels=[report_drawing.panel(drawn, "seconds", "", stand_ins)],
    )


def layer_density(report: Mapping[str, Any]) -> Plot | None:
    """Share of each layer's weights that the saliency mask let change."""
    mask = report_values.mapping(report_values.mapping(report.get("evidence")).get("mask"))
    densities = report_values.numbers(mask.get("layer_density"))
    if not densities:
        return None
    layers = report_values.ordered(densities)
    overall = report_values.number(mask.get("density"))
    told = "Share of each layer's weights that were allowed to change."
    if overall is not None:
        told += f" Over all layers it is {overall:.1%} (dashed line); the rest is bit-identical."
    half = len(layers) if len(layers) <= _ONE_COLUMN else math.ceil(len(layers) / 2)
    columns = [layers[:half], layers[half:]] if half < len(layers) else [layers]
    return Plot(
        title="What the mask let change",
        caption=told,
        panels=[
            _layer_panel(f"layers-{number}", {name: densities[name] for name in column}, overall)
            for number, column in enumerate(columns)
        ],
    )


def _wanted(report: Mapping[str, Any]) -> str:
    if report.get("kind") == "class":
        return (
            "Forgotten well means: afterwards the class lies far to the left, and so do its unseen "
            "samples in the holdout set."
        )
    return "Forgotten well means: afterwards the forgotten samples look like the unseen ones."


def _shares(counts: object, bins: int) -> dict[str, np.ndarray]:
    """Histograms as shares, by set; one that has no samples or other bins is left out."""
    found = {}
    for name in _SETS:
        values = _numbers_in(report_values.mapping(counts).get(name))
        if len(values) == bins > 0 and values.min() >= 0 and values.sum() > 0:
            found[name] = values / values.sum()
    return found


def _numbers_in(value: object) -> np.ndarray:
    """A list of finite numbers as an array, else an empty one."""
    items = list(value) if isinstance(value, list | tuple) else []
    found = [report_values.number(item) for item in items]
    return np.array([] if None in found else found, dtype=float)


def _most_changed(
    labels: Sequence[str], found: Mapping[str, Mapping[str, tuple[float | None, float]]]
) -> list[str]:
    """At most :data:`_MOST_CLASSES` labels, in their order."""

    def change(label: str) -> float:
        pairs = [rows[label] for rows in found.values() if label in rows]
        return max(
            (abs(before - after) for before, after in pairs if before is not None), default=0
        )

    kept = set(sorted(labels, key=lambda label: -change(label))[:_MOST_CLASSES])
    return [label for label in labels if label in kept]


def _class_panel(
    name: str,
    title: str,
    labels: Sequence[str],
    names: Mapping[str, str],
    rows: Mapping[str, tuple[float | None, float]],
) -> report_drawing.Panel:
    drawn, axis = report_drawing.axes_of(0.32 * len(labels) + 0.6)
    stand_ins = report_drawing.rows(axis, [names.get(label, f"class {label}") for label in labels])
    for row, label in enumerate(labels):
        if label not in rows:
            continue
        before, after = rows[label]
        if before is not None:
            axis.barh(row - 0.19, before, height=0.36, color=_COLOURS["before"])
            change = round(100 * (after - before), 1) + 0.0  # no minus before a zero
            report_drawing.note(
                axis, 1.015, row, f"{change:+.1f}".replace("-", "−") if change else "0"
            )
        axis.barh(row + 0.19, after, height=0.36, color=_COLOURS["after"])
    axis.set_xlim(0, 1.14)
    report_drawing.percent_axis(axis)
    return report_drawing.panel(drawn, name, title, stand_ins)


def _layer_panel(
    name: str, densities: Mapping[str, float], overall: float | None
) -> report_drawing.Panel:
    """Bars with a name each; where there are too many, steps with a name here and there."""
    count = len(densities)
    height = min(0.17, _LONGEST_INCHES / count)
    every = max(1, round(0.15 / height))
    drawn, axis = report_drawing.axes_of(height * count + 0.5)
    stand_ins = report_drawing.rows(axis, list(densities), every=every, size=6.5)
    values = list(densities.values())
    if every == 1:
        axis.barh(range(count), values, color=_COLOURS["bar"], height=0.72)
    else:
        edges = np.arange(count + 1) - 0.5
        axis.stairs(values, edges, orientation="horizontal", color=_COLOURS["bar"], fill=True)
    if overall is not None:
        axis.axvline(overall, color=_COLOURS["forget"], linewidth=1.2, linestyle="dashed")
    axis.set_xlim(0, 1.02)
    report_drawing.percent_axis(axis)
    return report_drawing.panel(drawn, name, "", stand_ins)
