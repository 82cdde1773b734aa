"""Pictures with texts, and what a denoiser is trained on: latents and conditions, made once."""

import dataclasses
from collections.abc import Sequence

import torch

from salun_core import errors, images, progress
from salun_core.diffusion import generator as generators

_AT_ONCE = 64


@dataclasses.dataclass(frozen=True, eq=False)
class CaptionedSet:
    """Pictures, each with the text that the model is asked for it by.

    Attributes:
        pictures: uint8 (N, C, H, W) of the model's image size.
        texts: N captions, or names of classes.
        ids: N sample ids.

    Raises:
        InvalidDataError: the parts do not fit each other.
    """

    pictures: images.Pictures
    texts: tuple[str, ...]
    ids: tuple[str, ...]

    def __post_init__(self) -> None:
        if not len(self.pictures) == len(self.texts) == len(self.ids):
            raise errors.InvalidDataError(
                f"got {len(self.pictures)} pictures, {len(self.texts)} texts and "
                f"{len(self.ids)} ids, expected as many of each"
            )

    def __len__(self) -> int:
        return len(self.ids)

    def subset(self, indices: Sequence[int]) -> "CaptionedSet":
        """The samples at these positions, in this order; nothing is copied."""
        return CaptionedSet(
            self.pictures.select(torch.as_tensor(list(indices), dtype=torch.int64)),
            tuple(self.texts[i] for i in indices),
            tuple(self.ids[i] for i in indices),
        )

    def some(self, most: int, random: torch.Generator) -> "CaptionedSet":
        """All samples, or where there are more so many of them, drawn at random, in their order."""
        if len(self) <= most:
            return self
        return self.subset(
            torch.randperm(len(self), generator=random)[:most].sort().values.tolist()
        )


@dataclasses.dataclass(frozen=True, eq=False)
class EncodedSet:
    """What a denoiser is trained on. Equal texts share one condition.

    Attributes:
        latents: float32 (N, ...), in main memory, as all else.
        rows: int64 (N,), which condition each sample has.
        table: (K, ...), the conditions of ``texts``.
        texts: K different texts.
    """

    latents: torch.Tensor
    rows: torch.Tensor
    table: torch.Tensor
    texts: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.latents)

    def conditions(self, index: torch.Tensor) -> torch.Tensor:
        """The conditions of the samples at these positions, (B, ...)."""
        return self.table[self.rows[index]]


def encode(
    generator: generators.Generator,
    captioned: CaptionedSet,
    report: progress.Progress = progress.silent,
) -> EncodedSet:
    """Latents and conditions of a set, each computed once.

    Raises:
        InvalidDataError: the set is empty, or a text is no condition of the model.
        CancelledError: from ``report``.
    """
    if not len(captioned):
        raise errors.InvalidDataError("got an empty set, expected samples")
    texts = tuple(sorted(set(captioned.texts)))
    place = {text: row for row, text in enumerate(texts)}
    parts = []
    for start in range(0, len(captioned), _AT_ONCE):
        pictures = captioned.pictures[start : start + _AT_ONCE]
        parts.append(generator.encode(pictures).float().cpu())
        report(min(start + _AT_ONCE, len(captioned)), len(captioned))
    return EncodedSet(
        torch.cat(parts),
        torch.tensor([place[text] for text in captioned.texts], dtype=torch.int64),
        generator.conditions(texts),
        texts,
    )
