"""Parquet files of a dataset without some of their rows; the ledger follows in one transaction."""

import collections
import itertools
import tempfile
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import sqlalchemy as sa
from sqlalchemy import orm

from service import database, destruction, errors, storage, tables

# What stays keeps its order, so its new place is its rank among what stays.
_PLACES = sa.text(
    "WITH placed AS (SELECT sample_id, "
    "dense_rank() OVER (ORDER BY row_group) - 1 AS new_group, "
    "row_number() OVER (PARTITION BY row_group ORDER BY row_index) - 1 AS new_index "
    "FROM sample WHERE dataset_id = :dataset AND file_index = :file) "
    "UPDATE sample s SET row_group = p.new_group, row_index = p.new_index FROM placed p "
    "WHERE s.dataset_id = :dataset AND s.sample_id = p.sample_id"
)

_LISTS = {
    pa.types.is_list: pa.list_,
    pa.types.is_large_list: pa.large_list,
    pa.types.is_list_view: pa.list_view,
    pa.types.is_large_list_view: pa.large_list_view,
}


def drop_rows(
    session: orm.Session, dataset: tables.Dataset, samples: Sequence[tables.Sample]
) -> None:
    """Write the files anew without these samples, and drop their rows from the ledger.

    One row group is in memory at a time. The old files are the caller's to give up.

    Args:
        session: its transaction makes the new files the dataset's.
        dataset: locked.
        samples: of this dataset, by file, row group and row.
    """
    files = list(dataset.files)
    by_file = {
        file_index: list(in_file)
        for file_index, in_file in itertools.groupby(samples, key=lambda one: one.file_index)
    }
    # All are written before one is held: two that lose all rows are the same file.
    written = {
        file_index: without(storage.path_of(files[file_index]), _by_row_group(in_file))
        for file_index, in_file in by_file.items()
    }
    for file_index, stored in sorted(written.items(), key=lambda item: item[1].digest):
        destruction.want(session, stored)
        if not storage.exists(stored.digest):  # somebody else made it needless in that moment
            detail = f"{stored.digest} was destroyed after it was made; it is made again"
            raise errors.Outdated("content-destroyed", detail)
        files[file_index] = stored.digest
        names = [one.sample_id for one in by_file[file_index]]
        session.execute(
            sa.delete(tables.Sample).where(
                tables.Sample.dataset_id == dataset.id,
                tables.Sample.sample_id == sa.any_(sa.literal(names, database.Names())),
            )
        )
        session.execute(_PLACES, {"dataset": dataset.id, "file": file_index})
    dataset.files = files
    dataset.rows -= len(samples)
    lost = collections.Counter(one.split for one in samples)
    dataset.splits = {split: size - lost[split] for split, size in dataset.splits.items()}
    gone = collections.Counter(str(one.label) for one in samples if one.split == tables.TRAIN)
    dataset.class_sizes = {label: size - gone[label] for label, size in dataset.class_sizes.items()}
    session.flush()


def _by_row_group(samples: Sequence[tables.Sample]) -> dict[int, set[int]]:
    found = collections.defaultdict(set)
    for one in samples:
        found[one.row_group].add(one.row_index)
    return found


def without(path: Path, doomed: dict[int, set[int]]) -> storage.Stored:
    """A Parquet file without these rows, by row group, in the store; types lose dictionaries."""
    source = pq.ParquetFile(path)
    schema = pa.schema([field.with_type(_plain(field.type)) for field in source.schema_arrow])
    with tempfile.TemporaryDirectory(dir=storage.root() / "incoming") as folder:
        target = Path(folder) / "rows.parquet"
        with pq.ParquetWriter(target, schema) as writer:
            for row_group in range(source.num_row_groups):
                # In batches: one array holds less than 2 GiB of pictures.
                batches = source.iter_batches(storage.ROWS_AT_A_TIME, row_groups=[row_group])
                table = pa.Table.from_batches(batches, source.schema_arrow)
                gone = doomed.get(row_group, set())
                if gone:
                    table = table.filter(
                        pa.array([row not in gone for row in range(table.num_rows)])
                    )
                table = table.cast(schema)
                if table.num_rows:
                    writer.write_table(table, row_group_size=table.num_rows)
        return storage.put_file(target, destruction.arriving)


def _plain(kind: pa.DataType) -> pa.DataType:
    """A type without dictionaries: they are written whole, with values that no row has any more."""
    if pa.types.is_dictionary(kind):
        return _plain(kind.value_type)
    if pa.types.is_struct(kind):
        return pa.struct([_plain_field(field) for field in kind])
    if pa.types.is_map(kind):
        return pa.map_(_plain_field(kind.key_field), _plain_field(kind.item_field))
    if pa.types.is_fixed_size_list(kind):
        return pa.list_(_plain_field(kind.value_field), kind.list_size)
    for is_list, listed in _LISTS.items():
        if is_list(kind):
            return listed(_plain_field(kind.value_field))
    return kind


def _plain_field(field: pa.Field) -> pa.Field:
    return field.with_type(_plain(field.type))
