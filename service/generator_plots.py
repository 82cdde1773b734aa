"""Plots of a report on a diffusion model: what is drawn for what is kept, and for what is not.

As :mod:`service.report_plots`: pure, and safe in threads.
"""

from collections.abc import Mapping
from typing import Any

from service import report_drawing, report_values
from service.report_plots import Key, Plot

_COLOURS = report_drawing.COLOURS
_NETS = {"before": "before", "after": "after", "retrained": "retain"}
_MOST_ROWS = 24


def all_plots(report: Mapping[str, Any]) -> list[Plot]:
    """Every plot for which the report has the numbers."""
    drawn = (goes_to(report), groups(report))
    return [plot for plot in drawn if plot is not None]


def goes_to(report: Mapping[str, Any]) -> Plot | None:
    """What the judge sees in pictures that were asked for by what is forgotten."""
    evidence = report_values.mapping(report.get("evidence"))
    found = _by_net(report_values.mapping(evidence.get("forget_goes_to")))
    if not found:
        return None
    return _bars(
        "What the forgotten prompts bring now",
        "Share of pictures asked for by what was forgotten, by what the judge net sees in them.",
        "goes-to",
        found,
    )


def groups(report: Mapping[str, Any]) -> Plot | None:
    """Share of right pictures for each group of prompts that is kept."""
    evidence = report_values.mapping(report.get("evidence"))
    by_group = report_values.mapping(evidence.get("groups"))
    found: dict[str, dict[str, float]] = {}
    for group, nets in by_group.items():
        for net, value in report_values.numbers(nets).items():
            found.setdefault(net, {})[str(group)] = value
    if not found:
        return None
    return _bars(
        "What is kept",
        "Share of pictures in which the judge net sees what was asked for, for all that is kept.",
        "groups",
        found,
    )


def _by_net(told: Mapping[str, Any]) -> dict[str, dict[str, float]]:
    found = {net: report_values.numbers(told.get(net)) for net in _NETS}
    return {net: shares for net, shares in found.items() if shares}


def _bars(title: str, caption: str, name: str, found: Mapping[str, Mapping[str, float]]) -> Plot:
    nets = [net for net in _NETS if net in found]
    every = {label for net in nets for label in found[net]}
    ranked = sorted(
        report_values.ordered(every), key=lambda label: -max(found[n].get(label, 0) for n in nets)
    )
    shown = ranked[:_MOST_ROWS]
    height = 0.8 / len(nets)
    drawn, axis = report_drawing.axes_of(0.16 * len(nets) * len(shown) + 0.7)
    stand_ins = report_drawing.rows(axis, shown)
    for place, net in enumerate(nets):
        offset = (place - (len(nets) - 1) / 2) * height
        axis.barh(
            [row + offset for row in range(len(shown))],
            [found[net].get(label, 0.0) for label in shown],
            height=height * 0.9,
            color=_COLOURS[_NETS[net]],
        )
    axis.set_xlim(0, 1.02)
    report_drawing.percent_axis(axis)
    left = len(ranked) - len(shown)
    more = f" {left} more are not shown." if left else ""
    return Plot(
        title=title,
        caption=caption + more,
        panels=[report_drawing.panel(drawn, name, "", stand_ins)],
        keys=[Key(net, _NETS[net]) for net in nets],
    )
