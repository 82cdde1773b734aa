import pytest
import torch

from salun_core import errors, images


def _set(*ids: str) -> images.ImageSet:
    count = len(ids)
    pictures = torch.arange(count * 4, dtype=torch.uint8).reshape(count, 1, 2, 2)
    return images.ImageSet(pictures, torch.arange(count) % 3, ids)


def test_subsets_keep_samples_together() -> None:
    part = _set("a", "b", "c", "d").subset([3, 1])
    assert part.ids == ("d", "b")
    assert part.labels.tolist() == [0, 1]
    assert part.images[0].flatten().tolist() == [12, 13, 14, 15]


def test_sorting_does_not_depend_on_the_order_given() -> None:
    whole = _set("b", "c", "a")
    again = whole.subset([2, 0, 1])
    assert whole.sorted_by_id().ids == again.sorted_by_id().ids == ("a", "b", "c")
    assert torch.equal(whole.sorted_by_id().images[:], again.sorted_by_id().images[:])


def test_subsets_and_unions_copy_no_picture() -> None:
    """Positions are kept, through any depth of subsets; another array is copied."""
    whole = _set("a", "b", "c", "d", "e")
    part = whole.subset([4, 2, 0]).subset([2, 1])
    union = images.concatenate(part, whole.without_labels([0, 2]))
    for one in (part, union):
        assert one.images.shared is whole.images.shared
    assert union.ids == ("a", "c", "b", "e")
    assert torch.equal(union.images[:], whole.images[torch.tensor([0, 2, 1, 4])])
    assert torch.equal(union.images[1:3], whole.images[torch.tensor([2, 1])])
    assert torch.equal(union.images[3], whole.images[4])
    assert union.images.shape == (4, 1, 2, 2)
    stranger = images.concatenate(part, _set("x", "y"))
    assert torch.equal(stranger.images[:2], part.images[:])
    assert torch.equal(stranger.images[2:], _set("x", "y").images[:])


def test_what_is_read_is_a_copy() -> None:
    """The shared pictures cannot be changed through a batch."""
    whole = _set("a", "b")
    for batch in (whole.images[:], whole.images[torch.tensor([1])], whole.images[0:1]):
        batch.fill_(77)
    assert torch.equal(whole.images[:], _set("a", "b").images[:])


def test_classes_are_left_out() -> None:
    assert _set("a", "b", "c", "d").without_labels([0]).ids == ("b", "c")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"images": torch.zeros(2, 1, 2, 2)}, "expected uint8"),
        ({"images": torch.zeros(2, 2, 2, dtype=torch.uint8)}, "expected uint8"),
        ({"labels": torch.zeros(2)}, "expected int64"),
        ({"labels": torch.zeros(3, dtype=torch.int64)}, "expected int64"),
        ({"ids": ("a", "a")}, "twice"),
        ({"images": torch.zeros(3, 1, 2, 2, dtype=torch.uint8)}, "got 3 images for 2 ids"),
    ],
)
def test_parts_that_do_not_fit_are_refused(change: dict[str, object], message: str) -> None:
    good = _set("a", "b")
    parts: dict[str, object] = {"images": good.images, "labels": good.labels, "ids": good.ids}
    with pytest.raises(errors.InvalidDataError, match=message):
        images.ImageSet(**{**parts, **change})  # type: ignore[arg-type]


def test_labels_beyond_the_net_are_named() -> None:
    with pytest.raises(errors.InvalidDataError, match="sample 'c': got label 2, expected 0 to 1"):
        images.check_labels(_set("a", "b", "c"), 2)


def test_batches_hold_everything_once_in_an_order_of_the_seed() -> None:
    batches = list(images.shuffled_batches(10, 4, 1, "retain", 0))
    assert sorted(torch.cat(batches).tolist()) == list(range(10))
    assert [len(batch) for batch in batches] == [4, 3, 3]
    again = list(images.shuffled_batches(10, 4, 1, "retain", 0))
    other = list(images.shuffled_batches(10, 4, 1, "retain", 1))
    assert torch.equal(torch.cat(batches), torch.cat(again))
    assert not torch.equal(torch.cat(batches), torch.cat(other))


def test_no_batch_is_left_with_one_row() -> None:
    for count in range(2, 200):
        assert min(len(batch) for batch in images.shuffled_batches(count, 16, 0)) > 1


def test_the_global_random_state_is_neither_read_nor_moved() -> None:
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = torch.cat(list(images.shuffled_batches(50, 8, 3)))
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    assert torch.equal(torch.cat(list(images.shuffled_batches(50, 8, 3))), first)
