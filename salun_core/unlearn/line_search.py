"""How far to go along the way found: θo + λ · m ⊙ (θu − θo), forward passes only.

Among a few λ the one is taken whose forget set looks most like class-matched holdout samples,
without giving up utility. The search begins at λ = 1 and goes one way as long as that gets better,
else the other way.
"""

import dataclasses
from collections.abc import Callable

import torch

from salun_core import (
    images,
    inference,
    masked_step,
    masks,
    preprocessing,
    randomness,
    specs,
)
from salun_core.metrics import accuracy, separation
from salun_core.unlearn import contract

FACTORS = (0.7, 0.85, 1.0, 1.15, 1.3)
_RETAIN_SAMPLES = 1000  # enough to see a loss of a point
_ALLOWED_RETAIN_DROP, _ALLOWED_HOLDOUT_DROP = 0.01, 0.02
_PENALTY = 10.0


def search(
    net: torch.nn.Module,
    original: dict[str, torch.Tensor],
    config: specs.ClassifierConfig,
    data: contract.UnlearningData,
    mask: masks.SaliencyMask | None,
    seed: int,
) -> dict[str, float]:
    """Set the net to the best point of the line; frozen weights stay bit-identical.

    Args:
        net: holds θu, gets the best point, in place.
        original: state of θo, see :func:`salun_core.masked_step.copy_state`.
        config: of the net.
        data: its forget, retain and holdout sets are looked at.
        mask: weights that may change; ``None`` for all.
        seed: of the draw of retain samples.

    Returns:
        ``factor`` λ and the objective at every λ looked at, as ``objective_at_<λ>``.
    """
    final = masked_step.copy_state(net)
    net.load_state_dict(original)
    judge = _Judge(net, config, data, seed)

    def objective(factor: float) -> float:
        _set_point(net, original, final, factor, mask)
        return judge.objective()

    found = _walk(objective)
    best = min(found, key=lambda factor: found[factor])
    _set_point(net, original, final, best, mask)
    return {"factor": best} | {f"objective_at_{f}": value for f, value in found.items()}


def _walk(objective: Callable[[float], float]) -> dict[float, float]:
    """The objective at 1 and at the factors beside it, away from 1 until it is no longer less."""
    found = {1.0: objective(1.0)}
    shorter, longer = ([f for f in FACTORS if f < 1.0], [f for f in FACTORS if f > 1.0])
    for way in (shorter[::-1], longer):
        least = found[1.0]
        for factor in way:
            found[factor] = objective(factor)
            if not found[factor] < least:
                break
            least = found[factor]
        if least < found[1.0]:
            break
    return found


class _Judge:
    """Looks at the net's points; made while the net is at θo."""

    def __init__(
        self,
        net: torch.nn.Module,
        config: specs.ClassifierConfig,
        data: contract.UnlearningData,
        seed: int,
    ) -> None:
        order = torch.randperm(
            len(data.retain_set), generator=randomness.generator(seed, "line_search")
        )
        self._net = net
        self._preprocess = preprocessing.Preprocessing(config.pretrained_cfg)
        self._forget = data.forget_set
        self._holdout = data.holdout_set.without_labels(data.excluded_labels)
        self._matching = _matching(data, self._forget, self._holdout)
        self._retain = data.retain_set.subset(order[:_RETAIN_SAMPLES].tolist())
        self._retain_before = self._accuracy(self._retain)
        self._holdout_before = self._accuracy(self._holdout)

    def objective(self) -> float:
        """Distance of the forget set from unseen data, plus what utility is lost beyond measure."""
        forget, holdout = self._answers(self._forget), self._answers(self._holdout)
        distance = sum(
            fold.share * self._distance(forget, holdout, fold) for fold in self._matching
        )
        retain_drop = self._retain_before - self._accuracy(self._retain)
        holdout_drop = self._holdout_before - accuracy.accuracy(
            holdout.predicted, self._holdout.labels
        )
        lost = max(0.0, retain_drop - _ALLOWED_RETAIN_DROP)
        lost += max(0.0, holdout_drop - _ALLOWED_HOLDOUT_DROP)
        return distance + _PENALTY * lost

    def _distance(
        self, forget: inference.Answers, holdout: inference.Answers, fold: "_Fold"
    ) -> float:
        own, unseen = fold.rows
        probabilities = torch.sigmoid(forget.scores[own]), torch.sigmoid(holdout.scores[unseen])
        distance = separation.weighted_wasserstein(*probabilities, *fold.weights)
        known = accuracy.weighted_accuracy(
            forget.predicted[own], self._forget.labels[own], fold.weights[0]
        )
        unseen_known = accuracy.weighted_accuracy(
            holdout.predicted[unseen], self._holdout.labels[unseen], fold.weights[1]
        )
        return distance + abs(known - unseen_known)

    def _answers(self, image_set: images.ImageSet) -> inference.Answers:
        return inference.answers(self._net, image_set, self._preprocess)

    def _accuracy(self, image_set: images.ImageSet) -> float:
        return accuracy.accuracy(self._answers(image_set).predicted, image_set.labels)


@dataclasses.dataclass(frozen=True, eq=False)
class _Fold:
    """Forget and holdout samples to compare: positions, class-matched weights, share of all."""

    rows: tuple[torch.Tensor, torch.Tensor]
    weights: tuple[torch.Tensor, torch.Tensor]
    share: float


def _matching(
    data: contract.UnlearningData, forget: images.ImageSet, holdout: images.ImageSet
) -> list[_Fold]:
    """Every fold as it is matched; all in one without cross-fitting.

    Raises:
        InvalidDataError: the sets share no class.
    """
    separation.class_matched_weights(forget.labels, holdout.labels)
    folds, found = (data.folds(forget), data.folds(holdout)), []
    for fold in torch.unique(folds[0]).tolist():
        rows = (folds[0] == fold).nonzero().flatten(), (folds[1] == fold).nonzero().flatten()
        labels = forget.labels[rows[0]], holdout.labels[rows[1]]
        if bool(torch.isin(*labels).any()):
            weights = separation.class_matched_weights(*labels)
            found.append(_Fold(rows, weights, len(rows[0]) / len(forget)))
    return found


@torch.no_grad()
def _set_point(
    net: torch.nn.Module,
    original: dict[str, torch.Tensor],
    final: dict[str, torch.Tensor],
    factor: float,
    mask: masks.SaliencyMask | None,
) -> None:
    """Running averages move along the line too; a variance is kept at or above zero."""
    for name, tensor in net.state_dict(keep_vars=True).items():
        before, after = original[name], final[name]
        point = after
        if factor != 1.0 and after.is_floating_point():
            point = before + factor * (after - before)
            if mask is not None and name in mask.shapes:
                point = torch.where(mask.layer(name), point, before)
            elif name.endswith("running_var"):
                point = point.clamp(min=0.0)
        tensor.copy_(point)
