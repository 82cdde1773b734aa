"""Which samples have a label in common."""

import torch


def rows_by_label(labels: torch.Tensor) -> dict[int, torch.Tensor]:
    """The rows of every label that occurs, in order; labels ascend.

    By one sort: with thousands of classes a look through all samples for each takes minutes.

    Args:
        labels: int64 (N,).

    Returns:
        int64 (n_label,) each.

    Example:
        >>> rows_by_label(torch.tensor([4, 1, 4]))
        {1: tensor([1]), 4: tensor([0, 2])}
    """
    order = torch.argsort(labels, stable=True)
    found, counts = torch.unique_consecutive(labels[order], return_counts=True)
    return dict(zip(found.tolist(), torch.split(order, counts.tolist()), strict=True))
