import dataclasses

import pytest
import torch

from salun_core import errors, images
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
