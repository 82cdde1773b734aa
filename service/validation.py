"""An uploaded version, from its files in the store to a version that is served, or refused."""

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy import orm

from service import (
    aliases,
    artifacts,
    destruction,
    erasures,
    errors,
    jobs,
    models,
    publication,
    tables,
    telling,
    versions,
)

_PASSED = versions.SERVABLE | versions.WITHDRAWN


def stage(
    session: orm.Session,
    actor: str,
    model: tables.Model,
    files: Sequence[artifacts.FileRef],
    trained_without: int | None,
) -> tuple[tables.Version, tables.Job]:
    """Write an uploaded version down and queue its validation by a worker.

    ``trained_without`` is a version of the model: the net was trained on data that lacked all that
    this version has forgotten. Whoever uploads says so; it stands in the manifest.

    Raises :class:`errors.Invalid` for what can be told at once, and :class:`errors.Conflict`
    (``erasure-regression``) where the model has forgotten what the net may know.
    """
    artifacts.check_listing(files)
    _check_blobs(session, files)
    dataset = session.get_one(tables.Dataset, model.dataset_id)
    artifacts.check(models.family_of(model), files, dataset.label_names)
    forgets = [] if trained_without is None else _forgotten_by(session, model, trained_without)
    if regression := _regression(session, model, forgets):
        raise errors.Conflict(regression.code, regression.detail)
    lineage: dict[str, Any] = {
        "anchor": None,
        "chain": [],
        "chain_length": 0,
        "forgets": forgets,
        "trained_without": trained_without,
        "drift": 0.0,
        "composition": None,
        "forgotten_digest": erasures.forgotten_digest(session, model),
    }
    version = versions.add(session, model, files, lineage=lineage)
    job = jobs.enqueue(
        session,
        jobs.VALIDATION,
        line=f"version:{version.id}",
        subject_id=version.id,
        computes=bool(forgets) and model.family != "classifier",  # draws to be asked
    )
    telling.audit(
        session,
        actor,
        "version.add",
        version.id,
        manifest=version.manifest_digest,
        trained_without=trained_without,
    )
    return version, job


def conclude(
    session: orm.Session, version: tables.Version, problem: errors.Problem | None
) -> errors.Problem | None:
    """A worker looked at the files and found a problem or none; returns why it is refused, if so.

    Refused as well where something was forgotten since it was uploaded. Otherwise the next job
    starts from it, and it is served; a later version than the first waits for its owner where the
    policy does not publish by itself.
    """
    model = publication.hold_model(session, version.model_id)
    session.refresh(version)
    found = problem or _revoked(version) or _regression(session, model, versions.forgets(version))
    if found is None:
        _accept(session, model, version)
    else:
        refuse(session, version, found)
    return found


def refuse(session: orm.Session, version: tables.Version, problem: errors.Problem) -> None:
    """The version is not served and says why."""
    version.errors = [{"pointer": problem.pointer, "code": problem.code, "detail": problem.detail}]
    telling.audit(session, "worker", "version.refuse", version.id, code=problem.code)


def discard(session: orm.Session, version: tables.Version) -> None:
    """Take back a version that was refused while its uploader still waited for the answer."""
    files = sa.delete(tables.VersionFile).where(tables.VersionFile.version_id == version.id)
    destruction.condemn(session, session.scalars(files.returning(tables.VersionFile.digest)))
    session.execute(sa.delete(tables.Version).where(tables.Version.id == version.id))


def _accept(session: orm.Session, model: tables.Model, version: tables.Version) -> None:
    is_first = model.head is None
    model.head = version.number
    if is_first or models.policy_of(model).auto_publish:
        publication.serve(session, model, version)
    else:
        version.state = "verified"


def _forgotten_by(session: orm.Session, model: tables.Model, number: int) -> list[int]:
    """The versions whose erasures a version has, as its uploader names it."""
    try:
        named = versions.by_number(session, model, number)
    except errors.NotFound as missing:
        raise _unknown_version(missing.detail) from missing
    if named.state not in _PASSED:
        raise _unknown_version(
            f"version {number} is {named.state}, expected one that passed verification"
        )
    return versions.forgets(named)


def _unknown_version(detail: str) -> errors.Invalid:
    problem = errors.Problem("/trained_without", "version-not-found", detail)
    return errors.Invalid("invalid-version", detail, [problem])


def _regression(
    session: orm.Session, model: tables.Model, forgets: Sequence[int]
) -> errors.Problem | None:
    """That a net which lacks the erasures of these versions would bring others back."""
    lacking = aliases.erasures_beyond(session, model, forgets)
    if not lacking:
        return None
    detail = (
        f"model {model.name!r} has forgotten {lacking} samples or concepts that this net may have "
        f"been trained on; expected trained_without: {model.head}, which says that its training "
        "data lacked all that version has forgotten"
    )
    return errors.Problem("/trained_without", "erasure-regression", detail)


def _revoked(version: tables.Version) -> errors.Problem | None:
    """That somebody revoked it while it waited for its validation."""
    if version.state == "staged":
        return None
    detail = f"version {version.number} is {version.state}, expected one that waits for validation"
    return errors.Problem("", "version-revoked", detail)


def _check_blobs(session: orm.Session, files: Sequence[artifacts.FileRef]) -> None:
    sizes = destruction.keep_from(session, [file.digest for file in files])
    problems = []
    for index, file in enumerate(files):
        if file.digest not in sizes:
            detail = (
                f"{file.path}: no blob {file.digest[:80]!r}; upload it with PUT /v1/blobs/sha256"
            )
            problems.append(errors.Problem(f"/files/{index}/digest", "blob-not-found", detail))
        elif sizes[file.digest] != file.size:
            detail = f"{file.path}: got size {file.size}, the blob has {sizes[file.digest]} bytes"
            problems.append(errors.Problem(f"/files/{index}/size", "size-mismatch", detail))
    if problems:
        raise errors.Invalid("unsafe-artifact", problems[0].detail, problems)
