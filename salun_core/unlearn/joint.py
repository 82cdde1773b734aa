"""Joint steps: one forward pass of a retain and a forget batch.

loss = CE(retain batch) + ``forget_weight`` · (soft CE(forget batch, target distributions)
+ ``score_weight`` · Huber(s, t)), with s the logit-scaled confidence and t the wanted one. Cross-
entropy alone hardly moves a sample from 99.99 % to 99.7 %, but an attack that ranks confidences
sees the difference as well as any other.
"""

import itertools

import torch
from torch.nn import functional

from salun_core import (
    batchnorm,
    confidence,
    images,
    inference,
    masks,
    preprocessing,
    progress,
    recipes,
    specs,
)
from salun_core.unlearn import contract, targets, training

# An early stop comes in the second half of a run at the earliest: what was reached in a hurry comes
# back when the net is trained on what it keeps. It leaves this many epochs, their learning rate
# that of a run planned so long: lower than it was, and falling to 0. On the CIFAR-10 nets of
# `benchmarks.quality` one was too few (average gap 1.9 points against 1.2 with two and 1.0 with the
# whole run, n 3).
_LAST_EPOCHS = 2


def train(
    net: torch.nn.Module,
    config: specs.ClassifierConfig,
    data: contract.UnlearningData,
    mask: masks.SaliencyMask | None,
    spec: specs.UnlearningSpec,
    report: progress.Progress,
    checkpoints: progress.Checkpoints | None,
) -> contract.UnlearnResult:
    """Run all epochs, or fewer with ``spec.early_stop``; ``detail`` has ``stopped_early``.

    The forget set is matched or redistributed as ``spec.targets`` says. Earlier erasures are held
    at the same time: whole classes redistributed, other samples matched.
    """
    joint = Joint(net, config, data, spec)
    run = training.Training(
        net, config, mask, spec, joint.steps_per_epoch, report, checkpoints, joint.state()
    )
    for epoch in run.epochs():
        joint.epoch(run, epoch)
        if run.steps < run.total_steps:
            matched = joint.correct(run.net)
            if matched and spec.early_stop and not run.is_shortened and _may_end(spec, epoch + 1):
                run.end_after(_LAST_EPOCHS)
    return run.result(batchnorm.statistics_names(net), {"stopped_early": run.is_shortened})


class Joint:
    """The erased samples with their targets, and steps towards them.

    Args:
        net: holds the original weights; not changed.
        config: of the net.
        data: the sets the method may look at.
        spec: the recipe.

    Raises:
        InvalidDataError: matched targets without a holdout set, or no class to spread to.
    """

    def __init__(
        self,
        net: torch.nn.Module,
        config: specs.ClassifierConfig,
        data: contract.UnlearningData,
        spec: specs.UnlearningSpec,
    ) -> None:
        self._data, self._spec = data, spec
        self._erased = contract.erased_set(data)
        self._preprocess = preprocessing.Preprocessing(config.pretrained_cfg)
        self._groups = _groups(net, data, self._erased, self._preprocess, spec)
        self.steps_per_epoch = spec.count_batches(len(data.retain_set))

    def state(self) -> dict[str, torch.Tensor]:
        """What changes during a run, to be saved and overwritten in place."""
        return {
            f"{n}.{k}": v for n, (_, t) in enumerate(self._groups) for k, v in t.state().items()
        }

    def epoch(self, run: training.Training, epoch: int, most: int | None = None) -> None:
        """A shuffled pass over the retain set, or its first ``most`` steps."""
        spec, retain_set = self._spec, self._data.retain_set
        size = recipes.forget_batch_size(len(self._erased), self.steps_per_epoch, spec.batch_size)
        forget_batches = images.endless_batches(len(self._erased), size, spec.seed, "forget", epoch)
        retain_batches = images.shuffled_batches(
            len(retain_set), spec.batch_size, spec.seed, "retain", epoch
        )
        for rows in itertools.islice(retain_batches, most):
            _step(run, retain_set, rows, self._erased, next(forget_batches), self._groups)

    def correct(self, net: torch.nn.Module) -> bool:
        """Close the loop; whether every erased sample is where it should be."""
        holdout: inference.Answers | None = None
        matched = True
        for rows, wanted in self._groups:
            erased = self._erased.subset(rows.tolist())
            own = inference.answers(net, erased, self._preprocess)
            if holdout is None and wanted.state():
                holdout = inference.answers(net, self._data.holdout_set, self._preprocess)
            matched &= wanted.correct(own, holdout)
        return matched


