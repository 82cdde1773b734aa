"""Open a diffusers folder: known classes only, safetensors only, nothing from a network.

Every net is built without memory first, and its tensors are compared with those of the file before
a weight is read. The parts that never change are opened by the libraries that wrote them.
"""

import functools
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import diffusers
import torch
import transformers

from salun_core import errors, generation_specs, layouts, weights
from salun_core.diffusion import (
    class_conditional,
    codec,
    generator,
    opening,
    text_to_image,
    trial,
)

_SHOWN = 5
_VAE_WEIGHTS = "vae/diffusion_pytorch_model.safetensors"
_TEXT_WEIGHTS = "text_encoder/model.safetensors"
_FEWEST_TOKENS = 3  # the first and the last mark where a text begins and ends


def open_generator(
    folder: Path,
    family: generation_specs.GenerativeFamily,
    label_names: Sequence[str] = (),
    device: torch.device | str = "cpu",
) -> generator.Generator:
    """The model of a folder, in float32, in eval mode.

    Args:
        folder: in diffusers' layout; files may be links.
        family: what it is registered as.
        label_names: of the classes, in the order of their embeddings, where the folder has no
            ``id2label``.
        device: where to put it.

    Raises:
        InvalidConfigError: a component is missing, not served, or its configuration is bad.
        UnsafeArtifactError: weights are not plain, whole safetensors.
        ArchitectureMismatchError: tensors do not fit the architecture.
    """
    paths = [str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()]
    layout = layouts.read(family, paths, lambda path: read_json(folder / path))
    scheduler_config = dict(layout.configs["scheduler"])
    trial.check_schedule(scheduler_config)
    denoiser = _denoiser(folder, layout).to(device)
    shared: dict[str, Any] = {
        "denoiser": denoiser,
        "weights_file": layout.weights_file,
        "scheduler_config": scheduler_config,
        "codec": _codec(folder, layout, denoiser, device),
    }
    where = layout.components[layout.denoiser].config
    if family == "text_to_image":
        tokenizer, text_encoder = _text(folder, device)
        made: generator.Generator = text_to_image.TextToImage(
            **shared, tokenizer=tokenizer, text_encoder=text_encoder
        )
        with opening.reading("tokenizer/", "gives nothing that text_encoder/ can be told"):
            made.null_condition()
    else:
        with opening.reading(where):
            classes, null_class = _classes(layout, denoiser, label_names)
        made = class_conditional.ClassConditional(**shared, classes=classes, null_class=null_class)
    trial.check_output(made, where)
    return made


def read_json(path: Path) -> Any:  # noqa: ANN401
    """The parsed file.

    Raises:
        InvalidConfigError: it is no JSON.
    """
    try:
        return json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise errors.InvalidConfigError(f"{path.name}: expected JSON, got {error}") from error


def _denoiser(folder: Path, layout: layouts.Layout) -> torch.nn.Module:
    config = layout.configs[layout.denoiser]
    name = str(layout.configs[layout.denoiser]["_class_name"])
    kind = "DiTTransformer2DModel" if layout.denoiser == "transformer" else name
    where = layout.components[layout.denoiser].config
    path = folder / layout.weights_file
    builder = getattr(diffusers, kind)
    with opening.reading(where, f"{name} cannot be built"):
        with torch.device("meta"):
            shapes = {
                k: tuple(v.shape) for k, v in builder.from_config(config).state_dict().items()
            }
        _check_shapes(layout.weights_file, weights.read_shapes(path), shapes)
        net = builder.from_config(config)
    net.load_state_dict({name: tensor.float() for name, tensor in weights.read(path).items()})
    opening.check_finite(layout.weights_file, net)
    frozen: torch.nn.Module = net.eval()
    return frozen


