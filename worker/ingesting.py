"""The ingestion job: Parquet files into the ledger."""

from service import database, errors, ingestion, jobs, tables
from worker import leases


def run(lease: leases.Lease) -> None:
    """Fill the ledger in one transaction, or say why not."""
    claimed = lease.claimed
    progress = lease.enter("ingesting")
    try:
        with database.transaction() as session:
            dataset = session.get_one(tables.Dataset, claimed.subject_id)
            ingestion.ingest(session, dataset, progress)
            jobs.finish(session, jobs.hold(session, claimed), "succeeded", None)
    except errors.Invalid as invalid:
        with database.transaction() as session:
            job = jobs.hold(session, claimed)
            ingestion.fail(session, claimed.subject_id, invalid.problems)
            first = invalid.problems[0]  # without its text: jobs outlive the ids of who is erased
            detail = f"{first.pointer}: {first.code}; all are told by the dataset's errors"
            jobs.finish(session, job, "failed", {"code": invalid.code, "detail": detail})
