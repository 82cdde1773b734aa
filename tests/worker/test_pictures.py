"""Decoded once, found again, rebuilt when it is not whole, and gone when there is no room."""

import concurrent.futures
import contextlib
import dataclasses
import io
import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch

from salun_core import architectures, errors, images, inference, preprocessing, specs
from service import settings, storage
from tests import material
from worker import picture_cache, pictures, samples

ROWS = 40
FILE_BYTES = 128 + 26 * 16 * 16  # header; two in three of the rows have a label


def silent(step: int, total: int) -> None:
    pass


@pytest.fixture
def decode() -> preprocessing.Preprocessing:
    return preprocessing.Preprocessing(config().pretrained_cfg)


def config() -> specs.ClassifierConfig:
    return specs.parse_classifier_config(material.CONFIG)


def listed(rows: list[dict[str, Any]], data_folder: Path) -> samples.Listing:
    """Rows as the ledger would have them: every third without a label and so left out."""
    assert data_folder.is_dir()
    content = material.parquet(rows)
    storage.put([content.data], contextlib.nullcontext)
    group = pq.ParquetFile(io.BytesIO(content.data)).metadata.row_group(0).num_rows
    found = [
        samples.Located(row["sample_id"], row["split"], 0, None, 0, place // group, place % group)
        for place, row in enumerate(rows)
        if place % 3
    ]
    return samples.Listing((content.digest,), (), found)


@pytest.fixture
def listing(data_folder: Path) -> samples.Listing:
    return listed(material.rows()[:ROWS], data_folder)


def slow(listing: samples.Listing, decode: preprocessing.Preprocessing) -> torch.Tensor:
    """Each picture decoded by itself from the rows that were written."""
    encoded = {row["sample_id"]: row["image"]["bytes"] for row in material.rows()}
    return torch.stack(
        [decode.decode(encoded[one.sample_id], one.sample_id) for one in listing.samples]
    )


def files(listing: samples.Listing) -> list[Path]:
    return sorted(storage.cache_of(listing.files).iterdir())


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> Callable[[], int]:
    """How many pictures were decoded so far."""
    counted: list[str] = []
    known = preprocessing.Preprocessing.decode

    def count(self: preprocessing.Preprocessing, content: bytes, sample_id: str) -> torch.Tensor:
        counted.append(sample_id)
        return known(self, content, sample_id)

    monkeypatch.setattr(preprocessing.Preprocessing, "decode", count)
    return lambda: len(counted)


def test_pictures_are_those_of_the_stored_files_and_decoded_once(
    listing: samples.Listing, decode: preprocessing.Preprocessing, decoded: Callable[[], int]
) -> None:
    wanted = slow(listing, decode)
    assert decoded() == len(listing.samples)
    ticks: list[tuple[int, int]] = []
    for _ in range(3):
        found = pictures.mapped(listing, decode, lambda *tick: ticks.append(tick))
        assert torch.equal(found, wanted)
    assert decoded() == 2 * len(listing.samples)
    assert ticks[-1] == (len(wanted), len(wanted))
    assert len(files(listing)) == 1


@pytest.mark.parametrize("size", [0, 5, 100, -1])
def test_a_torn_file_is_made_again(
    size: int,
    listing: samples.Listing,
    decode: preprocessing.Preprocessing,
    decoded: Callable[[], int],
) -> None:
    wanted = pictures.mapped(listing, decode, silent).clone()
    (path,) = files(listing)
    content = path.read_bytes()
    path.unlink()
    path.write_bytes(content[:size])
    assert torch.equal(pictures.mapped(listing, decode, silent), wanted)
    path.write_bytes(content + b"more")
    assert torch.equal(pictures.mapped(listing, decode, silent), wanted)
    assert decoded() == 3 * len(wanted)
    assert path.read_bytes() == content


def test_a_header_of_another_shape_is_not_believed(
    listing: samples.Listing, decode: preprocessing.Preprocessing
) -> None:
    wanted = pictures.mapped(listing, decode, silent).clone()
    (path,) = files(listing)
    content = path.read_bytes()
    path.unlink()
    path.write_bytes(content.replace(b"(26, 1, 16, 16)", b"(26, 1, 1, 256)"))
    assert content != path.read_bytes()
    assert torch.equal(pictures.mapped(listing, decode, silent), wanted)


def test_every_cause_of_other_bytes_has_a_file_of_its_own(
    listing: samples.Listing, decode: preprocessing.Preprocessing, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another transform, another library, other rows of the ledger; not mean and spread."""
    pictures.mapped(listing, decode, silent)

    def with_config(**changes: Any) -> preprocessing.Preprocessing:
        return preprocessing.Preprocessing(decode.config.model_copy(update=changes))

    pictures.mapped(listing, with_config(mean=(0.1,), std=(0.2,)), silent)
    assert len(files(listing)) == 1
    large = pictures.mapped(listing, with_config(input_size=(1, 24, 24)), silent)
    assert large.shape == (26, 1, 24, 24)
    pictures.mapped(listing, with_config(interpolation="bicubic"), silent)
    fewer = dataclasses.replace(listing, samples=listing.samples[:-1])
    assert len(pictures.mapped(fewer, decode, silent)) == 25
    assert len(files(listing)) == 4
    monkeypatch.setattr("PIL.__version__", "0.0")
    pictures.mapped(listing, decode, silent)
    assert len(files(listing)) == 5


def test_workers_that_make_the_same_file_do_not_disturb_each_other(
    listing: samples.Listing, decode: preprocessing.Preprocessing
) -> None:
    """Four begin at once, each waits in the middle until all have begun to write."""
    wanted, together = slow(listing, decode), threading.Barrier(4)

    def work(_: int) -> torch.Tensor:
        waited: list[int] = []

        class Slow(preprocessing.Preprocessing):
            def decode(self, content: bytes, sample_id: str) -> torch.Tensor:
                if len(waited) == 5:
                    together.wait(timeout=60)
                waited.append(1)
                return super().decode(content, sample_id)

        return pictures.mapped(listing, Slow(decode.config), silent)

    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        for found in pool.map(work, range(4)):
            assert torch.equal(found, wanted)
    assert len(files(listing)) == 1


def test_who_is_stopped_leaves_nothing(
    data_folder: Path, decode: preprocessing.Preprocessing
) -> None:
    rows = listed(material.rows()[:200], data_folder)

    def cancel(step: int, total: int) -> None:
        assert 0 < step < total
        raise errors.CancelledError

    with pytest.raises(errors.CancelledError):
        pictures.mapped(rows, decode, cancel)
    assert files(rows) == []


def test_a_picture_that_does_not_decode_is_named(
    data_folder: Path, decode: preprocessing.Preprocessing
) -> None:
    rows = [dict(row) for row in material.rows()[:4]]
    rows[2]["image"] = {"bytes": b"no picture", "path": None}
    broken = listed(rows, data_folder)
    with pytest.raises(errors.InvalidDataError, match="file 0, row group 0, row 2"):
        pictures.mapped(broken, decode, silent)
    assert files(broken) == []


@pytest.fixture
def limit(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[int], None]]:
    """``limit(count)``: the cache may hold that many files of ``ROWS`` samples."""

    def hold(count: int) -> None:
        monkeypatch.setenv("SALUN_PICTURE_CACHE_BYTES", str(count * FILE_BYTES))
        settings.load.cache_clear()

    yield hold
    settings.load.cache_clear()


def test_what_was_used_longest_ago_makes_room_and_who_reads_it_goes_on(
    data_folder: Path, decode: preprocessing.Preprocessing, limit: Callable[[int], None]
) -> None:
    listings = [listed(material.rows()[at : at + ROWS], data_folder) for at in (0, 60, 120)]
    paths = []
    for place, one in enumerate(listings[:2]):
        found = pictures.mapped(one, decode, silent)
        paths += files(one)
        os.utime(paths[-1], (place, place))
    assert [path.stat().st_size for path in paths] == [FILE_BYTES] * 2
    wanted = found.clone()
    limit(3)
    pictures.mapped(listings[0], decode, silent)  # used again, though it is the older one
    assert all(path.exists() for path in paths)
    limit(2)
    pictures.mapped(listings[2], decode, silent)
    assert [path.exists() for path in paths] == [True, False]
    assert torch.equal(found, wanted)
    assert torch.equal(pictures.mapped(listings[1], decode, silent), wanted)


def test_the_pictures_of_the_job_at_hand_stay_whatever_the_limit(
    data_folder: Path,
    decode: preprocessing.Preprocessing,
    decoded: Callable[[], int],
    limit: Callable[[int], None],
) -> None:
    first, second = (listed(material.rows()[at : at + ROWS], data_folder) for at in (0, 60))
    limit(0)
    for one in (first, second, second):
        pictures.mapped(one, decode, silent)
    assert (files(first), len(files(second))) == ([], 1)
    assert decoded() == len(first.samples) + len(second.samples)


def test_a_file_that_goes_while_it_is_opened_is_made_again(
    listing: samples.Listing,
    decode: preprocessing.Preprocessing,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    wanted = pictures.mapped(listing, decode, silent).clone()
    mark_used = picture_cache.mark_used

    def too_late(path: Path) -> None:
        path.unlink()
        mark_used(path)

    monkeypatch.setattr(picture_cache, "mark_used", too_late)
    assert torch.equal(pictures.mapped(listing, decode, silent), wanted)
    assert len(files(listing)) == 1


def test_parts_of_killed_workers_are_swept_and_those_being_written_are_not(
    data_folder: Path, listing: samples.Listing, decode: preprocessing.Preprocessing
) -> None:
    other = listed(material.rows()[60 : 60 + ROWS], data_folder)
    folder = storage.cache_of(other.files)
    abandoned, living = folder / ".part-a", folder / ".part-b"
    for part in (abandoned, living):
        part.write_bytes(b"\x93NUMPY")
    two_hours_ago = time.time() - 7200.0
    os.utime(abandoned, (two_hours_ago, two_hours_ago))
    pictures.mapped(listing, decode, silent)
    assert files(other) == [living]


def test_forward_passes_over_mapped_pictures_give_the_same_bits(
    listing: samples.Listing, decode: preprocessing.Preprocessing
) -> None:
    net = architectures.build(config()).eval()
    count = len(listing.samples)
    labels, ids = torch.zeros(count, dtype=torch.int64), tuple(str(row) for row in range(count))
    order = torch.randperm(count, generator=torch.Generator().manual_seed(0))
    mapped = images.ImageSet(
        images.Pictures(pictures.mapped(listing, decode, silent), order), labels, ids
    )
    copied = images.ImageSet(slow(listing, decode)[order], labels, ids)
    assert torch.equal(inference.logits(net, mapped, decode), inference.logits(net, copied, decode))
