"""Which programs make up a running stack, in the order in which they start."""

import os
import signal
from collections.abc import Sequence

from client import settings
from client.local import folders, processes, program

HOST = "127.0.0.1"

# A worker gets time to write a checkpoint and give its lease back; after that the lease runs out
# by itself and nothing is lost.
_STOP_WORKER = ((signal.SIGTERM, 20.0), (signal.SIGQUIT, 3.0), (signal.SIGKILL, 5.0))
_MOST_API_PROCESSES = 4
_STOP_API = ((signal.SIGTERM, 8.0), (signal.SIGKILL, 5.0))
_STOP_BRIEF = ((signal.SIGTERM, 3.0), (signal.SIGKILL, 5.0))


class Services:
    """The programs of one stack, bound to its addresses."""

    def __init__(
        self, folder: folders.DataFolder, *, database_url: str, broker_url: str, port: int
    ) -> None:
        """Describe them; nothing is started."""
        self._folder = folder
        self._environment = settings.child_environment(
            DATABASE_URL=database_url,
            BROKER_URL=broker_url,
            SALUN_DATA_DIR=str(folder.root),
            PORT=str(port),
            SALUN_BATCH_WINDOW_SECONDS=str(settings.load().batch_window_seconds),
            PYTHONUNBUFFERED="1",
            # Threads that wait for work must not spin: the workers share the cores.
            OMP_WAIT_POLICY="PASSIVE",
            PYTHONSAFEPATH="1",
        )
        self.migrate = self._program("migrate", ["migrations"], _STOP_BRIEF)
        self.bootstrap = self._program(
            "bootstrap", ["service.bootstrap", "--key-file", str(folder.admin_key)], _STOP_BRIEF
        )
        self.api = self._program("api", _api(port), _STOP_API, signal.SIGTERM)
        self.worker = self._program("worker", _worker("unlearning", "gpu"), _STOP_WORKER)
        self.housekeeping = self._program(
            "housekeeping", _worker("housekeeping", "housekeeping"), _STOP_WORKER
        )
        self.sweeper = self._program("sweeper", ["service.sweeper"], _STOP_BRIEF)

    @property
    def starting_order(self) -> Sequence[program.Program]:
        """The programs that stay up; they stop in the reverse order."""
        return (self.worker, self.housekeeping, self.sweeper, self.api)

    def _program(
        self,
        name: str,
        arguments: Sequence[str],
        stop_steps: Sequence[processes.Step],
        # A job survives the hardest end by design, so nothing waits for a killed supervisor.
        death_signal: signal.Signals = signal.SIGKILL,
    ) -> program.Program:
        return program.Program(
            name,
            arguments,
            log=self._folder.logs / f"{name}.log",
            environment=self._environment,
            # Celery and uvicorn put the working folder on the module path: one without modules.
            folder=self._folder.run,
            stop_steps=stop_steps,
            death_signal=death_signal,
        )


def _api(port: int) -> list[str]:
    processes_wanted = max(1, min(_MOST_API_PROCESSES, os.cpu_count() or 1))
    arguments = ["uvicorn", "api.main:app", "--host", HOST, "--port", str(port)]
    arguments += ["--workers", str(processes_wanted), "--no-access-log"]
    # Clients that hold a long poll must not hold up the stop.
    return [*arguments, "--timeout-graceful-shutdown", "5"]


def _worker(queue: str, name: str) -> list[str]:
    arguments = ["celery", "-A", "worker.celery_app", "worker", "-P", "prefork", "-c", "1"]
    return [*arguments, "-Q", queue, "-n", f"{name}@%h"]
