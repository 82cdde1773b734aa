"""Joint steps: one forward pass of a retain and a forget batch.

loss = CE(retain batch) + ``forget_weight`` · (soft CE(forget batch, target distributions)
+ ``score_weight`` · Huber(s, t)), with s the logit-scaled confidence and t the wanted one. Cross-
entropy alone hardly moves a sample from 99.99 % to 99.7 %, but an attack that ranks confidences
sees the difference as well as any other.
"""

from collections.abc import Iterator

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


def train(
    net: torch.nn.Module,
    config: specs.ClassifierConfig,
    data: contract.UnlearningData,
    mask: masks.SaliencyMask | None,
    spec: specs.UnlearningSpec,
    report: progress.Progress,
    checkpoints: progress.Checkpoints | None,
) -> training.Training:
    """Run all epochs; the caller closes the run.

    The forget set is matched or redistributed as ``spec.targets`` says. Earlier erasures are held
    at the same time: whole classes redistributed, other samples matched.
    """
    erased = contract.erased_set(data)
    preprocess = preprocessing.Preprocessing(config.pretrained_cfg)
    groups = _groups(net, data, erased, preprocess, spec)
    steps = training.count_batches(len(data.retain_set), spec.batch_size)
    state = {f"{n}.{k}": v for n, (_, t) in enumerate(groups) for k, v in t.state().items()}
    run = training.Training(net, config, mask, spec, steps, report, checkpoints, state)
    for epoch in run.epochs():
        forget_batches = _endless(len(erased), steps, spec, epoch)
        for rows in images.shuffled_batches(
            len(data.retain_set), spec.batch_size, spec.seed, "retain", epoch
        ):
            _step(run, data.retain_set, rows, erased, next(forget_batches), groups)
        _correct(net, data, erased, preprocess, groups)
    return run


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
        holdout = inference.logits(net, data.holdout_set, preprocess)
        folds = contract.erased_folds(data)[rows], data.folds(data.holdout_set)
        matched = targets.Matched(
            logits[rows], erased.labels[rows], holdout, data.holdout_set.labels, refused, folds
        )
        groups.append((rows, matched))
    return groups


def _endless(
    count: int, steps: int, spec: specs.UnlearningSpec, epoch: int
) -> Iterator[torch.Tensor]:
    size = recipes.forget_batch_size(count, steps, spec.batch_size)
    turn = 0
    while True:
        yield from images.shuffled_batches(count, size, spec.seed, "forget", epoch, turn)
        turn += 1


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
        with batchnorm.retain_statistics(count):
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


def _correct(
    net: torch.nn.Module,
    data: contract.UnlearningData,
    erased: images.ImageSet,
    preprocess: preprocessing.Preprocessing,
    groups: list[_Group],
) -> None:
    for rows, wanted in groups:
        if wanted.state():
            wanted.correct(
                inference.logits(net, erased.subset(rows.tolist()), preprocess),
                inference.logits(net, data.holdout_set, preprocess),
            )
