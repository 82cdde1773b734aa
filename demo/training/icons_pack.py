"""The pack's training pictures as tensors, drawn evenly over what their captions ask for."""

import collections
import dataclasses
import io
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import torch
from PIL import Image

from demo.training import captions


@dataclasses.dataclass(frozen=True, eq=False)
class Pack:
    """Pictures and captions of one split, in one order.

    Attributes:
        pictures: (N, 3, 32, 32), -1 to 1.
        texts: One caption a picture.
        weights: (N,), to draw by: every pair of attributes is as likely as any other.
    """

    pictures: torch.Tensor
    texts: list[str]
    weights: torch.Tensor

    def draw(self, count: int, generator: torch.Generator) -> torch.Tensor:
        """``count`` indices, (count,)."""
        return torch.multinomial(self.weights, count, replacement=True, generator=generator)


def read(path: Path, split: str) -> Pack:
    """The pictures of a split."""
    rows = [row for row in pq.read_table(path).to_pylist() if row["split"] == split]
    texts = [row["text"] for row in rows]
    asked = [captions.attributes(text) for text in texts]
    counts = collections.Counter(asked)
    return Pack(
        pictures=torch.stack([_pixels(row["image"]["bytes"]) for row in rows]),
        texts=texts,
        weights=torch.tensor([1.0 / counts[pair] for pair in asked]),
    )


def _pixels(content: bytes) -> torch.Tensor:
    picture = np.asarray(Image.open(io.BytesIO(content)).convert("RGB"), dtype=np.float32)
    return torch.from_numpy(picture).permute(2, 0, 1) / 127.5 - 1.0  # (3, H, W)
