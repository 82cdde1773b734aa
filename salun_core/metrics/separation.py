"""Can forgotten samples be told from samples never seen? AUC and distances, class-matched."""

import dataclasses
import math

import numpy as np
import torch
from scipy import stats

from salun_core import errors, grouping


@dataclasses.dataclass(frozen=True)
class Auc:
    """An area under the ROC curve and its sampling error.

    Attributes:
        value: P(positive scores higher) + ½ P(tie), in [0, 1].
        standard_error: DeLong's for weighted samples, or that of like samples if it is larger.
        n_positive: positives with weight.
        n_negative: negatives with weight.
    """

    value: float
    standard_error: float
    n_positive: int
    n_negative: int


def class_matched_weights(
    labels: torch.Tensor, reference_labels: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Weights that give both sets the class mix of the first.

    A class that the reference lacks gets weight 0 in both.

    Args:
        labels: int64 (N,).
        reference_labels: int64 (M,).

    Returns:
        float64 (N,) and (M,), each with sum 1.

    Raises:
        InvalidDataError: the sets share no class.
    """
    shared = torch.isin(labels, reference_labels).double()
    if not bool(shared.any()):
        raise errors.InvalidDataError(
            f"got {len(labels)} samples and {len(reference_labels)} to compare with that share "
            "no class, expected the same classes in both"
        )
    weights = shared / shared.sum()
    reference = torch.zeros(len(reference_labels), dtype=torch.float64)
    members = grouping.rows_by_label(labels)
    for label, rows in grouping.rows_by_label(reference_labels).items():
        if label in members:
            reference[rows] = weights[members[label]].sum() / len(rows)
    return weights, reference


def forget_holdout_auc(
    forget_scores: torch.Tensor,
    forget_labels: torch.Tensor,
    holdout_scores: torch.Tensor,
    holdout_labels: torch.Tensor,
) -> Auc:
    """AUC of a score, forgotten samples against class-matched unseen ones; 0.5 is the aim.

    Above 0.5 the forgotten samples are still known too well, below it they were over-forgotten,
    which gives them away as well.

    Args:
        forget_scores: float (N,), for example logit-scaled confidence.
        forget_labels: int64 (N,).
        holdout_scores: float (M,).
        holdout_labels: int64 (M,).

    Raises:
        InvalidDataError: the sets share no class.

    Example:
        >>> zero = torch.zeros(2, dtype=torch.int64)
        >>> forget_holdout_auc(torch.tensor([1.0, 3.0]), zero, torch.tensor([0.0, 2.0]), zero).value
        0.75
    """
    weights = class_matched_weights(forget_labels, holdout_labels)
    return weighted_auc(forget_scores, holdout_scores, *weights)


def weighted_auc(
    positive: torch.Tensor,
    negative: torch.Tensor,
    positive_weights: torch.Tensor,
    negative_weights: torch.Tensor,
) -> Auc:
    """AUC with sample weights, and DeLong's standard error from weighted placement values.

    With V_i the weighted share of negatives below positive i (ties half) and V_j the weighted share
    of positives above negative j, the variance is Σ w_i² (V_i − A)² · n/(n − 1) plus the same sum
    over j. With equal weights this is DeLong, DeLong and Clarke-Pearson (Biometrics 44, 1988).
    Of a handful of samples it knows too little of their spread: of two that happen to lie together
    it says 0. So the error is never less than that of samples of one distribution, by Mann and
    Whitney ((n + m + 1) / (12 n m), with effective sizes where weights differ).

    Args:
        positive: float (N,).
        negative: float (M,).
        positive_weights: float64 (N,), sum 1.
        negative_weights: float64 (M,), sum 1.
    """
    highs, lows = positive.double().numpy(), negative.double().numpy()
    high_weights, low_weights = positive_weights.numpy(), negative_weights.numpy()
    above = _share_below(lows, low_weights, highs)  # (N,)
    below = 1.0 - _share_below(highs, high_weights, lows)  # (M,)
    value = float(np.sum(high_weights * above))
    variance = _placement_variance(above, high_weights, value)
    variance += _placement_variance(below, low_weights, value)
    return Auc(
        value,
        math.sqrt(max(variance, _null_variance(high_weights, low_weights))),
        int(np.count_nonzero(high_weights)),
        int(np.count_nonzero(low_weights)),
    )


def weighted_wasserstein(
    first: torch.Tensor,
    second: torch.Tensor,
    first_weights: torch.Tensor,
    second_weights: torch.Tensor,
) -> float:
    """Wasserstein-1 distance of two weighted samples of numbers, in their unit."""
    return float(
        stats.wasserstein_distance(
            first.double().numpy(),
            second.double().numpy(),
            first_weights.numpy(),
            second_weights.numpy(),
        )
    )


def _share_below(pool: np.ndarray, weights: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Weight of the pool below each value, ties counting half."""
    order = np.argsort(pool, kind="stable")
    cumulative = np.concatenate([[0.0], np.cumsum(weights[order])])
    left = np.searchsorted(pool[order], values, side="left")
    right = np.searchsorted(pool[order], values, side="right")
    return np.asarray((cumulative[left] + cumulative[right]) / 2.0)


def _placement_variance(placements: np.ndarray, weights: np.ndarray, mean: float) -> float:
    count = np.count_nonzero(weights)
    if count < 2:
        return 0.0  # one sample says nothing of its spread
    spread = np.sum(weights**2 * (placements - mean) ** 2)
    return float(spread * count / (count - 1))


def _null_variance(first: np.ndarray, second: np.ndarray) -> float:
    """Of the AUC of two weighted samples of one distribution: both weights sum to 1."""
    inverses = [float(np.sum(weights**2)) for weights in (first, second)]  # 1 / effective size
    return (sum(inverses) + inverses[0] * inverses[1]) / 12.0
