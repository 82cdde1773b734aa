import pathlib

import numpy as np
import pytest
import torch

from salun_core import errors, weights

TENSORS = {"b": torch.arange(6.0).reshape(2, 3), "a": torch.tensor([1, 2], dtype=torch.int64)}


def test_round_trip(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "net.safetensors"
    weights.write(path, TENSORS, {"method": "salun"})
    read = weights.read(path)
    assert read.keys() == TENSORS.keys()
    assert all(torch.equal(read[name], TENSORS[name]) for name in TENSORS)
    assert weights.read_shapes(path) == {"a": (2,), "b": (2, 3)}
    assert weights.read_metadata(path) == {"method": "salun"}


def test_same_content_gives_same_bytes_whatever_the_order(tmp_path: pathlib.Path) -> None:
    metadata = {f"key{n}": str(n) for n in range(20)}
    first, second = tmp_path / "1", tmp_path / "2"
    weights.write(first, TENSORS, metadata)
    weights.write(second, dict(reversed(TENSORS.items())), dict(reversed(metadata.items())))
    assert first.read_bytes() == second.read_bytes()


def test_non_contiguous_tensors_are_written_as_they_look(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "t"
    weights.write(path, {"t": torch.arange(6).reshape(2, 3).T})
    assert weights.read(path)["t"].tolist() == [[0, 3], [1, 4], [2, 5]]


@pytest.mark.parametrize("start", [b"PK\x03\x04", b"\x80\x02}q\x00.", b"\x80\x04\x95\x00"])
def test_pickles_are_refused(tmp_path: pathlib.Path, start: bytes) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(start + bytes(100))
    with pytest.raises(errors.UnsafeArtifactError, match="got a pickle or zip archive, expected"):
        weights.read(path)


@pytest.mark.parametrize("kept", [0, 4, 8, 40, -1])
def test_truncated_files_are_refused(tmp_path: pathlib.Path, kept: int) -> None:
    path = tmp_path / "model.safetensors"
    weights.write(path, TENSORS)
    path.write_bytes(path.read_bytes()[:kept])
    for reader in (weights.read, weights.read_shapes):
        with pytest.raises(errors.UnsafeArtifactError, match="got"):
            reader(path)


def test_bytes_behind_the_tensors_are_refused(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "model.safetensors"
    weights.write(path, TENSORS)
    path.write_bytes(path.read_bytes() + b"extra")
    with pytest.raises(errors.UnsafeArtifactError):
        weights.read_shapes(path)


@pytest.mark.parametrize("header", [b"[]", b'{"a": 1}', b'{"a": {}}', b"\xff\xfe{}"])
def test_headers_that_are_no_header_are_refused(tmp_path: pathlib.Path, header: bytes) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(len(header).to_bytes(8, "little") + header)
    with pytest.raises(errors.UnsafeArtifactError):
        weights.read_shapes(path)


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: pathlib.Path) -> None:
    target = tmp_path / "taken"
    target.mkdir()
    (target / "inside").write_text("kept")
    with pytest.raises(OSError, match="directory"):
        weights.write(target, TENSORS)
    assert [path.name for path in tmp_path.iterdir()] == ["taken"]


def test_bits_tell_minus_zero_from_zero_and_find_nan_equal() -> None:
    minus, zero, nan = (weights.bits(torch.tensor([v])) for v in (-0.0, 0.0, float("nan")))
    assert not np.array_equal(minus, zero)
    assert np.array_equal(nan, weights.bits(torch.tensor([float("nan")])))
