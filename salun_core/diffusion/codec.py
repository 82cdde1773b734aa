"""Between pictures and what is denoised: pixels as they are or folded, or a VAE's latents."""

from typing import Any, Protocol

import torch
from torch.nn import functional

from salun_core import errors, modes

_PIXELS_AT_ONCE = 2**20  # that a VAE works on: four pictures of 512x512 take about 3 GB
# Denoiser channels to (picture channels, fold): what a net without a VAE works on.
_FOLDS = {1: (1, 1), 3: (3, 1), 4: (1, 2), 12: (3, 2), 16: (1, 4), 48: (3, 4)}


class Codec(Protocol):
    """Pictures to latents and back."""

    image_size: tuple[int, int, int]
    nets: tuple[torch.nn.Module, ...]

    def encode(self, pictures: torch.Tensor) -> torch.Tensor:
        """uint8 (B, C, H, W) to float32 latents."""

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        """Latents to uint8 (B, C, H, W) on the CPU."""


class Pixels:
    """Pixels on a scale of -1 to 1; squares of them may lie in the channels (space to depth).

    A U-Net of 4 channels and side 8 without a VAE draws grey pictures of 16 × 16.

    Args:
        channels: of the denoiser.
        side: of the denoiser.

    Raises:
        InvalidConfigError: no picture has so many channels.
    """

    def __init__(self, channels: int, side: int) -> None:
        if channels not in _FOLDS:
            raise errors.InvalidConfigError(
                f"got a denoiser of {channels} channels without a VAE, expected "
                f"{', '.join(map(str, _FOLDS))} (grey or RGB pixels, folded by 1, 2 or 4)"
            )
        picture_channels, self._fold = _FOLDS[channels]
        self.image_size = (picture_channels, side * self._fold, side * self._fold)
        self.nets: tuple[torch.nn.Module, ...] = ()

    def encode(self, pictures: torch.Tensor) -> torch.Tensor:
        """uint8 (B, C, H, W) to float32 (B, C·fold², H/fold, W/fold)."""
        return functional.pixel_unshuffle(pictures.float() / 127.5 - 1.0, self._fold)

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        """The inverse, clipped, on the CPU."""
        return _to_bytes(functional.pixel_shuffle(latents.float(), self._fold))


class Latents:
    """The latents of a diffusers VAE, scaled as its config says; means, nothing is drawn.

    Args:
        vae: an ``AutoencoderKL`` or ``AutoencoderTiny``, in eval mode.
        side: of the denoiser.
    """

    def __init__(self, vae: Any, side: int) -> None:  # noqa: ANN401 - diffusers has no types
        self._vae = vae
        self._config = vae.config
        self.nets: tuple[torch.nn.Module, ...] = (vae,)
        for parameter in vae.parameters():
            parameter.requires_grad_(False)
        with torch.no_grad():
            latent = torch.zeros(1, self._config.latent_channels, side, side)
            shape = self._decoded(latent.to(self._device)).shape
        self.image_size = (int(shape[1]), int(shape[2]), int(shape[3]))

    @property
    def _device(self) -> torch.device:
        return modes.device_of(self._vae)

    @torch.no_grad()
    def encode(self, pictures: torch.Tensor) -> torch.Tensor:
        """uint8 (B, 3, H, W) to float32 latents."""
        return torch.cat([self._encoded(part) for part in pictures.split(self._at_once)])  # type: ignore[no-untyped-call]

    @torch.no_grad()
    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        """Latents to uint8 (B, 3, H, W), on the CPU."""
        parts = latents.split(self._at_once)  # type: ignore[no-untyped-call]
        return torch.cat([_to_bytes(self._decoded(part.to(self._device))) for part in parts])

    @property
    def _at_once(self) -> int:
        """How many pictures: their activations take a thousand times the room of their pixels."""
        _, height, width = self.image_size
        return max(1, _PIXELS_AT_ONCE // (height * width))

    def _encoded(self, pictures: torch.Tensor) -> torch.Tensor:
        encoded = self._vae.encode(pictures.to(self._device).float() / 127.5 - 1.0)
        found = encoded.latents if hasattr(encoded, "latents") else encoded.latent_dist.mode()
        latents: torch.Tensor = (found.float() - self._shift) * float(self._config.scaling_factor)
        return latents

    def _decoded(self, latents: torch.Tensor) -> torch.Tensor:
        unscaled = latents / float(self._config.scaling_factor) + self._shift
        decoded: torch.Tensor = self._vae.decode(unscaled).sample
        return decoded

    @property
    def _shift(self) -> float:
        return float(getattr(self._config, "shift_factor", None) or 0.0)


def _to_bytes(pixels: torch.Tensor) -> torch.Tensor:
    return ((pixels.float().clamp(-1.0, 1.0) + 1.0) * 127.5).round().to(torch.uint8).cpu()
