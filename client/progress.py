"""Live progress: bars on a terminal, one line a change elsewhere, JSON lines for programs."""

import contextlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import rich.progress

from client import console


@contextlib.contextmanager
def bytes_bar(title: str, total: int, *, quiet: bool) -> Iterator[Callable[[int], None]]:
    """Show a bar over bytes; the yielded function hears how many more have passed."""
    with _bar(quiet=quiet, in_bytes=True) as bar:
        task = bar.add_task(title, total=total)
        yield lambda more: bar.advance(task, more)


@contextlib.contextmanager
def download_bar(title: str, *, quiet: bool) -> Iterator[Callable[[int, int], None]]:
    """Show a bar over bytes; the yielded function hears (here now, in all)."""
    with _bar(quiet=quiet, in_bytes=True) as bar:
        task = bar.add_task(title, total=None)
        yield lambda here, total: bar.update(task, completed=here, total=total)


class Stages:
    """Progress of a piece of work that the service does in named stages."""

    def __init__(self, title: str, bar: rich.progress.Progress | None, *, as_json: bool) -> None:
        """Show on ``bar``, or print a line a change if there is none."""
        self._title = title
        self._bar = bar
        self._as_json = as_json
        self._task = bar.add_task(title, total=1.0) if bar else None
        self._last = ""

    def show(self, state: Mapping[str, Any]) -> None:
        """Show the state as the service tells it (``status``, ``stage``, ``progress``)."""
        if self._as_json:
            console.print_json(dict(state))
            return
        progress = state.get("progress") or {}
        stage = str(state.get("stage") or state.get("status") or state.get("state") or "")
        told = " ".join([stage.replace("_", " "), *(state.get("waits_for_deployments") or [])])
        if self._bar is not None and self._task is not None:
            self._bar.update(
                self._task,
                completed=float(progress.get("fraction") or 0.0),
                description=f"{self._title}  {told}{_steps(progress)}{_eta(progress)}",
            )
        elif stage != self._last:
            console.err.print(f"{self._title}: {told}")
        self._last = stage


@contextlib.contextmanager
def stages(title: str, *, as_json: bool) -> Iterator[Stages]:
    """Show work in stages until it is done."""
    if as_json or not console.err.is_terminal:
        yield Stages(title, None, as_json=as_json)
        return
    with _bar(quiet=False, in_bytes=False) as bar:
        yield Stages(title, bar, as_json=False)


def _bar(*, quiet: bool, in_bytes: bool) -> rich.progress.Progress:
    amount: tuple[rich.progress.ProgressColumn, ...] = (rich.progress.TaskProgressColumn(),)
    if in_bytes:
        amount = (rich.progress.DownloadColumn(), rich.progress.TransferSpeedColumn())
    return rich.progress.Progress(
        rich.progress.SpinnerColumn(),
        rich.progress.TextColumn("{task.description}"),
        rich.progress.BarColumn(),
        *amount,
        rich.progress.TimeElapsedColumn(),
        console=console.err,
        disable=quiet or not console.err.is_terminal,
        transient=True,
    )


def _steps(progress: Mapping[str, Any]) -> str:
    total = progress.get("total_steps")
    return f"  step {progress.get('step') or 0}/{total}" if total else ""


def _eta(progress: Mapping[str, Any]) -> str:
    seconds = progress.get("eta_seconds")
    return f"  about {seconds:.0f} s left" if seconds is not None else ""
