"""One unlearning job as a list of stages. This file is the story.

claim (``worker.running``) → load → mask → unlearn → verify → judge → publish. Every stage that
computes commits an artifact by digest; a later attempt skips what is committed already.
"""

import functools
import json
from pathlib import Path
from typing import Any

from salun_core import specs
from service import (
    acceptance,
    artifacts,
    database,
    fulfilment,
    models,
    planning,
    publication,
    storage,
    tables,
    versions,
)
from worker import leases, steps
from worker.families import contract, registered

MASK, UNLEARN, VERIFY, PUBLISH = "computing_saliency", "unlearning", "verifying", "publishing"


def run(lease: leases.Lease) -> None:
    """Carry out one claimed unlearning job."""
    claimed = lease.claimed
    plan = planning.pinned(claimed)
    if not plan.forget_ids:
        publication.nothing_left(claimed)
        return
    _tell(lease, MASK)
    model, base = _base(plan)
    with storage.scratch(claimed.job_id, claimed.fence) as scratch:
        stages = steps.Steps(lease, scratch)
        family = registered.FAMILIES[model.family]
        prepared = family.prepare(plan, {file.path: file for file in base}, lease.enter("loading"))

        mask = stages.run(MASK, prepared.compute_mask)
        _tell(lease, UNLEARN)
        checkpoints = stages.checkpoints(UNLEARN)
        unlearned = stages.run(
            UNLEARN, functools.partial(prepared.unlearn, mask, checkpoints=checkpoints)
        )
        _tell(lease, VERIFY)
        report = stages.run(VERIFY, functools.partial(_verify, prepared, mask, unlearned))

        policy = models.policy_of(model).acceptance
        measured = specs.VerificationReport.model_validate_json(report.read_bytes())
        verdict = acceptance.judge(measured, policy)
        seconds = {
            "mask": stages.run_seconds(MASK),
            "unlearn": stages.run_seconds(UNLEARN),
            "verify": stages.run_seconds(VERIFY),
        }
        _tell(lease, PUBLISH)
        lease.enter(PUBLISH)
        weights = artifacts.FileRef(artifacts.WEIGHTS, unlearned.name, unlearned.stat().st_size)
        publication.publish(
            claimed,
            publication.Outcome(
                base_version=plan.base_version,
                files=family.new_files(base, weights),
                report=_rendered(lease, plan, measured, verdict, seconds),
                verdict=verdict,
            ),
        )
        checkpoints.drop()


def _verify(
    prepared: contract.Prepared,
    mask: Path,
    unlearned: Path,
    path: Path,
    report: contract.Progress,
) -> None:
    measured = prepared.verify(mask, unlearned, report)
    path.write_text(measured.model_dump_json())


def _rendered(
    lease: leases.Lease,
    plan: planning.Plan,
    measured: specs.VerificationReport,
    verdict: acceptance.Verdict,
    seconds: dict[str, float],
) -> dict[str, Any]:
    """The report as it is kept: judged metrics, evidence, what the job was."""
    judged = json.loads(verdict.model_dump_json())
    metrics = judged.pop("metrics")
    details = {
        name: {"n": item.n, "detail": dict(item.detail)} for name, item in measured.metrics.items()
    }
    return {
        "model": plan.model,
        "kind": plan.kind,
        "base_version": plan.base_version,
        "method": plan.method,
        "approximate": "approximate unlearning (SalUn, arXiv 2310.12508); not certified",
        "metrics": {name: {**metrics.get(name, {}), **details.get(name, {})} for name in metrics},
        "evidence": {
            **measured.evidence,
            "forget_count": len(plan.forget_ids),
            "previous_count": len(plan.previous_ids),
            "target_digest": plan.target_digest,
            "run": steps.evidence(lease.claimed),
        },
        "seconds": seconds,
        "verdict": judged,
    }


def _base(plan: planning.Plan) -> tuple[tables.Model, list[artifacts.FileRef]]:
    with database.transaction() as session:
        model = models.by_name(session, plan.model)
        version = versions.by_number(session, model, plan.base_version)
        return model, versions.files_of(session, version)


def _tell(lease: leases.Lease, stage: str) -> None:
    """The requests of the batch entered a stage."""
    lease.check()
    with database.transaction() as session:
        fulfilment.advance(session, lease.claimed.subject_id, stage)
