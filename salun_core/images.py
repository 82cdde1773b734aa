"""Sets of labelled images, and the order in which they are read.

Sets share one array of pictures and hold positions in it, so subsets and unions of them copy
nothing; the array may be mapped from a file. Only the batch that is worked on is in memory twice.
"""

import dataclasses
import itertools
from collections.abc import Iterator, Sequence

import torch

from salun_core import errors, randomness


@dataclasses.dataclass(frozen=True, eq=False)
class Pictures:
    """Some pictures of a shared array, in an order of their own.

    Attributes:
        shared: uint8 (M, C, H, W), on the CPU, perhaps mapped from a file; never written to.
        rows: int64 (N,), positions in it.
    """

    shared: torch.Tensor
    rows: torch.Tensor

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: torch.Tensor | slice | int) -> torch.Tensor:
        """A copy of the pictures at these of the N places, uint8 (B, C, H, W) or (C, H, W)."""
        return self.shared[self.rows[index]]

    @property
    def shape(self) -> tuple[int, ...]:
        """(N, C, H, W)."""
        return (len(self.rows), *self.shared.shape[1:])

    def select(self, index: torch.Tensor) -> "Pictures":
        """Those at these places, nothing copied."""
        return Pictures(self.shared, self.rows[index])


@dataclasses.dataclass(frozen=True, eq=False, init=False)
class ImageSet:
    """Images as the net's transform leaves them, before normalisation.

    Attributes:
        images: uint8 (N, C, H, W), on the CPU; ``images[rows]`` is a tensor of some.
        labels: int64 (N,), class numbers.
        ids: N sample ids, all different.

    Raises:
        InvalidDataError: the parts do not fit each other.
    """

    images: Pictures
    labels: torch.Tensor
    ids: tuple[str, ...]

    def __init__(
        self, images: torch.Tensor | Pictures, labels: torch.Tensor, ids: tuple[str, ...]
    ) -> None:
        if isinstance(images, torch.Tensor):
            images = Pictures(images, torch.arange(len(images)))
        object.__setattr__(self, "images", images)
        object.__setattr__(self, "labels", labels)
        object.__setattr__(self, "ids", ids)
        self._check()

    def _check(self) -> None:
        if self.images.shared.dtype != torch.uint8 or self.images.shared.ndim != 4:
            raise errors.InvalidDataError(
                f"got images {self.images.shared.dtype} {self.images.shape}, "
                "expected uint8 (N, C, H, W)"
            )
        count = len(self.ids)
        if self.labels.dtype != torch.int64 or self.labels.shape != (count,):
            raise errors.InvalidDataError(
                f"got labels {self.labels.dtype} {tuple(self.labels.shape)}, "
                f"expected int64 ({count},)"
            )
        if len(self.images) != count:
            raise errors.InvalidDataError(f"got {len(self.images)} images for {count} ids")
        if len(set(self.ids)) != count:
            raise errors.InvalidDataError("got an id twice, expected distinct ids")

    def __len__(self) -> int:
        return len(self.ids)

    def subset(self, indices: Sequence[int]) -> "ImageSet":
        """The samples at these positions, in this order."""
        index = torch.as_tensor(list(indices), dtype=torch.int64)
        return ImageSet(
            self.images.select(index), self.labels[index], tuple(self.ids[i] for i in indices)
        )

    def without_labels(self, labels: Sequence[int]) -> "ImageSet":
        """The samples of all other classes, order kept."""
        if not labels:
            return self
        kept = ~torch.isin(self.labels, torch.as_tensor(list(labels), dtype=torch.int64))
        return self.subset(kept.nonzero().flatten().tolist())

    def sorted_by_id(self) -> "ImageSet":
        """The same samples in an order that does not depend on how they were asked for."""
        return self.subset(sorted(range(len(self)), key=lambda i: self.ids[i]))


def concatenate(first: ImageSet, second: ImageSet) -> ImageSet:
    """Both sets, one after the other; copied only if they do not share their pictures.

    Raises:
        InvalidDataError: image sizes differ or an id is in both.
    """
    if first.images.shape[1:] != second.images.shape[1:]:
        raise errors.InvalidDataError(
            f"got images of {second.images.shape[1:]}, expected {first.images.shape[1:]}"
        )
    if first.images.shared is second.images.shared:
        rows = torch.cat([first.images.rows, second.images.rows])
        pictures = Pictures(first.images.shared, rows)
    else:
        copied = torch.cat([first.images[:], second.images[:]])
        pictures = Pictures(copied, torch.arange(len(copied)))
    return ImageSet(
        pictures,
        torch.cat([first.labels, second.labels]),
        first.ids + second.ids,
    )


def check_labels(image_set: ImageSet, num_classes: int) -> None:
    """Every label is a class of the net.

    Raises:
        InvalidDataError: naming the first sample whose label is not.
    """
    bad = ((image_set.labels < 0) | (image_set.labels >= num_classes)).nonzero().flatten()
    if len(bad):
        first = int(bad[0])
        raise errors.InvalidDataError(
            f"sample {image_set.ids[first]!r}: got label {int(image_set.labels[first])}, "
            f"expected 0 to {num_classes - 1}"
        )


def shuffled_batches(
    count: int, batch_size: int, seed: int, *purpose: str | int
) -> Iterator[torch.Tensor]:
    """Positions 0..count-1 in a seeded order, int64, in batches of nearly equal size.

    Equal, because a short last batch would weigh more and, with one row, break batch norm.
    """
    order = torch.randperm(count, generator=randomness.generator(seed, *purpose))
    yield from order.tensor_split(max(1, -(-count // batch_size)))


def endless_batches(
    count: int, batch_size: int, seed: int, *purpose: str | int
) -> Iterator[torch.Tensor]:
    """:func:`shuffled_batches` again and again, every time in another order."""
    for turn in itertools.count():
        yield from shuffled_batches(count, batch_size, seed, *purpose, turn)
