"""Tiny diffusion folders and captioned digits, for tests of the service's own ways.

The nets are not trained: what is asked of them is that nothing but some weights changes.
"""

import functools
import io
import json
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import diffusers
import pyarrow as pa
import pyarrow.parquet as pq
import torch
import transformers
from PIL import Image, ImageOps

from salun_core import architectures, randomness, specs
from tests import material

SIDE = 8  # pixels
COLOURS = ("red", "green")
_CAPTIONED = 240
_UNET: dict[str, Any] = {
    "sample_size": SIDE,
    "block_out_channels": (16, 32),
    "layers_per_block": 1,
    "norm_num_groups": 8,
}


@functools.cache
def class_folder() -> dict[str, material.Content]:
    """``UNet2DModel`` in float16 with a class for every digit and a null class."""
    with randomness.seeded(0):
        unet = diffusers.UNet2DModel(
            **_UNET,
            in_channels=1,
            out_channels=1,
            num_class_embeds=len(material.LABELS) + 1,
            down_block_types=("DownBlock2D", "DownBlock2D"),
            up_block_types=("UpBlock2D", "UpBlock2D"),
            attention_head_dim=8,
        )
    return _saved({"unet": unet.half(), "scheduler": _scheduler()})


@functools.cache
def text_folder() -> dict[str, material.Content]:
    """A ``StableDiffusionPipeline`` for RGB pictures of 8 × 8, with an untrained judge."""
    tokens = ["<|startoftext|>", "<|endoftext|>"]
    letters = "abcdefghijklmnopqrstuvwxyz"
    tokens += [letter + end for letter in letters for end in ("", "</w>")]
    with randomness.seeded(0):
        parts = {
            "unet": diffusers.UNet2DConditionModel(
                **_UNET,
                in_channels=4,
                out_channels=4,
                cross_attention_dim=16,
                attention_head_dim=8,
                down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
                up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
            ),
            "vae": diffusers.AutoencoderKL(
                latent_channels=4, block_out_channels=(8,), norm_num_groups=4, sample_size=SIDE
            ),
            "text_encoder": transformers.CLIPTextModel(
                transformers.CLIPTextConfig(
                    vocab_size=len(tokens), hidden_size=16, intermediate_size=32,
                    num_hidden_layers=1, num_attention_heads=2, max_position_embeddings=16,
                    bos_token_id=0, eos_token_id=1, pad_token_id=1, projection_dim=16,
                )
            ),
            "scheduler": _scheduler(),
        }  # fmt: skip
        judge, config = _judge()
    index = {
        "_class_name": "StableDiffusionPipeline",
        **{name: [type(part).__module__.split(".")[0], type(part).__name__]
           for name, part in parts.items()},
        "tokenizer": ["transformers", "CLIPTokenizer"],
        "safety_checker": [None, None],
        "feature_extractor": [None, None],
        "requires_safety_checker": False,
    }  # fmt: skip
    tokenizer = {
        "tokenizer_class": "CLIPTokenizer", "model_max_length": 16,
        "bos_token": tokens[0], "eos_token": tokens[1], "pad_token": tokens[1],
        "unk_token": tokens[1],
    }  # fmt: skip
    return {
        **_saved(parts),
        "model_index.json": _json(index),
        "tokenizer/tokenizer_config.json": _json(tokenizer),
        "tokenizer/vocab.json": _json({token: place for place, token in enumerate(tokens)}),
        "tokenizer/merges.txt": material.Content(b"#version: 0.2\n"),
        "judge/config.json": _json(config),
        "judge/model.safetensors": material.safetensors(judge),
    }


@functools.cache
def captioned() -> material.Content:
    """240 digits in two colours with captions, as Parquet; every sixth is held out."""
    rows = []
    for place, row in enumerate(material.rows()[:_CAPTIONED]):
        colour = COLOURS[place % len(COLOURS)]
        grey = Image.open(io.BytesIO(row["image"]["bytes"])).convert("L")
        buffer = io.BytesIO()
        ImageOps.colorize(grey, "black", colour).save(buffer, "PNG")
        rows.append(
            {
                "sample_id": row["sample_id"],
                "image": {"bytes": buffer.getvalue(), "path": None},
                "text": f"a {colour} {row['label']}",
                "split": "holdout" if place % 6 == 0 else "train",
            }
        )
    image = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    fields = {"sample_id": pa.string(), "image": image, "text": pa.string(), "split": pa.string()}
    sink = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows, pa.schema(fields)), sink)
    return material.Content(sink.getvalue())


def write(folder: dict[str, material.Content], where: Path) -> Path:
    """The folder on disk."""
    for path, content in folder.items():
        (where / path).parent.mkdir(parents=True, exist_ok=True)
        (where / path).write_bytes(content.data)
    return where


def _scheduler() -> Any:
    return diffusers.DDIMScheduler(clip_sample=False, num_train_timesteps=100, steps_offset=1)


def _judge() -> tuple[torch.nn.Module, dict[str, Any]]:
    terms = [*COLOURS, *material.LABELS]
    config = {
        **material.CONFIG,
        "num_classes": len(terms),
        "label_names": terms,
        "multi_label": True,
        "pretrained_cfg": {
            "input_size": [3, SIDE, SIDE], "mean": [0.5] * 3, "std": [0.5] * 3, "crop_pct": 1.0,
        },
    }  # fmt: skip
    return architectures.build(specs.parse_classifier_config(config)), config


def _saved(parts: dict[str, Any]) -> dict[str, material.Content]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for part, content in parts.items():
            content.save_pretrained(folder / part)
        return {
            path.relative_to(folder).as_posix(): material.Content(path.read_bytes())
            for path in _files(folder)
        }


def _files(folder: Path) -> Iterable[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def _json(value: Any) -> material.Content:
    return material.Content(json.dumps(value).encode())
