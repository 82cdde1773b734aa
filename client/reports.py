"""A verification report as a table: before and after, what was allowed, and the verdict."""

from collections.abc import Iterator, Mapping
from typing import Any

from client import console, render

_SHORT = 8  # longer lists and mappings of the evidence are for --json


def show(report: Mapping[str, Any]) -> None:
    """Print what was measured, the seconds, the short part of the evidence and the verdict."""
    evidence: Mapping[str, Any] = report.get("evidence") or {}
    before: Mapping[str, Any] = evidence.get("original") or {}
    render.table(
        ["metric", "before", "after", "target", "allowed ±", "standard error", "n", "passed"],
        (
            [
                name,
                before.get(name),
                entry.get("value"),
                entry.get("target"),
                # The tolerance with its share of sampling error, where the service tells it.
                entry.get("allowed", entry.get("tolerance")),
                entry.get("standard_error"),
                entry.get("n"),
                entry.get("passed"),
            ]
            for name, entry in report["metrics"].items()
        ),
        title="verification",
    )
    seconds = {name: float(value) for name, value in (report.get("seconds") or {}).items()}
    render.fields([("seconds", seconds), *_short(evidence)])
    console.err.print("all of the evidence: add --json")
    _show_verdict(report.get("verdict"))


def _short(evidence: Mapping[str, Any]) -> Iterator[tuple[str, object]]:
    """Yield what fits a line: plain values, and mappings without their long parts."""
    for name, value in evidence.items():
        if name == "original":
            continue
        if isinstance(value, Mapping):
            plain = {key: item for key, item in value.items() if _is_plain(item)}
            if 0 < len(plain) <= _SHORT:
                yield name, plain
        elif _is_plain(value) or (isinstance(value, list) and 0 < len(value) <= _SHORT):
            yield name, value


def _is_plain(value: object) -> bool:
    return value is None or isinstance(value, str | int | float | bool)


def _show_verdict(verdict: object) -> None:
    if not isinstance(verdict, Mapping):
        render.fields([("verdict", verdict)])
        return
    passed = bool(verdict.get("passed"))
    console.out.print(f"[bold]verdict[/]  {'[green]passed[/]' if passed else '[red]refused[/]'}")
    for failure in verdict.get("failures") or []:
        console.out.print(f"  {render.text(failure)}")
