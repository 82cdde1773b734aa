"""Starts the whole stack, keeps every process of it alive, and stops it in the right order.

It runs as a child of ``guardian`` (see there why), as ``python -m client.local.supervisor``.
"""

import contextlib
import dataclasses
import json
import os
import signal
import sys
import time
import types
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import httpx

from client import errors
from client.local import child, events, launch, processes, servers, services

_TICK_SECONDS = 0.1
_SWEEP_SECONDS = 5.0
_READY_LIMIT_SECONDS = 90.0
_ONE_SHOT_LIMIT_SECONDS = 300.0
_CRASHES_BEFORE_READY = 3
_STABLE_SECONDS = 30.0  # whoever ran that long starts with a clean record
_STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
_LONGEST_PAUSE = {"killed": 2.0, "exited": 30.0}  # seconds


class Unit(Protocol):
    """What the supervisor keeps alive: a server or a program."""

    @property
    def name(self) -> str:
        """Short name, as in the log's file name."""

    @property
    def log(self) -> Path:
        """Where its output goes."""

    @property
    def pid(self) -> int | None:
        """The process id while it runs."""

    def spawn(self) -> None:
        """Start it without waiting."""

    def poll(self) -> int | None:
        """Return None while it runs, else its exit status."""

    def stop(self) -> None:
        """Stop it."""


@dataclasses.dataclass
class Record:
    """One unit's history: how often it died in a row, and when it may start again."""

    unit: Unit
    started_at: float = 0.0
    crashes: int = 0
    restarts: int = 0
    not_before: float | None = None

    def note_death(self, status: int, now: float) -> float:
        """Count a death and return the seconds to wait before the next start.

        A process that was killed from outside is back at once; one that keeps exiting by itself
        waits longer each time, so that a broken set-up does not eat the machine.
        """
        if now - self.started_at > _STABLE_SECONDS:
            self.crashes = 0
        longest = _LONGEST_PAUSE["killed" if status < 0 else "exited"]
        pause = 0.0 if self.crashes == 0 else min(longest, 0.25 * 2**self.crashes)
        self.crashes += 1
        self.not_before = now + pause
        return pause


class Supervisor:
    """Keeps the units of one stack alive until it is told to stop."""

    def __init__(
        self, running: servers.Servers, *, port: int, reporter: events.Reporter, owner: int
    ) -> None:
        """Describe it; nothing is started. ``owner`` is the process id that users see."""
        self._servers = running
        self._port = port
        self._report = reporter
        self._owner = owner
        self._services = services.Services(
            running.folder,
            database_url=running.database_url,
            broker_url=running.broker_url,
            port=port,
        )
        self._records: list[Record] = []
        self._ready = False
        self._swept_at = 0.0

    @property
    def url(self) -> str:
        """The address of the API."""
        return f"http://{services.HOST}:{self._port}"

    def start(self) -> None:
        """Start everything and wait until the API is ready. Raises LocalServerError."""
        for server in (self._servers.postgres, self._servers.valkey):
            if server is not None:
                began = time.monotonic()
                self._add(server, spawned=False)
                server.start()
                self._report.say("started", name=server.name, run_seconds=_since(began))
        for step in (self._services.migrate, self._services.bootstrap):
            began = time.monotonic()
            step.run_once(_ONE_SHOT_LIMIT_SECONDS)
            self._report.say("done", name=step.name, run_seconds=_since(began))
        for unit in self._services.starting_order:
            self._add(unit)
        self._wait_ready()
        self._ready = True
        self._write_state()
        self._report.say("ready", url=self.url, key_file=str(self._servers.folder.admin_key))

    def watch(self) -> None:
        """Restart whatever dies, for ever; a stop arrives as an exception from a signal."""
        while True:
            self._tick()
            time.sleep(_TICK_SECONDS)

    def stop(self) -> None:
        """Stop everything in the reverse order of starting; go on if one part makes trouble."""
        for record in reversed(self._records):
            try:
                record.unit.stop()
            except errors.LocalServerError as error:
                self._report.say("trouble", name=record.unit.name, message=str(error))
        _sweep_orphans(known=set())
        self._servers.folder.state.unlink(missing_ok=True)

    def _add(self, unit: Unit, *, spawned: bool = True) -> None:
        self._records.append(Record(unit, started_at=time.monotonic()))
        if spawned:
            unit.spawn()
        self._write_state()

    def _tick(self) -> None:
        now = time.monotonic()
        for record in self._records:
            if record.not_before is not None:
                if now >= record.not_before:
                    self._restart(record)
            elif (status := record.unit.poll()) is not None:
                pause = record.note_death(status, now)
                self._report.say(
                    "died",
                    name=record.unit.name,
                    reason=_reason(status),
                    log=str(record.unit.log),
                    pause_seconds=pause,
                )
                self._sweep()
                if pause == 0.0:
                    self._restart(record)
        if now - self._swept_at > _SWEEP_SECONDS:
            self._sweep()

    def _restart(self, record: Record) -> None:
        record.not_before = None
        record.started_at = time.monotonic()
        record.restarts += 1
        try:
            record.unit.spawn()
        except (errors.LocalServerError, OSError) as error:
            pause = record.note_death(1, time.monotonic())
            self._report.say("trouble", name=record.unit.name, message=str(error))
            record.not_before = time.monotonic() + max(pause, 1.0)
        else:
            self._report.say("restarted", name=record.unit.name, pid=record.unit.pid)
        self._write_state()

    def _wait_ready(self) -> None:
        deadline = time.monotonic() + _READY_LIMIT_SECONDS
        while not _answers(f"{self.url}/readyz"):
            self._tick()
            for record in self._records:
                if record.crashes >= _CRASHES_BEFORE_READY:
                    raise _hopeless(record.unit, "keeps dying")
            if time.monotonic() > deadline:
                raise _hopeless(self._services.api, "is not ready in time")
            time.sleep(_TICK_SECONDS)

    def _sweep(self) -> None:
        self._swept_at = time.monotonic()
        pids = {record.unit.pid for record in self._records}
        _sweep_orphans(known={pid for pid in pids if pid is not None})

    def _write_state(self) -> None:
        """Write what runs now for ``salun`` and for tests; readers never see half of it."""
        state = {
            "pid": self._owner,
            "supervisor_pid": os.getpid(),
            "ready": self._ready,
            "url": self.url,
            "database_url": self._servers.database_url,
            "broker_url": self._servers.broker_url,
            "key_file": str(self._servers.folder.admin_key),
            "processes": {
                record.unit.name: {
                    "pid": record.unit.pid,
                    "restarts": record.restarts,
                    "log": str(record.unit.log),
                }
                for record in self._records
            },
        }
        path = self._servers.folder.state
        unfinished = path.with_suffix(".new")
        unfinished.write_text(json.dumps(state, indent=1), encoding="utf-8")
        unfinished.chmod(0o600)
        unfinished.replace(path)


