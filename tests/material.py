"""Real data and a real net, small enough for tests: scikit-learn's 8×8 digits.

Half of the digits are trained on, so that the net has seen some and not others; every tenth sample
belongs to a subject.
"""

import dataclasses
import functools
import hashlib
import io
import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import sklearn.datasets
import torch
from PIL import Image

from salun_core import architectures, randomness, specs, weights

NAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
LABELS = tuple(sorted(NAMES))
CONFIG: dict[str, Any] = {
    "architecture": "resnet18",
    "num_classes": 10,
    "label_names": LABELS,
    "model_args": {"layers": [1, 1, 1, 1], "channels": [8, 16, 16, 32], "stem_type": ""},
    "pretrained_cfg": {
        "input_size": [1, 16, 16],
        "mean": [0.3],
        "std": [0.38],
        "interpolation": "bilinear",
        "crop_pct": 1.0,
    },
}


@dataclasses.dataclass(frozen=True)
class Content:
    """Bytes with their digest."""

    data: bytes

    @property
    def digest(self) -> str:
        return hashlib.sha256(self.data).hexdigest()

    @property
    def size(self) -> int:
        return len(self.data)


@functools.cache
def rows() -> list[dict[str, Any]]:
    """The digits as ledger rows: 900 train, 447 holdout, 450 test."""
    digits = sklearn.datasets.load_digits()
    order = np.random.default_rng(0).permutation(len(digits.target))
    found = []
    for position, index in enumerate(order):
        pixels = (digits.images[index] * 15.9).astype(np.uint8)
        buffer = io.BytesIO()
        Image.fromarray(pixels).save(buffer, "PNG")
        split = "train" if position < 900 else "holdout" if position < 1347 else "test"
        found.append(
            {
                "sample_id": f"img_{index:04d}",
                "image": {"bytes": buffer.getvalue(), "path": None},
                "label": NAMES[digits.target[index]],
                "split": split,
                "subject_id": f"person-{position % 60}" if position % 10 == 0 else None,
            }
        )
    return found


def train_ids(label: str | None = None) -> list[str]:
    """Ids of training samples, of one class or of all."""
    return [
        row["sample_id"]
        for row in rows()
        if row["split"] == "train" and label in {None, row["label"]}
    ]


def parquet(table_rows: list[dict[str, Any]] | None = None, without: str = "") -> Content:
    """Rows as a Parquet file in the Hugging Face image convention, perhaps less one column."""
    image = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    schema = {
        "sample_id": pa.string(),
        "image": image,
        "label": pa.string(),
        "split": pa.string(),
        "subject_id": pa.string(),
    }
    schema = {name: kind for name, kind in schema.items() if name != without}
    kept = [{name: row[name] for name in schema} for row in (table_rows or rows())]
    sink = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(kept, pa.schema(schema)), sink, row_group_size=500)
    return Content(sink.getvalue())


def config(**changes: Any) -> Content:
    """The net's ``config.json``, with some keys changed."""
    return Content(json.dumps({**CONFIG, **changes}).encode())


def safetensors(net: torch.nn.Module) -> Content:
    """A net's weights."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.safetensors"
        weights.write(path, net.state_dict())
        return Content(path.read_bytes())


def tensors() -> tuple[torch.Tensor, torch.Tensor]:
    """The training split as the net sees it: (900, 1, 16, 16) and labels."""
    digits = sklearn.datasets.load_digits()
    order = np.random.default_rng(0).permutation(len(digits.target))[:900]
    small = torch.tensor((digits.images[order] * 15.9).astype(np.uint8)).unsqueeze(1)
    large = torch.nn.functional.interpolate(small.float() / 255, size=16, mode="bilinear")
    labels = torch.tensor([LABELS.index(NAMES[digits.target[index]]) for index in order])
    return (large - 0.3) / 0.38, labels


@functools.cache
def trained() -> Content:
    """A net that has learnt the training split by heart; about three seconds."""
    images, labels = tensors()
    parsed = specs.parse_classifier_config(CONFIG)
    with randomness.seeded(0):
        net = architectures.build(parsed)
    net.train()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9, weight_decay=5e-4)
    epochs, generator = 12, torch.Generator().manual_seed(0)
    for epoch in range(epochs):
        for group in optimizer.param_groups:
            group["lr"] = 0.1 * (1 - epoch / epochs)
        for batch in torch.randperm(900, generator=generator).reshape(9, 100):
            optimizer.zero_grad()
            loss = torch.nn.functional.cross_entropy(net(images[batch]), labels[batch])
            torch.autograd.backward(loss)
            optimizer.step()
    net.eval()
    return safetensors(net)
