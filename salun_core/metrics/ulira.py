"""U-LiRA: can unlearned nets be told from nets that never saw the data, sample by sample?

The attacker knows recipe and data, trains nets that learnt and unlearnt the samples and nets that
never saw them, and fits for every sample a normal distribution to its confidence under either
kind. The likelihood ratio of the two is the strongest test of the kind (Hayes et al., arXiv
2403.01218, after Carlini et al., arXiv 2112.03570): attacks with one threshold for all samples
see much less.
"""

import dataclasses
import math

import torch

from salun_core import errors
from salun_core.metrics import membership, separation

LEAST_PAIRS = 3  # one is left out, and two are the least that have a spread
# Below this many nets a sample's own variance is too noisy; all samples then share one (Carlini
# et al., section VI.C).
_OWN_VARIANCE_FROM = 64
_LEAST_VARIANCE = 1e-6


@dataclasses.dataclass(frozen=True, eq=False)
class Shadows:
    """Logit-scaled confidences of N samples under K pairs of nets.

    Attributes:
        unlearned: float (K, N); row k is a net that was trained with all N and unlearnt them.
        retrained: float (K, N); row k is a net that was trained as that one, without them.

    Raises:
        InvalidDataError: the shapes differ, or K < 3, or N < 1.
    """

    unlearned: torch.Tensor
    retrained: torch.Tensor

    def __post_init__(self) -> None:
        shape = self.unlearned.shape
        fits = self.retrained.shape == shape and len(shape) == 2
        if not fits or shape[0] < LEAST_PAIRS or not shape[1]:
            raise errors.InvalidDataError(
                f"got confidences {tuple(shape)} and {tuple(self.retrained.shape)}, expected "
                f"(K, N) twice with K >= {LEAST_PAIRS} and N >= 1"
            )

    def without(self, pair: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Both kinds, (K − 1, N) each, without one pair."""
        kept = torch.arange(len(self.unlearned)) != pair
        return self.unlearned[kept], self.retrained[kept]


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """How well the attack tells the nets of a pair apart; for pairs that it was not fitted on.

    Attributes:
        auc: mean over pairs of the AUC over samples; 0.5 where both kinds are alike.
        accuracy: share of (net, sample) that the sign of the ratio assigns rightly.
        tpr_at_1pct_fpr: share of unlearned ones found at a false positive rate of 1 %.
        standard_error: of ``auc``, from its spread over the pairs.
    """

    auc: float
    accuracy: float
    tpr_at_1pct_fpr: float
    standard_error: float


def log_likelihood_ratios(
    scores: torch.Tensor, unlearned: torch.Tensor, retrained: torch.Tensor
) -> torch.Tensor:
    """log p(score | unlearned) − log p(score | retrained), float64 (N,); above 0: unlearned.

    Args:
        scores: float (N,), one net's logit-scaled confidences.
        unlearned: float (K, N), the same samples under shadow nets of that kind.
        retrained: float (L, N).

    Example:
        >>> unlearned = torch.tensor([[1.0], [2.0], [3.0]])
        >>> log_likelihood_ratios(torch.tensor([1.0]), unlearned, unlearned - 2.0).item()
        0.0
    """
    return _log_density(scores.double(), unlearned.double()) - _log_density(
        scores.double(), retrained.double()
    )


def leave_one_out(shadows: Shadows) -> tuple[torch.Tensor, torch.Tensor]:
    """The ratios of every shadow net under an attack fitted without its pair.

    The whole pair is left out, so that an attack on nets that are alike has no side to lean to.

    Returns:
        float64 (K, N) of the unlearned and (K, N) of the retrained nets.
    """
    unlearned, retrained = [], []
    for pair in range(len(shadows.unlearned)):
        others = shadows.without(pair)
        unlearned.append(log_likelihood_ratios(shadows.unlearned[pair], *others))
        retrained.append(log_likelihood_ratios(shadows.retrained[pair], *others))
    return torch.stack(unlearned), torch.stack(retrained)


def evaluate(shadows: Shadows) -> Evaluation:
    """The attack on the shadow nets themselves, each judged by the others.

    If both kinds of confidences are normal with means d standard deviations apart, then so are
    the ratios, and the AUC is Φ(d/√2), the accuracy Φ(d/2).
    """
    positive, negative = leave_one_out(shadows)
    aucs = torch.tensor(
        [_auc(own, other) for own, other in zip(positive, negative, strict=True)],
        dtype=torch.float64,
    )
    right = torch.cat([positive > 0.0, negative <= 0.0]).double().mean().item()
    return Evaluation(
        auc=aucs.mean().item(),
        accuracy=right,
        tpr_at_1pct_fpr=membership.true_positive_rate_at(positive.flatten(), negative.flatten()),
        standard_error=aucs.std().item() / math.sqrt(len(aucs)),
    )


def auc_of(scores: torch.Tensor, shadows: Shadows) -> float:
    """AUC of one real net's ratios against those of the retrained shadow nets; 0.5 is the aim.

    Args:
        scores: float (N,), the net's logit-scaled confidences.
        shadows: of the same samples.
    """
    own = log_likelihood_ratios(scores, shadows.unlearned, shadows.retrained)
    return _auc(own, leave_one_out(shadows)[1].flatten())


def _auc(positive: torch.Tensor, negative: torch.Tensor) -> float:
    weights = [
        torch.full((len(v),), 1.0 / len(v), dtype=torch.float64) for v in (positive, negative)
    ]
    return separation.weighted_auc(positive, negative, *weights).value


def _log_density(scores: torch.Tensor, pool: torch.Tensor) -> torch.Tensor:
    """Log density up to the constant that both kinds have, (N,)."""
    variance = pool.var(dim=0)  # (N,)
    if len(pool) < _OWN_VARIANCE_FROM:
        variance = variance.mean()
    variance = variance.clamp(min=_LEAST_VARIANCE)
    return -0.5 * ((scores - pool.mean(dim=0)) ** 2 / variance + variance.log())
