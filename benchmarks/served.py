"""What the benchmarks have served: training sets of real digits, and a small net over them."""

import functools
import io
import itertools
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import sklearn.datasets
from PIL import Image

from client import http, progress, transfer, waiting
from salun_core import preprocessing, specs, weights
from salun_core.unlearn import retrain

ROW_GROUP = 1000
_IDS_A_SUBJECT = 10
_SCHEMA = pa.schema(
    [
        ("sample_id", pa.string()),
        ("image", pa.struct([("bytes", pa.binary()), ("path", pa.string())])),
        ("label", pa.string()),
        ("split", pa.string()),
        ("subject_id", pa.string()),
    ]
)
_CONFIG: dict[str, Any] = {
    "architecture": "resnet18",
    "num_classes": 10,
    "label_names": [str(digit) for digit in range(10)],
    "model_args": {"layers": [1, 1, 1, 1], "channels": [8, 16, 16, 32], "stem_type": ""},
    "pretrained_cfg": {
        "input_size": [1, 16, 16],
        "mean": [0.3],
        "std": [0.38],
        "interpolation": "bilinear",
        "crop_pct": 1.0,
    },
}
_ANY_RESULT = {"frozen_weights_unchanged": {"tolerance": 0.0, "side": "not_below", "target": 1.0}}
"""Gates that let a job end in a published version whatever so small a net has forgotten."""


@dataclass(frozen=True)
class TrainingSet:
    """So many rows: scikit-learn's digits, over and over. Training samples come first."""

    rows: int
    holdout: int = 0
    test: int = 0

    @property
    def trained(self) -> int:
        """How many of the rows are training samples."""
        return self.rows - self.holdout - self.test

    def split(self, index: int) -> str:
        """The split of a row."""
        if index < self.trained:
            return "train"
        return "holdout" if index < self.trained + self.holdout else "test"

    def write(self, path: Path, advance: Callable[[int], None] = lambda _: None) -> None:
        """Write it as Parquet, one row group in memory; ``advance`` hears of rows written."""
        with pq.ParquetWriter(path, _SCHEMA) as writer:
            for start in range(0, self.rows, ROW_GROUP):
                indices = range(start, min(start + ROW_GROUP, self.rows))
                writer.write_table(self._table(indices))
                advance(len(indices))

    def _table(self, indices: range) -> pa.Table:
        contents = pa.array([picture(index) for index in indices], pa.binary())
        paths = pa.nulls(len(indices), pa.string())
        columns = [
            pa.array([sample_id(index) for index in indices]),
            pa.StructArray.from_arrays([contents, paths], names=["bytes", "path"]),
            pa.array([str(label(index)) for index in indices]),
            pa.array([self.split(index) for index in indices]),
            pa.array([subject_id(index) for index in indices]),
        ]
        return pa.table(columns, schema=_SCHEMA)


def sample_id(index: int) -> str:
    """The id of a row."""
    return f"img_{index:07d}"


def subject_id(index: int) -> str:
    """Whose a row is."""
    return f"subject_{index // _IDS_A_SUBJECT:06d}"


def picture(index: int) -> bytes:
    """The PNG of a row."""
    pictures, _ = digits()
    return pictures[index % len(pictures)]


def label(index: int) -> int:
    """The digit on a row's picture."""
    _, labels = digits()
    return labels[index % len(labels)]


@functools.cache
def digits() -> tuple[list[bytes], list[int]]:
    """scikit-learn's 1,797 digits of 8×8 pixels as PNG, in random order, and what they show."""
    found = sklearn.datasets.load_digits()
    order = np.random.default_rng(0).permutation(len(found.target))
    pictures = []
    for index in order:
        with io.BytesIO() as buffer:
            Image.fromarray((found.images[index] * 15.9).astype(np.uint8)).save(buffer, "PNG")
            pictures.append(buffer.getvalue())
    return pictures, [int(found.target[index]) for index in order]


def lenient(batch_window_seconds: float) -> dict[str, Any]:
    """A policy that lets every demand in and every result pass."""
    return {
        "batch_window_seconds": batch_window_seconds,
        "max_forget_share": 0.99,
        "budget": {"daily_share": None},
        "acceptance": {"samples": _ANY_RESULT, "whole_class": _ANY_RESULT, "previous": {}},
    }


def train(folder: Path, samples: int) -> None:
    """Train a small net on the first digits and write it as a version's files."""
    config = specs.parse_classifier_config(_CONFIG)
    decode = preprocessing.Preprocessing(config.pretrained_cfg)
    pictures, labels = digits()
    rows = zip(map(sample_id, itertools.count()), labels[:samples], pictures, strict=False)
    train_set = decode.image_set(rows)
    spec = specs.UnlearningSpec(
        method="retrain", mask="none", density=1.0, epochs=10, batch_size=64, learning_rate=0.05
    )
    net = retrain.train(config, train_set, spec)
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(_CONFIG))
    weights.write(folder / "model.safetensors", net.state_dict())


def ingest(api: http.Api, name: str, file: Path) -> None:
    """Upload a Parquet file, register it as a dataset, and wait until that is ready."""
    with progress.bytes_bar(f"uploading {file.name}", file.stat().st_size, quiet=False) as bar:
        (upload,) = transfer.push(api, [file], bar)
    api.post("/v1/datasets", {"name": name, "files": [upload.digest]})
    _until(api, f"/v1/datasets/{name}", "status", "ready", f"ingesting {name}")


def register(
    api: http.Api, name: str, *, dataset: str, net: Path, policy: Mapping[str, Any]
) -> None:
    """Register a model over a dataset, with the net in the folder ``net`` as its first version."""
    body = {"name": name, "family": "classifier", "dataset": dataset, "policy": policy}
    api.post("/v1/models", body)
    files = [
        {"path": item.path.name, "digest": item.digest, "size": item.size_bytes}
        for item in transfer.push(api, sorted(net.iterdir()))
    ]
    version = api.post(f"/v1/models/{name}/versions", {"files": files}, timeout=120.0)
    path = f"/v1/models/{name}/versions/{version['version']}"
    _until(api, path, "state", "published", f"validating {name}")


def _until(api: http.Api, path: str, key: str, wanted: str, title: str) -> None:
    ended = waiting.until(
        api, path, lambda body: body[key] not in {"ingesting", "staged"}, title=title, as_json=False
    )
    if ended[key] != wanted:
        raise RuntimeError(f"{path} is {ended[key]}, expected {wanted}: {ended['errors']}")
