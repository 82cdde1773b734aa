"""All methods by name, and the one way to run them."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import torch

from salun_core import errors, masked_step, masks, progress, specs
from salun_core.unlearn import (
    boundary_expand,
    boundary_shrink,
    contract,
    finetune,
    fisher_forgetting,
    gradient_ascent,
    influence,
    l1_sparse,
    random_label,
    rate_probe,
    retrain,
    salun,
    salun_soft,
)

METHODS: Mapping[specs.MethodName, contract.Method] = {
    "salun": salun.unlearn,
    "salun_soft": salun_soft.unlearn,
    "random_label": random_label.unlearn,
    "finetune": finetune.unlearn,
    "gradient_ascent": gradient_ascent.unlearn,
    "l1_sparse": l1_sparse.unlearn,
    "influence": influence.unlearn,
    "fisher_forgetting": fisher_forgetting.unlearn,
    "boundary_shrink": boundary_shrink.unlearn,
    "boundary_expand": boundary_expand.unlearn,
    "retrain": retrain.unlearn,
}


def unlearn(
    net: torch.nn.Module,
    config: specs.ClassifierConfig,
    data: contract.UnlearningData,
    mask: masks.SaliencyMask | None,
    spec: specs.UnlearningSpec,
    report: progress.Progress = progress.silent,
    checkpoints: progress.Checkpoints | None = None,
) -> contract.UnlearnResult:
    """Run ``spec.method`` in place and prove what must hold whatever the method.

    Args:
        net: holds the original weights, also when a run is resumed from ``checkpoints``.
        config: of the net.
        data: the sets the method may look at.
        mask: weights that may change; ``None`` for all.
        spec: the recipe.
        report: called at every step; may raise ``CancelledError``.
        checkpoints: where the state is kept at epoch ends, and taken up from.

    Raises:
        InvalidDataError: the sets, or mask and net, do not fit each other.
        NonFiniteLossError: the loss or a weight became NaN or infinite.
        FrozenWeightChangedError: a weight outside the mask is not bit-identical.
        CancelledError: from ``report``.
    """
    contract.check_data(data, config.num_classes)
    original = masked_step.copy_state(net)
    probed: dict[str, Any] = {}
    if spec.probe_rate:
        spec, probed["rate_probe"] = rate_probe.settle(net, original, config, data, mask, spec)
    result = METHODS[spec.method](net, config, data, mask, spec, report, checkpoints)
    assert_finite(net)
    masked_step.assert_frozen_unchanged(original, net, mask, result.changed_buffers)
    return dataclasses.replace(result, detail={**result.detail, **probed})


def assert_finite(net: torch.nn.Module) -> None:
    """Every weight and buffer is a finite number.

    Raises:
        NonFiniteLossError: naming the first tensor that holds another.
    """
    for name, tensor in net.state_dict().items():
        if not bool(torch.isfinite(tensor).all()):
            raise errors.NonFiniteLossError(f"got a value in {name} that is not finite")
