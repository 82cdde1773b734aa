"""Search for a prompt that brings back what was forgotten (after UnlearnDiffAtk, arXiv 2310.11868).

A few tokens are put before a prompt. The score of a candidate is the unlearned net's own denoising
loss on pictures of the concept under it: the net itself is the classifier. Theirs follows
gradients; this one draws candidates at random and then improves one token after the other.
"""

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Protocol

import torch

from salun_core import errors, randomness
from salun_core.diffusion import denoising
from salun_core.diffusion import generator as generators

_PREFIX = 3  # tokens
_CANDIDATES = 8  # scored at once
_EXPLORED = 4  # one in so many rounds draws all tokens at random


class TextGenerator(generators.Generator, Protocol):
    """A model that is told texts."""

    def tokens(self, texts: Sequence[str]) -> torch.Tensor:
        """Token ids, int64 (N, length)."""

    def embed(self, tokens: torch.Tensor) -> torch.Tensor:
        """Conditions of token ids (N, length)."""


@dataclasses.dataclass(frozen=True, eq=False)
class Found:
    """The best prompt of a search.

    Attributes:
        tokens: int64 (length,), the whole prompt.
        prefix: ids of the tokens that were put before it; none where the prompt alone is best.
        loss: its denoising loss.
        bare_loss: that of the prompt alone.
        evaluations: prompts that were scored.
    """

    tokens: torch.Tensor
    prefix: tuple[int, ...]
    loss: float
    bare_loss: float
    evaluations: int


def search(
    generator: TextGenerator,
    prompt: str,
    pictures: torch.Tensor,
    vocabulary: Sequence[int],
    budget: int,
    seed: int,
    after_step: Callable[[], None],
) -> Found:
    """The prefix under which the net denoises the pictures best.

    Args:
        generator: the unlearned model.
        prompt: what the prefix is put before.
        pictures: uint8 (M, C, H, W) of the concept; few are enough.
        vocabulary: token ids to choose from.
        budget: prompts that may be scored, the bare one not counted.
        seed: of candidates, time steps and noise, which are the same for every candidate.
        after_step: called :func:`count_steps` times.

    Raises:
        InvalidDataError: there is no picture or no token.
        CancelledError: from ``after_step``.
    """
    if not len(pictures) or not vocabulary:
        raise errors.InvalidDataError(
            f"got {len(pictures)} pictures and {len(vocabulary)} tokens, expected some of each"
        )
    random = randomness.generator(seed, "adversarial")
    score = _scorer(generator, pictures, randomness.generator(seed, "adversarial", "noise"))
    bare = generator.tokens([prompt])[0]
    allowed = torch.tensor(vocabulary, dtype=torch.int64)
    bare_loss = float(score(bare.unsqueeze(0))[0])
    nothing = torch.empty(0, dtype=torch.int64)
    prefix, loss, done = nothing, math.inf, 0
    while done < budget:
        count = min(_CANDIDATES, budget - done)
        turn = done // _CANDIDATES
        candidates = _candidates(prefix, allowed, count, turn, random)
        losses = score(torch.stack([_prefixed(bare, one) for one in candidates]))
        best = int(losses.argmin())
        if float(losses[best]) < loss:
            prefix, loss = candidates[best], float(losses[best])
        done += count
        after_step()
    if bare_loss <= loss:
        prefix, loss = nothing, bare_loss
    tokens = _prefixed(bare, prefix)
    return Found(tokens, tuple(prefix.tolist()), loss, bare_loss, done)


def count_steps(budget: int) -> int:
    """How often a search calls ``after_step``."""
    return -(-budget // _CANDIDATES)


def _candidates(
    prefix: torch.Tensor, allowed: torch.Tensor, count: int, turn: int, random: torch.Generator
) -> torch.Tensor:
    """int64 (count, 3): all tokens new, or the best prefix with one token exchanged."""
    drawn = allowed[torch.randint(0, len(allowed), (count, _PREFIX), generator=random)]
    if not len(prefix) or turn % _EXPLORED == 0:
        return drawn
    changed = prefix.repeat(count, 1)
    place = turn % _PREFIX
    changed[:, place] = drawn[:, place]
    return changed


def _prefixed(bare: torch.Tensor, prefix: torch.Tensor) -> torch.Tensor:
    """The prefix after the start token; what no longer fits is cut, the end token stays."""
    longer = torch.cat([bare[:1], prefix, bare[1:]])[: len(bare)]
    longer[-1] = bare[-1]
    return longer


def _scorer(
    generator: TextGenerator, pictures: torch.Tensor, random: torch.Generator
) -> Callable[[torch.Tensor], torch.Tensor]:
    """Token ids (C, length) to the mean denoising loss of each on the same noisy pictures."""
    noised = denoising.Schedule(generator).noise(generator.encode(pictures), random)
    count = len(pictures)

    @torch.no_grad()
    def score(tokens: torch.Tensor) -> torch.Tensor:
        conditions = generator.embed(tokens).repeat_interleave(count, dim=0)
        times = (len(tokens), *[1] * (noised.latents.ndim - 1))
        repeated = denoising.Noised(
            noised.latents.repeat(times),
            noised.timesteps.repeat(len(tokens)),
            noised.target.repeat(times),
        )
        losses = denoising.sample_losses(generator, repeated, conditions)
        return losses.reshape(len(tokens), count).mean(dim=1).cpu()

    return score
