"""Carries out the faults of a plan on the processes of a running stack."""

import contextlib
import os
import signal
import threading
import time
import uuid
from collections.abc import Callable, Mapping

import psycopg
import redis

from benchmarks import fault_fleet, fault_plan
from client import errors
from client.local import processes, stack
from service import queue

_PATIENCE_SECONDS = 60.0
_PATIENCE_FOR_WORK_SECONDS = 15.0


class Injector:
    """One method a kind of fault; ``struck`` counts the faults that met a job at work."""

    def __init__(
        self,
        running: stack.Running,
        fleet: fault_fleet.Fleet,
        resend: Callable[[uuid.UUID], None],
        lease_seconds: float,
    ) -> None:
        """``resend`` sends a job's hint once more."""
        self._running, self._fleet, self._resend = running, fleet, resend
        self._lease_seconds = lease_seconds
        self.injected = dict.fromkeys(fault_plan.SHARES, 0)
        self.struck = dict.fromkeys(fault_plan.SHARES, 0)
        self._stopped: list[threading.Timer] = []
        self._acts: Mapping[str, Callable[[fault_plan.Injection], None]] = {
            "worker SIGKILL": self._kill_worker,
            "worker's child SIGKILL": self._kill_child,
            "worker SIGSTOP, then SIGCONT": self._stop_worker,
            "worker SIGTERM": self._end_worker,
            "broker FLUSHALL": self._flush,
            "broker SIGKILL": self._kill_broker,
            "broker SIGSTOP, then SIGCONT": self._stop_broker,
            "API SIGKILL": self._kill_api,
            "housekeeping SIGKILL": self._kill_housekeeping,
            "database: random connections terminated": self._terminate,
            "database SIGINT": self._end_database,
            "database SIGKILL": self._kill_database,
            "hint repeated twenty times": self._repeat_hint,
        }

    def inject(self, injection: fault_plan.Injection) -> None:
        """Wait as long as the plan says, and for a job at work; then strike.

        No job for long is no reason not to strike; a victim that is just starting is waited for.
        """
        time.sleep(injection.wait_seconds)
        at_work = self._is_at_work()
        end = time.monotonic() + _PATIENCE_FOR_WORK_SECONDS
        while not at_work and time.monotonic() < end:
            time.sleep(0.05)
            at_work = self._is_at_work()
        end = time.monotonic() + _PATIENCE_SECONDS
        while True:
            try:
                self._acts[injection.kind](injection)
                break
            except (errors.LocalServerError, _Nobody, redis.RedisError, psycopg.OperationalError):
                if time.monotonic() > end:
                    raise
                time.sleep(0.1)
        self.injected[injection.kind] += 1
        self.struck[injection.kind] += at_work

    def _is_at_work(self) -> bool:
        """Whether a job is in a stage; one whose worker was killed is silent for half a lease."""
        return bool(
            self._rows(
                "SELECT 1 FROM job WHERE status = 'running' AND kind = 'unlearning' "
                "AND lease_expires_at > clock_timestamp() + %s * interval '1 second'",
                self._lease_seconds / 2,
            )
        )

    def calm(self) -> None:
        """Wait until everything that was stopped goes on."""
        for timer in self._stopped:
            timer.join()

    # --- workers ----------------------------------------------------------------------------

    def _kill_worker(self, injection: fault_plan.Injection) -> None:
        self._fleet.kill(_one(self._fleet.parents(), injection.choice))

    def _kill_child(self, injection: fault_plan.Injection) -> None:
        child = _one(list(self._fleet.working().values()), injection.choice)
        processes.end([child], [(signal.SIGKILL, 5.0)])

    def _stop_worker(self, injection: fault_plan.Injection) -> None:
        child = _one(list(self._fleet.working().values()), injection.choice)
        self._stop(child, injection.pause_seconds)

    def _end_worker(self, injection: fault_plan.Injection) -> None:
        parent = _one(self._fleet.parents(), injection.choice)
        processes.end([parent], [(signal.SIGTERM, 0.0)])

    # --- broker -----------------------------------------------------------------------------

    def _flush(self, _: fault_plan.Injection) -> None:
        path = self._running.broker_url.removeprefix("redis+socket://").split("?")[0]
        with redis.Redis(unix_socket_path=path, socket_timeout=5) as broker:
            broker.flushall()

    def _kill_broker(self, _: fault_plan.Injection) -> None:
        self._running.kill("valkey", signal.SIGKILL)

    def _stop_broker(self, injection: fault_plan.Injection) -> None:
        self._stop(_known(self._running.pids()["valkey"]), injection.pause_seconds)

    def _repeat_hint(self, injection: fault_plan.Injection) -> None:
        rows = self._rows("SELECT id FROM job WHERE kind = 'unlearning' ORDER BY id DESC LIMIT 20")
        job_id = rows[int(injection.choice * len(rows))][0] if rows else None
        if not isinstance(job_id, uuid.UUID):
            raise _Nobody
        for _ in range(20):
            self._resend(job_id)

    # --- API, housekeeping, database --------------------------------------------------------

    def _kill_api(self, _: fault_plan.Injection) -> None:
        parent = _known(self._running.pids()["api"])
        processes.end([parent, *processes.children_of(parent)], [(signal.SIGKILL, 5.0)])

    def _kill_housekeeping(self, _: fault_plan.Injection) -> None:
        self._fleet.kill(_known(self._running.pids()["housekeeping"]))

    def _terminate(self, injection: fault_plan.Injection) -> None:
        """Of every connection, with a chance that the plan says."""
        self._rows(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE backend_type = 'client backend' AND pid <> pg_backend_pid() AND random() < %s",
            injection.choice,
        )

    def _end_database(self, _: fault_plan.Injection) -> None:
        self._running.kill("postgres", signal.SIGINT)

    def _kill_database(self, _: fault_plan.Injection) -> None:
        self._running.kill("postgres", signal.SIGKILL)

    # --- how --------------------------------------------------------------------------------

    def _stop(self, pid: int, seconds: float) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGSTOP)
        timer = threading.Timer(seconds, _continue, [pid])
        timer.start()
        self._stopped.append(timer)

    def _rows(self, query: str, *values: float) -> list[tuple[object, ...]]:
        end = time.monotonic() + _PATIENCE_SECONDS
        while True:
            try:
                with psycopg.connect(
                    self._running.database_url, autocommit=True, connect_timeout=5
                ) as connection:
                    return connection.execute(query.encode(), values).fetchall()
            except psycopg.OperationalError:  # it is just starting again
                if time.monotonic() > end:
                    raise
                time.sleep(0.1)


def resender(broker_url: str) -> Callable[[uuid.UUID], None]:
    """A function that sends a hint to the GPU workers of a stack."""
    import celery

    application = celery.Celery(broker=broker_url)

    def resend(job_id: uuid.UUID) -> None:
        with application.connection_for_write() as connection:
            application.send_task(
                queue.RUN_JOB, [str(job_id)], queue=queue.UNLEARNING, connection=connection
            )

    return resend


class _Nobody(Exception):
    """There is no such process or job now."""


def _one(pids: list[int], choice: float) -> int:
    if not pids:
        raise _Nobody
    return sorted(pids)[int(choice * len(pids))]


def _known(pid: int | None) -> int:
    if pid is None:
        raise _Nobody
    return pid


def _continue(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGCONT)
