"""Encoded images out of the stored Parquet files, by ledger row."""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import pyarrow.parquet as pq
import sqlalchemy as sa

from service import database, datasets, storage, tables


@dataclass(frozen=True)
class EncodedSample:
    """A ledger row with its encoded image."""

    sample_id: str
    split: str
    label: int
    content: bytes


def read(dataset_name: str) -> Iterator[EncodedSample]:
    """Every labelled sample of a dataset in storage order, one row group in memory at a time."""
    with database.transaction() as session:
        dataset = datasets.by_name(session, dataset_name)
        files, rows = dataset.files, session.execute(_located(dataset)).all()
    for file_index, in_file in itertools.groupby(rows, key=lambda row: row.file_index):
        file = pq.ParquetFile(storage.path_of(files[file_index]))
        for row_group, in_group in itertools.groupby(in_file, key=lambda row: row.row_group):
            yield from _decode(file, row_group, list(in_group))


def _located(dataset: tables.Dataset) -> sa.Select[str, str, int | None, int, int, int]:
    sample = tables.Sample
    return (
        sa.select(
            sample.sample_id,
            sample.split,
            sample.label,
            sample.file_index,
            sample.row_group,
            sample.row_index,
        )
        .where(sample.dataset_id == dataset.id, sample.label.is_not(None))
        .order_by(sample.file_index, sample.row_group, sample.row_index)
    )


def _decode(
    file: pq.ParquetFile,
    row_group: int,
    rows: Sequence[sa.Row[str, str, int | None, int, int, int]],
) -> Iterator[EncodedSample]:
    images = file.read_row_group(row_group, columns=["image"]).column("image").combine_chunks()
    contents = images.field("bytes")
    for row in rows:
        label = row.label
        if label is not None:
            yield EncodedSample(row.sample_id, row.split, label, contents[row.row_index].as_py())
