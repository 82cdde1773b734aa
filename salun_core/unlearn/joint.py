"""Joint steps: one forward pass of a retain and a forget batch, cross-entropy on both.

loss = CE(retain batch) + ``forget_weight`` · soft CE(forget batch, target distributions).
"""

from collections.abc import Iterator

import torch
from torch.nn import functional

from salun_core import (
    batchnorm,
    images,
    inference,
    masks,
    preprocessing,
    progress,
    specs,
)
from salun_core.unlearn import contract, finetune, targets, training


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
    steps = finetune.count_batches(len(data.retain_set), spec.batch_size)
    state = {f"{n}.{k}": v for n, (_, t) in enumerate(groups) for k, v in t.state().items()}
    run = training.Training(net, config, mask, spec, steps, report, checkpoints, state)
    for epoch in run.epochs():
        forget_batches = _endless(len(erased), spec, epoch)
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
        matched = targets.Matched(
            logits[rows], erased.labels[rows], holdout, data.holdout_set.labels, refused
        )
        groups.append((rows, matched))
    return groups


def _endless(count: int, spec: specs.UnlearningSpec, epoch: int) -> Iterator[torch.Tensor]:
    size = max(1, min(count, spec.batch_size // 2))
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
    wanted = _distributions(groups, forget_rows).to(run.device)
    labels = retain_set.labels[retain_rows].to(run.device)
    inputs = run.inputs(torch.cat([retain_set.images[retain_rows], erased.images[forget_rows]]))
    count = len(retain_rows)

    def losses() -> dict[str, torch.Tensor]:
        with batchnorm.retain_statistics(count):
            logits = run.net(inputs)
        return {
            "retain": functional.cross_entropy(logits[:count], labels),
            "forget": run.spec.forget_weight * functional.cross_entropy(logits[count:], wanted),
        }

    run.step(losses)


def _distributions(groups: list[_Group], rows: torch.Tensor) -> torch.Tensor:
    """Targets (len(rows), K) of these positions in the erased set, whatever their group."""
    found: torch.Tensor | None = None
    for members, wanted in groups:
        place = torch.searchsorted(members, rows).clamp(max=len(members) - 1)
        mine = members[place] == rows
        part = wanted.distributions(place[mine])
        found = torch.zeros(len(rows), part.shape[1]) if found is None else found
        found[mine] = part
    if found is None:
        raise AssertionError("no erased sample")
    return found


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
