"""Was a class only switched off in the last layer? (arXiv 2605.08730)

Cutting the head's bias for a class makes every ordinary figure look like forgetting while all the
net knows of the class is still there. So the head is put back, or a new one is trained on the
features that go into it.
"""

import dataclasses
import warnings

import numpy as np
import torch
from sklearn import exceptions, linear_model, pipeline, preprocessing

from salun_core import errors


@dataclasses.dataclass(frozen=True, eq=False)
class Layer:
    """A linear head.

    Attributes:
        weight: float (K, D).
        bias: float (K,), or ``None`` where it has none.
    """

    weight: torch.Tensor
    bias: torch.Tensor | None


@dataclasses.dataclass(frozen=True)
class Probe:
    """How well a fresh linear layer finds the forgotten classes among the others.

    Attributes:
        balanced_accuracy: mean of recall and of the same for the other classes; 0.5 is guessing.
        recall: share of the forgotten classes' samples that it finds.
    """

    balanced_accuracy: float
    recall: float


def restored_recall(
    features: torch.Tensor,
    labels: torch.Tensor,
    head: Layer,
    original: Layer,
    *,
    rows: bool,
) -> float:
    """Share of samples that go to their own class once the head's entries for it are put back.

    The answer of a net does not change when all its logits move together. So what is put back is
    the entry relative to those of the classes that are left: b_c ← b°_c + mean over the others of
    (b − b°), and the weight rows in the same way.

    Args:
        features: float (N, D), N >= 1: what goes into the head.
        labels: int64 (N,), forgotten classes only.
        head: the measured net's.
        original: the original net's, of the same shape.
        rows: put weight rows back, not the biases alone.

    Raises:
        InvalidDataError: there is no sample, or every class is forgotten.
    """
    gone = torch.unique(labels)
    others = torch.ones(len(head.weight), dtype=torch.bool)
    others[gone] = False
    if not len(labels) or not bool(others.any()):
        raise errors.InvalidDataError(
            f"got {len(labels)} samples of {len(gone)} among {len(others)} classes, expected "
            "samples and a class that is kept"
        )
    weight = _restored(head.weight, original.weight, gone, others) if rows else head.weight
    logits = features @ weight.T  # (N, K)
    if head.bias is not None and original.bias is not None:
        logits = logits + _restored(head.bias, original.bias, gone, others)
    return (logits.argmax(dim=1) == labels).double().mean().item()


def linear_probe(
    features: torch.Tensor,
    forgotten: torch.Tensor,
    unseen_features: torch.Tensor,
    unseen_forgotten: torch.Tensor,
) -> Probe:
    """Logistic regression, forgotten classes against the others, on frozen features.

    Features are standardised and both sides weigh the same. A net that never saw a class has
    features for it too: the figure says something beside a retrained net's only.

    Args:
        features: float (N, D) to train on.
        forgotten: bool (N,), which of them are of a forgotten class.
        unseen_features: float (M, D) to measure on.
        unseen_forgotten: bool (M,).

    Raises:
        InvalidDataError: one of the four groups is empty.
    """
    for flags in (forgotten, unseen_forgotten):
        if not bool(flags.any()) or bool(flags.all()):
            raise errors.InvalidDataError(
                f"got {int(flags.sum())} of {len(flags)} samples of a forgotten class, expected "
                "some of both kinds"
            )
    model = pipeline.make_pipeline(
        preprocessing.StandardScaler(),
        linear_model.LogisticRegression(class_weight="balanced", tol=1e-3),
    )
    with warnings.catch_warnings():
        # A boundary that is not at its optimum to the last digit is good enough.
        warnings.simplefilter("ignore", exceptions.ConvergenceWarning)
        model.fit(features.double().numpy(), forgotten.numpy())
    found = np.asarray(model.predict(unseen_features.double().numpy()), dtype=np.bool_)
    wanted = unseen_forgotten.numpy()
    recall, others = float(found[wanted].mean()), float((~found[~wanted]).mean())
    return Probe(balanced_accuracy=(recall + others) / 2.0, recall=recall)


def _restored(
    now: torch.Tensor, before: torch.Tensor, gone: torch.Tensor, others: torch.Tensor
) -> torch.Tensor:
    changed = now.clone()
    changed[gone] = before[gone] + (now - before)[others].mean(dim=0)
    return changed
