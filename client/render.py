"""Tables for people."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import rich.markup
import rich.table

from client import console

_NOTHING = "—"


def table(columns: Sequence[str], rows: Iterable[Sequence[object]], *, title: str = "") -> None:
    """Print a table; None is shown as a dash, and nothing is taken for markup."""
    shown = rich.table.Table(title=title or None, title_justify="left")
    for place, column in enumerate(columns):  # names and ids stay whole: they are typed again
        shown.add_column(column, no_wrap=place == 0, overflow="fold")
    for row in rows:
        shown.add_row(*(text(cell) for cell in row))
    console.out.print(shown)


def listing(
    found: Mapping[str, Any],
    columns: Sequence[str],
    row: Callable[[Mapping[str, Any]], Sequence[object]],
    *,
    none: str,
    as_json: bool,
) -> None:
    """Print a body's ``items``: as they came, as a table, or ``none`` where there are none."""
    if as_json:
        console.print_json(found)
    elif not found["items"]:
        console.out.print(none)
    else:
        table(columns, map(row, found["items"]))


def fields(pairs: Iterable[tuple[str, object]]) -> None:
    """Print names and values below each other; a value of None is left out."""
    grid = rich.table.Table.grid(padding=(0, 2))
    for name, value in pairs:
        if value is not None:
            grid.add_row(f"[bold]{name}[/]", text(value))
    console.out.print(grid)


def text(value: object) -> str:
    """Return a value as table text."""
    if value is None:
        return _NOTHING
    if isinstance(value, bool):
        return "[green]yes[/]" if value else "[red]no[/]"
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, Mapping):
        return "  ".join(f"{name} {text(item)}" for name, item in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(text(item) for item in value) or _NOTHING
    return rich.markup.escape(str(value))


def moment(value: object) -> str | None:
    """Return an RFC 3339 time without its fraction, or None."""
    if not value:
        return None
    head, dot, tail = str(value).partition(".")
    zone = "Z" if tail.endswith("Z") else tail[-6:]
    return head + zone if dot else head


def forget_request(state: Mapping[str, Any]) -> None:
    """Print one forget request."""
    summary = state.get("targets_summary") or {}
    working = state["status"] in ("pending", "in_progress")
    fraction = ((state.get("progress") or {}) if working else {}).get("fraction")
    fields(
        [
            ("request", state["id"]),
            ("model", state["model"]),
            ("status", f"{state['status']} ({state['stage']})"),
            ("reason", state.get("reason")),
            ("targets", summary or None),
            ("stage's progress", None if fraction is None else f"{fraction:.0%}"),
            ("received", moment(state.get("received_at"))),
            ("due", moment(state.get("due_at"))),
            ("expected", moment(state.get("expected_completion_at"))),
            ("result", _result(state)),
            ("waits for", ", ".join(state.get("waits_for_deployments") or []) or None),
        ]
    )


def reasons(state: Mapping[str, Any]) -> str:
    """Return the ``errors`` of a dataset or version in one line."""
    found = state.get("errors") or []
    told = [
        str(entry.get("detail") or entry.get("code")) if isinstance(entry, Mapping) else str(entry)
        for entry in found
    ]
    return "; ".join(told) or "no reason given"


def _result(state: Mapping[str, Any]) -> str | None:
    version = state.get("result_version")
    return None if version is None else f"version {version}"
