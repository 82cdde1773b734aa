"""Uploading content by digest: hash, ask, send once."""

import dataclasses
import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path

import httpx

from client import errors, http

OnBytes = Callable[[int], None]


@dataclasses.dataclass(frozen=True)
class Upload:
    """A file whose content the service now has. ``sent`` is False when it had it before."""

    path: Path
    digest: str
    size_bytes: int
    sent: bool


def push(api: http.Api, paths: Sequence[Path], on_bytes: OnBytes = lambda _: None) -> list[Upload]:
    """Upload the files that the service does not have yet, in their order.

    ``on_bytes`` hears of progress; its sum is the files' total size. Raises ApiError,
    UnreachableError and ClientError for a file that cannot be read.
    """
    return [_push_one(api, path, on_bytes) for path in paths]


def digest_of(path: Path) -> str:
    """Return the SHA-256 of a file as bare lower-case hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _push_one(api: http.Api, path: Path, on_bytes: OnBytes) -> Upload:
    try:
        size, digest = path.stat().st_size, digest_of(path)
    except OSError as error:
        raise errors.ClientError(f"cannot read {path}: {error.strerror}") from error
    address = f"/v1/blobs/sha256/{digest}"
    if _is_there(api, address):
        on_bytes(size)
        return Upload(path, digest, size, sent=False)
    api.call(
        "PUT",
        address,
        content=http.file_content(path, on_bytes),
        headers={"Content-Type": "application/octet-stream", "Content-Length": str(size)},
        timeout=httpx.Timeout(600.0, connect=5.0),
    )
    return Upload(path, digest, size, sent=True)


def _is_there(api: http.Api, address: str) -> bool:
    try:
        api.call("HEAD", address)
    except errors.ApiError as error:
        if error.status in (httpx.codes.NOT_FOUND, httpx.codes.GONE):  # it can come back
            return False
        raise
    return True
