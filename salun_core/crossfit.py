"""Cross-fitting: unseen data that is both target and judge, but never both for one sample.

Erased and unseen samples are dealt into two folds. An erased sample of fold k takes its target from
unseen samples of fold k and is compared with those of the other fold, so all unseen data serves
both ends. What stands in a report is :func:`surest`, because a mean alone would see nothing: by
as much as one fold's targets lie above the other's judges, the other's lie below the first's.
"""

import dataclasses
import hashlib
import math
from collections.abc import Sequence

import torch

from salun_core import images, specs

FOLDS = (0, 1)
# Whoever looks three times finds more by chance. A fold that is to stand for itself has its error
# widened (one in sixty on one side, not one in twenty: 2.13 / specs.Z) and needs some samples: with
# fewer, standard errors are guesses, and chance in who was forgotten outweighs that in the targets.
_WIDENED = 1.3
LEAST = 20


def folds(image_set: images.ImageSet) -> torch.Tensor:
    """The fold of every unseen sample, int64 (N,): alternating in its class by the id's SHA-256.

    It depends on ids and labels only, not on their order or on other classes, but it does depend
    on who else of the class is in the pool. Both folds hold half of each class; odd classes begin
    with fold 1, so that single samples of many classes do not all fall to one.
    """
    digests = [_digest(sample_id) for sample_id in image_set.ids]
    labels = image_set.labels.tolist()
    turn = {label: label % 2 for label in labels}
    found = torch.empty(len(labels), dtype=torch.int64)
    for row in sorted(range(len(labels)), key=digests.__getitem__):
        found[row] = turn[labels[row]]
        turn[labels[row]] ^= 1
    return found


def folds_in(image_set: images.ImageSet, pool: images.ImageSet) -> torch.Tensor:
    """The folds that these samples have in a pool, int64 (N,); −1 for who is not in it."""
    known = dict(zip(pool.ids, folds(pool).tolist(), strict=True))
    found = [known.get(sample_id, -1) for sample_id in image_set.ids]
    return torch.tensor(found, dtype=torch.int64)


def erased_folds(image_set: images.ImageSet) -> torch.Tensor:
    """The fold of every erased sample, int64 (N,): the last bit of the SHA-256 of its own id.

    So it is the same in every job, whatever else is erased then or was before: what a sample was
    matched to never judges it later.
    """
    found = [_digest(sample_id)[-1] % 2 for sample_id in image_set.ids]
    return torch.tensor(found, dtype=torch.int64)


@dataclasses.dataclass(frozen=True)
class Compared:
    """One comparison of erased with unseen samples.

    Attributes:
        value: of the erased samples.
        target: of the unseen ones.
        standard_error: of ``value - target``.
        n: erased samples compared.
        n_unseen: unseen samples compared.
    """

    value: float
    target: float
    standard_error: float
    n: int
    n_unseen: int


def mean(found: Sequence[Compared]) -> Compared:
    """All comparisons of disjoint samples together, each weighed by its erased samples."""
    total = sum(one.n for one in found)
    shares = [one.n / total for one in found]
    return Compared(
        value=math.fsum(share * one.value for share, one in zip(shares, found, strict=True)),
        target=math.fsum(share * one.target for share, one in zip(shares, found, strict=True)),
        standard_error=math.hypot(
            *(share * one.standard_error for share, one in zip(shares, found, strict=True))
        ),
        n=total,
        n_unseen=sum(one.n_unseen for one in found),
    )


def surest(found: Sequence[Compared], side: specs.Side = "both") -> Compared:
    """Of the folds' comparisons and their mean the one that misses most beyond its sampling error.

    A leak that both folds share shows best in the mean, targets that were a matter of chance show
    in a fold. A fold counts for itself from 20 erased samples on, with 1.3 times its error.

    Args:
        found: one comparison or more.
        side: which misses count.
    """
    if len(found) == 1:
        return found[0]
    alone = [
        dataclasses.replace(one, standard_error=_WIDENED * one.standard_error)
        for one in found
        if one.n >= LEAST
    ]
    return max(
        [mean(found), *alone],
        key=lambda one: specs.miss(one.value - one.target, side) - specs.Z * one.standard_error,
    )


def _digest(sample_id: str) -> bytes:
    return hashlib.sha256(sample_id.encode()).digest()
