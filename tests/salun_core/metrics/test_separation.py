import numpy as np
import pytest
import torch
from scipy import stats
from sklearn import metrics as reference

from salun_core import confidence, errors
from salun_core.metrics import separation


def test_auc_against_sklearn_with_ties_and_weights() -> None:
    generator = torch.Generator().manual_seed(0)
    high = (torch.randn(80, generator=generator) + 0.4).mul(4).round()
    low = torch.randn(120, generator=generator).mul(4).round()
    weights = [torch.rand(n, dtype=torch.float64, generator=generator) for n in (80, 120)]
    weights = [w / w.sum() for w in weights]
    found = separation.weighted_auc(high, low, *weights)
    wanted = reference.roc_auc_score(
        [1] * 80 + [0] * 120, torch.cat([high, low]).numpy(), sample_weight=torch.cat(weights)
    )
    assert found.value == pytest.approx(wanted)


def test_matched_by_class_it_is_the_mean_over_classes() -> None:
    """Two classes of 30 and 10 to forget: AUC over all pairs of weighted samples, by loops."""
    generator = torch.Generator().manual_seed(1)
    labels = torch.tensor([0] * 30 + [1] * 10)
    unseen = torch.tensor([0] * 5 + [1] * 50 + [2] * 9)
    scores = torch.randn(40, generator=generator) + labels
    others = torch.randn(64, generator=generator) + unseen
    found = separation.forget_holdout_auc(scores, labels, others, unseen)
    share = {0: 0.75 / 5, 1: 0.25 / 50, 2: 0.0}
    wanted = sum(
        share[int(unseen[j])] / 40 * float(scores[i] > others[j])
        for i in range(40)
        for j in range(64)
    )
    assert found.value == pytest.approx(wanted)
    assert (found.n_positive, found.n_negative) == (40, 55)


def test_standard_error_is_the_spread_over_draws() -> None:
    generator = torch.Generator().manual_seed(2)
    values, found = [], []
    even = [torch.full((n,), 1.0 / n, dtype=torch.float64) for n in (60, 150)]
    for _ in range(400):
        pair = torch.randn(60, generator=generator), torch.randn(150, generator=generator)
        auc = separation.weighted_auc(*pair, *even)
        values.append(auc.value)
        found.append(auc.standard_error)
    assert np.mean(found) == pytest.approx(np.std(values), rel=0.1)


@pytest.mark.parametrize("count", [1, 2, 3, 5, 20])
def test_a_handful_of_samples_is_not_called_sure(count: int) -> None:
    """Of samples like the unseen ones one in ten misses by more than 1.64 errors, or fewer."""
    generator = torch.Generator().manual_seed(count)
    even = [torch.full((n,), 1.0 / n, dtype=torch.float64) for n in (count, 300)]
    missed = 0
    for _ in range(400):
        pair = torch.randn(count, generator=generator), torch.randn(300, generator=generator)
        auc = separation.weighted_auc(*pair, *even)
        missed += abs(auc.value - 0.5) > 1.64 * auc.standard_error
    assert missed <= 60


def test_the_least_error_is_that_of_mann_and_whitney() -> None:
    """Two that lie together have no spread of their own: (2 + 3 + 1) / (12 · 2 · 3)."""
    pair = torch.tensor([5.0, 5.0]), torch.tensor([1.0, 2.0, 3.0])
    even = [torch.full((n,), 1.0 / n, dtype=torch.float64) for n in (2, 3)]
    auc = separation.weighted_auc(*pair, *even)
    assert auc.value == 1.0
    assert auc.standard_error == pytest.approx((6 / 72) ** 0.5)


def test_no_class_in_common() -> None:
    with pytest.raises(errors.InvalidDataError, match="share no class"):
        separation.class_matched_weights(torch.tensor([0]), torch.tensor([1]))


def test_wasserstein_against_scipy() -> None:
    first, second = torch.tensor([0.0, 1.0]), torch.tensor([0.5])
    halves, one = torch.tensor([0.5, 0.5]), torch.tensor([1.0])
    assert separation.weighted_wasserstein(first, second, halves, one) == pytest.approx(
        stats.wasserstein_distance([0, 1], [0.5])
    )


def test_confidence_is_the_log_odds_of_the_true_class() -> None:
    logits = torch.randn(50, 6, generator=torch.Generator().manual_seed(3))
    labels = torch.arange(50) % 6
    share = torch.softmax(logits.double(), dim=1).gather(1, labels.unsqueeze(1)).squeeze(1)
    found = confidence.logit_scaled_confidence(logits, labels)
    torch.testing.assert_close(found.double(), torch.log(share / (1 - share)), atol=1e-5, rtol=1e-5)
