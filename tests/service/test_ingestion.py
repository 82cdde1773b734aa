"""Ingestion streams: a dataset larger than what may stand in memory goes through."""

import io
import resource
import threading
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import sqlalchemy as sa
from PIL import Image

from service import database, destruction, ingestion, storage, tables

ROWS = 60_000
pytestmark = pytest.mark.usefixtures("empty")


def write(path: Path, rows: int) -> None:
    """Rows with one small image each, a row group of 5,000 at a time."""
    buffer = io.BytesIO()
    Image.fromarray(np.zeros((2, 2), np.uint8)).save(buffer, "PNG")
    image = {"bytes": buffer.getvalue(), "path": None}
    schema = pa.schema(
        {
            "sample_id": pa.string(),
            "image": pa.struct([("bytes", pa.binary()), ("path", pa.string())]),
            "label": pa.int64(),
            "split": pa.string(),
        }
    )
    with pq.ParquetWriter(path, schema) as writer:
        for start in range(0, rows, 5_000):
            table = [
                {"sample_id": f"s{i}", "image": image, "label": i % 3, "split": "train"}
                for i in range(start, start + 5_000)
            ]
            writer.write_table(pa.Table.from_pylist(table, schema))


def test_many_rows_are_ingested_without_holding_them(tmp_path: Path) -> None:
    write(tmp_path / "data.parquet", ROWS)
    digest = storage.put_file(tmp_path / "data.parquet", destruction.arriving).digest
    told: list[tuple[int, int]] = []
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with database.transaction() as session:
        dataset = tables.Dataset(name="large", files=[digest])
        session.add(dataset)
        session.flush()
        ingestion.ingest(session, dataset, lambda rows, total: told.append((rows, total)))
    grown_bytes = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024
    assert grown_bytes < 100 * 2**20
    assert told[-1] == (ROWS, ROWS)
    assert told == sorted(told)
    with database.transaction() as session:
        count = session.scalar(sa.select(sa.func.count()).select_from(tables.Sample))
        dataset = session.scalars(sa.select(tables.Dataset)).one()
        assert (count, dataset.rows, dataset.splits) == (ROWS, ROWS, {"train": ROWS})
        assert dataset.label_names == ["0", "1", "2"]
        located = session.get(tables.Sample, (dataset.id, "s12345"))
        assert located is not None
        assert (located.row_group, located.row_index, located.label) == (2, 2345, 0)
        assert len(located.content_hash) == 32


def test_an_interrupted_ingestion_leaves_nothing(tmp_path: Path) -> None:
    write(tmp_path / "data.parquet", 5_000)
    digest = storage.put_file(tmp_path / "data.parquet", destruction.arriving).digest
    stop = threading.Event()

    def progress(rows: int, _: int) -> None:
        if rows >= 2_000:
            stop.set()
            raise KeyboardInterrupt

    def attempt() -> None:
        with database.transaction() as session:
            dataset = tables.Dataset(name="broken", files=[digest])
            session.add(dataset)
            session.flush()
            ingestion.ingest(session, dataset, progress)

    with pytest.raises(KeyboardInterrupt):
        attempt()
    assert stop.is_set()
    with database.transaction() as session:
        assert session.scalar(sa.select(sa.func.count()).select_from(tables.Sample)) == 0
        assert session.scalar(sa.select(sa.func.count()).select_from(tables.Dataset)) == 0
