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
_MOST_TIMESTEPS = 100_000
LARGEST_SIDE = 1024  # of what is denoised, and of a picture: pixels
# What makes diffusers or transformers fetch code, or build other classes than are named.
_CODE_KEYS = (
    "auto_map", "custom_pipeline", "custom_pipelines", "quantization_config", "use_kernels",
    "attn_implementation",
)  # fmt: skip
_OWN_ATTENTION = "_attn_implementation"  # how older transformers wrote it; a prefix
_ADAPTER = "adapter_config.json"
_LEFT_OUT = [None, None]  # what diffusers writes for an optional part that is not there
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
    """A part of the folder.

    Attributes:
        library: where ``model_index.json`` says that its class comes from.
        config: its configuration.
        classes: that it may be of.
        files: that it needs besides; of the denoiser the weights come first.
        class_key: where the configuration names the class.
    """

    library: str
    config: str
    classes: tuple[str, ...]
    files: tuple[str, ...] = ()
    class_key: str = "_class_name"


_UNET = Component("diffusers", "unet/config.json", ("UNet2DModel",), (f"unet/{_WEIGHTS}",))
_DIT = Component(
    "diffusers", "transformer/config.json", ("DiTTransformer2DModel", "Transformer2DModel"),
    (f"transformer/{_WEIGHTS}",),
)  # fmt: skip
_TEXT_UNET = dataclasses.replace(_UNET, classes=("UNet2DConditionModel",))
_VAE = Component(
    "diffusers", "vae/config.json", ("AutoencoderKL", "AutoencoderTiny"), (f"vae/{_WEIGHTS}",)
)
_SCHEDULER = Component("diffusers", "scheduler/scheduler_config.json", _SCHEDULERS)
_TEXT_ENCODER = Component(
    "transformers", "text_encoder/config.json", ("CLIPTextModel",),
    ("text_encoder/model.safetensors",), "architectures",
)  # fmt: skip
_TOKENIZER = Component(
    "transformers", "tokenizer/tokenizer_config.json", ("CLIPTokenizer", "CLIPTokenizerFast"),
    ("tokenizer/vocab.json", "tokenizer/merges.txt"), "tokenizer_class",
)  # fmt: skip
# Never opened here; the pipelines of others open them where the index names them.
OPTIONAL = {
    "safety_checker": Component(
        "stable_diffusion", "safety_checker/config.json", ("StableDiffusionSafetyChecker",),
        ("safety_checker/model.safetensors",),
    ),
    "feature_extractor": Component(
        "transformers", "feature_extractor/preprocessor_config.json",
        ("CLIPImageProcessor", "CLIPFeatureExtractor", "CLIPImageProcessorFast",
         "CLIPImageProcessorPil"),
    ),
    "image_encoder": Component(
        "transformers", "image_encoder/config.json", ("CLIPVisionModelWithProjection",),
        ("image_encoder/model.safetensors",),
    ),
}  # fmt: skip


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
    for path in sorted(there):
        if path.rsplit("/", 1)[-1] == _ADAPTER:  # where peft is, transformers follow it
            raise errors.InvalidConfigError(
                f"{path}: got an adapter, which names a model elsewhere; expected its weights "
                "merged into the model's"
            )
    components = _components(family, there)
    denoiser = "transformer" if "transformer" in components else "unet"
    index = _read_index(family, denoiser, there, read_json)
    configs = {}
    for name, component in components.items():
        _check_files(component, there, f"a {family} folder")
        configs[name] = _checked(component, read_json(component.config))
    if index:
        optional = {
            name: part for name, part in OPTIONAL.items() if index.get(name, _LEFT_OUT) != _LEFT_OUT
        }
        _check_entries(index, {**components, **optional}, configs)
        for name, part in optional.items():
            _check_files(part, there, f"a folder whose {INDEX} names {name}")
            _read_object(part.config, read_json(part.config))
    _check_schedule(configs["scheduler"])
    _check_side(components[denoiser].config, configs[denoiser])
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
    family: generation_specs.GenerativeFamily,
    denoiser: str,
    there: set[str],
    read_json: Callable[[str], Any],
) -> Mapping[str, Any]:
    if INDEX not in there:
        if family == "text_to_image" or denoiser == "transformer":
            raise errors.InvalidConfigError(f"{INDEX}: missing; a {family} folder needs it")
        return {}
    index = _read_object(INDEX, read_json(INDEX))
    expected = _pipelines(family, denoiser)
    if index.get("_class_name") not in expected:
        raise errors.InvalidConfigError(
            f"{INDEX}: got _class_name {_shown(index.get('_class_name'))}, expected "
            f"{' or '.join(expected)}: no other pipeline of {family} models with {denoiser}/ is "
            "supported"
        )
    return index