# Positions in the erased set, and their targets (indexed by place in the positions).
_Group = tuple[torch.Tensor, targets.Targets]


def _groups(
    net: torch.nn.Module,
    data: contract.UnlearningData,
    erased: images.ImageSet,
    preprocess: preprocessing.Preprocessing,
    spec: specs.UnlearningSpec,
) -> list[_Group]:
    logits = inference.logits(net, erased, preprocess)
    refused = contract.refused_labels(data)
    spread = torch.isin(erased.labels, torch.tensor(refused, dtype=torch.int64))
    if spec.targets == "redistribute":
        spread[: len(data.forget_set)] = True
    groups: list[_Group] = []
    if bool(spread.any()):
        rows = spread.nonzero().flatten()
        own = targets.Redistributed(logits[rows], erased.labels[rows], refused)
        groups.append((rows, own))
    if not bool(spread.all()):
        rows = (~spread).nonzero().flatten()
        holdout = inference.answers(net, data.holdout_set, preprocess).scores
        folds = data.folds(erased)[rows], data.folds(data.holdout_set)
        matched = targets.Matched(
            logits[rows], erased.labels[rows], holdout, data.holdout_set.labels, refused, folds
        )
        groups.append((rows, matched))
    return groups


def _may_end(spec: specs.UnlearningSpec, epochs_done: int) -> bool:
    return 2 * epochs_done >= spec.epochs > epochs_done + _LAST_EPOCHS


def _step(
    run: training.Training,
    retain_set: images.ImageSet,
    retain_rows: torch.Tensor,
    erased: images.ImageSet,
    forget_rows: torch.Tensor,
    groups: list[_Group],
) -> None:
    wanted, scores = (part.to(run.device) for part in _wanted(groups, forget_rows))
    erased_labels = erased.labels[forget_rows].to(run.device)
    labels = retain_set.labels[retain_rows].to(run.device)
    inputs = run.inputs(torch.cat([retain_set.images[retain_rows], erased.images[forget_rows]]))
    count = len(retain_rows)

    def losses() -> dict[str, torch.Tensor]:
        with batchnorm.retain_statistics(count, len(inputs)):
            logits = run.net(inputs)
        return {
            "retain": functional.cross_entropy(logits[:count], labels),
            "forget": run.spec.forget_weight
            * _forget_loss(logits[count:], erased_labels, wanted, scores, run.spec.score_weight),
        }

    run.step(losses)


def _forget_loss(
    logits: torch.Tensor,
    labels: torch.Tensor,
    wanted: torch.Tensor,
    scores: torch.Tensor,
    score_weight: float,
) -> torch.Tensor:
    loss = functional.cross_entropy(logits, wanted)
    matched = ~torch.isnan(scores)
    if score_weight == 0.0 or not bool(matched.any()):
        return loss
    got = confidence.logit_scaled_confidence(logits[matched], labels[matched])
    # The sum over the matched ones by the size of the whole batch: every sample weighs the same.
    distance = functional.huber_loss(got, scores[matched], reduction="sum") / len(labels)
    return loss + score_weight * distance


def _wanted(groups: list[_Group], rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Targets (len(rows), K) and wanted confidences (len(rows),) at these positions."""
    distributions: torch.Tensor | None = None
    scores = torch.full((len(rows),), float("nan"))
    for members, wanted in groups:
        place = torch.searchsorted(members, rows).clamp(max=len(members) - 1)
        mine = members[place] == rows
        part = wanted.distributions(place[mine])
        if distributions is None:
            distributions = torch.zeros(len(rows), part.shape[1])
        distributions[mine] = part
        scores[mine] = wanted.scores(place[mine])
    if distributions is None:
        raise AssertionError("no erased sample")
    return distributions, scores
