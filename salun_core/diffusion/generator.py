"""What unlearning needs of a diffusion model, whatever its family and layout.

A *condition* is what the denoiser is told about the sample that it draws: a class number or the
embedding of a text. Conditions are asked for by text; for a class-conditional model the texts are
the names of its classes.
"""

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import torch

from salun_core import modes


class Generator(Protocol):
    """A loaded diffusion model.

    Attributes:
        denoiser: the net that unlearning changes, always in eval mode; nothing else changes.
        weights_file: where the denoiser's weights lie in the version's folder.
        scheduler_config: diffusers' configuration of the noise schedule that it was trained with.
        image_size: (channels, height, width) of the pictures that it draws.
        latent_size: (channels, height, width) of what it denoises.
    """

    denoiser: torch.nn.Module
    weights_file: str
    scheduler_config: dict[str, Any]

    @property
    def image_size(self) -> tuple[int, int, int]:
        """(channels, height, width) of a picture, in pixels."""

    @property
    def latent_size(self) -> tuple[int, int, int]:
        """(channels, height, width) of what is denoised."""

    @property
    def frozen_parts(self) -> Sequence[torch.nn.Module]:
        """The other nets: they make latents, pictures and conditions, and never change."""

    def conditions(self, texts: Sequence[str]) -> torch.Tensor:
        """The conditions of N texts, (N, ...), in main memory: there may be very many.

        Raises:
            InvalidDataError: a class-conditional model has no class of that name.
        """

    def null_condition(self) -> torch.Tensor:
        """The condition that says nothing, (1, ...): the other half of guidance.

        Raises:
            InvalidDataError: the model was trained without one.
        """

    def predict(
        self, noisy: torch.Tensor, timesteps: torch.Tensor, conditions: torch.Tensor
    ) -> torch.Tensor:
        """What the denoiser says of noisy latents, in the scheduler's ``prediction_type``.

        Args:
            noisy: (B, *latent_size).
            timesteps: int64 (B,).
            conditions: (B, ...), on any device.
        """

    def encode(self, pictures: torch.Tensor) -> torch.Tensor:
        """uint8 (B, *image_size) to float32 latents (B, *latent_size); no gradients."""

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        """The inverse, to uint8 on the CPU; no gradients."""

    def with_denoiser(self, denoiser: torch.nn.Module) -> "Generator":
        """The same model around another net of the same architecture; all else is shared."""


@contextlib.contextmanager
def denoiser_alone(generator: Generator) -> Iterator[None]:
    """Frozen parts wait in main memory: latents and conditions are made before steps are taken."""
    device = modes.device_of(generator.denoiser)
    for part in generator.frozen_parts:
        part.to("cpu")
    try:
        yield
    finally:
        for part in generator.frozen_parts:
            part.to(device)
