"""A verification report as a table, before and after with the verdict; and as a page in a file."""

import tempfile
import webbrowser
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import rich.markup

from client import console, errors, http, render, whole_files

_SHORT = 8  # longer lists and mappings of the evidence are for --json


def show(report: Mapping[str, Any]) -> None:
    """Print what was measured and what not, seconds, short parts of the evidence, the verdict."""
    evidence: Mapping[str, Any] = report.get("evidence") or {}
    before: Mapping[str, Any] = evidence.get("original") or {}
    render.table(
        ["metric", "before", "after", "target", "allowed", "standard error", "n", "passed"],
        (
            [
                name,
                before.get(name),
                entry.get("value"),
                entry.get("target"),
                _allowed(entry),
                entry.get("standard_error"),
                entry.get("n"),
                entry.get("passed"),
            ]
            for name, entry in report["metrics"].items()
        ),
        title="verification",
    )
    _show_resolution(report["metrics"].get("forget_holdout_auc") or {})
    seconds = {name: float(value) for name, value in (report.get("seconds") or {}).items()}
    render.fields([("seconds", seconds), *_short(evidence)])
    if claim := evidence.get("claim"):
        console.out.print(str(claim), markup=False)
    console.err.print("all of the evidence: add --json")
    for warning in evidence.get("warnings") or []:
        console.err.print(f"[bold]warning[/] {rich.markup.escape(str(warning))}")
    _show_verdict(report.get("verdict"))


def _allowed(entry: Mapping[str, Any]) -> str | None:
    """The tolerance with its share of sampling error, on the side that counts."""
    found = entry.get("allowed", entry.get("tolerance"))
    sign = {"not_above": "+", "not_below": "-"}.get(str(entry.get("side")), "±")
    return None if found is None else f"{sign} {found:.4g}"


def page(api: http.Api, path: str) -> bytes:
    """Fetch a report as an HTML page. Raises ApiError, UnreachableError."""
    accept = "text/html, application/problem+json"
    answer = api.call("GET", path, params={"format": "html"}, headers={"Accept": accept})
    if not answer.headers.get("Content-Type", "").startswith("text/html"):
        raise errors.ClientError(f"{api.url} answered without a page: it is an older service")
    return answer.content


def write_page(content: bytes, target: Path | None) -> Path:
    """Write a page, whole or not at all; without a target into a new temporary folder.

    Raises ClientError for a file that cannot be written.
    """
    if target is not None and not target.name:
        raise errors.ClientError(f"expected the name of a file, got {str(target)!r}")
    try:
        if target is None:
            target = Path(tempfile.mkdtemp(prefix="salun-report-")) / "report.html"
        whole_files.write(target, content)
    except OSError as error:
        raise errors.ClientError(f"cannot write {target}: {error.strerror}") from error
    return target


def keep_page(api: http.Api, path: str, file: str | None, *, show: bool) -> None:
    """Write a page to a file, a temporary one if it is only to be shown; nothing if neither.

    Raises ApiError, UnreachableError, ClientError.
    """
    if file is None and not show:
        return
    written = write_page(page(api, path), None if file is None else Path(file))
    console.err.print(f"wrote {written}", markup=False)
    if show:
        open_page(written)


def open_page(target: Path) -> None:
    """Show a page in the browser, or say where it lies."""
    if not webbrowser.open(target.resolve().as_uri()):
        console.err.print(f"no browser was found; the page is {target}", markup=False)


def _show_resolution(gate: Mapping[str, Any]) -> None:
    """Print how small a leak the gate on likeness could have seen, where it was judged."""
    target, allowed = gate.get("target"), gate.get("allowed")
    if isinstance(target, int | float) and isinstance(allowed, int | float):
        within = (
            f"up to an AUC of {target + allowed:.2g}"
            if gate.get("side") == "not_above"
            else f"within an AUC of {target:g} ± {allowed:.2g}"
        )
        console.out.print(f"a leak {within} passes this gate unseen", highlight=False)


def _short(evidence: Mapping[str, Any]) -> Iterator[tuple[str, object]]:
    """Yield what fits a line: plain values, and mappings without their long parts."""
    for name, value in evidence.items():
        if name in ("original", "warnings", "claim"):
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
