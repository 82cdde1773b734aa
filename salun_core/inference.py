"""Forward passes without gradients."""

import dataclasses
from collections.abc import Callable, Iterator

import torch

from salun_core import confidence, images, modes, preprocessing

BATCH_SIZE = 128


@dataclasses.dataclass(frozen=True, eq=False)
class Answers:
    """What a net says of labelled samples: two numbers of each, however many classes there are.

    Attributes:
        predicted: int64 (N,), the class of the largest logit.
        scores: float32 (N,), logit-scaled confidence in the true class.
    """

    predicted: torch.Tensor
    scores: torch.Tensor


def answers(
    net: torch.nn.Module,
    image_set: images.ImageSet,
    preprocess: preprocessing.Preprocessing,
    *,
    after_batch: Callable[[], None] | None = None,
) -> Answers:
    """What the net says in eval mode, on the CPU.

    ``after_batch`` is called :func:`count_batches` times.
    """
    predicted, scores = [torch.empty(0, dtype=torch.int64)], [torch.empty(0)]
    for start, outputs in _batches(net, image_set, preprocess, after_batch):
        labels = image_set.labels[start : start + BATCH_SIZE].to(outputs.device)
        predicted.append(outputs.argmax(dim=1).cpu())
        scores.append(confidence.logit_scaled_confidence(outputs, labels).cpu())
    return Answers(torch.cat(predicted), torch.cat(scores))


def logits(
    net: torch.nn.Module,
    image_set: images.ImageSet,
    preprocess: preprocessing.Preprocessing,
) -> torch.Tensor:
    """The net's outputs in eval mode, float32 (N, classes), on the CPU; (0, 0) of an empty set."""
    parts = [found.cpu() for _, found in _batches(net, image_set, preprocess, None)]
    return torch.cat(parts) if parts else torch.empty(0, 0)


def count_batches(image_set: images.ImageSet) -> int:
    """Forward passes that it takes to read the set."""
    return -(-len(image_set) // BATCH_SIZE)


def _batches(
    net: torch.nn.Module,
    image_set: images.ImageSet,
    preprocess: preprocessing.Preprocessing,
    after_batch: Callable[[], None] | None,
) -> Iterator[tuple[int, torch.Tensor]]:
    """Where each batch starts, and its float32 logits on the net's device."""
    device = modes.device_of(net)
    with modes.evaluating(net):
        for start in range(0, len(image_set), BATCH_SIZE):
            batch = image_set.images[start : start + BATCH_SIZE]
            # Cloned: tensors of inference mode cannot be used in later autograd.
            with torch.inference_mode():
                found = net(preprocess.normalise(batch.to(device))).float()
            yield start, found.clone()
            if after_batch is not None:
                after_batch()
