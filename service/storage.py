"""The content-addressed store: a file's name is its SHA-256, and it is there whole or not at all.

Layout under the data folder: ``blobs/ab/abcdef…`` for content, ``incoming/`` for what is being
written, ``work/{job}/{fence}/`` for the scratch files of one attempt (a zombie litters only there),
``cache/{digest}/`` for what can be computed again from files of that digest.
"""

import contextlib
import hashlib
import math
import os
import shutil
import tempfile
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from service import errors, settings

CHUNK_BYTES = 2**20
ROWS_AT_A_TIME = 512  # of a Parquet file
# What is entered with a digest while its file comes into the store, so that the database knows.
Arriving = Callable[[str], contextlib.AbstractContextManager[object]]


@dataclass(frozen=True)
class Stored:
    """Content that is in the store."""

    digest: str
    size: int


def root() -> Path:
    """The data folder, made on first use."""
    folder = settings.load().data_dir
    (folder / "blobs").mkdir(parents=True, exist_ok=True)
    (folder / "incoming").mkdir(exist_ok=True)
    return folder


def path_of(digest: str) -> Path:
    """Where content of that digest lies, or would lie."""
    return root() / "blobs" / digest[:2] / digest


def exists(digest: str) -> bool:
    """Whether the content is there."""
    return path_of(digest).is_file()


def is_intact(digest: str) -> bool:
    """Whether the content is there and still hashes to its name."""
    if not exists(digest):
        return False
    with path_of(digest).open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest() == digest


class Incoming:
    """Content being written; nothing is visible in the store before ``commit``."""

    def __init__(self, limit_bytes: int | None = None) -> None:
        self._limit = limit_bytes
        self._hash = hashlib.sha256()
        self._size = 0
        handle, name = tempfile.mkstemp(dir=root() / "incoming")
        self._file = os.fdopen(handle, "wb")
        self.path = Path(name)

    def write(self, chunk: bytes) -> None:
        """Append; raises :class:`errors.Invalid` (``body-too-large``) over the limit."""
        self._size += len(chunk)
        if self._limit is not None and self._size > self._limit:
            detail = f"got more than {self._limit} bytes, expected at most that"
            raise errors.Invalid("body-too-large", detail)
        self._hash.update(chunk)
        self._file.write(chunk)

    @property
    def digest(self) -> str:
        """SHA-256 of what was written so far."""
        return self._hash.hexdigest()

    def require(self, digest: str) -> None:
        """Raises :class:`errors.Invalid` (``digest-mismatch``) if it hashes to anything else."""
        if self.digest != digest:
            detail = f"got content with sha256 {self.digest}, expected {digest}"
            raise errors.Invalid("digest-mismatch", detail)

    def settle(self) -> Stored:
        """Wait until all of it is on the disk, which may take long, and say what will come."""
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        return Stored(self.digest, self._size)

    def commit(self, stored: Stored) -> None:
        """Make visible what was settled; within ``destruction.arriving``."""
        target = path_of(stored.digest)
        target.parent.mkdir(exist_ok=True)
        self.path.replace(target)
        _sync_folder(target.parent)

    def discard(self) -> None:
        """Forget what was written."""
        self._file.close()
        self.path.unlink(missing_ok=True)


@contextlib.contextmanager
def incoming(limit_bytes: int | None = None) -> Iterator[Incoming]:
    """Content being written, thrown away unless it was committed."""
    writer = Incoming(limit_bytes)
    try:
        yield writer
    finally:
        writer.discard()


def put(chunks: Iterable[bytes], arriving: Arriving) -> Stored:
    """Store content that we made ourselves; see ``destruction.arriving``."""
    with incoming() as writer:
        for chunk in chunks:
            writer.write(chunk)
        stored = writer.settle()
        with arriving(stored.digest):
            writer.commit(stored)
        return stored


def put_file(path: Path, arriving: Arriving) -> Stored:
    """The same with a file."""
    with path.open("rb") as stream:
        return put(iter(lambda: stream.read(CHUNK_BYTES), b""), arriving)


def read(digest: str) -> bytes:
    """Small content (a report, a config) as bytes."""
    return path_of(digest).read_bytes()


@contextlib.contextmanager
def scratch(job_id: uuid.UUID, fence: int) -> Iterator[Path]:
    """A folder for the temporary files of one attempt, removed when it ends."""
    folder = root() / "work" / str(job_id) / str(fence)
    folder.mkdir(parents=True, exist_ok=True)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        with contextlib.suppress(OSError):
            folder.parent.rmdir()


@contextlib.contextmanager
def linked(digests: Mapping[str, str]) -> Iterator[Path]:
    """A folder whose files, by relative path, are links to content; removed when it is left."""
    (root() / "work").mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=root() / "work") as name:
        folder = Path(name)
        for path, digest in digests.items():
            link = folder / path
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(path_of(digest).resolve())
        yield folder


def cache_root() -> Path:
    """The folder of all that can be computed again; it may not be there yet."""
    return root() / "cache"


def cache_of(digests: Sequence[str]) -> Path:
    """The folder for what was computed from these files, in this order; made on first use."""
    folder = root() / cache_name(digests)
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def cache_name(digests: Sequence[str]) -> str:
    """The path below the data folder of what was computed from these files."""
    joined = "\n".join(digests).encode()
    return f"cache/{hashlib.sha256(joined).hexdigest()}"


def listing() -> set[str]:
    """What is in the store: digests of content, and names of what was computed from files."""
    contents = {path.name for path in (root() / "blobs").glob("*/*")}
    computed = {f"cache/{path.name}" for path in cache_root().glob("*")}
    return contents | computed


def clear_scratch(before: float) -> int:
    """Remove what killed processes left in ``incoming/`` and ``work/``; returns how much.

    Args:
        before: seconds since 1970; where anything was written later all stays.
    """
    cleared = 0
    for path in [*(root() / "incoming").glob("*"), *(root() / "work").glob("*")]:
        if _written_at(path, *path.rglob("*")) < before:
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)
            cleared += 1
    return cleared


def _written_at(*paths: Path) -> float:
    """When the newest was written, in seconds since 1970; what has just gone counts as new."""
    try:
        return max(path.lstat().st_mtime for path in paths)
    except FileNotFoundError:
        return math.inf


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def remove(name: str) -> None:
    """Drop content that nothing refers to any more, or a name of :func:`cache_name`."""
    if name.startswith("cache/"):
        shutil.rmtree(root() / name, ignore_errors=True)
        return
    path_of(name).unlink(missing_ok=True)
