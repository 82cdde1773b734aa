"""Measures the net that a stock client pulled, without the service's own code paths."""

import dataclasses
import hashlib
from pathlib import Path

import huggingface_hub
import numpy as np
import sklearn.metrics
import timm
import torch

from client.local import stack
from demo import digits, nets
from salun_core import preprocessing


@dataclasses.dataclass(frozen=True)
class Check:
    """One thing that must hold, and what was found."""

    name: str
    held: bool
    found: str


def pull(running: stack.Running, model: str, cache: Path) -> Path:
    """The folder of the served version, fetched by stock ``huggingface_hub``."""
    folder = huggingface_hub.snapshot_download(
        model,
        revision="production",
        endpoint=running.base_url,
        token=running.admin_key,
        cache_dir=cache,
    )
    return Path(folder)


def digest(path: Path) -> str:
    """SHA-256 of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def accuracy(folder: Path, chosen: list[digits.Digit]) -> float:
    """Share of digits that the pulled net names rightly."""
    logits, labels = _logits(folder, chosen)
    return float((logits.argmax(dim=1) == labels).float().mean())


def separation(
    folder: Path, erased: list[digits.Digit], unseen: list[digits.Digit]
) -> tuple[float, float]:
    """AUC of the loss between erased and unseen digits, and how far it may be from 0.5.

    0.5 is what a net gives that saw neither. The allowance is the default gate's 0.05 plus 1.64
    standard errors (Hanley and McNeil 1982, at AUC 0.5).
    """
    losses = [
        torch.nn.functional.cross_entropy(*_logits(folder, chosen), reduction="none")
        for chosen in (erased, unseen)
    ]
    members = np.repeat([1, 0], [len(erased), len(unseen)])
    auc = float(sklearn.metrics.roc_auc_score(members, -torch.cat(losses).numpy()))
    n, m = len(erased), len(unseen)
    standard_error = ((n + m + 1) / (12 * n * m)) ** 0.5
    return auc, 0.05 + 1.64 * standard_error


def _logits(folder: Path, chosen: list[digits.Digit]) -> tuple[torch.Tensor, torch.Tensor]:
    net = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
    decode = preprocessing.Preprocessing(nets.config().pretrained_cfg)
    found = digits.image_set(chosen, decode)
    with torch.inference_mode():
        return net(decode.normalise(found.images[:])), found.labels
