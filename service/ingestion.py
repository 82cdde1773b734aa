"""Parquet files into the training-set ledger: streamed, checked, all or nothing.

Rows go by COPY into a temporary table, so that a million of them never stand in memory and
duplicate ids can be named; one transaction makes them visible.
"""

import hashlib
import itertools
import json
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import psycopg
import pyarrow.parquet as pq
import sqlalchemy as sa
from sqlalchemy import orm

from salun_core import encoded, specs
from salun_core import errors as core_errors
from service import datasets, errors, storage, tables, tombstones

MAX_ERRORS = 20
MAX_CLASSES = 1_000_000
_NAMED = "1 to 256 characters, none of them a control character"
_COLUMNS = ("sample_id", "image", "split", "label", "text", "subject_id")

Progress = Callable[[int, int], None]


@dataclass
class _Tally:
    """What is known so far about the rows that went through."""

    rows: int = 0
    splits: dict[str, int] = field(default_factory=dict)
    class_sizes: dict[str, int] = field(default_factory=dict)
    labels: dict[str, int] = field(default_factory=dict)  # text label → index in order of name
    problems: list[errors.Problem] = field(default_factory=list)


def ingest(session: orm.Session, dataset: tables.Dataset, progress: Progress) -> None:
    """Fill the ledger of a dataset in the caller's transaction.

    Raises :class:`errors.Invalid` (``invalid-dataset``) with up to 20 problems that name the rows.
    ``progress(rows, total_rows)`` may raise to stop.
    """
    files = [pq.ParquetFile(storage.path_of(digest)) for digest in dataset.files]
    total = sum(file.metadata.num_rows for file in files)
    names = _label_names(files, dataset.files)
    tally = _Tally(labels={name: index for index, name in enumerate(names)})
    session.execute(
        sa.text(
            "CREATE TEMPORARY TABLE incoming_sample (sample_id text, split text, label integer, "
            "text text, subject_id text, content_hash bytea, file_index integer, "
            "row_group integer, row_index integer) ON COMMIT DROP"
        )
    )
    with (
        _driver(session).cursor() as cursor,
        cursor.copy("COPY incoming_sample FROM STDIN (FORMAT BINARY)") as copy,
    ):
        copy.set_types(["text", "text", "int4", "text", "text", "bytea", "int4", "int4", "int4"])
        for row in _rows(files, tally):
            copy.write_row(row)
            if tally.rows % storage.ROWS_AT_A_TIME == 0:
                progress(tally.rows, total)
    tally.problems += _duplicates(session)
    tally.problems += _returning(session, files)
    if tally.rows == 0:
        tally.problems.append(errors.Problem("/files", "no-rows", "got no rows, expected some"))
    if tally.problems:
        detail = tally.problems[0].detail
        raise errors.Invalid("invalid-dataset", detail, tally.problems[:MAX_ERRORS])
    _publish(session, dataset, tally)
    progress(total, total)


def _publish(session: orm.Session, dataset: tables.Dataset, tally: _Tally) -> None:
    session.execute(
        sa.text(
            "INSERT INTO sample (dataset_id, sample_id, split, label, text, subject_id, "
            "content_hash, file_index, row_group, row_index) "
            "SELECT :dataset_id, sample_id, split, label, text, subject_id, content_hash, "
            "file_index, row_group, row_index FROM incoming_sample"
        ),
        {"dataset_id": dataset.id},
    )
    dataset.rows = tally.rows
    dataset.splits = tally.splits
    dataset.class_sizes = tally.class_sizes
    dataset.label_names = sorted(tally.labels, key=tally.labels.__getitem__)
    dataset.status = "ready"


def fail(session: orm.Session, dataset_id: uuid.UUID, problems: Sequence[errors.Problem]) -> None:
    """Say why a dataset could not be ingested."""
    dataset = session.get_one(tables.Dataset, dataset_id)
    dataset.status = "failed"
    dataset.errors = [
        {"pointer": problem.pointer, "code": problem.code, "detail": problem.detail}
        for problem in problems
    ]


def _rows(files: Sequence[pq.ParquetFile], tally: _Tally) -> Iterator[tuple[Any, ...]]:
    for file_index, file in enumerate(files):
        first = tally.rows
        columns = [name for name in _COLUMNS if name in file.schema_arrow.names]
        for row_group in range(file.num_row_groups):
            row_index = 0
            for batch in file.iter_batches(
                storage.ROWS_AT_A_TIME, row_groups=[row_group], columns=columns
            ):
                for row in batch.to_pylist():
                    pointer = f"/files/{file_index}/rows/{tally.rows - first}"
                    checked = _checked(row, pointer, tally)
                    tally.rows += 1
                    if checked is not None:
                        yield (*checked, file_index, row_group, row_index)
                    row_index += 1
                    if len(tally.problems) >= MAX_ERRORS:
                        return


