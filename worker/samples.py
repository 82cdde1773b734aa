"""Encoded images out of the stored Parquet files, by ledger row."""

import collections
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import pyarrow.parquet as pq
import sqlalchemy as sa

from service import database, datasets, storage, tables


@dataclass(frozen=True, slots=True)
class Located:
    """A sample of the ledger, and where its encoded image lies."""

    sample_id: str
    split: str
    label: int | None
    text: str | None
    file_index: int
    row_group: int
    row_index: int


@dataclass(frozen=True)
class Listing:
    """Samples of a dataset in storage order; ``files`` are digests."""

    files: Sequence[str]
    label_names: Sequence[str]
    samples: Sequence[Located]


def listing(dataset_name: str, having: Literal["label", "text"]) -> Listing:
    """What the ledger holds of a dataset: every sample that has a label, or a text."""
    with database.transaction() as session:
        dataset = datasets.by_name(session, dataset_name)
        found = [Located(*row) for row in session.execute(_located(dataset, having))]
        return Listing(tuple(dataset.files), tuple(dataset.label_names), found)


def contents(listed: Listing) -> Iterator[bytes]:
    """The encoded image of every sample, in order; a few hundred in memory at a time."""
    for file_index, in_file in itertools.groupby(listed.samples, key=lambda one: one.file_index):
        file = pq.ParquetFile(storage.path_of(listed.files[file_index]))
        for row_group, in_group in itertools.groupby(in_file, key=lambda one: one.row_group):
            wanted = collections.deque(in_group)
            start = 0
            for batch in file.iter_batches(
                storage.ROWS_AT_A_TIME, row_groups=[row_group], columns=["image"]
            ):
                encoded = batch.column("image").field("bytes")
                while wanted and wanted[0].row_index < start + batch.num_rows:
                    yield encoded[wanted.popleft().row_index - start].as_py()
                start += batch.num_rows
                if not wanted:
                    break


def _located(
    dataset: tables.Dataset, having: Literal["label", "text"]
) -> sa.Select[str, str, int | None, str | None, int, int, int]:
    sample = tables.Sample
    return (
        sa.select(
            sample.sample_id,
            sample.split,
            sample.label,
            sample.text,
            sample.file_index,
            sample.row_group,
            sample.row_index,
        )
        .where(sample.dataset_id == dataset.id, getattr(sample, having).is_not(None))
        .order_by(sample.file_index, sample.row_group, sample.row_index)
    )
