"""Training sets: registered here, ingested into the ledger by ``service.ingestion``."""

import uuid
from collections.abc import Sequence
from typing import Literal

import pyarrow as pa
import pyarrow.parquet as pq
import sqlalchemy as sa
from sqlalchemy import exc, orm

from service import artifacts, destruction, errors, jobs, storage, tables, telling

SPLITS = (tables.TRAIN, "test", "holdout")


def register(
    session: orm.Session, actor: str, name: str, files: Sequence[str]
) -> tuple[tables.Dataset, tables.Job]:
    """Check the Parquet files' schemas, then queue the ingestion.

    Raises :class:`errors.Conflict` for a name in use (unless that ingestion failed: then the new
    files take its place) and :class:`errors.Invalid` for missing blobs or columns.
    """
    for index, digest in enumerate(files):
        pointer = f"/files/{index}"
        if not artifacts.is_digest(digest) or not destruction.keep_from(session, [digest]):
            detail = (
                f"no blob {digest[:80]!r}; expected a digest uploaded with PUT /v1/blobs/sha256"
            )
            raise errors.Invalid(
                "invalid-dataset", detail, [errors.Problem(pointer, "blob-not-found", detail)]
            )
        check_schema(digest, pointer)
    dataset = session.scalar(
        sa.select(tables.Dataset).where(tables.Dataset.name == name).with_for_update()
    )
    if dataset is None:
        dataset = tables.Dataset(name=name, files=list(files))
        session.add(dataset)
    elif dataset.status == "failed":
        destruction.condemn(session, set(dataset.files) - set(files))
        dataset.files, dataset.status, dataset.errors = list(files), "ingesting", []
    else:
        raise _taken(name, f" and is {dataset.status}")
    try:
        session.flush()
    except exc.IntegrityError as taken_meanwhile:
        raise _taken(name) from taken_meanwhile
    job = jobs.enqueue(session, jobs.INGESTION, line=f"dataset:{dataset.id}", subject_id=dataset.id)
    telling.audit(session, actor, "dataset.register", dataset.id, files=list(files))
    return dataset, job


def _taken(name: str, state: str = "") -> errors.Conflict:
    return errors.Conflict("dataset-exists", f"dataset {name!r} exists{state}; choose another name")


def by_name(session: orm.Session, name: str) -> tables.Dataset:
    """The dataset of that name; raises :class:`errors.NotFound`."""
    dataset = session.scalar(sa.select(tables.Dataset).where(tables.Dataset.name == name))
    if dataset is None:
        raise errors.NotFound("dataset-not-found", f"no dataset {name!r}")
    return dataset


def job_of(session: orm.Session, dataset: tables.Dataset) -> tables.Job | None:
    """The newest ingestion job of a dataset."""
    return session.scalar(sa.select(tables.Job).where(tables.Job.id == _newest_job(dataset.id)))


def listing(session: orm.Session) -> list[tuple[tables.Dataset, tables.Job | None]]:
    """All datasets by name, each with its newest ingestion job."""
    found = session.execute(
        sa.select(tables.Dataset, tables.Job)
        .outerjoin(tables.Job, tables.Job.id == _newest_job(tables.Dataset.id))
        .order_by(tables.Dataset.name)
    )
    return [(dataset, job) for dataset, job in found]


def _newest_job(
    dataset_id: uuid.UUID | orm.InstrumentedAttribute[uuid.UUID],
) -> sa.ScalarSelect[uuid.UUID]:
    job = orm.aliased(tables.Job)
    newest = sa.select(job.id).where(job.subject_id == dataset_id)
    return newest.order_by(job.id.desc()).limit(1).scalar_subquery()


def tells(session: orm.Session, dataset: tables.Dataset, column: Literal["label", "text"]) -> bool:
    """Whether a training sample has that."""
    value = {"label": tables.Sample.label, "text": tables.Sample.text}[column]
    found = sa.exists().where(
        tables.Sample.dataset_id == dataset.id,
        tables.Sample.split == tables.TRAIN,
        value.is_not(None),
    )
    return bool(session.scalar(sa.select(found)))


def check_schema(digest: str, pointer: str) -> None:
    """Whether a blob is Parquet in the Hugging Face image convention, by its footer alone.

    Raises :class:`errors.Invalid` (``invalid-dataset``) that names what is missing.
    """
    try:
        schema = pq.read_schema(storage.path_of(digest))
    except (pa.ArrowException, OSError, ValueError) as error:
        raise _invalid(pointer, "not-parquet", f"expected a Parquet file, got {error}") from error
    got = ", ".join(schema.names) or "none"
    missing = [name for name in ("sample_id", "image", "split") if name not in schema.names]
    if not {"label", "text"} & set(schema.names):
        missing.append("label or text")
    if missing:
        detail = (
            f"got the columns {got}; missing {', '.join(missing)} "
            "(Hugging Face image convention: image as struct of bytes and path, label or text, "
            "plus sample_id and split)"
        )
        raise _invalid(pointer, "columns-missing", detail)
    image = schema.field("image").type
    if not pa.types.is_struct(image) or image.get_field_index("bytes") < 0:
        detail = f"column image is {image}; expected struct<bytes: binary, path: string>"
        raise _invalid(pointer, "column-type", detail)


def _invalid(pointer: str, code: str, detail: str) -> errors.Invalid:
    return errors.Invalid("invalid-dataset", detail, [errors.Problem(pointer, code, detail)])
