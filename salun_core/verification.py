"""Measure an unlearned net and keep the evidence: numbers, targets, sampling errors.

Nothing is judged here. How often nets are read, and what copies of them are trained further, one at
a time, says :mod:`salun_core.comparison`.
"""

import dataclasses
import platform
import time
from collections.abc import Mapping
from typing import Any

import numpy as np
import sklearn
import timm
import torch

from salun_core import (
    change_records,
    comparison,
    errors,
    images,
    inference,
    masked_step,
    masks,
    measures,
    progress,
    specs,
)

_BIN_EDGES = tuple(float(edge) for edge in range(-16, 25))


@dataclasses.dataclass(frozen=True, eq=False)
class Splits:
    """The sets that verification looks at.

    Attributes:
        forget_set: what this job erased.
        retain_set: what the net kept; nothing that was ever erased.
        holdout_set: never trained on, or empty: then nothing class-matched can be measured and
            the gates of samples fail.
        test_set: never trained on and never shown to the method, unless it is cross-fitted.
        previous_set: what earlier jobs erased; ``None`` or empty if nothing.
        previous_groups: int64 (N,), equal for samples that were erased together, each of whose
            groups is judged too; ``None`` if all are only judged together.
        base_knows_previous: the original still knows what earlier jobs erased.
        cross_fitted: what was erased was matched so, see :mod:`salun_core.crossfit`; the holdout
            set may then have the samples of the test set.
    """

    forget_set: images.ImageSet
    retain_set: images.ImageSet
    holdout_set: images.ImageSet
    test_set: images.ImageSet
    previous_set: images.ImageSet | None = None
    previous_groups: torch.Tensor | None = None
    cross_fitted: bool = False
    base_knows_previous: bool = False

    def by_name(self) -> dict[str, images.ImageSet]:
        """Every set that is there, by short name."""
        sets = {
            "forget": self.forget_set,
            "retain": self.retain_set,
            "holdout": self.holdout_set,
            "test": self.test_set,
        }
        if self.previous_set is not None and len(self.previous_set):
            sets["previous"] = self.previous_set
        return sets


@dataclasses.dataclass(frozen=True, eq=False)
class Subject:
    """What was done to the net, as far as verification must know.

    Attributes:
        kind: ``samples`` or ``class``.
        mask: weights that were allowed to change; ``None`` for all.
        changed_buffers: from the method's result.
        excluded_labels: classes that earlier jobs erased as a whole.
        spec: the recipe.
        withheld_labels: classes that later jobs are to erase as a whole; nothing is asked of them.
    """

    kind: specs.ForgetKind
    mask: masks.SaliencyMask | None
    changed_buffers: tuple[str, ...]
    spec: specs.UnlearningSpec
    excluded_labels: tuple[int, ...] = ()
    withheld_labels: tuple[int, ...] = ()


def verify(
    original: torch.nn.Module,
    unlearned: torch.nn.Module,
    config: specs.ClassifierConfig,
    splits: Splits,
    subject: Subject,
    report: progress.Progress = progress.silent,
    retrained: torch.nn.Module | None = None,
) -> specs.VerificationReport:
    """Measure the unlearned net, and the original beside it.

    Args:
        original: the net before; in the unlearned net's format.
        unlearned: the net after.
        config: of all nets.
        splits: all labels are classes of the net.
        subject: what was done.
        report: called after every forward batch and every step of further training.
        retrained: a net that never saw the forget set, where there is one: measured too, and the
            reference for what has no other.

    Returns:
        Metrics as the design's table names them; ``evidence`` holds pool sizes, the same metrics
        of the original (and of the retrained net; over all folds where there are some), whom the
        change fell on, what could not be measured and why, warnings, histograms, mask record,
        versions, CPU threads; ``seconds`` has ``verify``.

    Raises:
        InvalidDataError: a set that must have samples is empty, or a label is no class.
        NonFiniteLossError: a net's gradients are not finite.
        CancelledError: from ``report``.
    """
    started = time.perf_counter()
    compared = _comparison(config, splits, subject)
    ticker = progress.Ticker(report, compared.count_steps(1, 1 if retrained is None else 2))
    before = compared.read_original(original, ticker)
    reference = None if retrained is None else compared.read(retrained, before, ticker)
    after = compared.read(unlearned, before, ticker)
    found = compared.compare(after, before, reference)
    state = masked_step.copy_state(original)
    frozen = change_records.frozen_weights_unchanged(
        state, unlearned, subject.mask, subject.changed_buffers
    )
    metrics = {"frozen_weights_unchanged": frozen, **found.metrics}
    was = compared.compare(before, before).values
    evidence = {
        **_evidence(config, splits, subject),
        "weights_changed": change_records.changed_share(state, unlearned),
        "group_shift": measures.group_shift(found.metrics, config.labels),
        "not_measured": dict(found.not_measured),
        "original": was,
        "warnings": _warnings(was["retain_accuracy"], len(config.labels)),
        "histograms": {
            "bin_edges": list(_BIN_EDGES),
            "before": _histograms(before.answers, splits),
            "after": _histograms(after.answers, splits),
        },
    }
    if reference is not None:
        others = compared.compare(reference, before)
        evidence["retrained"] = others.values
        metrics["average_gap"] = measures.average_gap(found.metrics, others.metrics)
    seconds = {"verify": time.perf_counter() - started}
    return specs.VerificationReport(
        kind=subject.kind, metrics=metrics, evidence=evidence, seconds=seconds
    )


