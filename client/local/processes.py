"""Looking at processes through /proc, and ending exactly those that are ours.

Ids are reused, so a process is held by a pidfd from the moment it was recognised: a signal can then
never reach a stranger that got the same number.
"""

import contextlib
import dataclasses
import os
import select
import signal
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

from client import errors

_PROC = Path("/proc")

Step = tuple[signal.Signals | None, float]
"""A signal (or none) to send, and how many seconds to wait for the end."""


@dataclasses.dataclass(frozen=True)
class ServerMark:
    """What makes a process provably a server of ours: its program's name and its working folder.

    PostgreSQL and Valkey both change into their data folder, and no other program with that name
    has a reason to sit there.
    """

    program: str
    folder: Path

    def matches(self, pid: int) -> bool:
        """Tell whether the process is one; a process we may not look at is not ours."""
        process = _PROC / str(pid)
        try:
            program = (process / "exe").readlink().name.removesuffix(" (deleted)")
            return program == self.program and (process / "cwd").readlink() == self.folder
        except OSError:
            return False

    def find(self) -> list[int]:
        """Return the ids of all such processes."""
        return [pid for pid in all_pids() if self.matches(pid)]


def all_pids() -> Iterator[int]:
    """Yield the id of every process that can be seen."""
    for entry in _PROC.iterdir():
        if entry.name.isdigit():
            yield int(entry.name)


def parent_of(pid: int) -> int | None:
    """Return the parent's id, or None if the process is gone."""
    fields = _stat_fields(pid)
    return int(fields[1]) if fields else None


def is_running(pid: int) -> bool:
    """Tell whether the process exists and is not a zombie."""
    fields = _stat_fields(pid)
    return fields is not None and fields[0] not in ("Z", "X")


def children_of(pid: int) -> list[int]:
    """Return the ids of the direct children."""
    return [child for child in all_pids() if parent_of(child) == pid]


def descendants_of(pid: int) -> list[int]:
    """Return the ids of children, their children and so on, parents first."""
    parents = {child: parent_of(child) for child in all_pids()}
    found = [pid]
    for ancestor in found:  # grows while it is walked
        found += [child for child, parent in parents.items() if parent == ancestor]
    return found[1:]


def end(
    pids: Iterable[int], steps: Sequence[Step], *, still_ours: Callable[[int], bool] = is_running
) -> list[int]:
    """Send each step's signal in turn until all have ended; return the ids that are left.

    ``still_ours`` is asked after the process has been pinned by a pidfd, so that an id that was
    reused in between is left alone.
    """
    held = _hold(pids, still_ours)
    try:
        for number, patience in steps:
            if not held:
                break
            if number is not None:
                _signal_all(held.values(), number)
            held = _wait(held, patience)
        return list(held)
    finally:
        for descriptor in held.values():
            os.close(descriptor)


def wait_gone(pids: Iterable[int], patience: float) -> list[int]:
    """Wait up to ``patience`` seconds for the processes to end; return the ids that are left."""
    return end(pids, [(None, patience)])


def end_all_of(mark: ServerMark, steps: Sequence[Step]) -> int:
    """End every server with that mark; return how many there were.

    Raises LocalServerError when one survives all steps.
    """
    pids = mark.find()
    left = end(pids, steps, still_ours=mark.matches)
    if left:
        raise errors.LocalServerError(
            f"{mark.program} with pid {left[0]} on {mark.folder} does not end; end it by hand"
        )
    return len(pids)


def _stat_fields(pid: int) -> list[str] | None:
    """Return the fields of /proc/PID/stat that follow the program's name: state, parent, ..."""
    try:
        text = (_PROC / str(pid) / "stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    return text.rpartition(")")[2].split()


def _hold(pids: Iterable[int], still_ours: Callable[[int], bool]) -> dict[int, int]:
    held: dict[int, int] = {}
    for pid in pids:
        try:
            descriptor = os.pidfd_open(pid)
        except ProcessLookupError:
            continue
        if still_ours(pid):
            held[pid] = descriptor
        else:
            os.close(descriptor)
    return held


def _signal_all(descriptors: Iterable[int], number: signal.Signals) -> None:
    for descriptor in descriptors:
        with contextlib.suppress(ProcessLookupError):  # ended in between
            signal.pidfd_send_signal(descriptor, number)
            if number != signal.SIGKILL:  # a stopped process would not notice it
                signal.pidfd_send_signal(descriptor, signal.SIGCONT)


def _wait(held: dict[int, int], patience: float) -> dict[int, int]:
    """Wait for the pidfds to become readable (= ended); close those and return the others."""
    left = dict(held)
    deadline = time.monotonic() + patience
    while left:
        poller = select.poll()
        for descriptor in left.values():
            poller.register(descriptor, select.POLLIN)
        ended = {fd for fd, _ in poller.poll(max(0.0, deadline - time.monotonic()) * 1000)}
        for pid, descriptor in list(left.items()):
            if descriptor in ended:
                os.close(descriptor)
                del left[pid]
        if not ended:
            break
    return left
