"""The layout of a data folder, its lock, and where sockets can live."""

import contextlib
import dataclasses
import fcntl
import hashlib
import os
import re
import shutil
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

from client import errors

# A socket's path must fit sun_path (108 bytes with the NUL); the longest name that we use is
# PostgreSQL's ".s.PGSQL.5432.lock".
_LONGEST_SOCKET_FOLDER = 107 - len("/.s.PGSQL.5432.lock")
# libpq splits a host at commas and URLs quote the rest: plain characters only.
_PLAIN_PATH = re.compile(r"[A-Za-z0-9/._-]+")


@dataclasses.dataclass(frozen=True)
class DataFolder:
    """Names of the things below one data folder."""

    root: Path

    @classmethod
    def prepare(cls, root: Path) -> "DataFolder":
        """Make the folder (0700 if it is new) and its subfolders.

        Raises LocalServerError when it cannot be written.
        """
        folder = cls(root.absolute().resolve())
        try:
            folder.root.mkdir(parents=True, exist_ok=True, mode=0o700)
            folder.logs.mkdir(exist_ok=True)
            folder.run.mkdir(exist_ok=True, mode=0o700)
            folder.run.chmod(0o700)
        except OSError as error:
            raise errors.LocalServerError(
                f"cannot write the data folder {folder.root}: {error.strerror}; "
                "set SALUN_DATA_DIR to a folder of yours"
            ) from error
        return folder

    @property
    def postgres(self) -> Path:
        """Folder of the database server."""
        return self.root / "postgres"

    @property
    def valkey(self) -> Path:
        """Folder of the broker."""
        return self.root / "valkey"

    @property
    def run(self) -> Path:
        """What only matters while running: sockets, state (0700)."""
        return self.root / "run"

    @property
    def logs(self) -> Path:
        """One log per process."""
        return self.root / "logs"

    @property
    def admin_key(self) -> Path:
        """The first admin key (0600)."""
        return self.root / "admin.key"

    @property
    def state(self) -> Path:
        """What is running now, as JSON."""
        return self.run / "state.json"


@contextlib.contextmanager
def locked(folder: DataFolder) -> Iterator[None]:
    """Hold the data folder for this process alone; the kernel lets go when the process ends.

    Raises DataDirInUseError naming the holder.
    """
    path = folder.root / "lock"
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            holder = path.read_text(encoding="ascii", errors="replace").strip() or "unknown"
            raise errors.DataDirInUseError(
                f"{folder.root} is in use by process {holder}; stop it, or set SALUN_DATA_DIR "
                "to another folder"
            ) from error
        os.ftruncate(descriptor, 0)
        os.write(descriptor, str(os.getpid()).encode("ascii"))
        yield
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def socket_folder(folder: DataFolder) -> Iterator[Path]:
    """Yield a private (0700) folder for sockets whose path is short and plain enough.

    That is ``run/`` below the data folder, or else a temporary folder with a name derived from the
    data folder's: a start after an unclean stop finds the same one again instead of leaving it.
    """
    if len(os.fsencode(folder.run)) <= _LONGEST_SOCKET_FOLDER and _PLAIN_PATH.fullmatch(
        str(folder.run)
    ):
        yield folder.run
        return
    name = hashlib.sha256(os.fsencode(folder.root)).hexdigest()[:16]
    temporary = Path(tempfile.gettempdir()) / f"salun-{os.geteuid()}-{name}"
    if len(os.fsencode(temporary)) > _LONGEST_SOCKET_FOLDER:
        temporary = Path("/tmp") / temporary.name  # noqa: S108 - made 0700 and checked below
    _make_private(temporary)
    try:
        yield temporary
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _make_private(folder: Path) -> None:
    with contextlib.suppress(FileExistsError):
        folder.mkdir(mode=0o700)
    found = folder.lstat()  # not through a link that someone else put there
    private = stat.S_ISDIR(found.st_mode) and stat.S_IMODE(found.st_mode) == 0o700
    if not private or found.st_uid not in (os.geteuid(), 65534 if os.geteuid() == 0 else -1):
        raise errors.LocalServerError(
            f"{folder} is not a private folder of this user; remove it, or choose a shorter "
            "SALUN_DATA_DIR"
        )