def _codec(
    folder: Path, layout: layouts.Layout, denoiser: torch.nn.Module, device: torch.device | str
) -> codec.Codec:
    config: Any = denoiser.config
    where = f"{layout.denoiser}/config.json"
    if not isinstance(config.sample_size, int):
        raise errors.InvalidConfigError(
            f"{where}: got sample_size {config.sample_size}, expected one number of pixels"
        )
    if "vae" not in layout.components:
        made: codec.Codec = codec.Pixels(config.in_channels, config.sample_size)
    else:
        kind = getattr(diffusers, str(layout.configs["vae"]["_class_name"]))
        plan = functools.partial(kind.from_config, layout.configs["vae"])
        vae = opening.frozen(kind, plan, folder / _VAE_WEIGHTS, low_cpu_mem_usage=False)
        if vae.config.latent_channels != config.in_channels:
            raise errors.InvalidConfigError(
                f"vae/config.json: got {vae.config.latent_channels} latent channels, the denoiser "
                f"takes {config.in_channels}"
            )
        with opening.reading("vae/config.json"):
            made = codec.Latents(vae.to(device), config.sample_size)
    if max(made.image_size) > layouts.LARGEST_SIDE:
        raise errors.InvalidConfigError(
            f"{where}: got sample_size {config.sample_size}, which makes pictures of "
            f"{made.image_size[1]} pixels a side, expected at most {layouts.LARGEST_SIDE}"
        )
    return made


def _text(folder: Path, device: torch.device | str) -> tuple[Any, torch.nn.Module]:
    transformers.utils.logging.disable_progress_bar()  # of tensors; it would fill the worker's log
    file = folder / _TEXT_WEIGHTS

    def plan() -> Any:  # noqa: ANN401
        return transformers.CLIPTextModel(
            transformers.CLIPTextConfig.from_pretrained(file.parent, local_files_only=True)
        )

    encoder = opening.frozen(
        transformers.CLIPTextModel, plan, file, attn_implementation="sdpa", dtype=torch.float32
    )
    with opening.reading("tokenizer/"):
        tokenizer = transformers.CLIPTokenizer.from_pretrained(
            folder / "tokenizer", local_files_only=True
        )
        largest = max(tokenizer.get_vocab().values())
        length = min(tokenizer.model_max_length, encoder.config.max_position_embeddings)
    if largest >= encoder.config.vocab_size:
        raise errors.InvalidConfigError(
            f"tokenizer/vocab.json: got token {largest}, the text encoder knows "
            f"{encoder.config.vocab_size}, from 0 on"
        )
    if length < _FEWEST_TOKENS:
        raise errors.InvalidConfigError(
            f"tokenizer/tokenizer_config.json: got texts of {length} tokens (model_max_length), "
            f"expected at least {_FEWEST_TOKENS}"
        )
    tokenizer.model_max_length = length
    return tokenizer, encoder.to(device)


def _classes(
    layout: layouts.Layout, denoiser: torch.nn.Module, label_names: Sequence[str]
) -> tuple[tuple[str, ...], int | None]:
    """Names by class number, and the null class."""
    config: Any = denoiser.config
    if layout.denoiser == "transformer":
        count, null_class = config.num_embeds_ada_norm, config.num_embeds_ada_norm
    elif config.num_class_embeds is None:
        raise errors.InvalidConfigError(
            "unet/config.json: got no num_class_embeds, expected an embedding for every class"
        )
    else:
        embeddings = int(config.num_class_embeds)
        null_class = embeddings - 1 if embeddings == len(label_names) + 1 else None
        count = embeddings - (null_class is not None)
    names = _names(layout.index.get("id2label"), count, label_names)
    if len(names) > count or not names:
        raise errors.InvalidConfigError(
            f"{layout.denoiser}/config.json: got {count} class embeddings for {len(names)} labels"
        )
    return names, null_class


def _names(id2label: Any, count: int, label_names: Sequence[str]) -> tuple[str, ...]:  # noqa: ANN401
    """DiT lists synonyms, ``"tench, Tinca tinca"``: a class has the name that the dataset uses."""
    if not isinstance(id2label, Mapping):
        return tuple(label_names)
    known = set(label_names)
    names = []
    for number in range(count):
        synonyms = [part.strip() for part in str(id2label.get(str(number), number)).split(",")]
        names.append(next((one for one in synonyms if one in known), synonyms[0]))
    return tuple(names)


def _check_shapes(
    name: str, got: Mapping[str, tuple[int, ...]], expected: Mapping[str, tuple[int, ...]]
) -> None:
    wrong = [
        f"{key}: got {got.get(key, 'nothing')}, expected {expected.get(key, 'nothing')}"
        for key in sorted(got.keys() | expected.keys())
        if got.get(key) != expected.get(key)
    ]
    if wrong:
        more = f" and {len(wrong) - _SHOWN} more" if len(wrong) > _SHOWN else ""
        raise errors.ArchitectureMismatchError(
            f"{name}: tensors do not fit: {'; '.join(wrong[:_SHOWN])}{more}"
        )
