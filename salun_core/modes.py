"""A net's modes: borrowed and given back, and what its device can do."""

import contextlib
from collections.abc import Iterator
from typing import Any

import torch

_LARGE = 100_000_000  # parameters from which activations are computed again to save memory


@contextlib.contextmanager
def evaluating(net: torch.nn.Module) -> Iterator[None]:
    """Every module in eval mode; each module's own mode comes back afterwards."""
    before = {module: module.training for module in net.modules()}
    net.eval()
    try:
        yield
    finally:
        for module, training in before.items():
            module.training = training


@contextlib.contextmanager
def own_gradients(net: torch.nn.Module) -> Iterator[None]:
    """Fresh gradients for every parameter; the caller's come back afterwards."""
    before = [(p, p.grad, p.requires_grad) for p in net.parameters()]
    for parameter, _, _ in before:
        parameter.grad = None
        parameter.requires_grad_(True)
    try:
        yield
    finally:
        for parameter, gradient, requires in before:
            parameter.grad = gradient
            parameter.requires_grad_(requires)


@contextlib.contextmanager
def checkpointing(net: torch.nn.Module) -> Iterator[None]:
    """Gradient checkpointing (arXiv 1604.06174) for a large net of diffusers."""
    switch: Any = net  # diffusers' nets have the switch, in a class without types
    if sum(parameter.numel() for parameter in net.parameters()) < _LARGE:
        yield
        return
    switch.enable_gradient_checkpointing()
    try:
        yield
    finally:
        switch.disable_gradient_checkpointing()


def has_bfloat16(device: torch.device) -> bool:
    """Whether it multiplies bfloat16 matrices faster than float32: a GPU that need not emulate."""
    return device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)


def device_of(net: torch.nn.Module) -> torch.device:
    """The device of the net's first parameter."""
    return next(net.parameters()).device
