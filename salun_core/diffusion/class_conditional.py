"""Class-conditional diffusion: ``UNet2DModel`` with class embeddings, and DiT."""

import copy
import dataclasses
from collections.abc import Sequence
from typing import Any

import torch

from salun_core import errors, modes
from salun_core.diffusion import codec


@dataclasses.dataclass
class ClassConditional:
    """A denoiser that is told a class number.

    Attributes:
        denoiser: a ``UNet2DModel`` or ``DiTTransformer2DModel``.
        classes: names of the classes by number.
        null_class: the number that says nothing; ``None`` if the net has none.
    """

    denoiser: torch.nn.Module
    weights_file: str
    scheduler_config: dict[str, Any]
    codec: codec.Codec
    classes: tuple[str, ...]
    null_class: int | None

    @property
    def image_size(self) -> tuple[int, int, int]:
        """(channels, height, width) of a picture."""
        return self.codec.image_size

    @property
    def latent_size(self) -> tuple[int, int, int]:
        """(channels, height, width) of what is denoised."""
        config: Any = self.denoiser.config
        return (config.in_channels, config.sample_size, config.sample_size)

    @property
    def frozen_parts(self) -> tuple[torch.nn.Module, ...]:
        """The VAE, where there is one."""
        return self.codec.nets

    def conditions(self, texts: Sequence[str]) -> torch.Tensor:
        """Class numbers, int64 (N,)."""
        unknown = sorted(set(texts) - set(self.classes))
        if unknown:
            raise errors.InvalidDataError(
                f"got class {unknown[0]!r}, expected one of {', '.join(self.classes[:20])}"
            )
        numbers = [self.classes.index(text) for text in texts]
        return torch.tensor(numbers, dtype=torch.int64)

    def null_condition(self) -> torch.Tensor:
        """The null class, int64 (1,)."""
        if self.null_class is None:
            raise errors.InvalidDataError(
                "got a model without a null class, expected one more class embedding than classes"
            )
        return torch.tensor([self.null_class], dtype=torch.int64)

    def predict(
        self, noisy: torch.Tensor, timesteps: torch.Tensor, conditions: torch.Tensor
    ) -> torch.Tensor:
        """(B, *latent_size); what a net says of its own variance is left out."""
        told = conditions.to(noisy.device)
        predicted: torch.Tensor = self.denoiser(noisy, timesteps, class_labels=told).sample
        return predicted[:, : noisy.shape[1]]

    def encode(self, pictures: torch.Tensor) -> torch.Tensor:
        """uint8 pictures to latents."""
        return self.codec.encode(pictures.to(modes.device_of(self.denoiser)))

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        """Latents to uint8 pictures on the CPU."""
        return self.codec.decode(latents)

    def with_denoiser(self, denoiser: torch.nn.Module) -> "ClassConditional":
        """The same around another net."""
        other = copy.copy(self)
        other.denoiser = denoiser
        return other
