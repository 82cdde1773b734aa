"""Which files make a diffusion model: diffusers' folder layout, as far as it is served.

Free of torch, so that a folder is refused before a worker sees it. Only classes named here are
ever built; nothing in a folder can name code of its own.
"""

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from salun_core import errors, generation_specs

INDEX = "model_index.json"
_WEIGHTS = "diffusion_pytorch_model.safetensors"
_CODE_KEYS = ("auto_map", "custom_pipeline", "custom_pipelines")
_LIBRARIES = ("diffusers", "transformers", "stable_diffusion", None)
_BETA_SCHEDULES = ("linear", "scaled_linear", "squaredcos_cap_v2")
_PREDICTIONS = ("epsilon", "v_prediction")
# All of these describe the same noise; sampling and training use DDIM's and DDPM's formulas.
_SCHEDULERS = (
    "DDIMScheduler", "DDPMScheduler", "DEISMultistepScheduler", "DPMSolverMultistepScheduler",
    "DPMSolverSinglestepScheduler", "EulerAncestralDiscreteScheduler", "EulerDiscreteScheduler",
    "HeunDiscreteScheduler", "KDPM2DiscreteScheduler", "LMSDiscreteScheduler", "PNDMScheduler",
    "UniPCMultistepScheduler",
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Component:
    """A part of the folder: its configuration, the classes it may be of, further files."""

    config: str
    classes: tuple[str, ...]
    files: tuple[str, ...] = ()


_UNET = Component("unet/config.json", ("UNet2DModel",), (f"unet/{_WEIGHTS}",))
_DIT = Component(
    "transformer/config.json", ("DiTTransformer2DModel", "Transformer2DModel"),
    (f"transformer/{_WEIGHTS}",),
)  # fmt: skip
_TEXT_UNET = dataclasses.replace(_UNET, classes=("UNet2DConditionModel",))
_VAE = Component("vae/config.json", ("AutoencoderKL", "AutoencoderTiny"), (f"vae/{_WEIGHTS}",))
_SCHEDULER = Component("scheduler/scheduler_config.json", _SCHEDULERS)
_TEXT_ENCODER = Component(
    "text_encoder/config.json", ("CLIPTextModel",), ("text_encoder/model.safetensors",)
)
_TOKENIZER = Component(
    "tokenizer/tokenizer_config.json", ("CLIPTokenizer", "CLIPTokenizerFast"),
    ("tokenizer/vocab.json", "tokenizer/merges.txt"),
)  # fmt: skip
_PIPELINES = {
    "class_conditional_diffusion": ("DiTPipeline",),
    "text_to_image": ("StableDiffusionPipeline",),
}


@dataclasses.dataclass(frozen=True)
class Layout:
    """A folder that has all it needs.

    Attributes:
        denoiser: ``unet`` or ``transformer``.
        components: by folder; the denoiser among them.
        configs: the parsed configuration of every component that has one.
        index: the parsed ``model_index.json``; empty where there is none.
    """

    family: generation_specs.GenerativeFamily
    denoiser: str
    components: Mapping[str, Component]
    configs: Mapping[str, Mapping[str, Any]]
    index: Mapping[str, Any]

    @property
    def weights_file(self) -> str:
        """Where the denoiser's weights lie."""
        return self.components[self.denoiser].files[0]


def read(
    family: generation_specs.GenerativeFamily,
    paths: Iterable[str],
    read_json: Callable[[str], Any],
) -> Layout:
    """Check a folder by its file names and configurations.

    Args:
        family: what it is registered as.
        paths: every file of it, relative.
        read_json: the parsed content of one of them.

    Raises:
        InvalidConfigError: a component is missing or of a class that is not served; the message
            starts with the file that is wrong.
    """
    there = set(paths)
    index = _read_index(family, there, read_json)
    components = _components(family, there)
    denoiser = "transformer" if "transformer" in components else "unet"
    configs = {}
    for name, component in components.items():
        for path in (component.config, *component.files):
            if path not in there:
                raise errors.InvalidConfigError(
                    f"{path}: missing; a {family} folder needs it" + _hint(path, there)
                )
        configs[name] = _checked(component, read_json(component.config), index.get(name))
    _check_schedule(configs["scheduler"])
    return Layout(family, denoiser, components, configs, index)


def _components(family: generation_specs.GenerativeFamily, there: set[str]) -> dict[str, Component]:
    if family == "text_to_image":
        return {
            "unet": _TEXT_UNET, "scheduler": _SCHEDULER, "vae": _VAE,
            "text_encoder": _TEXT_ENCODER, "tokenizer": _TOKENIZER,
        }  # fmt: skip
    if any(path.startswith("transformer/") for path in there):
        return {"transformer": _DIT, "scheduler": _SCHEDULER, "vae": _VAE}
    has_vae = any(path.startswith("vae/") for path in there)
    return {"unet": _UNET, "scheduler": _SCHEDULER, **({"vae": _VAE} if has_vae else {})}


def _read_index(
    family: generation_specs.GenerativeFamily, there: set[str], read_json: Callable[[str], Any]
) -> Mapping[str, Any]:
    needed = family == "text_to_image" or any(path.startswith("transformer/") for path in there)
    if INDEX not in there:
        if needed:
            raise errors.InvalidConfigError(f"{INDEX}: missing; a {family} folder needs it")
        return {}
    index = read_json(INDEX)
    if not isinstance(index, Mapping):
        raise errors.InvalidConfigError(f"{INDEX}: expected an object")
    _refuse_code(INDEX, index)
    for name, entry in index.items():
        if isinstance(entry, list) and len(entry) == 2 and entry[0] not in _LIBRARIES:
            raise errors.InvalidConfigError(
                f"{INDEX}: got {name} from {str(entry[0])[:80]!r}, expected "
                f"{' or '.join(map(str, _LIBRARIES))}"
            )
    expected = _PIPELINES[family]
    if index.get("_class_name") not in expected:
        raise errors.InvalidConfigError(
            f"{INDEX}: got _class_name {str(index.get('_class_name'))[:80]!r}, "
            f"expected {' or '.join(expected)}"
        )
    return index


def _checked(component: Component, config: Any, entry: Any) -> Mapping[str, Any]:  # noqa: ANN401
    if not isinstance(config, Mapping):
        raise errors.InvalidConfigError(f"{component.config}: expected an object")
    _refuse_code(component.config, config)
    key = {"text_encoder/config.json": "architectures", _TOKENIZER.config: "tokenizer_class"}
    got = config.get(key.get(component.config, "_class_name"))
    named = got[0] if isinstance(got, list) and got else got
    if named not in component.classes:
        raise errors.InvalidConfigError(
            f"{component.config}: got class {str(named)[:80]!r}, "
            f"expected {' or '.join(component.classes)}"
        )
    if isinstance(entry, list) and entry and entry[-1] not in (*component.classes, None):
        raise errors.InvalidConfigError(
            f"{INDEX}: got class {str(entry[-1])[:80]!r} for {component.config.split('/')[0]}, "
            f"expected {' or '.join(component.classes)}"
        )
    return config


def _refuse_code(path: str, config: Mapping[str, Any]) -> None:
    for key in _CODE_KEYS:
        if key in config:
            raise errors.InvalidConfigError(
                f"{path}: got {key}, which names code; expected classes of diffusers and "
                "transformers alone"
            )


def _check_schedule(config: Mapping[str, Any]) -> None:
    for key, allowed, default in (
        ("beta_schedule", _BETA_SCHEDULES, "linear"),
        ("prediction_type", _PREDICTIONS, "epsilon"),
    ):
        got = config.get(key, default)
        if got not in allowed:
            raise errors.InvalidConfigError(
                f"{_SCHEDULER.config}: got {key} {str(got)[:80]!r}, expected {' or '.join(allowed)}"
            )


def _hint(path: str, there: set[str]) -> str:
    folder = path.split("/")[0]
    found = sorted(other for other in there if other.startswith(f"{folder}/"))
    return f" (the folder has {', '.join(found[:5])})" if found else f" ({folder}/ is empty)"
