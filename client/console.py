"""The consoles that commands write to, and how an error ends a command."""

import contextlib
import json
from collections.abc import Iterator, Mapping
from typing import Any

import rich.console
import rich.markup
import typer

from client import errors

_WIDTH_IN_FILES = 160  # a pipe or file has no width; ids must not be cut there

out = rich.console.Console(highlight=False)
if not out.is_terminal:
    out.width = _WIDTH_IN_FILES
err = rich.console.Console(stderr=True, highlight=False, soft_wrap=True)


def print_json(value: object) -> None:
    """Write one JSON document to standard output, for programs."""
    typer.echo(json.dumps(value, ensure_ascii=False))


@contextlib.contextmanager
def reported_errors(*, as_json: bool) -> Iterator[None]:
    """Turn an error of ours into one line (or one JSON object) and exit status 1."""
    try:
        yield
    except errors.ClientError as error:
        tell(error, as_json=as_json)
        raise typer.Exit(1) from error


def tell(error: errors.ClientError, *, as_json: bool) -> None:
    """Print an error: one line, and one more for each entry of a problem's ``errors``."""
    if as_json:
        print_json({"error": _as_object(error)})
        return
    err.print(f"[bold red]error[/] {rich.markup.escape(str(error))}")
    if isinstance(error, errors.ApiError):
        for entry in error.problem.get("errors", []):
            where = entry.get("pointer", "")
            what = entry.get("detail") or entry.get("code", "")
            repeats = what == error.problem.get("detail")  # said already: only where it is
            err.print(rich.markup.escape(f"  {where}" if repeats else f"  {where}  {what}"))


def _as_object(error: errors.ClientError) -> Mapping[str, Any]:
    if isinstance(error, errors.ApiError):
        return {"status": error.status, **error.problem}
    return {"title": type(error).__name__, "detail": str(error)}
