"""Fetching one blob by digest: resumed after a cut, checked while it streams."""

import dataclasses
import hashlib
import os
import time
from collections.abc import Callable
from pathlib import Path

import httpx

from client import errors, http

OnHave = Callable[[int], None]
"""Hears how many bytes of the file are here now."""

_CUTS_IN_A_ROW = 5
_PIECE_BYTES = 1 << 18


@dataclasses.dataclass(frozen=True)
class Wanted:
    """A file of a version, as the manifest promises it."""

    path: str
    digest: str
    size_bytes: int


def fetch(api: http.Api, wanted: Wanted, target: Path, on_have: OnHave) -> int:
    """Make ``target`` the blob; return how many bytes were not here before.

    ``target`` appears whole and checked, or not at all; what has arrived before a cut is kept
    beside it and continued, by the next call too. Raises IntegrityError for wrong bytes, ApiError
    (410 once revoked) and UnreachableError.
    """
    part = target.with_name(target.name + ".part")
    if _size_of(part) > wanted.size_bytes:
        part.unlink()
    here_before = _size_of(part)
    cuts = 0
    while True:
        have = _size_of(part)
        try:
            got = _receive(api, wanted, part, on_have)
        except httpx.TransportError as error:
            cuts = 1 if _size_of(part) > have else cuts + 1
            if cuts > _CUTS_IN_A_ROW:
                raise errors.UnreachableError(
                    f"{wanted.path}: the connection broke {cuts} times in a row ({error})"
                ) from error
            time.sleep(0.05 * 2**cuts)
            continue
        if got == wanted.digest:
            part.replace(target)
            return wanted.size_bytes - here_before
        part.unlink()
        if have == 0:  # else what an earlier run left was damaged: once more from the start
            raise errors.IntegrityError(
                f"{wanted.path}: got sha256 {got}, expected {wanted.digest}; nothing was changed"
            )


def copy_verified(source: Path, target: Path, wanted: Wanted) -> bool:
    """Copy a local file that should have the wanted bytes; tell whether it has."""
    part = target.with_name(target.name + ".copy")
    hasher = hashlib.sha256()
    try:
        with source.open("rb") as old, part.open("wb") as new:
            while piece := old.read(_PIECE_BYTES):
                hasher.update(piece)
                new.write(piece)
            new.flush()
            os.fsync(new.fileno())
    except FileNotFoundError:
        return False
    if hasher.hexdigest() != wanted.digest:
        part.unlink()
        return False
    part.replace(target)
    return True


def has_digest(path: Path, wanted: Wanted) -> bool:
    """Tell whether the file is there and has the wanted bytes."""
    try:
        if path.stat().st_size != wanted.size_bytes:
            return False
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest() == wanted.digest
    except OSError:
        return False


def _receive(api: http.Api, wanted: Wanted, part: Path, on_have: OnHave) -> str:
    """Continue ``part`` to its full size; return the SHA-256 of all of it.

    Raises httpx.TransportError when the body is cut, IntegrityError when it is too long.
    """
    hasher = hashlib.sha256()
    with part.open("ab+") as file:
        file.seek(0)
        while piece := file.read(_PIECE_BYTES):
            hasher.update(piece)
        have = file.tell()
        on_have(have)
        headers = {"Accept-Encoding": "identity"}
        if have:
            headers["Range"] = f"bytes={have}-"
        address = http.path("v1", "blobs", "sha256", wanted.digest)
        if have == wanted.size_bytes:
            return hasher.hexdigest()
        with api.stream(address, headers=headers) as response:
            if have and not _continues_at(response, have):
                file.truncate(0)
                hasher, have = hashlib.sha256(), 0
            for piece in response.iter_bytes(_PIECE_BYTES):
                file.write(piece)
                hasher.update(piece)
                have += len(piece)
                if have > wanted.size_bytes:
                    file.truncate(0)
                    raise errors.IntegrityError(
                        f"{wanted.path}: got more than the {wanted.size_bytes} bytes that the "
                        "manifest promises; nothing was changed"
                    )
                on_have(have)
        file.flush()
        os.fsync(file.fileno())
    if have < wanted.size_bytes:
        raise httpx.RemoteProtocolError(f"got {have} of {wanted.size_bytes} bytes")
    return hasher.hexdigest()


def _continues_at(response: httpx.Response, offset: int) -> bool:
    """Tell whether the answer is the rest that was asked for, not the whole again."""
    content_range = response.headers.get("Content-Range", "")
    return response.status_code == httpx.codes.PARTIAL_CONTENT and content_range.startswith(
        f"bytes {offset}-"
    )


def _size_of(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0
