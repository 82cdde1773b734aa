"""Which learning rate a net bears: a few joint steps at falling rates before the run.

The recipes' rates suit nets with batch norm; others fall apart under them. A rate holds when,
ramped up to it, the last steps' cross-entropy on retain batches stays nearer to where it began than
to ln K, the loss of a net that knows nothing.
"""

import contextlib
import itertools
import math
from collections.abc import Mapping
from typing import Any

import torch

from salun_core import errors, masks, progress, specs
from salun_core.unlearn import contract, joint, training

STEPS = 20
_MEASURED = 5  # last steps, at the full rate
_DIVISORS = (1, 3, 9, 27)


def settle(
    net: torch.nn.Module,
    original: Mapping[str, torch.Tensor],
    config: specs.ClassifierConfig,
    data: contract.UnlearningData,
    mask: masks.SaliencyMask | None,
    spec: specs.UnlearningSpec,
) -> tuple[specs.UnlearningSpec, dict[str, Any]]:
    """The recipe with the first of a few rates that holds; the last one if none does.

    Args:
        net: holds the original weights, also afterwards, bit for bit.
        original: its state.
        config: of the net.
        data: the sets the method may look at.
        mask: weights that may change; ``None`` for all.
        spec: a joint recipe; its rate is tried first.

    Returns:
        The recipe, and what to report of it: ``learning_rate``, and ``tried``: each rate with its
        ``retain_loss`` (``None`` where it diverged), the ``limit`` that it was held against, and
        whether it ``held``.

    Raises:
        InvalidDataError: matched targets without a holdout set, or no class to spread to.
    """
    steps = joint.Joint(net, config, data, spec)
    tried: list[dict[str, Any]] = []
    for divisor in _DIVISORS:
        rate = spec.learning_rate / divisor
        first, last = _losses(net, config, mask, _ramp(spec, rate), steps)
        net.load_state_dict(original)
        limit = (first + math.log(config.num_classes)) / 2
        held = last is not None and last <= limit
        tried.append({"learning_rate": rate, "retain_loss": last, "limit": limit, "held": held})
        if held:
            break
    net.zero_grad(set_to_none=True)
    net.eval()
    rate = tried[-1]["learning_rate"]
    return spec.model_copy(update={"learning_rate": rate}), {"learning_rate": rate, "tried": tried}


def _ramp(spec: specs.UnlearningSpec, rate: float) -> specs.UnlearningSpec:
    ramp = {"warmup_fraction": 1.0 - _MEASURED / STEPS, "decay": "constant", "epochs": 1}
    return spec.model_copy(update={**ramp, "learning_rate": rate})


def _losses(
    net: torch.nn.Module,
    config: specs.ClassifierConfig,
    mask: masks.SaliencyMask | None,
    spec: specs.UnlearningSpec,
    steps: joint.Joint,
) -> tuple[float, float | None]:
    """Of the first step, before anything changed, and the mean of the last."""
    run = training.Training(net, config, mask, spec, STEPS, progress.silent, None)
    with contextlib.suppress(errors.NonFiniteLossError):
        for epoch in itertools.count():
            steps.epoch(run, epoch, STEPS - run.steps)
            if run.steps == STEPS:
                break
    losses = run.step_losses("retain")
    first = losses[0] if losses else math.inf
    return first, sum(losses[-_MEASURED:]) / _MEASURED if run.steps == STEPS else None
