"""One unlearning job as a list of stages. This file is the story.

claim (``worker.running``) → load → mask → unlearn → verify → judge → publish. Every stage that
computes commits an artifact by digest; a later attempt skips what is committed already. When the
judgement is no, the stages run again with the next recipe of the plan's ladder.
"""

import functools
import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from salun_core import errors as core_errors
from salun_core import progress, specs
from service import (
    acceptance,
    artifacts,
    database,
    destruction,
    errors,
    fulfilment,
    jobs,
    models,
    planning,
    plans,
    publication,
    storage,
    tables,
    versions,
)
from worker import exhaustion, leases, steps
from worker.families import contract, registered

MASK, UNLEARN, VERIFY, PUBLISH = "computing_saliency", "unlearning", "verifying", "publishing"
_log = logging.getLogger("salun.worker")


@dataclass(frozen=True)
class Tried:
    """What one recipe came to."""

    spec: specs.Recipe
    unlearned: Path
    measured: specs.VerificationReport
    verdict: acceptance.Verdict
    seconds: dict[str, float]

    def told(self) -> dict[str, Any]:
        """For the report."""
        return {
            "spec": self.spec.model_dump(mode="json"),
            "passed": self.verdict.passed,
            "failures": list(self.verdict.failures),
            "seconds": self.seconds,
        }


@dataclass(frozen=True)
class Diverged:
    """A recipe that gave no finite weights, and what became infinite."""

    spec: specs.Recipe
    error: core_errors.NonFiniteLossError

    def told(self) -> dict[str, Any]:
        """For the report."""
        return {
            "spec": self.spec.model_dump(mode="json"),
            "passed": False,
            "diverged": str(self.error),
        }


def run(lease: leases.Lease) -> None:
    """Carry out one claimed unlearning job."""
    claimed = lease.claimed
    plan = planning.pinned(claimed)
    if plan.is_empty:
        publication.nothing_left(claimed)
        return
    model, base = _base(plan)
    with storage.scratch(claimed.job_id, claimed.fence) as scratch:
        family = registered.FAMILIES[model.family]
        files = {file.path: file for file in base}
        prepared = family.prepare(plan, files, lease.enter("loading"))
        stages = steps.Steps(lease, scratch)
        rungs = _climb(lease, stages, prepared, plan, models.policy_of(model))
        tried = [rung for rung in rungs if isinstance(rung, Tried)]
        best = min(tried, key=lambda one: len(one.verdict.failures))

        _tell(lease, PUBLISH)
        lease.enter(PUBLISH)
        path = best.unlearned
        weights = storage.Stored(path.name, path.stat().st_size)
        publication.publish(
            claimed,
            publication.Outcome(
                head_version=plan.planned_on,
                base_version=plan.base_version,
                composition=plan.composition,
                files=family.new_files(base, weights),
                pictures=_pictures(best.measured),
                report=_rendered(lease, plan, best, rungs),
                verdict=best.verdict,
                retrained=best.spec.method == "retrain",
                lost_accuracy=_lost_accuracy(best.measured),
            ),
        )
        for digest in (one.unlearned.name for one in tried if one is not best):
            if not destruction.is_needed(digest, besides=claimed.job_id):
                storage.remove(digest)


def _climb(
    lease: leases.Lease,
    stages: steps.Steps,
    prepared: contract.Prepared[Any],
    plan: plans.Plan,
    policy: models.ModelPolicy,
) -> list[Tried | Diverged]:
    """Recipe after recipe, until a result passes, none can, or the policy's time is over.

    Raises NonFiniteLossError when no recipe gave finite weights.
    """
    rungs: list[Tried | Diverged] = []
    for rung, wanted in enumerate(plan.ladder):
        if rung and stages.total_seconds() > policy.max_job_seconds:
            _log.warning("job %s: out of time after %d recipes", lease.claimed.job_id, rung)
            break
        spec = exhaustion.smaller(wanted, _halvings(lease.claimed))
        try:
            tried = _try(lease, stages, prepared, spec, rung, policy.acceptance)
        except core_errors.NonFiniteLossError as error:
            _log.warning("job %s: recipe %d diverged: %s", lease.claimed.job_id, rung, error)
            rungs.append(Diverged(spec, error.with_traceback(None)))
            continue
        rungs.append(tried)
        if tried.verdict.passed or acceptance.is_blind(tried.verdict):
            break
    diverged = [rung for rung in rungs if isinstance(rung, Diverged)]
    if diverged and len(diverged) == len(rungs):
        raise diverged[-1].error
    return rungs


def _try(
    lease: leases.Lease,
    stages: steps.Steps,
    prepared: contract.Prepared[Any],
    spec: specs.Recipe,
    rung: int,
    policy: acceptance.AcceptancePolicy,
) -> Tried:
    """Mask → unlearn → verify → judge, by one recipe."""
    mask_name, unlearn_name, verify_name = _names(lease.claimed, rung)
    _tell(lease, MASK)
    mask = stages.run(MASK, mask_name, functools.partial(prepared.compute_mask, spec))
    _tell(lease, UNLEARN)
    checkpoints = stages.checkpoints(unlearn_name)
    unlearn = functools.partial(prepared.unlearn, spec, mask, checkpoints=checkpoints)
    unlearned = stages.run(UNLEARN, unlearn_name, unlearn)
    checkpoints.drop()
    _tell(lease, VERIFY)
    verify = functools.partial(_verify, prepared, spec, mask, unlearned)
    report = stages.run(VERIFY, verify_name, verify)
    measured = specs.VerificationReport.model_validate_json(report.read_bytes())
    seconds = {
        "mask": stages.run_seconds(mask_name),
        "unlearn": stages.run_seconds(unlearn_name),
        "verify": stages.run_seconds(verify_name),
    }
    return Tried(spec, unlearned, measured, acceptance.judge(measured, policy), seconds)


