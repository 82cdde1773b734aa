import math

import pytest
import torch
from sklearn import metrics as reference

from salun_core import errors
from salun_core.metrics import accuracy


def test_against_sklearn() -> None:
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(0, 5, (300,), generator=generator)
    predicted = torch.randint(0, 5, (300,), generator=generator).numpy()
    given = torch.from_numpy(predicted)
    assert accuracy.accuracy(given, labels) == reference.accuracy_score(labels.numpy(), predicted)
    recalls = reference.recall_score(labels.numpy(), predicted, average=None)
    found = accuracy.per_class_accuracy(given, labels)
    assert [found[i] for i in range(5)] == pytest.approx(list(recalls))
    weights = torch.rand(300, dtype=torch.float64, generator=generator)
    weights /= weights.sum()
    assert accuracy.weighted_accuracy(given, labels, weights) == pytest.approx(
        reference.accuracy_score(labels.numpy(), predicted, sample_weight=weights.numpy())
    )


def test_paired_drop_by_hand() -> None:
    """3 lost, 1 gained of 10: drop .2; with one flip of each sign added, 12 differences have
    mean of squares 6/12 and mean 2/12, so the error is sqrt((.5 − (1/6)²)/12).
    """
    before = torch.tensor([True] * 8 + [False] * 2)
    after = torch.tensor([False] * 3 + [True] * 6 + [False])
    drop, error = accuracy.paired_drop(before, after)
    assert drop == pytest.approx(0.2)
    assert error == pytest.approx(math.sqrt((0.5 - 1.0 / 36.0) / 12.0))


def test_difference_of_shares_has_its_binomial_error() -> None:
    """Simulated: the spread of p̂₁ − p̂₂ for n₁ = 150, n₂ = 1000, p = .1."""
    generator = torch.Generator().manual_seed(0)
    shares = [
        (torch.rand(4000, n, generator=generator) < 0.1).double().mean(dim=1) for n in (150, 1000)
    ]
    spread = (shares[0] - shares[1]).std().item()
    assert accuracy.proportion_standard_error(0.1, 150, 0.1, 1000) == pytest.approx(
        spread, rel=0.06
    )
    assert accuracy.proportion_standard_error(0.0, 150, 0.0, 1000) > 0.0


def test_effective_size() -> None:
    assert accuracy.effective_size(torch.full((7,), 0.2)) == pytest.approx(7.0)
    assert accuracy.effective_size(torch.tensor([1.0, 0.0])) == 1.0


@pytest.mark.parametrize(("rows", "labels"), [((2,), 3), ((0,), 0), ((6, 3), 6)])
def test_shapes_are_checked(rows: tuple[int, ...], labels: int) -> None:
    with pytest.raises(errors.InvalidDataError, match="expected"):
        accuracy.accuracy(torch.zeros(rows), torch.zeros(labels, dtype=torch.int64))


def test_share_has_its_binomial_error() -> None:
    """Simulated: the spread of p̂ for n = 200, p = .1."""
    generator = torch.Generator().manual_seed(0)
    shares = (torch.rand(4000, 200, generator=generator) < 0.1).double().mean(dim=1)
    assert accuracy.share_standard_error(0.1, 200) == pytest.approx(shares.std().item(), rel=0.05)
    assert 0.0 < accuracy.share_standard_error(0.0, 200) < 0.01
