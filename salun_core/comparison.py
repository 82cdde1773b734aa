"""Read nets on the same samples and compare what they gave.

Each net reads each set once; where the pool of unseen samples holds the test set, that is two sets
with the same samples. A copy of the net is trained a little further (:mod:`salun_core.recovery`
says what that costs). Everything else is computed from the readings.
"""

import contextlib
import dataclasses
from collections.abc import Callable, Mapping

import torch

from salun_core import (
    crossfit,
    errors,
    heads,
    images,
    inference,
    likeness,
    measures,
    preprocessing,
    progress,
    specs,
    traces,
)
from salun_core.metrics import accuracy, shortcut


@dataclasses.dataclass(frozen=True, eq=False)
class Reading:
    """What one net gave.

    Attributes:
        answers: by set.
        head: of a net whose class was forgotten, where it ends in a linear layer.
        tuned: after more training; ``None`` for the original, which is the yardstick.
    """

    answers: Mapping[str, inference.Answers]
    head: traces.Head | None
    tuned: traces.Tuned | None


@dataclasses.dataclass(frozen=True)
class Found:
    """Metrics, and for each that could not be measured the reason."""

    metrics: Mapping[str, specs.Measurement]
    not_measured: Mapping[str, str]

    @property
    def values(self) -> dict[str, float]:
        """The bare numbers, of all samples, to be compared with another net's."""
        return {name: measurement.whole for name, measurement in self.metrics.items()}


class Comparison:
    """The samples, and how nets are read and compared on them.

    Args:
        config: of every net.
        sets: ``forget``, ``retain``, ``holdout``, ``test`` and perhaps ``previous``.
        kind: of the request.
        excluded_labels: classes erased earlier.
        seed: of all draws; the same arguments draw the same samples.
        cross_fitted: erased samples were matched to holdout samples of their fold, see
            :mod:`salun_core.crossfit`, and are compared with the others only; but
            ``resurfacing`` compares with the whole pool, their own fold too.
        previous_groups: int64 (N,) of the set ``previous``: samples that were erased together.
        withheld_labels: classes that later jobs are to erase; nothing is asked of them.
        never_saw: the net that is judged was trained from scratch without the erased samples.

    Raises:
        InvalidDataError: the forget, retain or test set is empty, or a label is no class.
    """

    def __init__(
        self,
        config: specs.ClassifierConfig,
        sets: Mapping[str, images.ImageSet],
        kind: specs.ForgetKind,
        excluded_labels: tuple[int, ...],
        seed: int,
        cross_fitted: bool = False,
        previous_groups: torch.Tensor | None = None,
        withheld_labels: tuple[int, ...] = (),
        *,
        never_saw: bool = False,
    ) -> None:
        for name, image_set in sets.items():
            images.check_labels(image_set, config.num_classes)
            if not len(image_set) and name in ("forget", "retain", "test"):
                raise errors.InvalidDataError(f"got an empty {name} set, expected samples")
        self._config, self._sets = config, sets
        self._kind, self._excluded, self._seed = kind, excluded_labels, seed
        self._withheld, self._never_saw = withheld_labels, never_saw
        self._preprocess = preprocessing.Preprocessing(config.pretrained_cfg)
        self._samples = traces.draw_samples(sets, kind, excluded_labels, seed)
        self._folds = deal(sets) if cross_fitted else {}
        self._groups = {} if previous_groups is None else {"previous": previous_groups}

    def count_steps(self, originals: int, others: int) -> int:
        """Calls of ``after_step`` for so many originals and other nets."""
        reading = sum(inference.count_batches(image_set) for image_set in self._sets.values())
        return (originals + others) * reading + others * self._samples.count_steps()

    def read_original(self, net: torch.nn.Module, after_step: Callable[[], None]) -> Reading:
        """The yardstick: read only."""
        return Reading(*self._read(net, after_step), tuned=None)

    def read(
        self, net: torch.nn.Module, original: Reading, after_step: Callable[[], None]
    ) -> Reading:
        """Any other net: read, and trained further as a copy.

        Raises:
            NonFiniteLossError: a gradient is not finite.
        """
        answers, head = self._read(net, after_step)
        panel, labels = self._samples.panel, self._samples.panel_set.labels
        known = accuracy.accuracy(original.answers["forget"].predicted[panel], labels)
        tuned = traces.fine_tuned(net, self._samples, known, self._preprocess, after_step)
        return Reading(answers, head, tuned)

    def compare(self, own: Reading, original: Reading, retrained: Reading | None = None) -> Found:
        """Every metric that the readings give; the original may be compared with itself.

        Raises:
            InvalidDataError: no class is kept.
        """
        outputs = {
            name: likeness.Outputs(
                original.answers[name].predicted,
                own.answers[name].predicted,
                own.answers[name].scores,
                image_set.labels,
                self._folds.get(name),
                self._groups.get(name),
            )
            for name, image_set in self._sets.items()
        }
        metrics = measures.all_measurements(
            outputs,
            self._kind,
            self._excluded,
            self._seed,
            self._withheld,
            never_saw=self._never_saw,
        )
        missing: dict[str, str] = {}
        tuned = None if retrained is None else retrained.tuned
        metrics["relearn_delay"] = traces.relearn_delay(own.tuned, tuned, self._samples)
        if own.tuned is not None:
            try:
                metrics["resurfacing"] = traces.resurfacing(own.tuned, tuned, self._samples)
            except errors.InvalidDataError as error:
                missing["resurfacing"] = str(error)
        if own.head is not None and original.head is not None:
            other = None if retrained is None else retrained.head
            metrics["head_bias_shortcut"] = traces.head_bias_shortcut(
                own.head, original.head, other, self._samples
            )
        elif self._kind == "class":
            missing["head_bias_shortcut"] = "the net does not end in a linear layer"
        return Found(metrics, missing)

    def _read(
        self, net: torch.nn.Module, after_step: Callable[[], None]
    ) -> tuple[dict[str, inference.Answers], traces.Head | None]:
        layer = self._head(net)
        answers, features = {}, {}
        for name, image_set in self._sets.items():
            tap = heads.Tap(self._samples.taps.get(name, torch.empty(0, dtype=torch.bool)))
            listening = layer is not None and name in self._samples.taps
            with tap.on(layer) if layer is not None and listening else contextlib.nullcontext():
                answers[name] = inference.answers(
                    net, image_set, self._preprocess, after_batch=after_step
                )
            if listening:
                features[name] = tap.features()
        if layer is None:
            return answers, None
        bias = None if layer.bias is None else layer.bias.detach().float().cpu()
        weights = shortcut.Layer(layer.weight.detach().float().cpu(), bias)
        return answers, traces.Head(weights, features)

    def _head(self, net: torch.nn.Module) -> torch.nn.Linear | None:
        if not self._samples.taps:
            return None
        try:
            return heads.find(net, self._config)
        except errors.InvalidDataError:
            return None


