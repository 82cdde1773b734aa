"""The clean digits: balanced, small, grey, without grain, and always the same."""

import collections
import io
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from demo import clean_digits, digits


def test_each_split_holds_as_many_of_each_class(clean: list[digits.Digit]) -> None:
    found = collections.Counter((digit.split, digit.label) for digit in clean)
    sizes = {"train": 400, "holdout": 50, "test": 50}
    assert found == {(split, name): sizes[split] for split in sizes for name in digits.NAMES}
    assert len({digit.sample_id for digit in clean}) == len(clean)


def test_pictures_are_small_grey_and_without_grain(clean: list[digits.Digit]) -> None:
    for digit in clean[::250]:
        picture = Image.open(io.BytesIO(digit.png))
        assert (picture.size, picture.mode) == ((16, 16), "L")
        pixels = np.asarray(picture)
        border = np.concatenate((pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]))
        assert border.mean() < 2
        assert pixels.max() > 128


def test_a_digit_keeps_its_class_when_it_is_made_small(clean: list[digits.Digit]) -> None:
    """Nearest to the mean picture of its own class, of ten, are most unseen digits."""
    train, test = (
        {name: _pixels(clean, split, name) for name in digits.NAMES} for split in ("train", "test")
    )
    means = np.stack([train[name].mean(axis=0) for name in digits.NAMES])
    for place, name in enumerate(digits.NAMES):
        distances = np.linalg.norm(test[name][:, None] - means, axis=2)  # (50, 10)
        assert (distances.argmin(axis=1) == place).mean() > 0.5, name


def test_the_parquet_file_holds_the_same_digits_as_another_call(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, clean: list[digits.Digit]
) -> None:
    path = tmp_path / "clean.parquet"
    monkeypatch.setattr("sys.argv", ["clean_digits", "--out", str(path)])
    assert clean_digits.main() == 0
    rows = pq.read_table(path).to_pylist()
    found = [
        digits.Digit(row["sample_id"], row["split"], row["label"], row["image"]["bytes"])
        for row in rows
    ]
    assert found == clean


def _pixels(clean: list[digits.Digit], split: str, name: str) -> np.ndarray:
    pictures = [
        np.asarray(Image.open(io.BytesIO(digit.png)), dtype=float).ravel()
        for digit in clean
        if (digit.split, digit.label) == (split, name)
    ]
    return np.stack(pictures)  # (N, 256)
