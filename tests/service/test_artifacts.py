"""Generator folders, whole and broken, as they are told apart without torch."""

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy

from salun_core import generation_specs
from service import artifacts, errors, settings, storage

WEIGHTS = safetensors.numpy.save({"weight": np.zeros(2, dtype=np.float16)})
CLASSES: dict[str, Any] = {
    "unet/config.json": {"_class_name": "UNet2DModel"},
    "unet/diffusion_pytorch_model.safetensors": WEIGHTS,
    "scheduler/scheduler_config.json": {"_class_name": "DDIMScheduler"},
}
TEXTS: dict[str, Any] = {
    "model_index.json": {
        "_class_name": "StableDiffusionPipeline",
        "unet": ["diffusers", "UNet2DConditionModel"],
        "vae": ["diffusers", "AutoencoderKL"],
        "text_encoder": ["transformers", "CLIPTextModel"],
        "tokenizer": ["transformers", "CLIPTokenizer"],
        "scheduler": ["diffusers", "PNDMScheduler"],
        "safety_checker": [None, None],
    },
    "unet/config.json": {"_class_name": "UNet2DConditionModel"},
    "unet/diffusion_pytorch_model.safetensors": WEIGHTS,
    "vae/config.json": {"_class_name": "AutoencoderKL"},
    "vae/diffusion_pytorch_model.safetensors": WEIGHTS,
    "text_encoder/config.json": {"architectures": ["CLIPTextModel"]},
    "text_encoder/model.safetensors": WEIGHTS,
    "tokenizer/tokenizer_config.json": {"tokenizer_class": "CLIPTokenizer"},
    "tokenizer/vocab.json": {},
    "tokenizer/merges.txt": b"#version",
    "scheduler/scheduler_config.json": {"_class_name": "PNDMScheduler"},
}


@pytest.fixture(autouse=True)
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("DATABASE_URL", "postgresql://unused")
    monkeypatch.setenv("BROKER_URL", "redis://unused")
    monkeypatch.setenv("SALUN_DATA_DIR", str(tmp_path))
    settings.load.cache_clear()
    yield
    settings.load.cache_clear()


def check(family: generation_specs.GenerativeFamily, folder: dict[str, Any]) -> None:
    files = []
    for path, content in folder.items():
        data = content if isinstance(content, bytes) else json.dumps(content).encode()
        stored = storage.put([data], contextlib.nullcontext)
        files.append(artifacts.FileRef(path, stored.digest, stored.size))
    artifacts.check_listing(files)
    artifacts.check(family, files, ["a", "b"])


def test_whole_folders_are_versions() -> None:
    check("class_conditional_diffusion", CLASSES)
    check("text_to_image", TEXTS)
    judge = {"architecture": "resnet18", "num_classes": 2, "multi_label": True}
    check(
        "text_to_image", {**TEXTS, "judge/config.json": judge, "judge/model.safetensors": WEIGHTS}
    )


def test_parts_that_are_served_as_they_came_have_weights_of_their_own() -> None:
    parts = {
        "safety_checker": ["stable_diffusion", "StableDiffusionSafetyChecker"],
        "image_encoder": ["transformers", "CLIPVisionModelWithProjection"],
    }
    files: dict[str, Any] = {f"{part}/config.json": {} for part in parts}
    weights = {f"{part}/model.safetensors": WEIGHTS for part in parts}
    index = {**TEXTS["model_index.json"], **parts}
    check("text_to_image", {**TEXTS, "model_index.json": index, **files, **weights})


@pytest.mark.parametrize("missing", sorted(TEXTS))
def test_a_missing_part_is_named(missing: str) -> None:
    folder = {path: content for path, content in TEXTS.items() if path != missing}
    with pytest.raises(errors.Invalid, match="missing") as refused:
        check("text_to_image", folder)
    assert missing in refused.value.detail
    assert refused.value.code == "unsafe-artifact"


@pytest.mark.parametrize(
    ("changed", "code", "told"),
    [
        ({"unet/diffusion_pytorch_model.bin": b"\x80\x02"}, "unsafe-file-type", "model.bin"),
        ({"vae/diffusion_pytorch_model.safetensors": b"PK\x03\x04"}, "not-safetensors", "zip"),
        ({"vae/diffusion_pytorch_model.safetensors": WEIGHTS[:-1]}, "not-safetensors", "truncated"),
        (
            {"scheduler/scheduler_config.json": {"_class_name": "MyScheduler"}},
            "invalid-config", "scheduler/scheduler_config.json: got class 'MyScheduler'",
        ),
        (
            {"unet/config.json": {"_class_name": "UNet2DModel"}},
            "invalid-config", "unet/config.json: got class 'UNet2DModel'",
        ),
        (
            {"text_encoder/config.json": {
                "architectures": ["CLIPTextModel"], "auto_map": {"AutoModel": "mine.Net"},
            }},
            "invalid-config", "text_encoder/config.json: got auto_map",
        ),
        (
            {"model_index.json": {"_class_name": ["pipeline", "MyPipeline"]}},
            "invalid-config", "model_index.json: got _class_name",
        ),
        (
            {"model_index.json": {
                **TEXTS["model_index.json"], "unet": ["my_unet", "UNet2DConditionModel"],
            }},
            "invalid-config", "model_index.json: got unet ['my_unet', 'UNet2DConditionModel']",
        ),
        (
            {"model_index.json": {
                **TEXTS["model_index.json"],
                "image_encoder": ["transformers", "CLIPVisionModelWithProjection"],
            }},
            "file-missing", "image_encoder/config.json: missing; a folder whose model_index.json",
        ),
        (
            {"unet/config.json": {"_class_name": "UNet2DConditionModel", "sample_size": 200_000}},
            "invalid-config", "unet/config.json: got sample_size 200000",
        ),
        ({"unet/config.json": b"{"}, "invalid-config", "unet/config.json: expected JSON"),
        (
            {"unet/config.json": b" " * (2**20 + 1)},
            "invalid-config", "unet/config.json: got over 1048576 bytes",
        ),
        (
            {"unet/diffusion_pytorch_model.fp16.safetensors": WEIGHTS},
            "stray-weights", "would leave as they are",
        ),
        ({"v1-5-pruned.safetensors": WEIGHTS}, "stray-weights", "would leave as they are"),
        ({"judge/config.json": {}}, "file-missing", "judge/model.safetensors"),
    ],
)  # fmt: skip
def test_a_broken_folder_is_refused_and_told_why(
    changed: dict[str, Any], code: str, told: str
) -> None:
    folder = {**TEXTS, **changed}
    with pytest.raises(errors.Invalid) as refused:
        check("text_to_image", folder)
    (problem,) = refused.value.problems
    assert (refused.value.code, problem.code) == ("unsafe-artifact", code)
    assert told in problem.detail
    wrong = list(folder).index(next(iter(changed)))
    expected = "/files" if code == "file-missing" else f"/files/{wrong}"
    assert problem.pointer.removesuffix("/path") == expected
