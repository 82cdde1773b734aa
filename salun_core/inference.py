"""Forward passes without gradients."""

from collections.abc import Callable

import torch

from salun_core import images, modes, preprocessing

BATCH_SIZE = 128


def logits(
    net: torch.nn.Module,
    image_set: images.ImageSet,
    preprocess: preprocessing.Preprocessing,
    *,
    after_batch: Callable[[], None] | None = None,
) -> torch.Tensor:
    """The net's outputs in eval mode, float32 (N, classes), on the CPU.

    An empty set gives (0, 0). ``after_batch`` is called :func:`count_batches` times.
    """
    device = modes.device_of(net)
    parts = []
    with modes.evaluating(net), torch.inference_mode():
        for start in range(0, len(image_set), BATCH_SIZE):
            batch = image_set.images[start : start + BATCH_SIZE]
            parts.append(net(preprocess.normalise(batch.to(device))).float().cpu())
            if after_batch is not None:
                after_batch()
    # A plain tensor: those of inference mode cannot be used in later autograd.
    return torch.cat(parts).clone() if parts else torch.empty(0, 0)


def count_batches(image_set: images.ImageSet) -> int:
    """Forward passes that :func:`logits` takes over the set."""
    return -(-len(image_set) // BATCH_SIZE)
