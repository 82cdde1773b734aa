"""A denoiser of two weights, w₁ x + w₂ c, of which everything can be worked out by hand."""

import copy
from collections.abc import Sequence
from typing import Any

import torch

from salun_core.diffusion import data
from salun_core.diffusion.unlearn import contract

W1, W2 = 0.25, 0.5
WORDS = {"": 0.0, "one": 1.0, "two": 2.0}  # conditions


class Net(torch.nn.Module):
    """Two numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.w1 = torch.nn.Parameter(torch.tensor([W1]))
        self.w2 = torch.nn.Parameter(torch.tensor([W2]))


class TwoWeights:
    """A model of one pixel; what it is told is a number."""

    def __init__(self) -> None:
        self.denoiser: torch.nn.Module = Net()
        self.weights_file = "unet/diffusion_pytorch_model.safetensors"
        self.scheduler_config: dict[str, Any] = {"num_train_timesteps": 100, "clip_sample": False}
        self.image_size = self.latent_size = (1, 1, 1)
        self.frozen_parts: tuple[torch.nn.Module, ...] = ()

    def conditions(self, texts: Sequence[str]) -> torch.Tensor:
        return torch.tensor([WORDS[text] for text in texts])

    def null_condition(self) -> torch.Tensor:
        return self.conditions([""])

    def predict(
        self, noisy: torch.Tensor, timesteps: torch.Tensor, conditions: torch.Tensor
    ) -> torch.Tensor:
        net: Any = self.denoiser
        assert len(timesteps) == len(noisy) == len(conditions)
        return net.w1 * noisy + net.w2 * conditions.reshape(-1, 1, 1, 1)  # type: ignore[no-any-return]

    def encode(self, pictures: torch.Tensor) -> torch.Tensor:
        return pictures.float() / 127.5 - 1.0

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        return ((latents + 1.0) * 127.5).clamp(0.0, 255.0).to(torch.uint8)

    def with_denoiser(self, denoiser: torch.nn.Module) -> "TwoWeights":
        other = copy.copy(self)
        other.denoiser = denoiser
        return other


def encoded(generator: TwoWeights, text: str, latents: Sequence[float]) -> data.EncodedSet:
    """Samples of one text."""
    return data.EncodedSet(
        torch.tensor(latents).reshape(-1, 1, 1, 1),
        torch.zeros(len(latents), dtype=torch.int64),
        generator.conditions([text]),
        (text,),
    )


def two_becomes_one(generator: TwoWeights) -> contract.GenerationData:
    """ "two" is forgotten; "one" is kept and stands in for it."""
    forget = encoded(generator, "two", [0.8, -0.6, 0.1])
    retain = encoded(generator, "one", [-0.9, 0.3, 0.5, 0.7])
    return contract.GenerationData(
        forget=forget,
        retain=retain,
        stand_ins=data.EncodedSet(retain.latents, retain.rows, forget.table, forget.texts),
        anchors=generator.conditions(["one"]),
        choices=torch.tensor([[0]]),
        concepts=("two",),
    )
