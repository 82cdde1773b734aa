"""Boundary expanding (arXiv 2303.11570): a class K+1 to take what is forgotten.

The head gets one more output; the net is trained to put the erased samples there, and the output
is dropped. What they held of the other classes has moved into a place that no longer exists.
"""

import functools
from collections.abc import Callable

import torch
from torch.nn import functional

from salun_core import batchnorm, heads, masks, progress, randomness, specs
from salun_core.unlearn import contract, training


def unlearn(
    net: torch.nn.Module,
    config: specs.ClassifierConfig,
    data: contract.UnlearningData,
    mask: masks.SaliencyMask | None,
    spec: specs.UnlearningSpec,
    report: progress.Progress,
    checkpoints: progress.Checkpoints | None = None,
) -> contract.UnlearnResult:
    """Train the forget set and earlier erasures into an extra class; in place.

    The net keeps its tensors and shapes: the extra output is a layer beside the head. It is always
    free; the mask is about the net's own weights. Batch norm keeps its stored statistics, so no
    buffer changes.

    Raises:
        InvalidDataError: the net does not end in a linear layer of one output per class.
        NonFiniteLossError: the loss became NaN or infinite.
    """
    erased = contract.erased_set(data)
    expanded = _Expanded(net, heads.find(net, config), spec.seed)
    wider_mask = None if mask is None else _expand_mask(mask, net, expanded)
    extra = torch.full_like(erased.labels, config.num_classes)
    steps = spec.count_batches(len(erased))
    run = training.Training(expanded, config, wider_mask, spec, steps, report, checkpoints)
    for epoch in run.epochs():
        run.pass_over("forget", erased, extra, epoch, functools.partial(_loss, expanded))
    return run.result(changed_buffers=())


class _Expanded(torch.nn.Module):
    """A net with one more logit, from the same features; (B, K + 1).

    The head is reached for by a hook and not registered again: its weights stay the net's.
    """

    def __init__(self, net: torch.nn.Module, head: torch.nn.Linear, seed: int) -> None:
        super().__init__()
        self.net = net
        with randomness.seeded(seed, "extra_class"):
            added = torch.nn.Linear(head.in_features, 1)
        self.added = added.to(head.weight)
        self._watch: Callable[..., torch.utils.hooks.RemovableHandle] = (
            head.register_forward_pre_hook
        )

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        features: list[torch.Tensor] = []
        handle = self._watch(lambda _head, given: features.append(given[0]))
        try:
            logits = self.net(inputs)
        finally:
            handle.remove()
        return torch.cat([logits, self.added(features[-1])], dim=1)


def _expand_mask(
    mask: masks.SaliencyMask, net: torch.nn.Module, expanded: _Expanded
) -> masks.SaliencyMask:
    """The net's mask under the names of the expanded net, the extra output free."""
    masks.check_fits(mask, net)
    bits = {f"net.{name}": packed for name, packed in mask.bits.items()}
    shapes = {f"net.{name}": shape for name, shape in mask.shapes.items()}
    for name, parameter in expanded.added.named_parameters(prefix="added"):
        bits[name] = masks.pack(torch.ones(parameter.shape, dtype=torch.bool))
        shapes[name] = tuple(parameter.shape)
    return masks.SaliencyMask(mask.kind, bits, shapes, mask.requested_density, mask.zero_share)


def _loss(expanded: _Expanded, inputs: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    with batchnorm.stored_statistics(expanded):
        return functional.cross_entropy(expanded(inputs), labels)
