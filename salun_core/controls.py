"""Does the mask matter? The same recipe with other masks, measured in the same way.

The controls that the paper's referees asked for: a random mask of the same density in every layer,
no mask, and other densities. One net is in memory beside the original at a time.
"""

import copy
import dataclasses
import statistics
import time
from collections.abc import Iterator, Mapping, Sequence

import torch

from salun_core import (
    errors,
    masks,
    preprocessing,
    progress,
    saliency,
    specs,
    trials,
    verification,
)
from salun_core.unlearn import contract, methods


@dataclasses.dataclass(frozen=True)
class Run:
    """One run of the recipe under another mask.

    Attributes:
        name: ``random_mask``, ``no_mask`` or ``density_<d>``.
        spec: the recipe as it was run.
        density: share of the weights that could change.
        metrics: see :func:`salun_core.verification.measure`; nothing for a run that diverged.
        seconds: mask and unlearning, measuring left out.
        diverged: what became non-finite, if something did.
    """

    name: str
    spec: specs.UnlearningSpec
    density: float
    metrics: Mapping[str, specs.Measurement]
    seconds: float
    diverged: str | None = None


def run(
    original: torch.nn.Module,
    config: specs.ClassifierConfig,
    splits: verification.Splits,
    kind: specs.ForgetKind,
    spec: specs.UnlearningSpec,
    *,
    excluded_labels: tuple[int, ...] = (),
    withheld_labels: tuple[int, ...] = (),
    densities: Sequence[float] = (),
    seeds: Sequence[int] = (),
    report: progress.Progress = progress.silent,
) -> list[Run]:
    """Run and measure the recipe with a random mask, without one, and at every density.

    The gradients behind all masks are computed once. Every run is measured on the same samples. A
    run that diverges is told as such and stops none of the others.

    Args:
        original: the net before; not changed.
        config: of the net.
        splits: what the recipe may look at, and the test set.
        kind: of the request.
        spec: the recipe, with a saliency mask.
        excluded_labels: classes erased earlier.
        withheld_labels: classes of which nothing is kept and nothing asked.
        densities: further shares of the weights, each in (0, 1].
        seeds: of the runs, for error bars; the recipe's own if none is given.
        report: called at every step of unlearning and measuring.

    Raises:
        InvalidDataError: the recipe has no saliency mask, a density is outside (0, 1], or the sets
            do not fit.
        NonFiniteLossError: the original's gradients are not finite.
        FrozenWeightChangedError, CancelledError: from a run.
    """
    if spec.mask != "saliency":
        raise errors.InvalidDataError(f"got mask {spec.mask!r}, expected a recipe with 'saliency'")
    preprocess = preprocessing.Preprocessing(config.pretrained_cfg)
    subject = verification.Subject(kind, None, (), spec, excluded_labels, withheld_labels)
    count = (2 + len(densities)) * len(seeds or (spec.seed,))
    masking, *telling = trials.parts(report, [200, *[800, 200] * count])
    data = contract.UnlearningData(
        splits.forget_set, splits.retain_set, splits.holdout_set, splits.previous_set,
        (*excluded_labels, *withheld_labels), splits.cross_fitted, splits.base_knows_previous,
    )  # fmt: skip
    magnitudes = saliency.gradient_magnitudes(
        original, contract.known_set(data), preprocess, masking, batch_size=spec.batch_size
    )
    # Checked before the first long run. Bit-packed, so they may all be kept.
    found = {d: saliency.mask_from_magnitudes(magnitudes, d) for d in (spec.density, *densities)}
    del magnitudes
    planned = [
        item
        for seed in seeds or (spec.seed,)
        for item in _variants(spec.model_copy(update={"seed": seed}), found, densities)
    ]
    before = verification.read_original(original, config, splits, subject)
    runs = []
    for turn, (name, own, mask) in enumerate(planned):
        learning, measuring = telling[2 * turn : 2 * turn + 2]
        metrics: Mapping[str, specs.Measurement] = {}
        diverged = None
        started = finished = time.perf_counter()
        try:
            net = copy.deepcopy(original)
            methods.unlearn(net, config, data, mask, own, learning)
            finished = time.perf_counter()
            metrics = verification.measure(net, before, config, splits, subject, measuring)
        except errors.NonFiniteLossError as error:
            diverged = str(error)
        density = 1.0 if mask is None else mask.density
        runs.append(Run(name, own, density, metrics, finished - started, diverged))
    return runs


def summary(runs: Sequence[Run]) -> dict[str, dict[str, dict[str, float]]]:
    """Mean and spread over the seeds: name of the run, metric, ``mean``, ``sd`` and ``n``.

    Of all samples, not of the fold that a measurement stands for: runs are compared by this.
    ``sd`` is the sample standard deviation, left out for a single seed.
    """
    values: dict[str, dict[str, list[float]]] = {}
    for item in runs:
        for metric, measurement in item.metrics.items():
            values.setdefault(item.name, {}).setdefault(metric, []).append(measurement.whole)
    return {
        name: {metric: _spread(found) for metric, found in metrics.items()}
        for name, metrics in values.items()
    }


def _variants(
    spec: specs.UnlearningSpec,
    found: Mapping[float, masks.SaliencyMask],
    densities: Sequence[float],
) -> Iterator[tuple[str, specs.UnlearningSpec, masks.SaliencyMask | None]]:
    randomised = masks.random_mask(found[spec.density], spec.seed)
    yield "random_mask", spec.model_copy(update={"mask": "random"}), randomised
    yield "no_mask", spec.model_copy(update={"mask": "none", "density": 1.0}), None
    for density in densities:
        yield f"density_{density:g}", spec.model_copy(update={"density": density}), found[density]


def _spread(values: Sequence[float]) -> dict[str, float]:
    found = {"mean": statistics.fmean(values), "n": float(len(values))}
    return found if len(values) < 2 else {**found, "sd": statistics.stdev(values)}
