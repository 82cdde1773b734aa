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
    "model_index.json": {
        "_class_name": "DiTPipeline",
        "transformer": ["diffusers", "Transformer2DModel"],
        "vae": ["diffusers", "AutoencoderKL"],
        "scheduler": ["diffusers", "DDIMScheduler"],
        "id2label": {"0": "tench, Tinca tinca"},
    },
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
        "vae": ["diffusers", "AutoencoderKL"],
        "text_encoder": ["transformers", "CLIPTextModel"],
        "tokenizer": ["transformers", "CLIPTokenizer"],
        "scheduler": ["diffusers", "DDIMScheduler"],
        "safety_checker": [None, None],
        "requires_safety_checker": False,
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
UNET_INDEX = {
    "_class_name": "DDPMPipeline",
    "unet": ["diffusers", "UNet2DModel"],
    "scheduler": ["diffusers", "DDPMScheduler"],
}
CHECKED: dict[str, Any] = {
    **TEXT,
    "model_index.json": {
        **TEXT["model_index.json"],
        "safety_checker": ["stable_diffusion", "StableDiffusionSafetyChecker"],
        "feature_extractor": ["transformers", "CLIPImageProcessor"],
        "image_encoder": ["transformers", "CLIPVisionModelWithProjection"],
    },
    "safety_checker/config.json": {},
    "safety_checker/model.safetensors": None,
    "feature_extractor/preprocessor_config.json": {},
    "image_encoder/config.json": {},
    "image_encoder/model.safetensors": None,
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
        (CHECKED, "unet/diffusion_pytorch_model.safetensors"),
        (
            {**PIXELS, "model_index.json": UNET_INDEX},
            "unet/diffusion_pytorch_model.safetensors",
        ),
    ],
)
def test_whole_folders_are_read(folder: dict[str, Any], weights_file: str) -> None:
    assert read(folder, family_of(folder)).weights_file == weights_file


@pytest.mark.parametrize(
    ("folder", "missing"), [(whole, path) for whole in (PIXELS, DIT, CHECKED) for path in whole]
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
    (
        TEXT, "model_index.json",
        {**TEXT["model_index.json"], "_class_name": "StableDiffusionXLPipeline"},
        "'StableDiffusionXLPipeline', expected StableDiffusionPipeline: no other pipeline of text",
    ),
    (PIXELS, "model_index.json", {"_class_name": "DiTPipeline"}, "DDPMPipeline or DDIMPipeline"),
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
    ("folder", "part", "entry"),
    [
        *((TEXT, name, None) for name in TEXT["model_index.json"] if name in
          ("unet", "vae", "text_encoder", "tokenizer", "scheduler")),
        *((DIT, name, None) for name in ("transformer", "vae", "scheduler")),
        (TEXT, "unet", [None, None]),
        (TEXT, "unet", [None, "UNet2DConditionModel"]),
        (TEXT, "unet", ["transformers", "UNet2DConditionModel"]),
        (TEXT, "unet", ["diffusers", "UNet2DConditionModel", "more"]),
        (TEXT, "vae", ["diffusers", "AutoencoderTiny"]),  # not that of its configuration
        (TEXT, "scheduler", ["diffusers", "MyScheduler"]),
        (TEXT, "safety_checker", None),
        (TEXT, "safety_checker", "text"),
        (TEXT, "safety_checker", ["transformers", "StableDiffusionSafetyChecker"]),
        (TEXT, "controlnet", ["diffusers", "ControlNetModel"]),
        (DIT, "id2label", ["tench"]),
        (DIT, "id2label", {"tench": "0"}),
        (DIT, "id2label", {"0": 1}),
    ],
)  # fmt: skip
def test_an_index_that_a_stock_pipeline_could_not_follow(
    folder: dict[str, Any], part: str, entry: object
) -> None:
    index = {**folder["model_index.json"], part: entry}
    with pytest.raises(errors.InvalidConfigError) as caught:
        read({**folder, "model_index.json": index}, family_of(folder))
    assert str(caught.value).startswith(f"model_index.json: got {part} ")


def test_a_part_that_the_index_names_must_be_there() -> None:
    index = CHECKED["model_index.json"]
    with pytest.raises(errors.InvalidConfigError, match="names safety_checker"):
        read({**TEXT, "model_index.json": index}, "text_to_image")


CODE = [
    ("auto_map", {"AutoModel": "mine.Net"}),
    ("custom_pipeline", "mine"),
    ("quantization_config", {"quant_method": "gptq"}),
    ("use_kernels", True),
    ("attn_implementation", "kernels-community/flash-attn2"),
    ("_attn_implementation", "kernels-community/flash-attn2"),
    ("_attn_implementation_internal", {"": "mine/kernel"}),
]


@pytest.mark.parametrize("path", [path for path in CHECKED if path.endswith("config.json")])
@pytest.mark.parametrize(("key", "value"), CODE)
def test_no_configuration_names_code_at_any_depth(path: str, key: str, value: object) -> None:
    for extra in ({key: value}, {"inner": [{"more": {key: value}}]}):
        broken = {**CHECKED, path: {**CHECKED[path], **extra}}
        with pytest.raises(errors.InvalidConfigError) as caught:
            read(broken, "text_to_image")
        assert str(caught.value).startswith(f"{path}: got {key}, which can name code")


def test_an_adapter_is_refused() -> None:
    """Where peft is installed, transformers fetch the model that it names."""
    adapter = {"text_encoder/adapter_config.json": {"base_model_name_or_path": "mine/net"}}
    with pytest.raises(errors.InvalidConfigError, match=r"^text_encoder/adapter_config\.json: "):
        read({**TEXT, **adapter}, "text_to_image")


def test_what_only_says_that_nothing_is_named_is_no_code() -> None:
    config = {
        **TEXT["text_encoder/config.json"], "_attn_implementation_autoset": True,
        "_attn_implementation": None, "quantization_config": None, "use_kernels": False,
    }  # fmt: skip
    read({**TEXT, "text_encoder/config.json": config}, "text_to_image")


@pytest.mark.parametrize("side", [0, -8, 1025, 200_000, "64", 8.0, True, [8, 8]])
def test_a_side_that_no_picture_has_is_refused(side: object) -> None:
    config = {**PIXELS["unet/config.json"], "sample_size": side}
    with pytest.raises(errors.InvalidConfigError, match="from 1 to 1024") as caught:
        read({**PIXELS, "unet/config.json": config}, "class_conditional_diffusion")
    assert str(caught.value).startswith("unet/config.json: got sample_size")


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
