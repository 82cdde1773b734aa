"""Open a part of a folder by the library that wrote it, and say which part is wrong."""

import collections
import contextlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from salun_core import errors, weights

_SHOWN = 5


@contextlib.contextmanager
def reading(part: str, told: str = "cannot be opened") -> Iterator[None]:
    """Whatever a library raises of a part of the folder says that the part is wrong.

    The library's error is the cause of ours: by it a caller tells that only memory was short.

    Raises:
        InvalidConfigError: starts with the part.
    """
    try:
        yield
    except errors.SalunError:
        raise
    except Exception as error:  # they raise errors of any type, bare ones too
        said = str(error) or type(error).__name__
        raise errors.InvalidConfigError(f"{part}: {told}: {said}") from error


def frozen(
    kind: Any,  # noqa: ANN401
    plan: Callable[[], Any],
    file: Path,
    **more: object,
) -> Any:  # noqa: ANN401
    """A part that never changes, by its own library, with every tensor in its place.

    ``plan`` builds the net of its configuration; what the file has no tensors for is never made.

    Raises:
        InvalidConfigError: the library cannot open it.
        UnsafeArtifactError: weights are not plain, whole safetensors.
        ArchitectureMismatchError: tensors do not fit the configuration.
    """
    name = file.parent.name
    for path in file.parent.glob("*.safetensors"):
        weights.read_shapes(path)
    with reading(f"{name}/"):
        with torch.device("meta"):
            expected = plan().state_dict()
        wrong = _without_a_tensor(expected, weights.read_shapes(file))
        if not wrong:
            part, found = kind.from_pretrained(
                file.parent,
                use_safetensors=True,
                local_files_only=True,
                output_loading_info=True,
                **more,
            )
            wrong = [*found["missing_keys"], *map(str, found.get("mismatched_keys", ()))]
    if wrong:
        raise errors.ArchitectureMismatchError(
            f"{name}/: tensors missing or of another shape: {', '.join(sorted(wrong)[:_SHOWN])}"
        )
    opened = part.float().eval()
    check_finite(name, opened)
    return opened


def check_finite(name: str, net: torch.nn.Module) -> None:
    """Weights are numbers; raises :class:`errors.ArchitectureMismatchError`."""
    for tensor_name, tensor in net.state_dict().items():
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            raise errors.ArchitectureMismatchError(
                f"{name}: {tensor_name} holds NaN or infinity, expected finite weights"
            )


def _without_a_tensor(
    expected: Mapping[str, torch.Tensor], there: Mapping[str, tuple[int, ...]]
) -> list[str]:
    """Tensors of which a file has none of that shape; names alone change between versions."""
    left = collections.Counter(there.values())
    wrong = []
    for name, tensor in expected.items():
        shape = tuple(tensor.shape)
        left[shape] -= 1
        if left[shape] < 0:
            wrong.append(f"{name} {shape}")
    return wrong
