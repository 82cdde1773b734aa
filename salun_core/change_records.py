"""What changed in a net, as the reports of every family say it."""

from collections.abc import Mapping
from typing import Any

import torch

from salun_core import masked_step, masks, specs

_SHOWN = 20


def frozen_weights_unchanged(
    state: Mapping[str, torch.Tensor],
    net: torch.nn.Module,
    mask: masks.SaliencyMask | None,
    changed_buffers: tuple[str, ...] = (),
) -> specs.Measurement:
    """1 if everything outside the mask and the declared buffers is bit-identical, else 0.

    ``n`` counts what was compared: where every weight was free only buffers are left, or nothing.

    Args:
        state: the tensors before, see :func:`salun_core.masked_step.copy_state`.
        net: the net after.
        mask: weights that may change; ``None`` for all.
        changed_buffers: names of buffers that may change.

    Raises:
        InvalidDataError: the net has other tensors than the original.
    """
    found = masked_step.changed_frozen_weights(state, net, mask, changed_buffers)
    free = sum(state[name].numel() for name in changed_buffers)
    free += (
        sum(parameter.numel() for parameter in net.parameters())
        if mask is None
        else mask.salient_count
    )
    return specs.Measurement(
        value=float(not found),
        target=1.0,
        n=sum(tensor.numel() for tensor in state.values()) - free,
        detail={"free": free, "changed": dict(list(found.items())[:_SHOWN])},
    )


def changed_share(state: Mapping[str, torch.Tensor], net: torch.nn.Module) -> dict[str, Any]:
    """Share of weights whose bits changed, over all and per parameter; buffers not counted."""
    counts, sizes = {}, {}
    for name, parameter in net.named_parameters():
        counts[name] = int(masked_step.differing(state[name], parameter).sum())
        sizes[name] = parameter.numel()
    return {
        "share": sum(counts.values()) / sum(sizes.values()),
        "per_layer": {name: counts[name] / sizes[name] for name in counts},
    }


def mask_record(mask: masks.SaliencyMask | None) -> dict[str, Any] | None:
    """The mask's kind and densities; ``None`` where all weights were free."""
    if mask is None:
        return None
    return {
        "kind": mask.kind,
        "requested_density": mask.requested_density,
        "density": mask.density,
        "zero_share": mask.zero_share,
        "layer_density": mask.layer_density,
    }
