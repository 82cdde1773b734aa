"""Read and write safetensors: the only place where this library writes to the disk.

Pickle is never opened. A file is written whole or not at all, and the same tensors with the same
metadata always give the same bytes, so that a digest names a result.
"""

import contextlib
import json
import pathlib
import tempfile
from collections.abc import Mapping
from typing import Any

import numpy as np
import safetensors
import safetensors.torch
import torch

from salun_core import errors

_LENGTH_BYTES = 8  # in front of the header
_PLACE = b'{"":"%s"}'  # metadata to be replaced
_HEADER_LIMIT = 100_000_000  # bytes; the format's own limit
_PICKLE_STARTS = (b"PK\x03\x04", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")


def write(
    path: pathlib.Path,
    tensors: Mapping[str, torch.Tensor],
    metadata: Mapping[str, str] | None = None,
) -> None:
    """Write tensors as safetensors, atomically and with deterministic bytes.

    Args:
        path: the file; its folder must exist. An existing file is replaced.
        tensors: any shapes and devices; they are written from the CPU, contiguous.
        metadata: text values for the file's ``__metadata__``.
    """
    ready = {name: tensors[name].detach().cpu().contiguous() for name in sorted(tensors)}
    told = json.dumps(dict(sorted((metadata or {}).items())), separators=(",", ":")).encode()
    with tempfile.NamedTemporaryFile(dir=path.parent, prefix=path.name, delete=False) as file:
        partial = pathlib.Path(file.name)
    try:
        # The library writes tensor by tensor, but keeps metadata in a hash map whose order differs
        # from run to run: it gets one entry as long as all, in whose place they are then written.
        length = len(told) - len(_PLACE % b"")
        place = {"": "-" * length} if metadata else None
        safetensors.torch.save_file(ready, partial, metadata=place)
        if metadata:
            _replace(partial, _PLACE % (b"-" * length), told)
        partial.chmod(0o644)
        partial.replace(path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            partial.unlink()
        raise


def read(path: pathlib.Path) -> dict[str, torch.Tensor]:
    """Read every tensor of a safetensors file onto the CPU.

    Raises:
        UnsafeArtifactError: the file is a pickle, truncated or otherwise not plain safetensors.
    """
    read_shapes(path)
    try:
        return safetensors.torch.load_file(path)
    except (safetensors.SafetensorError, ValueError, KeyError) as error:
        raise errors.UnsafeArtifactError(f"{path.name}: {error}") from error


def read_shapes(path: pathlib.Path) -> dict[str, tuple[int, ...]]:
    """Names and shapes of a safetensors file, from its header alone.

    Raises:
        UnsafeArtifactError: as for :func:`read`; the file's length is checked against the header.
    """
    header = read_header(path)
    return {name: tuple(entry["shape"]) for name, entry in header.items() if name != "__metadata__"}


def read_metadata(path: pathlib.Path) -> dict[str, str]:
    """The text metadata of a safetensors file.

    Raises:
        UnsafeArtifactError: as for :func:`read`.
    """
    return dict(read_header(path).get("__metadata__", {}))


def read_header(path: pathlib.Path) -> dict[str, dict[str, Any]]:
    """The checked header: every tensor's ``dtype``, ``shape`` and ``data_offsets``.

    Raises:
        UnsafeArtifactError: as for :func:`read`.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        start = file.read(8)
        if start.startswith(_PICKLE_STARTS):
            raise errors.UnsafeArtifactError(
                f"{path.name}: got a pickle or zip archive, expected safetensors"
            )
        length = int.from_bytes(start, "little")
        if len(start) < 8 or length > min(size - 8, _HEADER_LIMIT):
            raise errors.UnsafeArtifactError(
                f"{path.name}: got {size} bytes that start a header of {length}, "
                "expected whole safetensors"
            )
        raw = file.read(length)
    header = _parse_header(path.name, raw)
    _check_length(path, header, size - 8 - length)
    return header


def bits(tensor: torch.Tensor) -> np.ndarray:
    """The tensor's raw bytes, flat uint8: the way to compare weights bit for bit.

    Unlike ``==`` this tells -0.0 from 0.0 and finds equal NaNs equal.
    """
    flat = tensor.detach().cpu().contiguous().reshape(-1)
    return flat.view(torch.uint8).numpy()


def _parse_header(name: str, raw: bytes) -> dict[str, dict[str, Any]]:
    try:
        header = json.loads(raw)
    except ValueError as error:
        raise errors.UnsafeArtifactError(
            f"{name}: got a header that is not JSON, expected safetensors"
        ) from error
    if not isinstance(header, dict) or not all(isinstance(v, dict) for v in header.values()):
        raise errors.UnsafeArtifactError(f"{name}: got a header that is no object of objects")
    for key, entry in header.items():
        if key != "__metadata__" and not {"dtype", "shape", "data_offsets"} <= entry.keys():
            raise errors.UnsafeArtifactError(
                f"{name}: got tensor {key!r} without dtype, shape and data_offsets"
            )
    return header


def _check_length(path: pathlib.Path, header: dict[str, dict[str, Any]], data_bytes: int) -> None:
    # The library maps the file and checks the offsets among themselves: this opens no tensor.
    try:
        with safetensors.safe_open(path, framework="pt"):
            pass
    except (safetensors.SafetensorError, ValueError) as error:
        ends = [e["data_offsets"][-1] for n, e in header.items() if n != "__metadata__"]
        expected = max(ends, default=0)
        raise errors.UnsafeArtifactError(
            f"{path.name}: got {data_bytes} bytes of tensors, expected {expected} ({error})"
        ) from error


def _replace(path: pathlib.Path, before: bytes, after: bytes) -> None:
    """Overwrite a file's metadata with other metadata, as long as these."""
    start = b'{"__metadata__":'
    with path.open("r+b") as file:
        file.seek(_LENGTH_BYTES)
        if file.read(len(start) + len(before)) != start + before:
            msg = "safetensors wrote its metadata elsewhere than at the header's start"
            raise RuntimeError(msg)
        file.seek(_LENGTH_BYTES + len(start))
        file.write(after)
