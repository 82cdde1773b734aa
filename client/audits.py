"""An audit as tables: one column a net, then what the shadow nets say."""

from collections.abc import Mapping
from typing import Any

from client import console, render

_FIRST = (
    "average_gap",
    "unlearning_accuracy",
    "retain_accuracy",
    "test_accuracy",
    "mia_efficacy",
    "forget_holdout_auc",
)
_NOT_SHOWN = frozenset({"original"})  # the verification report shows it beside the version


def show(state: Mapping[str, Any]) -> None:
    """Print an audit and, once it is completed, what it found."""
    render.fields(
        [
            ("audit", state["id"]),
            ("model", f"{state['model']} version {state['version']}"),
            ("status", state["status"]),
            ("error", state.get("error")),
            ("asked", render.moment(state.get("created_at"))),
            ("finished", render.moment(state.get("finished_at"))),
        ]
    )
    if state.get("result"):
        _show_result(state["result"])


def show_list(found: Mapping[str, Any]) -> None:
    """Print the audits of a version, a line each."""
    if not found["items"]:
        console.out.print("no audits")
        return
    render.table(
        ["id", "status", "asked", "finished"],
        (
            [
                entry["id"],
                entry["status"],
                render.moment(entry.get("created_at")),
                render.moment(entry.get("finished_at")),
            ]
            for entry in found["items"]
        ),
    )


def _show_result(result: Mapping[str, Any]) -> None:
    nets = [net for net in result["nets"] if net["name"] not in _NOT_SHOWN]
    there = {name for net in nets for name in net["metrics"]}
    names = [name for name in _FIRST if name in there] + sorted(there - set(_FIRST))
    render.table(
        ["metric", *(net["name"].replace("_", " ") for net in nets)],
        ([name, *(_spread(net["metrics"].get(name)) for net in nets)] for name in names),
        title="audit (mean ± sd over the seeds)",
    )
    for warning in result.get("warnings") or []:
        console.err.print(f"[bold yellow]warning[/] {render.text(warning)}")
    ulira = result.get("ulira")
    if ulira:
        for name, entry in ulira["metrics"].items():
            error = entry.get("standard_error")
            told = f"{entry['value']:.4g}" + (f" (standard error {error:.2g})" if error else "")
            console.out.print(f"[bold]{name}[/]  {told}, target {entry['target']:g}")
    render.fields(
        [
            ("average gap", result.get("average_gap")),
            ("noise floor", result.get("average_gap_floor")),
            ("seconds", {name: float(value) for name, value in result["seconds"].items()}),
        ]
    )


def _spread(entry: Mapping[str, Any] | None) -> str | None:
    if entry is None:
        return None
    value = f"{entry['value']:.3g}"
    return value if entry["sd"] is None else f"{value} ± {entry['sd']:.2g}"
