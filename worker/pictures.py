"""Decoded pictures of a dataset: made once, kept in a file, mapped into every job that needs them.

A file is an ordinary ``.npy`` of uint8 (N, C, H, W), a picture for every labelled sample of the
ledger in storage order. Its name is a digest of all that its bytes depend on; it appears whole or
not at all, so workers that make the same one at a time get in nobody's way. It lies under
``storage.cache_of``, goes when there are too many (:mod:`worker.picture_cache`), and is computed
again when it is gone or not of the size that it should be.
"""

import contextlib
import hashlib
import json
import math
import os
import tempfile
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch

from salun_core import preprocessing, progress
from service import storage
from worker import picture_cache, samples

_REPORT_EVERY = 64  # pictures


def mapped(
    listed: samples.Listing, decode: preprocessing.Preprocessing, report: progress.Progress
) -> torch.Tensor:
    """The decoded pictures, uint8 (N, C, H, W); pages are read as they are touched.

    Args:
        listed: N samples, at least one.
        decode: how the net wants them.
        report: called while pictures are decoded, and at the end.

    Raises:
        InvalidDataError: naming the place of what does not decode; jobs outlive ids.
        CancelledError: from ``report``.
    """
    shape = (len(listed.samples), *decode.config.input_size)
    path = storage.cache_of(listed.files) / f"{_key(listed, decode)}.npy"
    found = _found(path, shape)
    picture_cache.tidy(path, math.prod(shape))
    if found is None:
        found = _made(path, shape, listed, decode, report)
    report(shape[0], shape[0])
    return torch.from_numpy(found)


def _place(one: samples.Located) -> str:
    return f"file {one.file_index}, row group {one.row_group}, row {one.row_index}"


def _key(listed: samples.Listing, decode: preprocessing.Preprocessing) -> str:
    """A digest of the ledger's rows, the settings and the libraries; the folder names the files."""
    told = hashlib.sha256(decode.fingerprint().encode())
    for one in listed.samples:
        place = [one.sample_id, one.file_index, one.row_group, one.row_index]
        told.update(json.dumps(place).encode())
    return told.hexdigest()


def _found(path: Path, shape: tuple[int, ...]) -> np.ndarray | None:
    """The file mapped, or ``None`` where it is not there whole."""
    if not _is_whole(path, shape):
        return None
    with contextlib.suppress(FileNotFoundError):  # another worker's pictures took its place
        picture_cache.mark_used(path)
        return _map(path)
    return None


def _is_whole(path: Path, shape: tuple[int, ...]) -> bool:
    try:
        with path.open("rb") as file:
            np.lib.format.read_magic(file)
            found = np.lib.format.read_array_header_1_0(file)
            size = file.tell() + math.prod(shape)
            return found == (shape, False, np.dtype(np.uint8)) and file.seek(0, os.SEEK_END) == size
    except (OSError, ValueError):
        return False


def _map(path: Path) -> np.ndarray:
    # "c": pages are shared with all who read the file until somebody writes, which nobody does.
    mapping: np.ndarray = np.load(path, mmap_mode="c")
    return mapping


def _made(
    path: Path,
    shape: tuple[int, ...],
    listed: samples.Listing,
    decode: preprocessing.Preprocessing,
    report: progress.Progress,
) -> np.ndarray:
    """The file written and mapped, so that nobody who removes it then can disturb its maker."""
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=picture_cache.PART)
    part = Path(name)
    try:
        with os.fdopen(handle, "wb") as file:
            _write(file, shape, listed, decode, report)
            file.flush()
            os.fsync(file.fileno())
        made = _map(part)
        with contextlib.suppress(FileNotFoundError):  # taken for abandoned
            part.replace(path)
        return made
    finally:
        with contextlib.suppress(FileNotFoundError):
            part.unlink()


def _write(
    file: BinaryIO,
    shape: tuple[int, ...],
    listed: samples.Listing,
    decode: preprocessing.Preprocessing,
    report: progress.Progress,
) -> None:
    header = {"descr": "|u1", "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(file, header)
    pairs = zip(listed.samples, samples.contents(listed), strict=True)
    for count, (sample, content) in enumerate(pairs, start=1):
        file.write(decode.decode(content, _place(sample)).numpy().tobytes())
        if count % _REPORT_EVERY == 0:
            report(count, shape[0])
