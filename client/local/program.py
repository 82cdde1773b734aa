"""One of our own programs (API, worker, sweeper) as something that can be started and stopped."""

import signal
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from client import errors
from client.local import child, launch, processes


class Program:
    """A Python module of ours run by this interpreter; it does not outlive the starting thread."""

    def __init__(
        self,
        name: str,
        arguments: Sequence[str],
        *,
        log: Path,
        environment: Mapping[str, str],
        folder: Path,
        stop_steps: Sequence[processes.Step],
        death_signal: signal.Signals,
    ) -> None:
        """Describe it; nothing is started. ``arguments`` follow ``python -m``."""
        self.name = name
        self.log = log
        self._command = [launch.interpreter(), "-m", *arguments]
        self._environment = dict(environment)
        self._folder = folder
        self._stop_steps = tuple(stop_steps)
        self._death_signal = death_signal
        self._child: child.Child | None = None

    @property
    def pid(self) -> int | None:
        """The process id while it runs."""
        return self._child.pid if self._child and self._child.poll() is None else None

    def spawn(self) -> None:
        """Start it without waiting."""
        self._child = child.Child(
            self._command,
            log=self.log,
            environment=self._environment,
            folder=self._folder,
            death_signal=self._death_signal,
        )

    def poll(self) -> int | None:
        """Return None while it runs, else its exit status (negative: the signal)."""
        return self._child.poll() if self._child else 0

    def stop(self) -> None:
        """Stop it, together with the processes that it started."""
        if self._child is None:
            return
        family = processes.descendants_of(self._child.pid) if self.pid else []
        self._child.end(self._stop_steps)
        left = [pid for pid in family if processes.is_running(pid)]
        processes.end(left, [(None, 1.0), (signal.SIGKILL, 5.0)])
        self._child = None

    def run_once(self, limit_seconds: float) -> None:
        """Run it to its end.

        Raises LocalServerError with the last lines of its log when it fails or takes too long.
        """
        self.log.parent.mkdir(parents=True, exist_ok=True)
        with self.log.open("ab") as output:
            try:
                status = subprocess.run(
                    launch.command(self._command, death_signal=self._death_signal),
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    env=self._environment,
                    cwd=self._folder,
                    start_new_session=True,
                    timeout=limit_seconds,
                    check=False,
                ).returncode
            except subprocess.TimeoutExpired as error:
                raise errors.LocalServerError(
                    f"{self.name} took longer than {limit_seconds:.0f} s; its log: {self.log}"
                ) from error
        if status != 0:
            words = child.tail(self.log, 2).replace("\n", " | ")
            raise errors.LocalServerError(
                f"{self.name} failed with status {status}; {self.log} ends: {words}"
            )