class StopRequested(BaseException):
    """A signal asked us to stop; like KeyboardInterrupt it is no error."""


def main(arguments: list[str]) -> int:
    """Run a stack until a signal asks to stop; return the exit status."""
    options: Mapping[str, Any] = json.loads(arguments[0])
    reporter = events.Reporter(as_json=bool(options["as_json"]))
    launch.adopt_orphans()
    for number in _STOP_SIGNALS:
        signal.signal(number, _request_stop)
    try:
        _supervise(options, reporter)
    except StopRequested:
        return 0
    except errors.ClientError as error:
        reporter.say("failed", message=str(error))
    return 1


def _supervise(options: Mapping[str, Any], reporter: events.Reporter) -> None:
    with servers.described(
        Path(options["data_dir"]),
        database_url=options["database_url"],
        broker_url=options["broker_url"],
    ) as described:
        supervisor = Supervisor(
            described, port=options["port"], reporter=reporter, owner=options["owner"]
        )
        try:
            supervisor.start()
            supervisor.watch()
        finally:
            # Stop once: a second Ctrl-C must not leave half of the stack running.
            for number in _STOP_SIGNALS:
                signal.signal(number, signal.SIG_IGN)
            reporter.say("stopping")
            supervisor.stop()
            reporter.say("stopped")


def _request_stop(_number: int, _frame: types.FrameType | None) -> None:
    raise StopRequested


def _sweep_orphans(known: set[int]) -> None:
    """End processes whose parent died and that became ours, such as a killed worker's children."""
    orphans = [pid for pid in processes.children_of(os.getpid()) if pid not in known]
    processes.end(orphans, [(signal.SIGKILL, 5.0)])
    for pid in orphans:
        with contextlib.suppress(ChildProcessError):
            os.waitpid(pid, os.WNOHANG)


def _answers(url: str) -> bool:
    try:
        return httpx.get(url, timeout=2.0, trust_env=False).status_code == httpx.codes.OK
    except httpx.HTTPError:
        return False


def _hopeless(unit: Unit, what: str) -> errors.LocalServerError:
    words = child.tail(unit.log, 2).replace("\n", " | ")
    return errors.LocalServerError(f"{unit.name} {what}; {unit.log} ends: {words}")


def _reason(status: int) -> str:
    if status < 0:
        return f"killed by {signal.Signals(-status).name}"
    return f"exited with status {status}"


def _since(began: float) -> float:
    return round(time.monotonic() - began, 3)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
