import copy
from typing import Any

import pytest

from salun_core import errors, generation_specs, layouts

SCHEDULER = {"_class_name": "DDIMScheduler", "prediction_type": "epsilon"}
PIXELS: dict[str, Any] = {
    "unet/config.json": {"_class_name": "UNet2DModel"},
    "unet/diffusion_pytorch_model.safetensors": None,
    "scheduler/scheduler_config.json": SCHEDULER,
}
DIT: dict[str, Any] = {
    "model_index.json": {"_class_name": "DiTPipeline"},
    "transformer/config.json": {"_class_name": "Transformer2DModel"},
    "transformer/diffusion_pytorch_model.safetensors": None,
    "vae/config.json": {"_class_name": "AutoencoderKL"},
    "vae/diffusion_pytorch_model.safetensors": None,
    "scheduler/scheduler_config.json": SCHEDULER,
}
TEXT: dict[str, Any] = {
    "model_index.json": {
        "_class_name": "StableDiffusionPipeline",
        "unet": ["diffusers", "UNet2DConditionModel"],
        "safety_checker": [None, None],
    },
    "unet/config.json": {"_class_name": "UNet2DConditionModel"},
    "unet/diffusion_pytorch_model.safetensors": None,
    "vae/config.json": {"_class_name": "AutoencoderKL"},
    "vae/diffusion_pytorch_model.safetensors": None,
    "text_encoder/config.json": {"architectures": ["CLIPTextModel"]},
    "text_encoder/model.safetensors": None,
    "tokenizer/tokenizer_config.json": {"tokenizer_class": "CLIPTokenizer"},
    "tokenizer/vocab.json": {},
    "tokenizer/merges.txt": None,
    "scheduler/scheduler_config.json": SCHEDULER,
}


def read(folder: dict[str, Any], family: generation_specs.GenerativeFamily) -> layouts.Layout:
    return layouts.read(family, folder, lambda path: folder[path])


def family_of(folder: dict[str, Any]) -> generation_specs.GenerativeFamily:
    return "text_to_image" if "tokenizer/vocab.json" in folder else "class_conditional_diffusion"


@pytest.mark.parametrize(
    ("folder", "weights_file"),
    [
        (PIXELS, "unet/diffusion_pytorch_model.safetensors"),
        (DIT, "transformer/diffusion_pytorch_model.safetensors"),
        (TEXT, "unet/diffusion_pytorch_model.safetensors"),
    ],
)
def test_whole_folders_are_read(folder: dict[str, Any], weights_file: str) -> None:
    assert read(folder, family_of(folder)).weights_file == weights_file


@pytest.mark.parametrize(
    ("folder", "missing"), [(whole, path) for whole in (PIXELS, DIT, TEXT) for path in whole]
)
def test_a_missing_file_is_named(folder: dict[str, Any], missing: str) -> None:
    broken = {path: content for path, content in folder.items() if path != missing}
    with pytest.raises(errors.InvalidConfigError) as caught:
        read(broken, family_of(folder))
    assert str(caught.value).startswith(f"{missing}: missing")


CHANGES = [
    (PIXELS, "unet/config.json", {"_class_name": "UNet3DModel"}, "UNet3DModel"),
    (PIXELS, "unet/config.json", {}, "None"),
    (PIXELS, "unet/config.json", [1, 2], "an object"),
    (PIXELS, "scheduler/scheduler_config.json", {"_class_name": "EvilScheduler"}, "EvilScheduler"),
    (PIXELS, "scheduler/scheduler_config.json", "text", "an object"),
    (
        PIXELS, "scheduler/scheduler_config.json", {**SCHEDULER, "prediction_type": "sample"},
        "sample",
    ),
    (
        PIXELS, "scheduler/scheduler_config.json", {**SCHEDULER, "beta_schedule": ["linear"]},
        "beta_schedule",
    ),
    (DIT, "model_index.json", {"_class_name": "FluxPipeline"}, "FluxPipeline"),
    (DIT, "model_index.json", [], "an object"),
    (DIT, "vae/config.json", {"_class_name": "VQModel"}, "VQModel"),
    (TEXT, "model_index.json", {"_class_name": "DiTPipeline"}, "DiTPipeline"),
    (
        TEXT, "model_index.json",
        {**TEXT["model_index.json"], "unet": ["my_code", "MyUNet"]}, "my_code",
    ),
    (TEXT, "text_encoder/config.json", {"architectures": ["T5EncoderModel"]}, "T5EncoderModel"),
    (TEXT, "tokenizer/tokenizer_config.json", {"tokenizer_class": "T5Tokenizer"}, "T5Tokenizer"),
]  # fmt: skip


@pytest.mark.parametrize(("folder", "path", "content", "named"), CHANGES)
def test_a_bad_configuration_is_named(
    folder: dict[str, Any], path: str, content: object, named: str
) -> None:
    broken = {**copy.deepcopy(folder), path: content}
    with pytest.raises(errors.InvalidConfigError, match=named) as caught:
        read(broken, family_of(folder))
    assert str(caught.value).startswith(f"{path}: ")


@pytest.mark.parametrize(
    "other",
    ["unet/diffusion_pytorch_model.bin", "unet/diffusion_pytorch_model-00001-of-00002.safetensors"],
)
def test_pickles_and_shards_are_told_what_is_expected(other: str) -> None:
    wanted = "unet/diffusion_pytorch_model.safetensors"
    broken = {path: content for path, content in PIXELS.items() if path != wanted}
    with pytest.raises(errors.InvalidConfigError) as caught:
        read({**broken, other: None}, "class_conditional_diffusion")
    assert str(caught.value).startswith(f"{wanted}: missing")
    assert other in str(caught.value)
