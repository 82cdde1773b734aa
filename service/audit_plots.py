"""The plots of an audit: each metric against density, and every net's distance to retraining.

Panels as in :mod:`service.report_plots`. Pure, and safe in threads.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib import axes, ticker

from service import audit_nets, report_drawing, report_plots, report_values

SWEPT = ("unlearning_accuracy", "test_accuracy", "forget_holdout_auc")
GAP = "average_gap"
_COLOURS = report_drawing.COLOURS
_LINES = {audit_nets.RETRAINED: "dashed", audit_nets.AGAIN: "dotted"}
_MARKS = {
    "sweep": ("o", "bar", "saliency mask"),
    audit_nets.VERSION: ("*", "after", "the version"),
    audit_nets.RANDOM_MASK: ("s", "forget", "random mask"),
    audit_nets.NO_MASK: ("D", "before", "no mask"),
}


@dataclasses.dataclass(frozen=True)
class Point:
    """One net on one metric; ``sd`` is ``None`` for a single run."""

    density: float
    value: float
    sd: float | None


def all_plots(result: Mapping[str, Any]) -> list[report_plots.Plot]:
    """Every plot for which the audit has the numbers."""
    return [plot for plot in (masks(result), gaps(result)) if plot is not None]


def masks(result: Mapping[str, Any]) -> report_plots.Plot | None:
    """Value against density with error bars, one panel a metric; nothing without controls."""
    nets = by_name(result)
    if not any(name in nets for name in (audit_nets.RANDOM_MASK, audit_nets.NO_MASK)):
        return None
    panels: list[report_drawing.Panel] = []
    marks: set[str] = set()
    lines: set[str] = set()
    for metric in SWEPT:
        points = {kind: found for kind in _MARKS if (found := _points(nets, kind, metric))}
        flat = {name: value for name in _LINES if (value := _value(nets, name, metric)) is not None}
        if not points:
            continue
        drawn, axis = report_drawing.axes_of(2.6, x="share of weights that may change")
        axis.grid(axis="y", color=_COLOURS["grid"], linewidth=0.6)
        for name, value in flat.items():
            axis.axhline(value, color=_COLOURS["retain"], linestyle=_LINES[name], linewidth=1.4)
        for kind, found in points.items():
            _draw(axis, kind, found)
        axis.set_xlim(-0.03, 1.05)
        axis.xaxis.set_major_formatter(ticker.PercentFormatter(1, decimals=0))
        axis.yaxis.set_major_locator(ticker.MaxNLocator(6))
        panels.append(report_drawing.panel(drawn, f"masks-{len(panels)}", metric))
        marks |= points.keys()
        lines |= flat.keys()
    if not panels:
        return None
    keys = [report_plots.Key(_MARKS[kind][2], _MARKS[kind][1]) for kind in _MARKS if kind in marks]
    keys += [
        report_plots.Key(name.replace("_", " "), "retain", _LINES[name])
        for name in _LINES
        if name in lines
    ]
    return report_plots.Plot(
        title="Does the mask matter?",
        caption=(
            "The version's recipe with the same number of weights chosen at random, with all "
            "weights free, and with other shares of them; means and standard deviations over the "
            "seeds. Where bars overlap, a difference may be noise. A weight without a gradient is "
            "never salient, so densities above the others' share give one and the same mask."
        ),
        panels=panels,
        keys=keys,
    )


def gaps(result: Mapping[str, Any]) -> report_plots.Plot | None:
    """Mean distance to the retrained net, with the second retrained net as floor."""
    found = {
        str(name): (value, _sd(net, GAP))
        for name, net in by_name(result).items()
        if name not in (audit_nets.RETRAINED, audit_nets.ORIGINAL)
        and (value := _number(net, GAP, "value")) is not None
    }
    floor = found.get(audit_nets.AGAIN)
    if floor is None:
        return None
    names = list(found)
    longest = max(max(value + (sd or 0.0) for value, sd in found.values()), 1e-9)
    drawn, axis = report_drawing.axes_of(0.28 * len(names) + 0.7, x="points")
    stand_ins = report_drawing.rows(axis, [name.replace("_", " ") for name in names])
    colours = [_COLOURS["after" if name == audit_nets.VERSION else "bar"] for name in names]
    axis.barh(
        range(len(names)),
        [100 * found[name][0] for name in names],
        xerr=[100 * (found[name][1] or 0.0) for name in names],
        error_kw={"ecolor": _COLOURS["muted"], "capsize": 2},
        color=colours,
        height=0.6,
    )
    for row, name in enumerate(names):
        value, sd = found[name]
        report_drawing.note(
            axis, 100 * (value + (sd or 0.0) + 0.02 * longest), row, f"{100 * value:.3g}"
        )
    axis.axvline(100 * floor[0], color=_COLOURS["retain"], linestyle="dotted", linewidth=1.4)
    axis.set_xlim(0, 125 * longest)
    return report_plots.Plot(
        title="How far from retraining",
        caption=(
            "Average gap to the retrained net over UA, RA, TA and MIA. The dotted line is a second "
            "retrained net: nearer than that nothing can be told apart from chance."
        ),
        panels=[report_drawing.panel(drawn, "gaps", "", stand_ins)],
        keys=[report_plots.Key("retrained again", "retain", "dotted")],
    )


def by_name(result: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """The nets of an audit, in their order."""
    nets = result.get("nets")
    found = nets if isinstance(nets, list | tuple) else []
    return {str(net["name"]): net for net in map(report_values.mapping, found) if "name" in net}


def _draw(axis: axes.Axes, kind: str, points: Sequence[Point]) -> None:
    marker, colour, _ = _MARKS[kind]
    axis.errorbar(
        [point.density for point in points],
        [point.value for point in points],
        yerr=[point.sd or 0.0 for point in points],
        marker=marker,
        markersize=9 if marker == "*" else 5,
        color=_COLOURS[colour],
        linewidth=1.2,
        capsize=2.5,
    )


def _points(nets: Mapping[str, Mapping[str, Any]], kind: str, metric: str) -> list[Point]:
    """The nets of one kind that have the metric, by density."""
    found = []
    for name, net in nets.items():
        value = _number(net, metric, "value")
        density = report_values.number(net.get("density"))
        of_kind = name.startswith(audit_nets.DENSITY_PREFIX) if kind == "sweep" else name == kind
        if of_kind and value is not None and density is not None:
            found.append(Point(density, value, _sd(net, metric)))
    return sorted(found, key=lambda point: point.density)


def _value(nets: Mapping[str, Mapping[str, Any]], name: str, metric: str) -> float | None:
    return _number(nets.get(name, {}), metric, "value")


def _sd(net: Mapping[str, Any], metric: str) -> float | None:
    return _number(net, metric, "sd")


def _number(net: Mapping[str, Any], metric: str, figure: str) -> float | None:
    metrics = report_values.mapping(net.get("metrics"))
    return report_values.number(report_values.mapping(metrics.get(metric)).get(figure))
