"""Build nets by name: timm, torchvision, or a Python entry point. Never from a network.

Entry points of the group ``salun.architectures`` are callables
``(num_classes: int, in_chans: int, **model_args) -> torch.nn.Module``.
"""

import importlib.metadata
import pathlib
from collections.abc import Callable, Mapping

import timm
import torch
import torchvision

from salun_core import errors, randomness, specs, weights

_SHOWN = 5  # differing tensors named in a message


def build(config: specs.ClassifierConfig) -> torch.nn.Module:
    """A randomly initialised net.

    Initialisation draws from torch's global state: seed it, or use
    :func:`salun_core.randomness.seeded`.

    Raises:
        UnknownArchitectureError: the library knows no such net.
        InvalidConfigError: the builder refuses ``model_args``.
    """
    builder = _BUILDERS[config.library](config)
    try:
        net = builder()
    except (TypeError, ValueError, RuntimeError, AssertionError, KeyError, IndexError) as error:
        raise errors.InvalidConfigError(
            f"config.json: {config.library} cannot build {config.architecture} with "
            f"model_args {dict(config.model_args)}: {error}"
        ) from error
    if not isinstance(net, torch.nn.Module):
        raise errors.InvalidConfigError(
            f"config.json: {config.architecture} gave {type(net).__name__}, expected a module"
        )
    return net


def check_tensors(config: specs.ClassifierConfig, shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Compare a file's tensors with the architecture's, without allocating a weight.

    Args:
        config: names the architecture.
        shapes: tensor name to shape, see :func:`salun_core.weights.read_shapes`.

    Raises:
        UnknownArchitectureError: the library knows no such net.
        InvalidConfigError: the builder refuses ``model_args``.
        ArchitectureMismatchError: names or shapes differ; the first few are named.
    """
    with torch.device("meta"):
        expected = {name: tuple(t.shape) for name, t in build(config).state_dict().items()}
    differences = [
        f"{name}: got {_describe(shapes.get(name))}, expected {_describe(expected.get(name))}"
        for name in [*expected, *sorted(shapes.keys() - expected.keys())]
        if shapes.get(name) != expected.get(name)
    ]
    if differences:
        more = f" and {len(differences) - _SHOWN} more" if len(differences) > _SHOWN else ""
        raise errors.ArchitectureMismatchError(
            f"tensors do not fit {config.architecture}: {'; '.join(differences[:_SHOWN])}{more}"
        )


def load(config: specs.ClassifierConfig, path: pathlib.Path) -> torch.nn.Module:
    """A net with the weights of a safetensors file, on the CPU, in eval mode.

    Raises:
        UnsafeArtifactError: the file is not plain, whole safetensors.
        UnknownArchitectureError, InvalidConfigError, ArchitectureMismatchError: as for
            :func:`check_tensors`; also where the net's output is not one logit per class.
    """
    check_tensors(config, weights.read_shapes(path))
    with randomness.seeded(0):
        net = build(config)
    net.load_state_dict(weights.read(path))
    net.eval()
    _check_output(config, net)
    return net


def _describe(shape: tuple[int, ...] | None) -> str:
    return "nothing" if shape is None else str(tuple(shape))


def _check_output(config: specs.ClassifierConfig, net: torch.nn.Module) -> None:
    expected = (1, config.num_classes)
    try:
        with torch.inference_mode():
            output = net(torch.zeros(1, *config.input_size))
    except (RuntimeError, ValueError, AssertionError) as error:
        raise errors.ArchitectureMismatchError(
            f"{config.architecture} refuses an input of {config.input_size}: {error}"
        ) from error
    got = tuple(output.shape) if isinstance(output, torch.Tensor) else type(output).__name__
    if got != expected:
        raise errors.ArchitectureMismatchError(
            f"{config.architecture} gave {got} for one image, expected logits of {expected}"
        )


def _timm(config: specs.ClassifierConfig) -> Callable[[], torch.nn.Module]:
    if not timm.is_model(config.architecture):
        raise errors.UnknownArchitectureError(
            f"got architecture {config.architecture!r}, expected a net that timm "
            f"{timm.__version__} knows"
        )
    args = {"in_chans": config.input_size[0], **config.builder_args}
    return lambda: timm.create_model(
        config.architecture, pretrained=False, num_classes=config.num_classes, **args
    )


def _torchvision(config: specs.ClassifierConfig) -> Callable[[], torch.nn.Module]:
    # Only classifiers: the bare list also has detectors and segmentation nets.
    if config.architecture not in torchvision.models.list_models(module=torchvision.models):
        raise errors.UnknownArchitectureError(
            f"got architecture {config.architecture!r}, expected a classifier that torchvision "
            f"{torchvision.__version__} knows"
        )
    builder = torchvision.models.get_model_builder(config.architecture)
    return lambda: builder(weights=None, num_classes=config.num_classes, **config.builder_args)


def _entry_point(config: specs.ClassifierConfig) -> Callable[[], torch.nn.Module]:
    found = importlib.metadata.entry_points(group="salun.architectures", name=config.architecture)
    if not found:
        raise errors.UnknownArchitectureError(
            f"got architecture {config.architecture!r}, expected an installed entry point of "
            "the group salun.architectures"
        )
    builder = next(iter(found)).load()
    args = {"in_chans": config.input_size[0], **config.builder_args}
    return lambda: builder(num_classes=config.num_classes, **args)


_BUILDERS: dict[str, Callable[[specs.ClassifierConfig], Callable[[], torch.nn.Module]]] = {
    "timm": _timm,
    "torchvision": _torchvision,
    "salun.architectures": _entry_point,
}
