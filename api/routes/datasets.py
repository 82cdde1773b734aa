"""``/v1/datasets``: the training-set ledger."""

import fastapi

from api import auth, presenting, relay, sessions, waiting
from api.schemas import base, registry
from service import database, datasets

router = fastapi.APIRouter(prefix="/v1/datasets", tags=["datasets"])


@router.post(
    "", status_code=202, response_model=registry.DatasetOut, dependencies=[relay.AFTER_COMMIT]
)
def register(
    session: sessions.Session,
    caller: auth.Writer,
    body: registry.DatasetIn,
    response: fastapi.Response,
) -> registry.DatasetOut:
    """Ingest Parquet files (Hugging Face image convention); poll the ``Location``."""
    dataset, job = datasets.register(session, caller.actor, body.name, body.files)
    response.headers["Location"] = f"/v1/datasets/{dataset.name}"
    response.headers["Retry-After"] = "1"
    return presenting.dataset(dataset, job)


@router.get("", response_model=registry.DatasetsOut)
def listing(session: sessions.Session, _: auth.Writer) -> registry.DatasetsOut:
    """Every dataset, by name."""
    found = datasets.listing(session)
    return registry.DatasetsOut(items=[presenting.dataset(row, job) for row, job in found])


@router.get("/{name}", response_model=registry.DatasetOut)
async def poll(request: fastapi.Request, _: auth.Writer, name: base.Name) -> fastapi.Response:
    """A dataset and how far its ingestion is; ``Prefer: wait=N`` is honoured."""
    return await waiting.conditional(request, lambda: _represent(name))


def _represent(name: str) -> waiting.Representation:
    with database.transaction() as session:
        dataset = datasets.by_name(session, name)
        job = datasets.job_of(session, dataset)
        keys = frozenset() if job is None else frozenset({str(job.id)})
        return waiting.represent(presenting.dataset(dataset, job), keys)
