import math

import numpy as np
import pytest
import torch
from sklearn import linear_model, svm

from salun_core import errors
from salun_core.metrics import membership


def pools(size: int = 300) -> membership.Pools:
    generator = torch.Generator().manual_seed(0)
    return membership.Pools(
        torch.randn(size, generator=generator) + 2.0, torch.randn(size, generator=generator)
    )


def even(count: int) -> torch.Tensor:
    return torch.full((count,), 1.0 / count, dtype=torch.float64)


def test_logistic_attack_is_sklearns() -> None:
    pool = pools()
    features = torch.cat([pool.members, pool.non_members]).double().numpy().reshape(-1, 1)
    model = linear_model.LogisticRegression(C=1e9).fit(features, [1] * 300 + [0] * 300)
    points = torch.linspace(-4, 6, 200)
    wanted = model.predict(points.double().numpy().reshape(-1, 1)) == 0
    attack = membership.logistic_attack(pool)
    assert (attack.calls_non_member(points).numpy() == wanted).mean() > 0.99
    assert membership.mia_efficacy(attack, points, even(200)) == pytest.approx(
        wanted.mean(), abs=0.01
    )


def test_confidence_svc_is_the_authors() -> None:
    pool = pools()
    features = torch.cat([pool.members, pool.non_members]).double().numpy().reshape(-1, 1)
    model = svm.SVC(C=3, gamma="auto", kernel="rbf").fit(features, [1] * 300 + [0] * 300)
    points = torch.linspace(-4, 6, 200)
    wanted = model.predict(points.double().numpy().reshape(-1, 1)) == 0
    found = membership.confidence_svc_attack(pool).calls_non_member(points).numpy()
    np.testing.assert_array_equal(found, wanted)


def test_pools_are_balanced_seeded_and_drawn_from_their_sets() -> None:
    retain, test = torch.arange(100.0), torch.arange(30.0) + 1000
    first = membership.balanced_pools(retain, test, seed=4)
    assert len(first.members) == len(first.non_members) == 30
    assert set(first.members.tolist()) <= set(retain.tolist())
    assert set(first.non_members.tolist()) == set(test.tolist())
    assert torch.equal(first.members, membership.balanced_pools(retain, test, 4).members)
    assert not torch.equal(first.members, membership.balanced_pools(retain, test, 5).members)
    with pytest.raises(errors.InvalidDataError, match="0 retain"):
        membership.balanced_pools(torch.empty(0), test, 0)


def test_rate_of_unseen_samples_is_the_false_positive_rate() -> None:
    """Same distribution: the expected share above the .99 quantile of 1,000 is about .01."""
    generator = torch.Generator().manual_seed(0)
    found = [
        membership.true_positive_rate_at(
            torch.randn(200, generator=generator), torch.randn(1000, generator=generator), 0.01
        )
        for _ in range(300)
    ]
    assert np.mean(found) == pytest.approx(0.01, abs=0.002)
    assert membership.true_positive_rate_at(torch.ones(5), torch.zeros(100)) == 1.0


@pytest.mark.parametrize(("count", "non_members"), [(20, 40), (1000, 20), (500, 250)])
def test_rate_of_like_samples_against_draws(count: int, non_members: int) -> None:
    """Mean and spread of the rate of like samples; the error is no less than it should be."""
    generator = torch.Generator().manual_seed(1)
    found = [
        membership.true_positive_rate_at(
            torch.randn(count, generator=generator), torch.randn(non_members, generator=generator)
        )
        for _ in range(3000)
    ]
    threshold = membership.threshold_at(torch.randn(non_members), even(non_members))
    assert np.mean(found) == pytest.approx(threshold.rate, rel=0.06)
    assert 0.95 * np.std(found) < threshold.standard_error(count) < 1.3 * np.std(found)


def test_weights_move_the_threshold() -> None:
    """Of scores 4 to 0 the one of weight .1 is alone above the one of .2; beside the latter others
    weigh .8, so a share of .1/.8 passes it. Of what weighs .3 then, (.1 + .2)/1.2 = .25 is the rate
    of like samples, and 1/(.1²/.3 + .2²/.3) = 6 the effective size.
    """
    scores = torch.tensor([2.0, 4.0, 3.0, 0.0, 1.0])
    weights = torch.tensor([0.3, 0.1, 0.2, 0.2, 0.2], dtype=torch.float64)
    found = membership.threshold_at(scores, weights, 0.126)
    assert found.score == 3.0
    assert found.rate == pytest.approx(0.25)
    assert found.spread == pytest.approx(math.sqrt(0.25 * 0.75 / 8))
    assert found.share_above(torch.tensor([3.0, 3.5, 5.0, -1.0])) == 0.5
    strict = membership.threshold_at(scores, weights, 0.124)
    assert strict.score == 4.0
    assert strict.rate == pytest.approx(0.1 / 1.1)


def test_rate_of_like_samples_in_a_mix_of_classes() -> None:
    """Two thirds are of a class that is surer by five, and has fewer unseen samples than others."""
    generator = torch.Generator().manual_seed(3)
    labels, unseen = torch.tensor([0] * 200 + [1, 2] * 50), torch.tensor([0] * 30 + [1, 2] * 60)
    weights = torch.where(unseen == 0, 2 / 3 / 30, 1 / 3 / 120).double()
    found, rates, errors_of = [], [], []
    for _ in range(2000):
        own, others = (
            torch.randn(len(of), generator=generator) + 5.0 * (of == 0) for of in (labels, unseen)
        )
        threshold = membership.threshold_at(others, weights)
        found.append(threshold.share_above(own))
        rates.append(threshold.rate)
        errors_of.append(threshold.standard_error(len(labels)))
    assert np.mean(found) == pytest.approx(np.mean(rates), rel=0.06)
    assert 0.95 * np.std(found) < np.mean(errors_of) < 1.3 * np.std(found)


@pytest.mark.parametrize("size", [1, 2, 100, 101, 102, 999])
def test_threshold_is_the_upper_quantile(size: int) -> None:
    scores = torch.arange(size).double()
    threshold = np.quantile(scores.numpy(), 0.99, method="higher")
    above = (scores > threshold).double().mean().item()
    assert membership.true_positive_rate_at(scores, scores) == above


def test_loss_threshold_is_the_mean_member() -> None:
    """Yeom et al.: unseen is who loses more than the mean of the members, here (0 + .2 + 1)/3 = .4.

    Of losses .5, .3 and .1 one of three is above.
    """
    attack = membership.loss_threshold_attack(torch.tensor([0.0, 0.2, 1.0]))
    losses = torch.tensor([0.5, 0.3, 0.1])
    assert attack.calls_non_member(losses).tolist() == [True, False, False]
    assert membership.mia_efficacy(attack, losses, even(3)) == pytest.approx(1.0 / 3.0)
