"""Ingestion streams: a dataset larger than what may stand in memory goes through."""

import io
import resource
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import sqlalchemy as sa
from PIL import Image

from service import database, destruction, errors, ingestion, storage, tables

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


def small(path: Path, rows: Sequence[dict[str, Any]], metadata: bytes | None = None) -> str:
    """The digest of a stored file of these rows; what they leave out is a plain grey picture."""
    buffer = io.BytesIO()
    Image.fromarray(np.zeros((2, 2), np.uint8)).save(buffer, "PNG")
    plain = {"image": {"bytes": buffer.getvalue()}, "label": 0, "split": "train"}
    whole = [{"sample_id": f"s{n}", **plain, **row} for n, row in enumerate(rows)]
    table = pa.Table.from_pylist(whole)
    if metadata is not None:
        table = table.replace_schema_metadata({b"huggingface": metadata})
    pq.write_table(table, path)
    return storage.put_file(path, destruction.arriving).digest


def ingest(*files: str) -> tables.Dataset:
    with database.transaction() as session:
        dataset = tables.Dataset(name="small", files=list(files))
        session.add(dataset)
        session.flush()
        ingestion.ingest(session, dataset, lambda *_: None)
        session.expunge(dataset)
        return dataset


def encoded(picture: Image.Image) -> dict[str, bytes]:
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return {"bytes": buffer.getvalue()}


@pytest.mark.parametrize(
    ("picture", "said"),
    [
        (Image.fromarray(np.full((8, 8), 40_000, np.uint16)), "mode I;16"),
        (Image.new("1", (10_000, 8_001)), "10000x8001 pixels, expected at most 80000000"),
    ],
)
def test_what_no_net_would_be_shown_does_not_come_in(
    tmp_path: Path, picture: Image.Image, said: str
) -> None:
    """A job that finds such a picture can only fail."""
    rows = [{}, {"image": encoded(picture)}]
    with pytest.raises(errors.Invalid, match=said):
        ingest(small(tmp_path / "data.parquet", rows))


def test_rows_are_counted_in_their_own_file(tmp_path: Path) -> None:
    first = small(tmp_path / "first.parquet", [{}, {}, {}])
    second = [{"sample_id": "a"}, {"sample_id": "b", "split": "validation"}]
    with pytest.raises(errors.Invalid) as refused:
        ingest(first, small(tmp_path / "second.parquet", second))
    assert [one.pointer for one in refused.value.problems] == ["/files/1/rows/1"]


def test_a_label_that_counts_no_classes_is_told_at_once(tmp_path: Path) -> None:
    with pytest.raises(errors.Invalid, match="got label 10000000000, expected the number of a"):
        ingest(small(tmp_path / "data.parquet", [{"label": 10**10}]))


@pytest.mark.parametrize(
    "metadata",
    [b"no JSON", b"[]", b'{"info": null}', b'{"info": {"features": {"label": {"names": 3}}}}'],
)
def test_metadata_of_another_form_tells_no_names(tmp_path: Path, metadata: bytes) -> None:
    made = ingest(small(tmp_path / "data.parquet", [{"label": 1}], metadata))
    assert made.label_names == ["0", "1"]


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
