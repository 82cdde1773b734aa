"""Rows by label are what a look through all samples for each label would find, in its order."""

import hypothesis
import torch
from hypothesis import strategies

from salun_core import grouping


@hypothesis.given(strategies.lists(strategies.integers(0, 5), max_size=40))
def test_every_row_is_with_its_label(numbers: list[int]) -> None:
    labels = torch.tensor(numbers, dtype=torch.int64)
    found = {label: rows.tolist() for label, rows in grouping.rows_by_label(labels).items()}
    assert found == {
        label: (labels == label).nonzero().flatten().tolist() for label in sorted(set(numbers))
    }
    assert list(found) == sorted(found)
