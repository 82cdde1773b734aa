"""Where a worker computes."""

import torch


def chosen() -> torch.device:
    """This worker's GPU, or the CPU where there is none."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")