def read_original(
    original: torch.nn.Module,
    config: specs.ClassifierConfig,
    splits: Splits,
    subject: Subject,
    report: progress.Progress = progress.silent,
) -> comparison.Reading:
    """What :func:`measure` needs of the original, for measuring several nets.

    Raises:
        InvalidDataError, CancelledError: as for :func:`verify`.
    """
    compared = _comparison(config, splits, subject)
    return compared.read_original(original, progress.Ticker(report, compared.count_steps(1, 0)))


def measure(
    net: torch.nn.Module,
    original: torch.nn.Module | comparison.Reading,
    config: specs.ClassifierConfig,
    splits: Splits,
    subject: Subject,
    report: progress.Progress = progress.silent,
) -> dict[str, specs.Measurement]:
    """The metrics of any other net, for example one retrained without the data.

    Utility is compared with ``original``: the net, or its reading on the same splits for the same
    subject. ``frozen_weights_unchanged`` is left out.

    Raises:
        InvalidDataError, NonFiniteLossError, CancelledError: as for :func:`verify`.
    """
    compared = _comparison(config, splits, subject)
    if isinstance(original, comparison.Reading):
        before, ticker = original, progress.Ticker(report, compared.count_steps(0, 1))
    else:
        ticker = progress.Ticker(report, compared.count_steps(1, 1))
        before = compared.read_original(original, ticker)
    return dict(compared.compare(compared.read(net, before, ticker), before).metrics)


def measure_erased(
    net: torch.nn.Module,
    config: specs.ClassifierConfig,
    splits: Splits,
    excluded_labels: tuple[int, ...],
    report: progress.Progress = progress.silent,
) -> dict[str, specs.Measurement]:
    """What a net that is said never to have seen it knows of what was erased before it came.

    Args:
        net: in eval mode.
        config: of the net.
        splits: the set ``previous`` must have samples; beside it only the holdout set is read.
        excluded_labels: classes that were erased as a whole.
        report: called after every forward batch.

    Raises:
        InvalidDataError: nothing was erased, or a label is no class.
        CancelledError: from ``report``.
    """
    if splits.previous_set is None or not len(splits.previous_set):
        raise errors.InvalidDataError("got nothing that was erased, expected samples")
    sets = {"previous": splits.previous_set, "holdout": splits.holdout_set}
    compared = comparison.outputs_of(
        net, config, sets, splits.previous_groups, splits.cross_fitted, report
    )
    return measures.erased_before(
        compared["previous"], compared["holdout"], excluded_labels, never_saw=True
    )


def _comparison(
    config: specs.ClassifierConfig, splits: Splits, subject: Subject
) -> comparison.Comparison:
    return comparison.Comparison(
        config,
        splits.by_name(),
        subject.kind,
        subject.excluded_labels,
        subject.spec.seed,
        splits.cross_fitted,
        splits.previous_groups,
        subject.withheld_labels,
        never_saw=subject.spec.method == "retrain",
    )


def _warnings(retain_accuracy: float, classes: int) -> list[str]:
    """That the original hardly knows its own training data: then nothing here says much."""
    if retain_accuracy > 2 / classes:
        return []
    return [
        f"the original names {retain_accuracy:.0%} of its own training samples right, about as "
        "many as guessing or fewer: its label_names may be in another order than its outputs, or "
        "pretrained_cfg (input_size, mean, std) may not be that of its training"
    ]


def _evidence(config: specs.ClassifierConfig, splits: Splits, subject: Subject) -> dict[str, Any]:
    pools = {name: len(image_set) for name, image_set in splits.by_name().items()}
    if splits.previous_set is not None:
        kept = splits.previous_set.without_labels(
            measures.spread_labels(subject.kind, splits.forget_set.labels, subject.excluded_labels)
        )
        pools["previous_samples"] = len(kept)
    return {
        "pools": pools,
        "labels": list(config.labels),
        "excluded_labels": list(subject.excluded_labels),
        "withheld_labels": list(subject.withheld_labels),
        "seed": subject.spec.seed,
        "spec": subject.spec.model_dump(mode="json"),
        "mask": change_records.mask_record(subject.mask),
        "changed_buffers": list(subject.changed_buffers),
        "attacks": {
            "logistic": "logistic regression on logit-scaled confidence; balanced retain and test",
            "confidence_svc": "RBF SVC (C=3) on true-class probability; 1,000 retain and test at "
            "most, balanced",
            "threshold": "cross-entropy above the mean of the retain set's",
        },
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "timm": timm.__version__,
            "numpy": np.__version__,
            "scikit-learn": sklearn.__version__,
        },
        "threads": torch.get_num_threads(),  # other numbers give other last bits on a CPU
    }


def _histograms(answers: Mapping[str, inference.Answers], splits: Splits) -> dict[str, list[int]]:
    """Counts of logit-scaled confidence per bin; what lies outside counts in the end bins."""
    found = {}
    for name in ("forget", "holdout", "retain"):
        if not len(splits.by_name()[name]):
            continue
        clipped = np.clip(answers[name].scores.numpy(), _BIN_EDGES[0], _BIN_EDGES[-1])
        found[name] = np.histogram(clipped, bins=_BIN_EDGES)[0].tolist()
    return found
