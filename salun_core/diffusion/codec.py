"""Between pictures and what is denoised: pixels as they are or folded, or a VAE's latents."""

import math
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

    Raises:
        InvalidConfigError: its scale is no number, or it makes latents of another size.
    """

    def __init__(self, vae: Any, side: int) -> None:  # noqa: ANN401 - diffusers has no types
        self._vae = vae
        self._scale = _number(vae.config, "scaling_factor")
        self._shift = _number(vae.config, "shift_factor", 0.0)
        if self._scale == 0.0:
            raise errors.InvalidConfigError("vae/config.json: got scaling_factor 0")
        self.nets: tuple[torch.nn.Module, ...] = (vae,)
        for parameter in vae.parameters():
            parameter.requires_grad_(False)
        self.image_size = _image_size(vae, side)

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
        found = _means(self._vae, pictures.to(self._device).float() / 127.5 - 1.0)
        latents: torch.Tensor = (found.float() - self._shift) * self._scale
        return latents

    def _decoded(self, latents: torch.Tensor) -> torch.Tensor:
        decoded: torch.Tensor = self._vae.decode(latents / self._scale + self._shift).sample
        return decoded


def _image_size(vae: Any, side: int) -> tuple[int, int, int]:  # noqa: ANN401
    """Of its pictures; of a net without memory, as a large one would take minutes to tell."""
    channels = vae.config.latent_channels
    with torch.device("meta"), torch.no_grad():
        net = type(vae).from_config(vae.config).eval()
        pictures = net.decode(torch.zeros(1, channels, side, side)).sample
        latents = _means(net, pictures)
    if latents.shape != (1, channels, side, side):
        raise errors.InvalidConfigError(
            f"vae/config.json: got latents of {tuple(latents.shape[1:])} for a picture of "
            f"{tuple(pictures.shape[1:])}, expected {(channels, side, side)}"
        )
    return (int(pictures.shape[1]), int(pictures.shape[2]), int(pictures.shape[3]))


def _means(vae: Any, pictures: torch.Tensor) -> torch.Tensor:  # noqa: ANN401
    encoded = vae.encode(pictures)
    found = encoded.latents if hasattr(encoded, "latents") else encoded.latent_dist.mode()
    return torch.as_tensor(found)


def _number(config: Any, key: str, default: float | None = None) -> float:  # noqa: ANN401
    value = getattr(config, key, None)
    value = default if value is None else value
    if not isinstance(value, int | float) or not math.isfinite(value):
        raise errors.InvalidConfigError(f"vae/config.json: got {key} {value}, expected a number")
    return float(value)


def _to_bytes(pixels: torch.Tensor) -> torch.Tensor:
    return ((pixels.float().clamp(-1.0, 1.0) + 1.0) * 127.5).round().to(torch.uint8).cpu()