def _names(claimed: jobs.Claim, rung: int) -> tuple[str, str, str]:
    """Of the steps of a recipe. What other batches made is not gone on with, but a mask may be."""
    mask, unlearn, verify = (
        f"{stage}/{rung}" if rung else stage for stage in (MASK, UNLEARN, VERIFY)
    )
    if halvings := _halvings(claimed):
        return mask, f"{unlearn}/halved-{halvings}", f"{verify}/halved-{halvings}"
    return mask, unlearn, verify


def _halvings(claimed: jobs.Claim) -> int:
    return int((claimed.inputs or {}).get(jobs.BATCH_HALVINGS, 0))


def _verify(
    prepared: contract.Prepared[Any],
    spec: specs.Recipe,
    mask: Path,
    unlearned: Path,
    path: Path,
    report: progress.Progress,
) -> None:
    measured = prepared.verify(spec, mask, unlearned, report)
    path.write_text(measured.model_dump_json())


def _rendered(
    lease: leases.Lease, plan: plans.Plan, best: Tried, rungs: Sequence[Tried | Diverged]
) -> dict[str, Any]:
    """The report as it is kept: judged metrics, evidence, what the job was."""
    judged = json.loads(best.verdict.model_dump_json())
    metrics = judged.pop("metrics")
    details = {
        name: {"n": item.n, "detail": dict(item.detail)}
        for name, item in best.measured.metrics.items()
    }
    return {
        "model": plan.model,
        "kind": plan.kind,
        "family": plan.family,
        "base_version": plan.base_version,
        "composition": plan.composition,
        "method": best.spec.model_dump(mode="json"),
        "approximate": _claim(best.spec.method),
        "metrics": {name: {**metrics.get(name, {}), **details.get(name, {})} for name in metrics},
        "evidence": {
            **best.measured.evidence,
            "forget_count": len(plan.forget_ids),
            "previous_count": len(plan.previous_ids),
            "target_digest": plan.target_digest,
            **_shortened(plan),
            "run": {**steps.evidence(lease.claimed), **_halved(lease.claimed)},
            "recipes_tried": [rung.told() for rung in rungs],
        },
        "seconds": {
            stage: sum(rung.seconds[stage] for rung in rungs if isinstance(rung, Tried))
            for stage in best.seconds
        },
        "verdict": judged,
    }


def _lost_accuracy(measured: specs.VerificationReport) -> float:
    """What the test accuracy is below the base's; of a generator what the judge knows of the rest.

    0 where neither was measured.
    """
    for name in ("test_accuracy", "retain_accuracy"):
        metric = measured.metrics.get(name)
        if metric is not None and metric.target is not None:
            return metric.target - metric.value
    return 0.0


def _pictures(measured: specs.VerificationReport) -> list[artifacts.FileRef]:
    return [
        artifacts.FileRef(picture["name"], picture["digest"], picture["size"])
        for picture in measured.evidence.get("pictures", ())
    ]


def _shortened(plan: plans.Plan) -> dict[str, Any]:
    """How far the policy's ``max_job_steps`` cut the length of a recipe, perhaps a pinned one."""
    if plan.wanted is None:
        return {}
    now = {name: getattr(plan.ladder[0], name) for name in plan.wanted}
    return {"shortened": {**now, **{f"{name}_wanted": n for name, n in plan.wanted.items()}}}


def _halved(claimed: jobs.Claim) -> dict[str, int]:
    """That the batches are smaller than planned, where memory was short for them."""
    halvings = _halvings(claimed)
    return {jobs.BATCH_HALVINGS: halvings} if halvings else {}


def _claim(method: str) -> str:
    """What may be said of the result, and what not."""
    if method == "retrain":
        return "retrained from scratch without the data; not certified"
    if method in ("salun", "salun_soft"):
        return "approximate unlearning (SalUn, arXiv 2310.12508); not certified"
    return f"approximate unlearning ({method}); not certified"


def _base(plan: plans.Plan) -> tuple[tables.Model, list[artifacts.FileRef]]:
    with database.transaction() as session:
        model = models.by_name(session, plan.model)
        version = versions.by_number(session, model, plan.base_version)
        files = versions.files_of(session, version)
    broken = [file.path for file in files if not storage.is_intact(file.digest)]
    if broken:
        detail = (
            f"{', '.join(broken)} of version {plan.base_version} is not whole in the store; "
            "put the content back, then approve the requests"
        )
        raise errors.Conflict("artifact-missing", detail)
    return model, files


def _tell(lease: leases.Lease, stage: str) -> None:
    """The requests of the batch entered a stage."""
    lease.check()
    with database.transaction() as session:
        jobs.hold(session, lease.claimed)
        fulfilment.advance(session, lease.claimed.subject_id, stage)
