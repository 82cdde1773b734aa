"""Logit-scaled confidence: one number for how sure a net is of the true class."""

import torch


def logit_scaled_confidence(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """s = z_y − log Σ_{j≠y} exp z_j = log(p_y / (1 − p_y)), near-normal over samples.

    Source: Carlini et al., arXiv 2112.03570, section IV.C, computed from logits and so exact.

    Args:
        logits: float (N, K), K >= 2.
        labels: int64 (N,), true classes.

    Returns:
        float (N,), any real number; above 0 where the true class has more than half.

    Example:
        >>> logit_scaled_confidence(torch.tensor([[2.0, 0.0]]), torch.tensor([0])).item()
        2.0
    """
    index = labels.unsqueeze(1)
    true = logits.gather(1, index).squeeze(1)
    others = logits.scatter(1, index, float("-inf"))
    return true - torch.logsumexp(others, dim=1)


def without_classes(logits: torch.Tensor, refused: tuple[int, ...]) -> torch.Tensor:
    """The logits with these classes made impossible (−inf), as a copy."""
    if not refused:
        return logits
    closed = logits.clone()
    closed[:, list(refused)] = float("-inf")
    return closed
