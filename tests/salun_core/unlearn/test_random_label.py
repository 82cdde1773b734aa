import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch

from salun_core import errors, images, inference, preprocessing, specs
from salun_core.metrics import accuracy
from salun_core.unlearn import contract, methods, random_label


def test_never_the_true_class_nor_a_refused_one_and_all_others_alike() -> None:
    """6,000 draws over 5 − 2 − (own) classes: shares within 4 standard errors of uniform."""
    labels = torch.arange(6000) % 5
    drawn = random_label.wrong_labels(labels, 5, (3,), seed=0, epoch=1)
    assert not bool((drawn == labels).any())
    assert not bool((drawn == 3).any())
    for label in range(5):
        counts = torch.bincount(drawn[labels == label], minlength=5)
        allowed = [c for c in range(5) if c not in (label, 3)]
        for other in allowed:
            assert counts[other].item() / 1200 == pytest.approx(1 / len(allowed), abs=0.06)


def test_seed_and_epoch_decide() -> None:
    labels = torch.arange(100) % 5
    first = random_label.wrong_labels(labels, 5, (), 7, 0)
    assert torch.equal(first, random_label.wrong_labels(labels, 5, (), 7, 0))
    assert not torch.equal(first, random_label.wrong_labels(labels, 5, (), 7, 1))
    assert not torch.equal(first, random_label.wrong_labels(labels, 5, (), 8, 0))


def test_no_class_left() -> None:
    with pytest.raises(errors.InvalidDataError, match="no other class"):
        random_label.wrong_labels(torch.tensor([0]), 3, (1, 2), 0, 0)


@pytest.mark.parametrize(
    ("forgotten", "rate", "known"), [("cluster", 0.02, 0.5), ("mixed", 0.05, 0.6)]
)
def test_what_is_forgotten_is_so_when_it_is_served_and_the_rest_stays(
    forgotten: str,
    rate: float,
    known: float,
    trained: torch.nn.Module,
    config: specs.ClassifierConfig,
    data: contract.UnlearningData,
    preprocess: preprocessing.Preprocessing,
) -> None:
    """A third of one class, whose batches look like nothing else; and some of every class."""
    if forgotten == "cluster":
        data = _without_a_third_of_a_class(data)
    net = copy.deepcopy(trained)
    spec = specs.UnlearningSpec(
        targets="random_label",
        mask="none",
        density=1.0,
        epochs=4,
        batch_size=32,
        learning_rate=rate,
        decay="constant",
        warmup_fraction=0.0,
    )
    random_label.unlearn(net, config, data, None, spec, lambda _step, _total: None)

    def share_known(image_set: images.ImageSet) -> float:
        return accuracy.accuracy(
            inference.answers(net, image_set, preprocess).predicted, image_set.labels
        )

    assert share_known(data.forget_set) < known
    assert share_known(data.retain_set) > 0.85


def _without_a_third_of_a_class(data: contract.UnlearningData) -> contract.UnlearningData:
    everything = images.concatenate(data.forget_set, data.retain_set)
    erased = (everything.labels == 2).nonzero().flatten().tolist()[:20]
    kept = sorted(set(range(len(everything))) - set(erased))
    return contract.UnlearningData(
        everything.subset(erased), everything.subset(kept), data.holdout_set
    )


def test_epochs_by_hand(
    line: Callable[[], torch.nn.Module],
    line_config: specs.ClassifierConfig,
    line_data: contract.UnlearningData,
    exact: Callable[[images.ImageSet], Any],
) -> None:
    """Of two classes the wrong label is the other one. An epoch is two steps of
    θ ← θ − η∇mean ℓ: towards that on the forget set, towards the true labels on the retain set.
    """
    net = line()
    w = next(net.parameters()).detach().clone().double()
    forget, retain = exact(line_data.forget_set), exact(line_data.retain_set)
    forget.y = 1.0 - forget.y
    for _ in range(2):
        for part in (forget, retain):
            w -= 0.4 * part.mean(w)
    spec = specs.UnlearningSpec(
        method="random_label", mask="none", density=1.0, epochs=2, batch_size=8, learning_rate=0.4,
        momentum=0.0, weight_decay=0.0, decay="constant", warmup_fraction=0.0,
    )  # fmt: skip
    methods.unlearn(net, line_config, line_data, None, spec)
    torch.testing.assert_close(next(net.parameters()).detach().double(), w, atol=1e-6, rtol=0.0)