def _pipelines(family: generation_specs.GenerativeFamily, denoiser: str) -> tuple[str, ...]:
    if family == "text_to_image":
        return ("StableDiffusionPipeline",)
    return ("DiTPipeline",) if denoiser == "transformer" else ("DDPMPipeline", "DDIMPipeline")


def _check_files(component: Component, there: set[str], owner: str) -> None:
    for path in (component.config, *component.files):
        if path not in there:
            raise errors.InvalidConfigError(
                f"{path}: missing; {owner} needs it" + _hint(path, there)
            )


def _checked(component: Component, content: object) -> Mapping[str, Any]:
    config = _read_object(component.config, content)
    named = _class_of(component, config)
    if named not in component.classes:
        raise errors.InvalidConfigError(
            f"{component.config}: got class {_shown(named)}, "
            f"expected {' or '.join(component.classes)}"
        )
    return config


def _class_of(component: Component, config: Mapping[str, Any]) -> object:
    got = config.get(component.class_key)
    return got[0] if isinstance(got, list) and got else got


def _check_entries(
    index: Mapping[str, Any],
    parts: Mapping[str, Component],
    configs: Mapping[str, Mapping[str, Any]],
) -> None:
    """What a stock pipeline builds by this index is what the folder holds."""
    for name, part in parts.items():
        # By the other class's name a VAE opens without an error, and draws noise.
        classes = (configs[name]["_class_name"],) if name == "vae" else part.classes
        if index.get(name) not in [[part.library, kind] for kind in classes]:
            raise errors.InvalidConfigError(
                f"{INDEX}: got {name} {_shown(index.get(name))}, expected "
                f"{[part.library, ' or '.join(classes)]}"
            )
    for name, entry in index.items():
        if name not in parts and isinstance(entry, list) and entry != _LEFT_OUT:
            raise errors.InvalidConfigError(
                f"{INDEX}: got {name} {_shown(entry)}, expected no part of that name"
            )
    id2label = index.get("id2label")
    if id2label is not None and not _are_labels(id2label):
        raise errors.InvalidConfigError(
            f"{INDEX}: got id2label {_shown(id2label)}, expected names by class number"
        )


def _are_labels(id2label: object) -> bool:
    return isinstance(id2label, Mapping) and all(
        number.isdecimal() and isinstance(label, str) for number, label in id2label.items()
    )


def _read_object(path: str, content: object) -> Mapping[str, Any]:
    """A configuration that names no code, at no depth."""
    if not isinstance(content, Mapping):
        raise errors.InvalidConfigError(f"{path}: expected an object")
    inner: list[object] = [content]
    while inner:
        found = inner.pop()
        if isinstance(found, list):
            inner += found
        elif isinstance(found, Mapping):
            inner += found.values()
            for key, value in found.items():
                if _names_code(key, value):
                    raise errors.InvalidConfigError(
                        f"{path}: got {key}, which can name code; expected classes of diffusers "
                        "and transformers alone, as they are"
                    )
    return content


def _names_code(key: str, value: object) -> bool:
    if key.startswith(_OWN_ATTENTION):  # some versions wrote only whether they chose it themselves
        return not (value is None or isinstance(value, bool))
    return key in _CODE_KEYS and value is not None and value is not False


def _check_side(path: str, config: Mapping[str, Any]) -> None:
    side = config.get("sample_size")  # without one the class has its own
    if side is not None and not (type(side) is int and 1 <= side <= LARGEST_SIDE):
        raise errors.InvalidConfigError(
            f"{path}: got sample_size {_shown(side)}, expected one number from 1 to {LARGEST_SIDE}"
        )


def _check_schedule(config: Mapping[str, Any]) -> None:
    for key, allowed, default in (
        ("beta_schedule", _BETA_SCHEDULES, "linear"),
        ("prediction_type", _PREDICTIONS, "epsilon"),
    ):
        got = config.get(key, default)
        if got not in allowed:
            raise errors.InvalidConfigError(
                f"{_SCHEDULER.config}: got {key} {_shown(got)}, expected {' or '.join(allowed)}"
            )
    timesteps = config.get("num_train_timesteps", 1000)
    if not (type(timesteps) is int and 1 <= timesteps <= _MOST_TIMESTEPS):
        raise errors.InvalidConfigError(
            f"{_SCHEDULER.config}: got num_train_timesteps {_shown(timesteps)}, expected a number "
            f"from 1 to {_MOST_TIMESTEPS}"
        )


def _hint(path: str, there: set[str]) -> str:
    folder = path.split("/")[0]
    found = sorted(other for other in there if other.startswith(f"{folder}/"))
    return f" (the folder has {', '.join(found[:5])})" if found else f" ({folder}/ is empty)"


def _shown(value: object) -> str:
    return repr(value)[:80]
