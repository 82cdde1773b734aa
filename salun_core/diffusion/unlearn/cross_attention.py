"""Where a denoiser listens to a text: its cross-attention, and the places of words in it."""

from collections.abc import Sequence
from typing import Any

import torch

from salun_core import errors
from salun_core.diffusion import generator as generators
from salun_core.diffusion import text_to_image

_NAME = "attn2"  # what diffusers calls the second attention of a transformer block


def layers_of(generator: generators.Generator, method: str) -> dict[str, Any]:
    """The cross-attention modules of the denoiser, by name, in the net's order.

    Raises:
        InvalidDataError: it has none, as a class-conditional net.
    """
    named = generator.denoiser.named_modules()
    found = {name: module for name, module in named if name.rsplit(".", 1)[-1] == _NAME}
    if not found or not isinstance(generator, text_to_image.TextToImage):
        raise errors.InvalidDataError(
            f"got a net without cross-attention to a text for {method}, expected a text-to-image "
            "model"
        )
    return found


def places(
    generator: text_to_image.TextToImage, texts: Sequence[str], phrases: Sequence[str]
) -> torch.Tensor:
    """Where the tokens of any of the phrases stand, bool (N, length), on the CPU.

    A text that holds none of them asks for the concept as a whole: there all its words count.
    """
    tokens = generator.tokens(texts)
    special = torch.tensor(sorted(set(generator.tokenizer.all_special_ids)))
    marked = torch.zeros_like(tokens, dtype=torch.bool)
    for phrase in phrases:
        (padded,) = generator.tokens([phrase])
        wanted = padded[~torch.isin(padded, special)]
        if not len(wanted):
            continue
        windows = tokens.unfold(1, len(wanted), 1)  # (N, places, tokens of the phrase)
        starts = (windows == wanted).all(2)
        for offset in range(len(wanted)):
            marked[:, offset : offset + starts.shape[1]] |= starts
    words = ~torch.isin(tokens, special)
    return torch.where(marked.any(1, keepdim=True), marked, words)
