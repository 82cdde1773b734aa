"""The before/after table of one request, beside a net retrained without the data."""

from collections.abc import Mapping
from typing import Any

import rich.table

from salun_core import specs

_ROWS = {
    "unlearning_accuracy": "unlearning accuracy (UA)",
    "retain_accuracy": "retain accuracy (RA)",
    "test_accuracy": "test accuracy (TA)",
    "mia_efficacy": "MIA: called non-member",
    "forget_holdout_auc": "AUC forget vs unseen (.5 = alike)",
}


def before_after(
    title: str,
    report: Mapping[str, Any],
    retrained: Mapping[str, specs.Measurement],
    retrain_seconds: float,
) -> rich.table.Table:
    """What the report measured, beside the same numbers of the retrained net."""
    table = rich.table.Table(title=title, title_justify="left")
    table.add_column("")
    for name in ("before", "after", "retrained", "gate"):
        table.add_column(name, justify="right")
    original = report["evidence"]["original"]
    for name, label in _ROWS.items():
        measured = report["metrics"].get(name)
        if measured is None:
            continue
        reference = retrained.get(name)
        table.add_row(
            label,
            _share(original.get(name)),
            _share(measured["value"]),
            _share(None if reference is None else reference.value),
            {True: "[green]passed[/]", False: "[red]failed[/]", None: "reported"}[
                measured["passed"]
            ],
        )
    table.add_section()
    seconds = report["seconds"]
    table.add_row("seconds: mask", "", f"{seconds['mask']:.1f}", "", "")
    table.add_row("seconds: unlearn", "", f"{seconds['unlearn']:.1f}", f"{retrain_seconds:.1f}", "")
    table.add_row("seconds: verify", "", f"{seconds['verify']:.1f}", "", "")
    tried = report["evidence"]["recipes_tried"]
    table.add_row("recipes tried", "", f"{len(tried)}: {report['method']['method']}", "", "")
    changed = report["evidence"]["weights_changed"]["share"]
    table.add_row("share of weights changed", "", _share(changed), _share(1.0), "")
    return table


def _share(value: float | None) -> str:
    return "–" if value is None else f"{value:.1%}"
