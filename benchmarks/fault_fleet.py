"""GPU workers beside the supervised one, started again whenever they end."""

import contextlib
import signal
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path

from client import settings
from client.local import child, launch, processes, stack

_TICK_SECONDS = 0.1
_END = ((signal.SIGTERM, 20.0), (signal.SIGKILL, 5.0))


class Fleet:
    """Every GPU worker of a running stack, by position; the first is the supervised one."""

    def __init__(self, running: stack.Running, more: int, environment: Mapping[str, str]) -> None:
        """Describe it. ``environment`` is what the stack was told beyond its addresses."""
        self._running = running
        self._environment = settings.child_environment(
            DATABASE_URL=running.database_url,
            BROKER_URL=running.broker_url,
            SALUN_DATA_DIR=str(running.folder.root),
            **environment,
        )
        self._children: list[child.Child | None] = [None] * more
        self._ended = threading.Event()
        # The children end with the thread that started them: it stays until the fleet ends.
        self._keeper = threading.Thread(target=self._keep, name="fleet", daemon=True)
        self.restarts = 0

    def parents(self) -> list[int]:
        """The processes that run now."""
        found = [self._running.pids()["worker"]]
        found += [one.pid for one in self._children if one is not None and one.poll() is None]
        return [pid for pid in found if pid is not None and processes.is_running(pid)]

    def working(self) -> dict[int, int]:
        """The child that does the work, by its parent."""
        return {
            parent: children[0]
            for parent in self.parents()
            if (children := processes.children_of(parent))
        }

    def warm(self) -> list[int]:
        """The children that have loaded all they need: they connect to the database last."""
        return [child for child in self.working().values() if _has_mapped(child, "psycopg")]

    def kill(self, parent: int) -> None:
        """SIGKILL to a worker and its child, as when the machine goes."""
        processes.end([parent, *processes.children_of(parent)], [(signal.SIGKILL, 5.0)])

    @contextlib.contextmanager
    def up(self) -> Iterator["Fleet"]:
        """Keep the workers running until the block ends."""
        self._keeper.start()
        try:
            yield self
        finally:
            self._ended.set()
            self._keeper.join()

    def _keep(self) -> None:
        while not self._ended.wait(_TICK_SECONDS):
            for position, one in enumerate(self._children):
                if one is None or one.poll() is not None:
                    self.restarts += one is not None
                    self._children[position] = self._start(position)
        for one in self._children:
            if one is not None:
                one.end(_END)

    def _start(self, position: int) -> child.Child:
        command = [launch.interpreter(), "-m", "celery", "-A", "worker.celery_app", "worker"]
        options = ["-P", "prefork", "-c", "1", "-Q", "unlearning", "-n", f"more-{position}@%h"]
        return child.Child(
            [*command, *options],
            log=self._running.folder.logs / f"more-{position}.log",
            environment=self._environment,
            folder=Path(__file__).parents[1],
            death_signal=signal.SIGKILL,
        )


def _has_mapped(pid: int, library: str) -> bool:
    try:
        return library in Path(f"/proc/{pid}/maps").read_text()
    except OSError:  # it ended
        return False
