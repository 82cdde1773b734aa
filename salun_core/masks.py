"""Bit-packed masks: which weights of a net may change.

The formula is θu = m ⊙ θ + (1 − m) ⊙ θo (arXiv 2310.12508, section 4): where m is 0, the original
weight stays, bit for bit.
"""

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import get_args

import numpy as np
import torch

from salun_core import errors, randomness, specs

_KINDS: tuple[specs.MaskKind, ...] = get_args(specs.MaskKind)


@dataclasses.dataclass(frozen=True, eq=False)
class SaliencyMask:
    """One bit a weight, packed eight to a byte, for every parameter of a net.

    Attributes:
        kind: ``saliency``, ``random`` (the control of equal per-layer density), or ``none``: every
            weight of some parameters.
        bits: parameter name to uint8 (ceil(numel / 8),), most significant bit first.
        shapes: parameter name to shape.
        requested_density: share of all weights that was asked for.
        zero_share: share of all weights whose gradient was exactly 0; 0.0 for a random mask.
    """

    kind: specs.MaskKind
    bits: Mapping[str, np.ndarray]
    shapes: Mapping[str, tuple[int, ...]]
    requested_density: float
    zero_share: float

    @property
    def total(self) -> int:
        """Weights covered."""
        return sum(math.prod(shape) for shape in self.shapes.values())

    @property
    def salient_count(self) -> int:
        """Weights that may change."""
        return sum(_count(packed) for packed in self.bits.values())

    @property
    def density(self) -> float:
        """Share of all weights that may change; below what was asked for if gradients are 0."""
        return self.salient_count / self.total

    @property
    def layer_density(self) -> dict[str, float]:
        """Share of the weights that may change, for every parameter."""
        return {
            name: _count(packed) / math.prod(self.shapes[name])
            for name, packed in self.bits.items()
        }

    def layer(self, name: str) -> torch.Tensor:
        """The mask of one parameter: bool, of its shape, on the CPU; True where it may change."""
        shape = self.shapes[name]
        flat = np.unpackbits(self.bits[name], count=math.prod(shape)).view(np.bool_)
        return torch.from_numpy(flat).reshape(shape)

    def jaccard(self, other: "SaliencyMask") -> float:
        """Overlap |a ∩ b| / |a ∪ b| with a mask of the same net; 1.0 for two empty masks.

        Raises:
            InvalidDataError: the masks are of different nets.
        """
        if dict(self.shapes) != dict(other.shapes):
            raise errors.InvalidDataError("got masks of different nets, expected the same shapes")
        both = sum(_count(self.bits[name] & other.bits[name]) for name in self.bits)
        either = sum(_count(self.bits[name] | other.bits[name]) for name in self.bits)
        return both / either if either else 1.0

    def to_tensors(self) -> dict[str, torch.Tensor]:
        """The whole mask as tensors for one safetensors file."""
        tensors = {
            "mask.summary": torch.tensor(
                [self.requested_density, self.zero_share, float(_KINDS.index(self.kind))],
                dtype=torch.float64,
            )
        }
        for name, packed in self.bits.items():
            tensors[f"bits.{name}"] = torch.from_numpy(packed)
            tensors[f"shape.{name}"] = torch.tensor(self.shapes[name], dtype=torch.int64)
        return tensors

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, torch.Tensor]) -> "SaliencyMask":
        """The inverse of :meth:`to_tensors`.

        Raises:
            InvalidDataError: the tensors are not those of a mask.
        """
        if "mask.summary" not in tensors:
            raise errors.InvalidDataError("got tensors without mask.summary, expected a mask")
        requested, zero_share, kind = tensors["mask.summary"].tolist()
        names = [key.removeprefix("bits.") for key in tensors if key.startswith("bits.")]
        shapes = {name: tuple(tensors[f"shape.{name}"].tolist()) for name in names}
        bits = {name: tensors[f"bits.{name}"].cpu().numpy() for name in names}
        for name, shape in shapes.items():
            if bits[name].shape != (-(-math.prod(shape) // 8),):
                raise errors.InvalidDataError(f"got {bits[name].shape} bytes for {name} of {shape}")
        return cls(_KINDS[int(kind)], bits, shapes, requested, zero_share)


def pack(layer: torch.Tensor) -> np.ndarray:
    """A bool tensor of any shape and device as packed bits, uint8 (ceil(numel / 8),)."""
    return np.packbits(layer.reshape(-1).cpu().numpy())


def random_mask(like: SaliencyMask, seed: int) -> SaliencyMask:
    """The control: for every parameter as many weights as in ``like``, drawn at random."""
    bits = {}
    for name, packed in like.bits.items():
        size = math.prod(like.shapes[name])
        generator = randomness.generator(seed, "random_mask", name)
        flat = torch.zeros(size, dtype=torch.bool)
        flat[torch.randperm(size, generator=generator)[: _count(packed)]] = True
        bits[name] = pack(flat)
    return SaliencyMask("random", bits, dict(like.shapes), like.requested_density, 0.0)


def parameters_mask(net: torch.nn.Module, wanted: Callable[[str], bool]) -> SaliencyMask:
    """Every weight of the parameters whose name is wanted, and none of the others.

    Raises:
        InvalidDataError: no parameter is wanted.
    """
    bits = {
        name: pack(torch.full(parameter.shape, wanted(name)))
        for name, parameter in net.named_parameters()
    }
    shapes = {name: tuple(parameter.shape) for name, parameter in net.named_parameters()}
    mask = SaliencyMask("none", bits, shapes, 1.0, 0.0)
    if not mask.salient_count:
        raise errors.InvalidDataError("got a net without any parameter of the kind to be changed")
    return dataclasses.replace(mask, requested_density=mask.density)


def check_fits(mask: SaliencyMask, net: torch.nn.Module) -> None:
    """The mask has exactly the net's parameters.

    Raises:
        InvalidDataError: a name or shape differs.
    """
    shapes = {name: tuple(p.shape) for name, p in net.named_parameters()}
    if shapes != dict(mask.shapes):
        wrong = sorted(
            name
            for name in shapes.keys() | mask.shapes.keys()
            if shapes.get(name) != mask.shapes.get(name)
        )
        raise errors.InvalidDataError(
            f"got a mask of another net: {', '.join(wrong[:5])} differ in presence or shape"
        )


def _count(packed: np.ndarray) -> int:
    return int(np.bitwise_count(packed).sum(dtype=np.int64))
