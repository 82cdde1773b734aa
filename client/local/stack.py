"""A whole running stack as a context, on real processes: for tests, benchmarks and the demo."""

import contextlib
import dataclasses
import json
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from client import errors, settings
from client.local import child, folders, launch, processes

_START_LIMIT_SECONDS = 150.0
_STOP_LIMIT_SECONDS = 60.0


@dataclasses.dataclass(frozen=True)
class Running:
    """A stack that is up."""

    base_url: str
    admin_key: str
    database_url: str
    broker_url: str
    folder: folders.DataFolder
    pid: int

    def pids(self) -> dict[str, int | None]:
        """Return the process ids now: postgres, valkey, worker, housekeeping, sweeper, api.

        None while one is dead and not yet started again.
        """
        return {name: entry["pid"] for name, entry in _state(self.folder)["processes"].items()}

    def supervisor_pid(self) -> int:
        """Return the id of the inner process that restarts the others."""
        return int(_state(self.folder)["supervisor_pid"])

    def kill(self, name: str, number: signal.Signals = signal.SIGKILL) -> int:
        """Send a signal to the process of that name, as a fault; return the id it had."""
        pid = self.pids()[name]
        if pid is None:
            raise errors.LocalServerError(f"{name} is not running now")
        processes.end([pid], [(number, 0.0)])
        return pid

    def wait_restarted(self, name: str, old_pid: int, patience: float = 5.0) -> int:
        """Wait until the process of that name runs under another id, and return that id."""
        deadline = time.monotonic() + patience
        while time.monotonic() < deadline:
            pid = self.pids()[name]
            if pid is not None and pid != old_pid and processes.is_running(pid):
                return pid
            time.sleep(0.02)
        raise errors.LocalServerError(f"{name} was not back within {patience} s")


@contextlib.contextmanager
def running(
    data_dir: Path,
    *,
    port: int = 0,
    database_url: str | None = None,
    broker_url: str | None = None,
    environment: Mapping[str, str] | None = None,
) -> Iterator[Running]:
    """Start a stack as ``salun up`` does, yield it when it is ready, and stop it.

    ``port`` 0 picks a free one; ``environment`` is set beside what this process has. Raises
    LocalServerError with what it printed when it does not get ready, or when it did not stop
    cleanly.
    """
    folder = folders.DataFolder.prepare(data_dir)
    log = folder.logs / "up.log"
    replaced = {"DATABASE_URL": database_url or "", "BROKER_URL": broker_url or ""}
    full = settings.child_environment(
        **(environment or {}), SALUN_DATA_DIR=str(folder.root), PORT=str(port), **replaced
    )
    command = [launch.interpreter(), "-m", "client.main", "up", "--json"]
    with log.open("wb") as output:
        process = subprocess.Popen(
            launch.command(command, death_signal=signal.SIGTERM),
            stdout=output,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            env=full,
            start_new_session=True,
        )
    try:
        yield _wait_ready(folder, process, log)
    finally:
        process.terminate()
        try:
            process.wait(_STOP_LIMIT_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise


def _wait_ready(folder: folders.DataFolder, process: subprocess.Popen[bytes], log: Path) -> Running:
    deadline = time.monotonic() + _START_LIMIT_SECONDS
    while process.poll() is None and time.monotonic() < deadline:
        # A state file of an earlier, killed stack names another owner.
        with contextlib.suppress(FileNotFoundError):
            state = _state(folder)
            if state["ready"] and state["pid"] == process.pid:
                return Running(
                    base_url=state["url"],
                    admin_key=folder.admin_key.read_text(encoding="utf-8").strip(),
                    database_url=state["database_url"],
                    broker_url=state["broker_url"],
                    folder=folder,
                    pid=process.pid,
                )
        time.sleep(0.05)
    said = child.tail(log, 1)
    raise errors.LocalServerError(f"the stack did not get ready; it said: {said}")


def _state(folder: folders.DataFolder) -> dict[str, Any]:
    state: dict[str, Any] = json.loads(folder.state.read_text(encoding="utf-8"))
    return state
