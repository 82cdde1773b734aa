import copy
from collections.abc import Callable

import pytest
import torch
from torch.nn import functional

from salun_core import errors, images, inference, preprocessing, specs
from salun_core.unlearn import boundary_shrink, contract, methods


def three_classes() -> torch.nn.Module:
    net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3, 3, bias=False)).eval()
    rows = [[4.0, 0.0, 0.0], [3.0, 0.0, 0.0], [2.9, 0.0, 5.0]]
    net.load_state_dict({"1.weight": torch.tensor(rows)})
    return net


def test_label_by_hand(
    line_config: specs.ClassifierConfig, make_pixels: Callable[..., images.ImageSet]
) -> None:
    """x = (1, 0, 0), y = 0, logits (4, 3, 2.9): the second best is class 1. The signs of
    ∇x CE = Σ(p_k − y_k)·w_k are (−, 0, +), so x′ = (.9, 0, .1) with logits (3.6, 2.7, 3.11): beyond
    the nearest boundary lies class 2.
    """
    preprocess = preprocessing.Preprocessing(line_config.pretrained_cfg)
    image_set = make_pixels([[255, 0, 0]], [0], "forget")
    net = three_classes()

    def label(*refused: int, epsilon: float = 0.1) -> int:
        found = boundary_shrink.adversarial_labels(net, image_set, preprocess, refused, epsilon)
        return int(found.item())

    assert label() == 2
    assert label(epsilon=0.01) == 1
    assert label(2) == 1
    with pytest.raises(errors.InvalidDataError, match="no other class"):
        label(1, 2)


def test_labels_as_one_sample_at_a_time_gives_them(
    trained: torch.nn.Module,
    data: contract.UnlearningData,
    preprocess: preprocessing.Preprocessing,
) -> None:
    found = boundary_shrink.adversarial_labels(trained, data.retain_set, preprocess, (3,))
    assert not bool((found == data.retain_set.labels).any())
    assert not bool((found == 3).any())
    for row in range(12):
        label = data.retain_set.labels[row : row + 1]
        inputs = preprocess.normalise(data.retain_set.images[row : row + 1]).requires_grad_()
        (slope,) = torch.autograd.grad(functional.cross_entropy(trained(inputs), label), inputs)
        logits = trained(inputs + 0.1 * slope.sign())[0].tolist()
        best = max((logit, c) for c, logit in enumerate(logits) if c not in (3, int(label)))
        assert int(found[row]) == best[1]


def test_class_goes_to_its_neighbours(
    trained: torch.nn.Module,
    config: specs.ClassifierConfig,
    class_data: contract.UnlearningData,
    preprocess: preprocessing.Preprocessing,
) -> None:
    """The paper's own case; a hundred times its learning rate, for ten steps instead of many."""
    forget_set = class_data.forget_set
    wanted = boundary_shrink.adversarial_labels(trained, forget_set, preprocess, (2,))
    spec = specs.default_spec("class", method="boundary_shrink")
    net = copy.deepcopy(trained)
    result = methods.unlearn(
        net, config, class_data, None, spec.model_copy(update={"learning_rate": 1e-3})
    )
    called = inference.logits(net, forget_set, preprocess).argmax(dim=1)
    assert not bool((called == 2).any())
    assert (called == wanted).float().mean() > 0.7
    assert result.changed_buffers == ()
