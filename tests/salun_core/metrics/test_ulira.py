import math

import pytest
import torch
from scipy import stats
from sklearn import metrics

from salun_core import errors
from salun_core.metrics import ulira


def gaussians(distance: float, pairs: int, samples: int, seed: int = 0) -> ulira.Shadows:
    """Every sample has a mean of its own, far from the others' (spread 5), and spread 1 over nets;
    nets that unlearnt it lie ``distance`` higher.
    """
    generator = torch.Generator().manual_seed(seed)
    means = 5.0 * torch.randn(samples, generator=generator)
    noise = torch.randn(2, pairs, samples, generator=generator)
    return ulira.Shadows(means + distance + noise[0], means + noise[1])


def test_ratio_is_that_of_two_normal_densities() -> None:
    """From 64 nets on every sample has its own variance: against scipy, sample by sample."""
    shadows = gaussians(1.0, 70, 6)
    scores = torch.linspace(-3.0, 3.0, 6)
    found = ulira.log_likelihood_ratios(scores, shadows.unlearned, shadows.retrained)
    for i in range(6):
        wanted = 0.0
        for pool, sign in ((shadows.unlearned, 1.0), (shadows.retrained, -1.0)):
            own = pool[:, i].double().numpy()
            wanted += sign * stats.norm.logpdf(float(scores[i]), own.mean(), own.std(ddof=1))
        assert found[i].item() == pytest.approx(wanted, rel=1e-6)


def test_few_nets_share_one_variance() -> None:
    shadows = gaussians(1.0, 5, 8)
    scores = torch.zeros(8)
    found = ulira.log_likelihood_ratios(scores, shadows.unlearned, shadows.retrained)
    spreads = [pool.double().var(dim=0).mean().sqrt().item() for pool in
               (shadows.unlearned, shadows.retrained)]  # fmt: skip
    wanted = stats.norm.logpdf(0.0, shadows.unlearned.double().mean(dim=0), spreads[0])
    wanted = wanted - stats.norm.logpdf(0.0, shadows.retrained.double().mean(dim=0), spreads[1])
    torch.testing.assert_close(found, torch.tensor(wanted), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("distance", [0.0, 1.0, 2.0])
def test_expected_auc_and_accuracy(distance: float) -> None:
    """Scores N(d, 1) and N(0, 1) give log ratios d·s − d²/2: normal with variance d² and means
    ±d²/2. Their difference is N(d², 2d²), above 0 with probability Φ(d/√2), the AUC; the sign is
    right with Φ(d/2). With d = 1: .760 and .691; d = 2: .921 and .841; d = 0: .5 and .5.
    """
    found = ulira.evaluate(gaussians(distance, 150, 40))
    auc = stats.norm.cdf(distance / math.sqrt(2.0))
    assert found.auc == pytest.approx(auc, abs=0.02)
    assert found.accuracy == pytest.approx(stats.norm.cdf(distance / 2.0), abs=0.02)
    assert abs(found.auc - auc) < 4.0 * found.standard_error
    assert found.tpr_at_1pct_fpr == pytest.approx(
        stats.norm.sf(stats.norm.isf(0.01) - distance), abs=0.05
    )


def test_few_nets_that_are_alike_stay_at_one_half() -> None:
    """The pair is left out as a whole, so noise in the fit favours neither side: the mean over 40
    draws of six pairs is .5.
    """
    found = [ulira.evaluate(gaussians(0.0, 6, 30, seed)).auc for seed in range(40)]
    assert sum(found) / len(found) == pytest.approx(0.5, abs=0.015)


def test_one_threshold_for_all_samples_sees_much_less() -> None:
    """d = 2 within samples, but means spread by 5: pooled scores are N(2, 26) and N(0, 26), whose
    AUC is Φ(2/√52) = .609 where sample by sample it is .921.
    """
    shadows = gaussians(2.0, 100, 40)
    scores = torch.cat([shadows.unlearned.flatten(), shadows.retrained.flatten()])
    truth = [1] * 4000 + [0] * 4000
    assert metrics.roc_auc_score(truth, scores.numpy()) < 0.68
    assert ulira.evaluate(shadows).auc > 0.9


def test_spread_alone_is_found_too() -> None:
    """Same mean, but unlearning made confidences three times as wide: no threshold sees it."""
    shadows = gaussians(0.0, 100, 40)
    middle = shadows.retrained.mean(dim=0)
    wide = ulira.Shadows(middle + 3.0 * (shadows.unlearned - middle), shadows.retrained)
    assert ulira.evaluate(wide).auc > 0.7


def test_real_net_is_compared_with_the_retrained_ones() -> None:
    shadows = gaussians(2.0, 50, 60)
    expected = stats.norm.cdf(math.sqrt(2.0))  # Φ(d/√2)
    assert ulira.auc_of(shadows.unlearned[0], shadows) == pytest.approx(expected, abs=0.08)
    assert ulira.auc_of(shadows.retrained[0], shadows) == pytest.approx(0.5, abs=0.12)


def test_left_out_by_hand() -> None:
    shadows = gaussians(1.0, 4, 3)
    unlearned, retrained = ulira.leave_one_out(shadows)
    others = [0, 1, 3]
    pools = shadows.unlearned[others], shadows.retrained[others]
    for found, scores in ((unlearned, shadows.unlearned), (retrained, shadows.retrained)):
        torch.testing.assert_close(found[2], ulira.log_likelihood_ratios(scores[2], *pools))


@pytest.mark.parametrize(
    ("first", "second"), [((2, 5), (2, 5)), ((4, 5), (4, 6)), ((4,), (4,)), ((4, 0), (4, 0))]
)
def test_shapes_are_checked(first: tuple[int, ...], second: tuple[int, ...]) -> None:
    with pytest.raises(errors.InvalidDataError, match="K >= 3"):
        ulira.Shadows(torch.zeros(first), torch.zeros(second))


def test_confidences_that_never_vary_are_no_trouble() -> None:
    found = ulira.evaluate(ulira.Shadows(torch.ones(3, 2), torch.ones(3, 2)))
    assert found.auc == 0.5
