import dataclasses
import math
from collections.abc import Callable

import pytest
import torch

from salun_core import errors, images, masks, specs
from salun_core.unlearn import contract, line_search


def some(prefix: str, labels: list[int]) -> images.ImageSet:
    pictures = torch.zeros(len(labels), 1, 1, 1, dtype=torch.uint8)
    ids = tuple(f"{prefix}{row}" for row in range(len(labels)))
    return images.ImageSet(pictures, torch.tensor(labels), ids)


@pytest.fixture
def data() -> contract.UnlearningData:
    return contract.UnlearningData(
        some("f", [0, 0, 0, 1, 1, 2]), some("r", [0]), some("h", [0, 0, 1, 1, 0, 3, 3])
    )


def test_folds_are_compared_as_they_are_matched(data: contract.UnlearningData) -> None:
    crossed = dataclasses.replace(data, cross_fitted=True)
    found = line_search._matching(crossed, crossed.forget_set, crossed.holdout_set)
    sides = crossed.forget_set, crossed.holdout_set
    for fold, one in enumerate(found):
        for side, rows in zip(sides, one.rows, strict=True):
            assert rows.tolist() == [
                row for row in range(len(side)) if crossed.folds(side)[row] == fold
            ]
        assert [weights.sum().item() for weights in one.weights] == pytest.approx([1.0, 1.0])
    assert sum(one.share for one in found) == pytest.approx(1.0)


def test_otherwise_all_are_one(data: contract.UnlearningData) -> None:
    (one,) = line_search._matching(data, data.forget_set, data.holdout_set)
    assert [len(rows) for rows in one.rows] == [6, 7]
    assert one.share == 1.0
    with pytest.raises(errors.InvalidDataError, match="share no class"):
        line_search._matching(data, data.forget_set, some("x", [7]))


@pytest.mark.parametrize(
    ("least", "looked_at", "best"),
    [
        (1.0, [1.0, 0.85, 1.15], 1.0),
        (0.85, [1.0, 0.85, 0.7], 0.85),
        (0.6, [1.0, 0.85, 0.7], 0.7),
        (1.15, [1.0, 0.85, 1.15, 1.3], 1.15),
        (1.5, [1.0, 0.85, 1.15, 1.3], 1.3),
    ],
)
def test_the_walk_goes_one_way_while_it_gets_better(
    least: float, looked_at: list[float], best: float
) -> None:
    found = line_search._walk(lambda factor: abs(factor - least))
    assert list(found) == looked_at
    assert min(found, key=lambda factor: found[factor]) == best


def test_where_all_are_alike_nothing_is_moved() -> None:
    found = line_search._walk(lambda _: 1.0)
    assert min(found, key=lambda factor: found[factor]) == 1.0


E1, E2, E3 = [255, 0, 0], [0, 255, 0], [0, 0, 255]


@pytest.mark.parametrize(
    ("before", "after", "distance", "known", "lost"),
    [
        ((1.0, 1.0, 1.0), (2.0, -1.0, 0.5), 0.5, -1.0, 0.25 - 0.01),
        ((1.0, -1.0, 1.0), (2.0, 1.0, 0.5), 0.0, 1.0, 1 / 3 - 0.02),
    ],
)
def test_objective_by_hand(
    before: tuple[float, ...],
    after: tuple[float, ...],
    distance: float,
    known: float,
    lost: float,
    line: Callable[[], torch.nn.Module],
    line_config: specs.ClassifierConfig,
    make_pixels: Callable[[list[list[int]], list[int], str], images.ImageSet],
) -> None:
    """A picture is a unit vector, so that the confidence in class 1 is one of the weights.

    Forgotten are the first two, of class 1; of it the third and the first are held out. So the
    Wasserstein distance is half of that of σ(w₂) to σ(w₃). In the first case the second weight
    falls below 0: half of the forgotten samples are known, of the unseen all, and one retained
    sample in four is lost. In the second it rises: all of class 1 are known, and the held-out
    sample of class 0 is lost, one in three. What is lost beyond .01 and .02 counts ten times.
    """
    data = contract.UnlearningData(
        make_pixels([E1, E2], [1, 1], "forget"),
        make_pixels([E1, E1, E1, E2], [1, 1, 1, 1], "retain"),
        make_pixels([E3, E1, E2], [1, 1, 0], "holdout"),
    )
    net = line()
    w = next(net.parameters())
    w.data = torch.tensor(before)
    judge = line_search._Judge(net, line_config, data, seed=0)
    w.data = torch.tensor(after)
    moved = abs(1 / (1 + math.exp(-known)) - 1 / (1 + math.exp(-0.5))) / 2
    assert judge.objective() == pytest.approx(moved + distance + 10.0 * lost, abs=1e-6)


def test_a_point_beyond_the_end_by_hand() -> None:
    """At 1.3 a free weight goes from .4 by 1.3 · .2 to .66, a running mean from 0 to 2.6, a
    variance from 1 by 1.3 · −.8 to no less than 0; frozen weights and counts do not go by λ.
    """
    net = torch.nn.Sequential(torch.nn.Linear(1, 2, bias=False), torch.nn.BatchNorm1d(2))
    original = {
        "0.weight": torch.tensor([[0.4], [0.1]]),
        "1.weight": torch.ones(2),
        "1.bias": torch.zeros(2),
        "1.running_mean": torch.zeros(2),
        "1.running_var": torch.ones(2),
        "1.num_batches_tracked": torch.tensor(0),
    }
    final = {
        **original,
        "0.weight": torch.tensor([[0.6], [0.7]]),
        "1.running_mean": torch.tensor([2.0, -1.0]),
        "1.running_var": torch.tensor([0.2, 0.8]),
        "1.num_batches_tracked": torch.tensor(7),
    }
    mask = masks.SaliencyMask(
        "saliency",
        {
            "0.weight": masks.pack(torch.tensor([True, False])),
            "1.weight": masks.pack(torch.tensor([False, False])),
            "1.bias": masks.pack(torch.tensor([False, False])),
        },
        {"0.weight": (2, 1), "1.weight": (2,), "1.bias": (2,)},
        0.5,
        0.0,
    )
    line_search._set_point(net, original, final, 1.3, mask)
    found = net.state_dict()
    assert found["0.weight"].flatten().tolist() == pytest.approx([0.66, 0.1])
    assert torch.equal(found["0.weight"][1], original["0.weight"][1])
    assert found["1.running_mean"].tolist() == pytest.approx([2.6, -1.3])
    assert found["1.running_var"].tolist() == pytest.approx([0.0, 0.74])
    assert found["1.num_batches_tracked"] == 7
    line_search._set_point(net, original, final, 1.3, None)
    assert net.state_dict()["0.weight"].flatten().tolist() == pytest.approx([0.66, 0.88])
    line_search._set_point(net, original, final, 1.0, mask)
    assert all(torch.equal(tensor, final[name]) for name, tensor in net.state_dict().items())
