"""Read a Parquet pack of captioned pictures without the service."""

from pathlib import Path

import pyarrow.parquet as pq
import torch

from salun_core import images, preprocessing, specs
from salun_core.diffusion import data


def read(path: Path, split: str, image_size: tuple[int, int, int]) -> data.CaptionedSet:
    """The pictures of a split, (channels, height, width); a row's text is its caption or label."""
    config = specs.PretrainedConfig(input_size=image_size, crop_pct=1.0, interpolation="bilinear")
    decode = preprocessing.Preprocessing(config)
    rows = [row for row in pq.read_table(path).to_pylist() if row["split"] == split]
    decoded = [decode.decode(row["image"]["bytes"], row["sample_id"]) for row in rows]
    return data.CaptionedSet(
        images.Pictures(torch.stack(decoded), torch.arange(len(rows))),
        tuple(row.get("text") or row["label"] for row in rows),
        tuple(row["sample_id"] for row in rows),
    )
