import pytest
import torch

from salun_core import images, unseen


def some(prefix: str, *counts: int) -> images.ImageSet:
    """So many samples of class 0, 1, …"""
    labels = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))
    ids = tuple(f"{prefix}-{row}" for row in range(len(labels)))
    pictures = torch.zeros(len(labels), 1, 1, 1, dtype=torch.uint8)
    return images.ImageSet(pictures, labels, ids)


@pytest.mark.parametrize(
    ("holdout", "test", "labels", "pool", "crossed", "count", "least"),
    [
        ((50, 50, 9), (20, 20, 20), [0, 1, 0], "holdout", False, 109, 50),
        ((50, 49, 9), (20, 20, 20), [0, 1, 0], "holdout+test", True, 168, 69),
        ((50, 50, 9), (20, 20, 20), [2], "holdout+test", True, 169, 29),
        ((0, 0, 0), (20, 30, 20), [1], "test", True, 70, 30),
        ((9, 9, 9), (0, 0, 0), [1], "holdout", True, 27, 9),
        ((9, 9, 9), (20, 20, 0), [3], "holdout+test", True, 67, 0),
        ((9, 9, 9), (20, 20, 20), [], "holdout", False, 27, None),
        ((0, 0, 0), (20, 20, 20), [], "test", False, 60, None),
        ((0, 0, 0), (0, 0, 0), [1], "test", True, 0, 0),
    ],
)
def test_policy(
    holdout: tuple[int, ...],
    test: tuple[int, ...],
    labels: list[int],
    pool: str,
    crossed: bool,
    count: int,
    least: int | None,
) -> None:
    """A holdout set of 50 of every class to be matched serves alone; a class erased as a whole is
    matched to nothing.
    """
    wanted = torch.tensor(labels, dtype=torch.int64)
    found = unseen.choose(some("holdout", *holdout), some("test", *test), wanted)
    assert len(found.image_set) == count
    assert found.evidence() == {
        "pool": pool, "cross_fitted": crossed, "n": count, "n_per_class_min": least,
    }  # fmt: skip
