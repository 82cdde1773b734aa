"""Keeps the files of decoded pictures within a limit: those used longest ago go first.

A file's time of modification is when a job last asked for it. Who has a removed one mapped reads on
until they are done, on a local file system.
"""

import contextlib
import os
import time
from collections.abc import Iterator
from pathlib import Path

from service import settings, storage

PART = ".part-"
_ABANDONED_SECONDS = 3600.0  # whoever still writes a part has touched it since


def mark_used(path: Path) -> None:
    """Now. Raises FileNotFoundError where it is gone."""
    os.utime(path)


def tidy(wanted: Path, size: int) -> None:
    """Remove parts that killed workers left, then files until the limit is kept.

    Args:
        wanted: the file of the job that asks: it stays, even if it is over the limit by itself.
        size: bytes that it has or will have.
    """
    now = time.time()
    for used, _, path in _found(f"{PART}*"):
        if now - used > _ABANDONED_SECONDS:
            path.unlink(missing_ok=True)
    others = [one for one in _found("*.npy") if one[2] != wanted]
    too_much = size + sum(length for _, length, _ in others) - settings.load().picture_cache_bytes
    for _, length, path in sorted(others):
        if too_much <= 0:
            break
        path.unlink(missing_ok=True)
        too_much -= length


def _found(pattern: str) -> Iterator[tuple[float, int, Path]]:
    """When each was used last, in seconds since 1970; its bytes; itself."""
    for path in storage.cache_root().glob(f"*/{pattern}"):
        with contextlib.suppress(FileNotFoundError):  # another worker tidies too
            told = path.stat()
            yield told.st_mtime, told.st_size, path
