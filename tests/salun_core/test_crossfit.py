import hashlib
import math

import pytest
import torch

from salun_core import comparison, crossfit, images
from salun_core.unlearn import contract


def some(labels: list[int], prefix: str = "s") -> images.ImageSet:
    pictures = torch.zeros(len(labels), 1, 1, 1, dtype=torch.uint8)
    ids = tuple(f"{prefix}{row}" for row in range(len(labels)))
    return images.ImageSet(pictures, torch.tensor(labels, dtype=torch.int64), ids)


def test_folds_alternate_within_a_class_by_the_digest_of_the_id() -> None:
    image_set = some([0, 1, 2, 0, 1, 0, 0, 1, 2, 2, 5] * 4)
    found = crossfit.folds(image_set).tolist()
    for label in (0, 1, 2, 5):
        members = [row for row in range(44) if image_set.labels[row] == label]
        members.sort(key=lambda row: hashlib.sha256(image_set.ids[row].encode()).hexdigest())
        assert [found[row] for row in members] == [
            (turn + label) % 2 for turn in range(len(members))
        ]


def test_folds_depend_on_ids_and_labels_only() -> None:
    """Neither on the order of the samples nor on whether other classes are there."""
    image_set = some([0, 1, 2] * 11)
    known = dict(zip(image_set.ids, crossfit.folds(image_set).tolist(), strict=True))
    for other in (image_set.subset(range(32, -1, -1)), image_set.without_labels([1])):
        assert crossfit.folds(other).tolist() == [known[sample_id] for sample_id in other.ids]
    assert crossfit.folds(some([])).tolist() == []


def test_who_is_not_in_the_pool_is_in_no_fold() -> None:
    pool = some([0] * 6)
    part = images.concatenate(pool.subset([4, 1]), some([0], prefix="other"))
    folds = crossfit.folds(pool).tolist()
    assert crossfit.folds_in(part, pool).tolist() == [folds[4], folds[1], -1]
    assert crossfit.folds_in(some([]), pool).dtype == torch.int64


def test_an_erased_sample_keeps_its_fold_in_every_later_job() -> None:
    """A job erases six samples, the next one six others of their class and 20 of another class."""
    erased, later = some([0] * 6, "e"), some([0] * 6 + [1] * 20, "l")
    kept, pool = some([0, 1], "r"), some([0, 1] * 9, "u")
    first = contract.UnlearningData(erased, kept, pool, cross_fitted=True)
    second = contract.UnlearningData(later, kept, pool, previous_set=erased, cross_fitted=True)
    known = first.folds(contract.erased_set(first)).tolist()
    digests = [hashlib.sha256(sample_id.encode()).hexdigest() for sample_id in erased.ids]
    assert known == [int(digest, 16) % 2 for digest in digests]
    assert set(known) == {0, 1}
    assert second.folds(contract.erased_set(second)).tolist()[len(later) :] == known
    for row in range(6):  # alone as in company
        assert first.folds(erased.subset([row])).tolist() == [known[row]]


def test_methods_and_comparisons_deal_alike() -> None:
    """Unseen samples have their place in the whole pool, also in a part of it."""
    erased, kept, pool = some([0] * 9, "e"), some([0, 1], "r"), some([0, 1] * 9, "u")
    data = contract.UnlearningData(erased, kept, pool, previous_set=kept, cross_fitted=True)
    test_set = images.concatenate(pool.subset([5, 2, 11]), some([1], "t"))
    sets = {"forget": erased, "previous": kept, "holdout": pool, "test": test_set}
    found = comparison.deal(sets)
    assert torch.equal(
        torch.cat([found["forget"], found["previous"]]), data.folds(contract.erased_set(data))
    )
    assert torch.equal(found["holdout"], data.folds(pool))
    assert found["test"].tolist() == [*data.folds(pool)[[5, 2, 11]].tolist(), -1]
    assert torch.equal(data.folds(test_set)[:3], found["test"][:3])
    whole = contract.UnlearningData(erased, kept, pool)
    assert not whole.folds(pool).any()


def compared(value: float, error: float, n: int = 20) -> crossfit.Compared:
    return crossfit.Compared(value, 0.5, error, n, 20)


def test_mean_weighs_by_erased_samples() -> None:
    """.25 · .9 + .75 · .5 = .6; error √((.25 · .04)² + (.75 · .08)²)."""
    found = crossfit.mean([compared(0.9, 0.04, 5), compared(0.5, 0.08, 15)])
    assert found.value == pytest.approx(0.6)
    assert found.target == pytest.approx(0.5)
    assert found.standard_error == pytest.approx(math.sqrt(0.01**2 + 0.06**2))
    assert (found.n, found.n_unseen) == (20, 40)


@pytest.mark.parametrize(
    ("values", "chosen"),
    [((0.62, 0.62), 0.62), ((0.71, 0.3), 0.71), ((0.3, 0.69), 0.3), ((0.6, 0.5), 0.6)],
)
def test_surest_of_folds_and_mean(values: tuple[float, float], chosen: float) -> None:
    """What both folds share is surer in their mean, whose error is less by √2. A fold's error is
    widened: .1 − 1.64 · 1.3 · .03 = .036 is more than .05 − 1.64 · .03/√2 = .015.
    """
    found = crossfit.surest([compared(value, 0.03) for value in values])
    assert found.value == pytest.approx(chosen)
    alone = values[0] != values[1]
    assert found.n == (20 if alone else 40)
    assert found.standard_error == pytest.approx(1.3 * 0.03 if alone else 0.03 / math.sqrt(2))


@pytest.mark.parametrize(("count", "alone"), [(19, False), (20, True)])
def test_a_small_fold_does_not_stand_for_itself(count: int, alone: bool) -> None:
    """Of .9 and .1 with 19 or 20 samples the first stands, or the mean of about .5."""
    found = crossfit.surest([compared(0.9, 0.06, count), compared(0.1, 0.06, 19)])
    assert found.value == (0.9 if alone else pytest.approx(0.5))


def test_one_comparison_stands_for_itself() -> None:
    assert crossfit.surest([compared(0.9, 0.1)]) == compared(0.9, 0.1)
