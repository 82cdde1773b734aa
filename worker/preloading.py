"""What a worker's parent imports before it forks: most of the seconds that a child needs to start.

diffusers is not among it: when it is imported it asks CUDA for devices, and CUDA that was asked by
the parent does not work in a child.
"""

import gc

import scipy.stats
import sklearn.metrics
import timm
import torch
import torchvision
import transformers


def share() -> None:
    """What was imported by now belongs to all children.

    ``gc.freeze`` keeps the collector from touching, and so from copying, the shared pages.
    """
    gc.collect()
    gc.freeze()


__all__ = ["scipy", "share", "sklearn", "timm", "torch", "torchvision", "transformers"]
