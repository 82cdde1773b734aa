"""One process that this one started: its log, its end, and the tie to our life."""

import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from client import errors
from client.local import launch, processes

_LOG_LIMIT_BYTES = 16 * 1024 * 1024


class Child:
    """A started process. The kernel ends it with ``death_signal`` when the starting thread ends."""

    def __init__(
        self,
        program: Sequence[str],
        *,
        log: Path,
        environment: Mapping[str, str],
        folder: Path,
        death_signal: signal.Signals,
        identity: str = "same",
    ) -> None:
        self.log = log
        _turn_over(log)
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                launch.command(list(program), death_signal=death_signal, identity=identity),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=dict(environment),
                cwd=folder,
                # Ctrl-C in the terminal must reach the launcher only: it knows the order.
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        """The process id; it belongs to us until ``poll`` has returned a status."""
        return self._process.pid

    def poll(self) -> int | None:
        """Return None while it runs, else its exit status (negative: the signal)."""
        return self._process.poll()

    def end(self, steps: Sequence[processes.Step]) -> None:
        """Send each step's signal in turn until it has ended.

        Raises LocalServerError when it survives the last step.
        """
        if self.poll() is None and processes.end([self.pid], steps):
            raise errors.LocalServerError(f"process {self.pid} does not end; its log: {self.log}")
        self._process.wait()

    def kill(self) -> None:
        """End it at once (SIGKILL), as a fault would."""
        self.end([(signal.SIGKILL, 10.0)])

    def last_words(self, lines: int = 5) -> str:
        """Return the last lines of the log, for an error message."""
        return tail(self.log, lines)


def tail(log: Path, lines: int) -> str:
    """Return the last lines of a log file, or nothing if there is none."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - 8192))
            text = file.read().decode("utf-8", errors="replace")
    except OSError:
        return ""
    return "\n".join(text.splitlines()[-lines:])


def _turn_over(log: Path) -> None:
    """Keep one older log: a log that only grows fills the disk of a service that stays up."""
    log.parent.mkdir(parents=True, exist_ok=True)
    if log.exists() and log.stat().st_size > _LOG_LIMIT_BYTES:
        log.replace(log.with_name(log.name + ".1"))