def _checked(row: dict[str, Any], pointer: str, tally: _Tally) -> tuple[Any, ...] | None:
    """The ledger's values of one row, or ``None`` after noting what is wrong with it."""
    sample_id, split = row.get("sample_id"), row.get("split")
    content: Any = (row.get("image") or {}).get("bytes")
    label = _label(row.get("label"), tally)
    text = row.get("text")
    name = f"sample {str(sample_id)[:64]!r}"
    if not isinstance(sample_id, str | int) or not _can_be_named(sample_id):
        problem = (
            "sample-id",
            f"got sample_id {str(sample_id)[:64]!r}, expected {_NAMED}, or an integer",
        )
    elif (unnamed := _cannot_be_named(row)) is not None:
        problem = (unnamed, f"{name}: got a {unnamed} that is no text of {_NAMED}")
    elif split not in datasets.SPLITS:
        problem = ("split", f"{name}: got split {split!r}, expected train, test or holdout")
    elif label is None and not isinstance(text, str):
        got = f"label {row.get('label')!r} and text {text!r}"
        problem = ("label", f"{name}: got {got}, expected one of them")
    elif (broken := _image_problem(content)) is not None:
        problem = ("image", f"{name}: {broken}")
    else:
        tally.splits[split] = tally.splits.get(split, 0) + 1
        if split == tables.TRAIN and label is not None:
            tally.class_sizes[str(label)] = tally.class_sizes.get(str(label), 0) + 1
        subject = None if row.get("subject_id") is None else str(row["subject_id"])
        return (str(sample_id), split, label, text, subject, hashlib.sha256(content).digest())
    tally.problems.append(errors.Problem(pointer, *problem))
    return None


def _can_be_named(value: object) -> bool:
    """Whether a demand can name it later; what it cannot name can never be erased."""
    return specs.is_identifier(str(value))


def _cannot_be_named(row: dict[str, Any]) -> str | None:
    """What of a row, beside its id, no demand could name; as the problem's code."""
    subject, label, text = (row.get(key) for key in ("subject_id", "label", "text"))
    if subject is not None and not _can_be_named(subject):
        return "subject-id"
    if isinstance(label, str) and not _can_be_named(label):
        return "label"
    if text is not None and not (isinstance(text, str) and "\0" not in text):
        return "text"
    return None


def _label(label: object, tally: _Tally) -> int | None:
    if isinstance(label, bool) or label is None:
        return None
    if isinstance(label, int):
        return label if 0 <= label < len(tally.labels) else None
    return tally.labels.get(str(label))


def _image_problem(content: object) -> str | None:
    if not isinstance(content, bytes) or not content:
        return f"got an image of type {type(content).__name__}, expected encoded bytes"
    try:
        encoded.picture(content)
    except core_errors.InvalidDataError as error:
        return str(error)
    return None


def _duplicates(session: orm.Session) -> list[errors.Problem]:
    rows = session.execute(
        sa.text(
            "SELECT sample_id, count(*) FROM incoming_sample GROUP BY sample_id "
            "HAVING count(*) > 1 ORDER BY sample_id LIMIT :most"
        ),
        {"most": MAX_ERRORS},
    )
    return [
        errors.Problem(
            "/files",
            "duplicate-id",
            f"sample_id {sample_id[:64]!r} stands in {count} rows, expected one",
        )
        for sample_id, count in rows
    ]


def _returning(session: orm.Session, files: Sequence[pq.ParquetFile]) -> list[errors.Problem]:
    """Content that was erased and deleted does not come back, under whatever id.

    It is told by its place: nobody writes down again who wanted it gone.
    """
    if not tombstones.exist(session):
        return []
    starts = [_starts(file) for file in files]
    stones = set(session.scalars(sa.select(tables.Tombstone.content_mark)))
    rows = session.execute(
        sa.text(
            "SELECT file_index, row_group, row_index, content_hash FROM incoming_sample "
            "ORDER BY file_index, row_group, row_index"
        ),
        execution_options={"yield_per": 10_000},
    )
    places = (
        f"/files/{row.file_index}/rows/{starts[row.file_index][row.row_group] + row.row_index}"
        for row in rows
        if tombstones.of_content(row.content_hash) in stones
    )
    return [
        errors.Problem(
            place,
            "erased-content",
            "this row has the content of a sample that was erased on request; expected it to be "
            "left out",
        )
        for place in itertools.islice(places, MAX_ERRORS)
    ]


def _starts(file: pq.ParquetFile) -> list[int]:
    """The number of the first row of each row group."""
    sizes = [file.metadata.row_group(group).num_rows for group in range(file.num_row_groups)]
    return list(itertools.accumulate(sizes, initial=0))


def _label_names(files: Sequence[pq.ParquetFile], digests: Sequence[str]) -> list[str]:
    """Names of the labels: from the Hugging Face metadata, else from the values themselves."""
    for file in files:
        if names := _named_in(file.schema_arrow.metadata or {}):
            return names
    values: set[Any] = set()
    for digest in digests:
        path = storage.path_of(digest)
        if "label" in pq.read_schema(path).names:
            for batch in pq.ParquetFile(path).iter_batches(65_536, columns=["label"]):
                values.update(batch.column(0).unique().to_pylist())
    values.discard(None)
    if all(isinstance(value, int) for value in values) and values:
        if max(values) >= MAX_CLASSES:
            detail = (
                f"got label {max(values)}, expected the number of a class, below {MAX_CLASSES}, or "
                "names"
            )
            problem = errors.Problem("/files", "label", detail)
            raise errors.Invalid("invalid-dataset", detail, [problem])
        return [str(index) for index in range(max(values) + 1)] if min(values) >= 0 else []
    return sorted(map(str, values))


def _named_in(metadata: Mapping[bytes, bytes]) -> list[str]:
    """The class names that ``datasets`` wrote; none where they are not in its form."""
    try:
        found: Any = json.loads(metadata.get(b"huggingface", b"{}"))
        for key in ("info", "features", "label", "names"):
            found = found.get(key) or {}
    except (ValueError, AttributeError):
        return []
    return [str(name) for name in found] if isinstance(found, list) else []


def _driver(session: orm.Session) -> psycopg.Connection[Any]:
    connection = session.connection().connection.driver_connection
    if not isinstance(connection, psycopg.Connection):
        msg = f"expected a psycopg connection, got {type(connection)}"
        raise TypeError(msg)
    return connection
