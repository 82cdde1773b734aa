"""What comes back when a copy of a net is trained a little further.

Two tests for memory that accuracy does not show: relearning the forget set, and fine-tuning on
retain data alone. Both draw their samples by a seed, work on one copy at a time and leave the net
alone.

Cost: at most ``RELEARN_STEPS * PANEL`` + ``TUNING_EPOCHS * TUNING_SAMPLES`` = 7,200 images forward
and backward a net, and 4,000 forward, however large the data set is. A default run takes some 8 (a
class) or 10 (samples) passes over every retain image, so this is 15 % of it at 7,000 retain images
and 2 % at 45,000. Smaller sets pay a larger share of little (measured at 900: 1.8 s beside 4.6 s
for a class and 12 s for samples).
"""

import copy
import math
from collections.abc import Callable, Sequence

import torch
from torch.nn import functional

from salun_core import (
    errors,
    images,
    modes,
    preprocessing,
    randomness,
)
from salun_core.metrics import accuracy

RELEARN_STEPS = 50
PANEL = 64
TUNING_EPOCHS = 2
TUNING_SAMPLES = 2000
TUNING_RATE = 0.05

# A relearning step is as long as this share of the length of all weights: a step then means the
# same for nets of any size, and the number of steps is a distance.
STEP_LENGTH = 0.001
_LONGEST_STEP = 0.005  # a cap for fine-tuning, so that it cannot diverge
_BATCH = 64


def draw(count: int, size: int, seed: int, purpose: str) -> torch.Tensor:
    """Positions of at most so many of ``count`` samples, drawn by the seed; int64, ascending."""
    order = torch.randperm(count, generator=randomness.generator(seed, purpose))
    return order[:size].sort().values


def relearn_steps(
    net: torch.nn.Module,
    panel: images.ImageSet,
    wanted_accuracy: float,
    preprocess: preprocessing.Preprocessing,
    after_step: Callable[[], None],
) -> int:
    """Steps of gradient descent on the panel until its accuracy is what it should be.

    Every step goes down the cross-entropy of the whole panel, in eval mode (stored batch
    statistics, no dropout), and is ``STEP_LENGTH`` of the weights' length long. The forward pass
    of a step is the measurement too, so measuring costs nothing.

    Args:
        net: on any device; not changed.
        panel: forgotten samples, at most ``PANEL``.
        wanted_accuracy: on the panel, in [0, 1].
        preprocess: of the net.
        after_step: called ``RELEARN_STEPS`` times, at once for the steps that were not needed.

    Returns:
        0 to ``RELEARN_STEPS``; the latter stands for never.

    Raises:
        NonFiniteLossError: a gradient is not finite.
    """
    copied = _trainable_copy(net).eval()
    device = modes.device_of(copied)
    inputs = preprocess.normalise(panel.images[:].to(device))
    labels = panel.labels.to(device)
    steps = 0
    while steps < RELEARN_STEPS:
        logits = copied(inputs)
        if accuracy.accuracy(logits.argmax(dim=1), labels) >= wanted_accuracy:
            break
        _descend(copied, functional.cross_entropy(logits, labels), math.inf, STEP_LENGTH)
        steps += 1
        after_step()
    for _ in range(steps, RELEARN_STEPS):
        after_step()
    return steps


def tuned(
    net: torch.nn.Module,
    retain_set: images.ImageSet,
    preprocess: preprocessing.Preprocessing,
    seed: int,
    after_step: Callable[[], None],
) -> torch.nn.Module:
    """A copy after ``TUNING_EPOCHS`` passes of plain SGD over retain samples, in eval mode.

    Batch norm takes statistics and updates its averages as in ordinary training.

    Args:
        net: on any device; not changed.
        retain_set: at most ``TUNING_SAMPLES`` of what the net keeps.
        preprocess: of the net.
        seed: of order and dropout.
        after_step: called :func:`count_tuning_steps` times.

    Raises:
        NonFiniteLossError: a gradient is not finite.
    """
    copied = _trainable_copy(net).train()
    device = modes.device_of(copied)
    step = 0
    for epoch in range(TUNING_EPOCHS):
        for rows in images.shuffled_batches(len(retain_set), _BATCH, seed, "resurfacing", epoch):
            inputs = preprocess.normalise(retain_set.images[rows].to(device))
            labels = retain_set.labels[rows].to(device)
            with randomness.seeded(seed, "resurfacing_step", step):
                loss = functional.cross_entropy(copied(inputs), labels)
            _descend(copied, loss, TUNING_RATE, _LONGEST_STEP)
            step += 1
            after_step()
    for parameter in copied.parameters():
        parameter.grad = None
    return copied.eval()


def count_tuning_steps(retain_set: images.ImageSet) -> int:
    """Steps that :func:`tuned` takes."""
    return TUNING_EPOCHS * -(-len(retain_set) // _BATCH)


def _trainable_copy(net: torch.nn.Module) -> torch.nn.Module:
    copied = copy.deepcopy(net)
    for parameter in copied.parameters():
        parameter.grad = None
        parameter.requires_grad_(True)
    return copied


def _descend(
    net: torch.nn.Module, loss: torch.Tensor, learning_rate: float, longest: float
) -> None:
    """One step of SGD, no longer than ``longest`` times the length of all weights."""
    parameters = list(net.parameters())
    gradients = torch.autograd.grad(loss, parameters, allow_unused=True)
    pairs = [(p, g) for p, g in zip(parameters, gradients, strict=True) if g is not None]
    length = _length([gradient for _, gradient in pairs])
    if not math.isfinite(length):
        raise errors.NonFiniteLossError(f"got a gradient of length {length}, expected it finite")
    limit = longest * _length(parameters)
    rate = limit / length if length * learning_rate > limit else learning_rate
    if length > 0.0:
        with torch.no_grad():
            torch._foreach_add_([p for p, _ in pairs], [g for _, g in pairs], alpha=-rate)


def _length(tensors: Sequence[torch.Tensor]) -> float:
    norms = torch._foreach_norm([tensor.detach() for tensor in tensors])
    return float(torch.linalg.vector_norm(torch.stack(list(norms)).double()))