def outputs_of(
    net: torch.nn.Module,
    config: specs.ClassifierConfig,
    sets: Mapping[str, images.ImageSet],
    previous_groups: torch.Tensor | None,
    cross_fitted: bool,
    report: progress.Progress,
) -> dict[str, likeness.Outputs]:
    """What one net by itself gives on the sets ``previous`` and ``holdout``.

    Raises:
        InvalidDataError: a label is no class.
        CancelledError: from ``report``.
    """
    for image_set in sets.values():
        images.check_labels(image_set, config.num_classes)
    folds = deal(sets) if cross_fitted else {}
    ticker = progress.Ticker(report, sum(map(inference.count_batches, sets.values())))
    preprocess = preprocessing.Preprocessing(config.pretrained_cfg)
    found = {}
    for name, image_set in sets.items():
        answers = inference.answers(net, image_set, preprocess, after_batch=ticker)
        found[name] = likeness.Outputs(
            before=answers.predicted,
            after=answers.predicted,
            scores=answers.scores,
            labels=image_set.labels,
            folds=folds.get(name),
            groups=previous_groups if name == "previous" else None,
        )
    return found


def deal(sets: Mapping[str, images.ImageSet]) -> dict[str, torch.Tensor]:
    """The folds of all sets that have some, as methods deal them; int64 (N,).

    Args:
        sets: ``holdout`` (the whole pool), and which there are of ``forget``, ``previous`` and
            ``test``.
    """
    erased = [name for name in ("forget", "previous") if name in sets]
    found = {name: crossfit.erased_folds(sets[name]) for name in erased}
    pool = sets["holdout"]
    unseen = [name for name in ("holdout", "test") if name in sets]
    return found | {name: crossfit.folds_in(sets[name], pool) for name in unseen}
