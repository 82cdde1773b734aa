"""Membership inference: would an attacker call the forgotten samples training data?

The attacks are trained on retain samples (members) and as many test samples (non-members). The
forget set is neither. Nor is the holdout set, unless unseen samples are cross-fitted: it may then
have those of the test set, see :mod:`salun_core.crossfit`.
"""

import dataclasses
import math
from typing import Protocol

import numpy as np
import torch
from sklearn import linear_model, pipeline, preprocessing, svm

from salun_core import errors, randomness
from salun_core.metrics import accuracy

SVC_POOL = 1_000  # of each for the support vector machine, whose cost grows with the square
_MAX_POOL = 5_000  # a side


class Attack(Protocol):
    """A fitted attack on one number per sample."""

    def calls_non_member(self, scores: torch.Tensor) -> torch.Tensor:
        """bool (N,): the attack takes the sample for unseen."""


@dataclasses.dataclass(frozen=True)
class Pools:
    """Scores of as many members as non-members.

    Attributes:
        members: float (N,), retain samples.
        non_members: float (N,), test samples.
    """

    members: torch.Tensor
    non_members: torch.Tensor


def balanced_pools(
    retain_scores: torch.Tensor, test_scores: torch.Tensor, seed: int, most: int = _MAX_POOL
) -> Pools:
    """Equally many retain and test scores, drawn by the seed, at most ``most`` of each.

    Raises:
        InvalidDataError: one of them is empty.
    """
    size = min(len(retain_scores), len(test_scores), most)
    if not size:
        raise errors.InvalidDataError(
            f"got {len(retain_scores)} retain and {len(test_scores)} test samples, expected some"
        )
    return Pools(_draw(retain_scores, size, seed, "retain"), _draw(test_scores, size, seed, "test"))


def logistic_attack(pools: Pools) -> Attack:
    """Logistic regression on logit-scaled confidence (standardised)."""
    return _fit(
        pipeline.make_pipeline(
            preprocessing.StandardScaler(), linear_model.LogisticRegression(C=1e4)
        ),
        pools,
    )


def confidence_svc_attack(pools: Pools) -> Attack:
    """The SalUn authors' attack: an RBF support vector machine on true-class probability.

    C = 3, gamma = 1 / number of features, as in their evaluation code.
    """
    return _fit(svm.SVC(C=3, gamma="auto", kernel="rbf"), pools)


def loss_threshold_attack(member_losses: torch.Tensor) -> Attack:
    """Whoever has a larger loss than the mean member is unseen (Yeom et al., arXiv 1709.01604).

    Args:
        member_losses: float (N,), N >= 1, cross-entropy of retain samples; the attack takes
            losses too.

    Example:
        >>> loss_threshold_attack(torch.tensor([0.0, 1.0])).calls_non_member(
        ...     torch.tensor([0.4, 0.6])
        ... ).tolist()
        [False, True]
    """
    return _Threshold(member_losses.double().mean().item())


def mia_efficacy(attack: Attack, scores: torch.Tensor, weights: torch.Tensor) -> float:
    """Weighted share of samples that the attack takes for unseen, in [0, 1].

    Args:
        attack: fitted on scores of the same kind.
        scores: float (N,).
        weights: float64 (N,), sum 1.
    """
    return float((attack.calls_non_member(scores).double() * weights).sum())


def true_positive_rate_at(
    scores: torch.Tensor, non_member_scores: torch.Tensor, false_positive_rate: float = 0.01
) -> float:
    """Share of samples above the threshold that that share of non-members passes, in [0, 1].

    The threshold is the score of a non-member; at most that share of the others lies above it.
    :func:`chance_rate` says what samples that look unseen give.

    Args:
        scores: float (N,), higher means more like a member.
        non_member_scores: float (M,).
        false_positive_rate: in (0, 1).
    """
    passing = _count_passing(len(non_member_scores), false_positive_rate)
    threshold = non_member_scores.double().sort(descending=True).values[passing]
    return (scores.double() > threshold).double().mean().item()


def chance_rate(
    count: int, non_members: int, false_positive_rate: float = 0.01
) -> tuple[float, float]:
    """What :func:`true_positive_rate_at` gives for ``count`` samples like the non-members.

    The threshold is the (k + 1)-th largest of M scores, so the rate at which further ones pass it
    is Beta(k + 1, M − k): (k + 1)/(M + 1) in the mean, 1/(M + 1) below a hundred non-members, and
    its spread adds to that of a share of ``count`` samples.

    Returns:
        ``(mean, standard_error)``.

    Example:
        >>> chance_rate(100, 19)[0], chance_rate(100, 999)[0]
        (0.05, 0.01)
    """
    passing = _count_passing(non_members, false_positive_rate)
    mean = (passing + 1) / (non_members + 1)
    spread = math.sqrt(mean * (1.0 - mean) / (non_members + 2))
    return mean, math.hypot(accuracy.share_standard_error(mean, count), spread)


class _Fitted:
    def __init__(self, model: pipeline.Pipeline | svm.SVC) -> None:
        self._model = model

    def calls_non_member(self, scores: torch.Tensor) -> torch.Tensor:
        return torch.from_numpy(self._model.predict(_column(scores)) == 0)


@dataclasses.dataclass(frozen=True)
class _Threshold:
    highest_member_loss: float

    def calls_non_member(self, scores: torch.Tensor) -> torch.Tensor:
        return scores.double() > self.highest_member_loss


def _count_passing(non_members: int, false_positive_rate: float) -> int:
    return non_members - 1 - math.ceil((non_members - 1) * (1.0 - false_positive_rate))


def _fit(model: pipeline.Pipeline | svm.SVC, pools: Pools) -> Attack:
    features = np.concatenate([_column(pools.members), _column(pools.non_members)])
    members = np.concatenate([np.ones(len(pools.members)), np.zeros(len(pools.non_members))])
    return _Fitted(model.fit(features, members))


def _column(scores: torch.Tensor) -> np.ndarray:
    return np.asarray(scores.double().numpy().reshape(-1, 1))  # (N, 1)


def _draw(scores: torch.Tensor, size: int, seed: int, name: str) -> torch.Tensor:
    generator = randomness.generator(seed, "membership_pool", name)
    return scores[torch.randperm(len(scores), generator=generator)[:size]]
