import pytest
import torch

from salun_core import errors
from salun_core.unlearn import random_label


def test_never_the_true_class_nor_a_refused_one_and_all_others_alike() -> None:
    """6,000 draws over 5 − 2 − (own) classes: shares within 4 standard errors of uniform."""
    labels = torch.arange(6000) % 5
    drawn = random_label.wrong_labels(labels, 5, (3,), seed=0, epoch=1)
    assert not bool((drawn == labels).any())
    assert not bool((drawn == 3).any())
    for label in range(5):
        counts = torch.bincount(drawn[labels == label], minlength=5)
        allowed = [c for c in range(5) if c not in (label, 3)]
        for other in allowed:
            assert counts[other].item() / 1200 == pytest.approx(1 / len(allowed), abs=0.06)


def test_seed_and_epoch_decide() -> None:
    labels = torch.arange(100) % 5
    first = random_label.wrong_labels(labels, 5, (), 7, 0)
    assert torch.equal(first, random_label.wrong_labels(labels, 5, (), 7, 0))
    assert not torch.equal(first, random_label.wrong_labels(labels, 5, (), 7, 1))
    assert not torch.equal(first, random_label.wrong_labels(labels, 5, (), 8, 0))


def test_no_class_left() -> None:
    with pytest.raises(errors.InvalidDataError, match="no other class"):
        random_label.wrong_labels(torch.tensor([0]), 3, (1, 2), 0, 0)
