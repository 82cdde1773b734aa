"""Audit mode: U-LiRA on a real recipe, by training shadow nets. Expensive, for the night."""

import dataclasses
import functools
import hashlib
import json
from collections.abc import Callable, Mapping, Sequence

import timm
import torch

import salun_core
from salun_core import (
    errors,
    images,
    inference,
    modes,
    preprocessing,
    progress,
    randomness,
    specs,
    trials,
)
from salun_core.metrics import ulira
from salun_core.unlearn import contract, retrain

Tensors = Mapping[str, torch.Tensor]

# ``store(name, compute)`` gives the tensors kept under that name, or computes and keeps them.
Store = Callable[[str, Callable[[], Tensors]], Tensors]

_WITH, _WITHOUT = "unlearned", "retrained"


def versions() -> dict[str, str]:
    """Of what shadow nets are made by; others may give other nets."""
    return {
        "salun_core": salun_core.__version__,
        "torch": torch.__version__,
        "timm": timm.__version__,
    }


def compute(_name: str, computed: Callable[[], Tensors]) -> Tensors:
    """A store that keeps nothing."""
    return computed()


def shadow_audit(
    net: torch.nn.Module,
    config: specs.ClassifierConfig,
    data: contract.UnlearningData,
    spec: specs.UnlearningSpec,
    training: specs.UnlearningSpec,
    pairs: int,
    *,
    retain_share: float = 0.5,
    store: Store = compute,
    report: progress.Progress = progress.silent,
) -> dict[str, specs.Measurement]:
    """U-LiRA for one recipe and for the net that it gave.

    Pair k draws a random share of the retain set. One net is trained on it and the forget set and
    unlearns the latter by the recipe, the other is trained on it alone. Everything is drawn from
    the recipe's seed. One shadow net is in memory at a time.

    Args:
        net: the unlearned net; shadow nets are trained on its device.
        config: of the net.
        data: what the recipe was given. Earlier erasures are left out of all shadow nets.
        spec: the recipe.
        training: how such a net is trained from scratch (``method="retrain"``).
        pairs: K, at least 3; below 64 all samples share one variance.
        retain_share: in (0, 1]. At 1.0 shadow nets differ by their seeds alone and are most like
            the net, at .5 they cost half; the figure for the net itself then leans on confidences
            of nets with less data.
        store: keeps the confidences of a pair, by a name that holds a digest of all of the above
            and of :func:`versions`.
        report: called during every training.

    Returns:
        ``ulira_auc`` and ``ulira_accuracy`` of the recipe (shadow nets judged by the others),
        ``ulira_net_auc`` of the net; targets 0.5.

    Raises:
        InvalidDataError: too few pairs, a share outside (0, 1], or sets that do not fit.
        NonFiniteLossError, FrozenWeightChangedError, CancelledError: from training.
    """
    _check(pairs, retain_share, training)
    contract.check_data(data, config.num_classes)
    digest = _digest(config, data, spec, training, retain_share)
    count = max(1, round(retain_share * len(data.retain_set)))
    passes = (training.epochs * (count + len(data.forget_set)), spec.epochs * count)
    telling = trials.parts(report, [*passes, training.epochs * count] * pairs)
    found = []
    for pair in range(pairs):
        parts = telling[3 * pair : 3 * pair + 3]
        shadow = _Shadow(config, data, count, modes.device_of(net), f"{spec.seed}/{pair}", parts)
        computed = functools.partial(shadow.confidences, spec, training)
        found.append(store(f"ulira/{digest}/{pair}", computed))
    return _measurements(
        ulira.Shadows(*(torch.stack([kept[name] for kept in found]) for name in (_WITH, _WITHOUT))),
        _scores(net, config, data.forget_set),
    )


def _check(pairs: int, retain_share: float, training: specs.UnlearningSpec) -> None:
    if pairs < ulira.LEAST_PAIRS:
        raise errors.InvalidDataError(f"got {pairs} pairs, expected {ulira.LEAST_PAIRS} or more")
    if not 0.0 < retain_share <= 1.0 or training.method != "retrain":
        raise errors.InvalidDataError(
            f"got share {retain_share} and training by {training.method}, expected a share in "
            "(0, 1] and retrain"
        )


class _Shadow:
    """One pair of nets."""

    def __init__(
        self,
        config: specs.ClassifierConfig,
        data: contract.UnlearningData,
        count: int,
        device: torch.device,
        name: str,
        telling: Sequence[progress.Progress],
    ) -> None:
        self._config, self._data, self._count = config, data, count
        self._device, self._name, self._telling = device, name, telling

    def confidences(self, spec: specs.UnlearningSpec, training: specs.UnlearningSpec) -> Tensors:
        """Of the forget set under the unlearned and under the retrained net, float (N,) each."""
        forget, retain = self._data.forget_set, self._data.retain_set
        generator = randomness.generator(self._seed("draw"))
        order = torch.randperm(len(retain), generator=generator)
        kept = retain.subset(order[: self._count].sort().values.tolist())
        data = dataclasses.replace(self._data, retain_set=kept, previous_set=None)
        learning, unlearning, retraining = self._telling
        net = self._trained(images.concatenate(kept, forget), training, "with", learning)
        own = spec.model_copy(update={"seed": self._seed("unlearn")})
        trials.carry_out(net, self._config, data, own, unlearning)
        unlearned = _scores(net, self._config, forget)
        del net  # before the next one is built
        net = self._trained(kept, training, "without", retraining)
        return {_WITH: unlearned, _WITHOUT: _scores(net, self._config, forget)}

    def _seed(self, purpose: str) -> int:
        return randomness.derive_seed(0, "shadow", self._name, purpose)

    def _trained(
        self,
        image_set: images.ImageSet,
        training: specs.UnlearningSpec,
        purpose: str,
        report: progress.Progress,
    ) -> torch.nn.Module:
        spec = training.model_copy(update={"seed": self._seed(purpose)})
        return retrain.train(self._config, image_set, spec, report, self._device)


def _scores(
    net: torch.nn.Module, config: specs.ClassifierConfig, image_set: images.ImageSet
) -> torch.Tensor:
    preprocess = preprocessing.Preprocessing(config.pretrained_cfg)
    return inference.answers(net, image_set, preprocess).scores


def _digest(
    config: specs.ClassifierConfig,
    data: contract.UnlearningData,
    spec: specs.UnlearningSpec,
    training: specs.UnlearningSpec,
    retain_share: float,
) -> str:
    told = [
        versions(),
        config.model_dump(mode="json"),
        spec.model_dump(mode="json"),
        training.model_dump(mode="json"),
        retain_share,
        data.excluded_labels,
        data.cross_fitted,
        *(s.ids for s in (data.forget_set, data.retain_set, data.holdout_set)),
    ]
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()[:32]


def _measurements(shadows: ulira.Shadows, scores: torch.Tensor) -> dict[str, specs.Measurement]:
    found = ulira.evaluate(shadows)
    pairs, samples = shadows.unlearned.shape
    detail = {"pairs": pairs, "tpr_at_1pct_fpr": found.tpr_at_1pct_fpr}
    return {
        "ulira_auc": specs.Measurement(
            value=found.auc,
            target=0.5,
            standard_error=found.standard_error,
            n=samples,
            detail=detail,
        ),
        "ulira_accuracy": specs.Measurement(
            value=found.accuracy, target=0.5, n=samples, detail=detail
        ),
        "ulira_net_auc": specs.Measurement(
            value=ulira.auc_of(scores, shadows), target=0.5, n=samples, detail={"pairs": pairs}
        ),
    }
