"""Text-to-image diffusion in the layout of ``StableDiffusionPipeline``."""

import copy
import dataclasses
from collections.abc import Sequence
from typing import Any

import torch

from salun_core import modes
from salun_core.diffusion import codec

_ENCODED_AT_ONCE = 64


@dataclasses.dataclass
class TextToImage:
    """A denoiser that is told the embedding of a text.

    Attributes:
        denoiser: a ``UNet2DConditionModel``.
        tokenizer: a ``CLIPTokenizer``.
        text_encoder: a ``CLIPTextModel`` in eval mode; never changed.
    """

    denoiser: torch.nn.Module
    weights_file: str
    scheduler_config: dict[str, Any]
    codec: codec.Codec
    tokenizer: Any
    text_encoder: torch.nn.Module

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
        """Text encoder and VAE."""
        return (self.text_encoder, *self.codec.nets)

    def tokens(self, texts: Sequence[str]) -> torch.Tensor:
        """Token ids of N texts, padded and cut to the encoder's length, int64 (N, length)."""
        tokens: torch.Tensor = self.tokenizer(
            list(texts),
            padding="max_length",
            max_length=self.tokenizer.model_max_length,
            truncation=True,
            return_tensors="pt",
        ).input_ids
        return tokens

    def embed(self, tokens: torch.Tensor) -> torch.Tensor:
        """Embeddings of token ids (N, length), float32 (N, length, width), in main memory.

        No gradients.
        """
        device = modes.device_of(self.text_encoder)
        with torch.no_grad():
            parts = [
                self.text_encoder(part.to(device))[0].float().cpu()
                for part in torch.split(tokens, _ENCODED_AT_ONCE)
            ]
        return torch.cat(parts)

    def conditions(self, texts: Sequence[str]) -> torch.Tensor:
        """Text embeddings, float32 (N, length, width); equal texts are embedded once."""
        unique = sorted(set(texts))
        place = {text: row for row, text in enumerate(unique)}
        rows = [place[text] for text in texts]
        return self.embed(self.tokens(unique))[torch.tensor(rows)]

    def null_condition(self) -> torch.Tensor:
        """The embedding of the empty text."""
        return self.conditions([""])

    def predict(
        self, noisy: torch.Tensor, timesteps: torch.Tensor, conditions: torch.Tensor
    ) -> torch.Tensor:
        """(B, *latent_size)."""
        predicted: torch.Tensor = self.denoiser(
            noisy, timesteps, encoder_hidden_states=conditions.to(noisy.device)
        ).sample
        return predicted

    def encode(self, pictures: torch.Tensor) -> torch.Tensor:
        """uint8 pictures to latents."""
        return self.codec.encode(pictures).to(modes.device_of(self.denoiser))

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        """Latents to uint8 pictures on the CPU."""
        return self.codec.decode(latents)

    def with_denoiser(self, denoiser: torch.nn.Module) -> "TextToImage":
        """The same around another net."""
        other = copy.copy(self)
        other.denoiser = denoiser
        return other
