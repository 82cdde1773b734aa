"""Open a diffusers folder: known classes only, safetensors only, nothing from a network.

The denoiser is built from its configuration and its tensors are compared with the architecture
before a weight is read; the parts that never change are opened by the libraries that wrote them.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import diffusers
import torch
import transformers

from salun_core import errors, generation_specs, layouts, weights
from salun_core.diffusion import class_conditional, codec, generator, text_to_image

_SHOWN = 5
_UNREADABLE = (OSError, ValueError, TypeError, KeyError, RuntimeError, AttributeError)


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
    check_schedule(scheduler_config)
    denoiser = _denoiser(folder, layout).to(device)
    shared: dict[str, Any] = {
        "denoiser": denoiser,
        "weights_file": layout.weights_file,
        "scheduler_config": scheduler_config,
        "codec": _codec(folder, layout, denoiser, device),
    }
    if family == "text_to_image":
        tokenizer, text_encoder = _text(folder, device)
        made: generator.Generator = text_to_image.TextToImage(
            **shared, tokenizer=tokenizer, text_encoder=text_encoder
        )
    else:
        classes, null_class = _classes(layout, denoiser, label_names)
        made = class_conditional.ClassConditional(**shared, classes=classes, null_class=null_class)
    _check_output(made)
    return made


def check_schedule(config: Mapping[str, Any]) -> None:
    """The configuration makes a noise schedule.

    Raises:
        InvalidConfigError: it does not.
    """
    try:
        schedule = diffusers.DDIMScheduler.from_config(dict(config))
        finite = bool(torch.isfinite(schedule.alphas_cumprod).all())
    except _UNREADABLE as error:
        raise errors.InvalidConfigError(f"scheduler/scheduler_config.json: {error}") from error
    if not finite:
        raise errors.InvalidConfigError("scheduler/scheduler_config.json: betas are not finite")


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
    try:
        with torch.device("meta"):
            shapes = {
                k: tuple(v.shape) for k, v in builder.from_config(config).state_dict().items()
            }
        _check_shapes(layout.weights_file, weights.read_shapes(path), shapes)
        net = builder.from_config(config)
    except _UNREADABLE as error:
        raise errors.InvalidConfigError(f"{where}: {name} cannot be built: {error}") from error
    net.load_state_dict({name: tensor.float() for name, tensor in weights.read(path).items()})
    _check_finite(layout.weights_file, net)
    frozen: torch.nn.Module = net.eval()
    return frozen


def _codec(
    folder: Path, layout: layouts.Layout, denoiser: torch.nn.Module, device: torch.device | str
) -> codec.Codec:
    config: Any = denoiser.config
    if not isinstance(config.sample_size, int):
        raise errors.InvalidConfigError(
            f"{layout.denoiser}/config.json: got sample_size {config.sample_size}, expected one "
            "number of pixels"
        )
    if "vae" not in layout.components:
        return codec.Pixels(config.in_channels, config.sample_size)
    kind = getattr(diffusers, str(layout.configs["vae"]["_class_name"]))
    vae = _opened(kind, folder / "vae", "vae", low_cpu_mem_usage=False)
    if vae.config.latent_channels != config.in_channels:
        raise errors.InvalidConfigError(
            f"vae/config.json: got {vae.config.latent_channels} latent channels, the denoiser "
            f"takes {config.in_channels}"
        )
    return codec.Latents(vae.to(device), config.sample_size)


def _text(folder: Path, device: torch.device | str) -> tuple[Any, torch.nn.Module]:
    weights.read_shapes(folder / "text_encoder/model.safetensors")
    transformers.utils.logging.disable_progress_bar()  # of tensors; it would fill the worker's log
    encoder = _opened(transformers.CLIPTextModel, folder / "text_encoder", "text_encoder")
    try:
        tokenizer = transformers.CLIPTokenizer.from_pretrained(
            folder / "tokenizer", local_files_only=True
        )
    except _UNREADABLE as error:
        raise errors.InvalidConfigError(f"tokenizer/: cannot be opened: {error}") from error
    if len(tokenizer) > encoder.config.vocab_size:
        raise errors.InvalidConfigError(
            f"tokenizer/vocab.json: got {len(tokenizer)} tokens, the text encoder knows "
            f"{encoder.config.vocab_size}"
        )
    tokenizer.model_max_length = min(
        tokenizer.model_max_length, encoder.config.max_position_embeddings
    )
    return tokenizer, encoder.to(device)


def _opened(kind: Any, folder: Path, name: str, **more: bool) -> Any:  # noqa: ANN401
    """A part that never changes, by its own library, with every tensor in its place."""
    for path in folder.glob("*.safetensors"):
        weights.read_shapes(path)
    try:
        part, found = kind.from_pretrained(
            folder,
            use_safetensors=True,
            local_files_only=True,
            output_loading_info=True,
            **more,
        )
    except _UNREADABLE as error:
        raise errors.InvalidConfigError(f"{name}/: cannot be opened: {error}") from error
    wrong = [*found["missing_keys"], *map(str, found.get("mismatched_keys", ()))]
    if wrong:
        raise errors.ArchitectureMismatchError(
            f"{name}/: tensors missing or of another shape: {', '.join(sorted(wrong)[:_SHOWN])}"
        )
    opened = part.float().eval()
    _check_finite(name, opened)
    return opened


def _check_finite(name: str, net: torch.nn.Module) -> None:
    for tensor_name, tensor in net.state_dict().items():
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            raise errors.ArchitectureMismatchError(
                f"{name}: {tensor_name} holds NaN or infinity, expected finite weights"
            )


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


@torch.no_grad()
def _check_output(made: generator.Generator) -> None:
    """One small forward pass: the parts fit each other."""
    texts = [made.classes[0]] if isinstance(made, class_conditional.ClassConditional) else [""]
    device = next(made.denoiser.parameters()).device
    noisy = torch.zeros(1, *made.latent_size, device=device)
    try:
        predicted = made.predict(
            noisy, torch.zeros(1, dtype=torch.int64, device=device), made.conditions(texts)
        )
    except _UNREADABLE as error:
        raise errors.ArchitectureMismatchError(f"the parts do not fit: {error}") from error
    if predicted.shape != noisy.shape:
        raise errors.ArchitectureMismatchError(
            f"the denoiser gave {tuple(predicted.shape)}, expected {tuple(noisy.shape)}"
        )
