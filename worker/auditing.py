"""One audit as a list of parts: retrain twice → compare → controls → U-LiRA.

Every part commits an artifact, as in ``worker.pipeline``, and shadow nets are kept for later
audits. Between parts an audit looks whether unlearning waits for this worker, and makes way.
"""

import functools
import json
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from salun_core import audit, controls, progress, randomness, specs, weights
from service import (
    artifacts,
    audit_nets,
    audit_options,
    audits,
    database,
    destruction,
    jobs,
    plans,
    storage,
    tables,
    versions,
)
from worker import audit_results, leases, steps
from worker.families import contract, registered

RETRAIN, COMPARE = audits.RETRAINING, "comparing"
CONTROL, ATTACK = "running_controls", "training_shadow_nets"
_TURNS = (audit_nets.RETRAINED, audit_nets.AGAIN)


@dataclass(frozen=True)
class Order:
    """What an audit works on: the version, how it was made, and what was asked for."""

    version: tables.Version
    base: tables.Version
    family: str
    base_files: Sequence[artifacts.FileRef]
    unlearned: Path
    plan: plans.Plan
    recipe: specs.UnlearningSpec
    options: audit_options.AuditOptions

    @property
    def training(self) -> specs.UnlearningSpec:
        """How nets are trained from scratch; the seed is the shadow nets'."""
        return self.options.training.spec(self.plan.kind, seed=0)


def run(lease: leases.Lease) -> None:
    """Carry out one claimed audit."""
    order = _order(lease.claimed)
    options = order.options
    with storage.scratch(lease.claimed.job_id, lease.claimed.fence) as scratch:
        parts = _Parts(lease, scratch, order)
        nets = parts.retrained() if options.retrained else []
        reference = parts.reference(nets[0]) if nets else {}
        compared = parts.compared(nets) if nets else []
        runs = [run for seed in options.seeds for run in parts.control(seed)]
        ulira = parts.attack() if options.shadow_pairs else None
    result = audit_results.render(
        order.version,
        order.plan,
        order.recipe,
        training=order.training if nets or ulira else None,
        reference=reference,
        compared=compared,
        runs=runs,
        ulira=ulira,
        seconds=parts.seconds(),
        versions=audit.versions(),
        run=steps.evidence(lease.claimed),
    )
    with database.transaction() as session:
        audits.complete(session, jobs.hold(session, lease.claimed), result)


def _order(claimed: jobs.Claim) -> Order:
    with database.transaction() as session:
        row = session.get_one(tables.Audit, claimed.subject_id)
        version = session.get_one(tables.Version, row.version_id)
        model = session.get_one(tables.Model, version.model_id)
        versions.refuse_revoked(model, version)
        made_by = plans.of_version(session, version)
        plan = plans.without_erased(session, version, made_by)
        base = versions.by_number(session, model, plan.base_version)
        files = {file.path: file for file in versions.files_of(session, version)}
        return Order(
            version=version,
            base=base,
            family=model.family,
            base_files=versions.files_of(session, base),
            unlearned=storage.path_of(files[artifacts.WEIGHTS].digest),
            plan=plan,
            recipe=specs.UnlearningSpec.model_validate((version.report or {})["method"]),
            options=audit_options.AuditOptions.model_validate(row.options),
        )


class _Parts:
    """The parts of one audit; each is made once, whatever happens to the worker."""

    def __init__(self, lease: leases.Lease, scratch: Path, order: Order) -> None:
        self._lease, self._scratch, self._order = lease, scratch, order
        family = registered.AUDITED[order.family]
        files = {file.path: file for file in order.base_files}
        prepared = family.prepare(order.plan, files, lease.enter("loading"))
        self._auditor: contract.Auditor = prepared.audit(
            order.recipe, order.unlearned, order.training
        )
        self._stages = steps.Steps(lease, scratch)
        self._worked = False

    def retrained(self) -> list[Path]:
        """The reference and, by another seed, the net that shows the noise."""
        return [self._retrained(name) for name in _TURNS]

    def reference(self, net: Path) -> audit_results.Metrics:
        """What the first retrained net itself measures."""
        measure = functools.partial(self._auditor.measure, net)
        path = self._run(
            COMPARE,
            audit_nets.RETRAINED,
            functools.partial(_written, measure, audit_results.write_metrics),
        )
        return audit_results.read_metrics(path)

    def compared(self, nets: Sequence[Path]) -> list[specs.VerificationReport]:
        """The version, then the second retrained net, each beside the reference."""
        reference, second = nets
        found = []
        for name, own in ((audit_nets.VERSION, None), (audit_nets.AGAIN, second)):
            compare = functools.partial(self._auditor.compare, reference, own)
            path = self._run(
                COMPARE, name, functools.partial(_written, compare, audit_results.write_report)
            )
            found.append(audit_results.read_report(path))
        return found

    def control(self, seed: int) -> list[controls.Run]:
        """All controls by one seed; none where none were asked for."""
        options = self._order.options
        if not options.controls:
            return []
        control = functools.partial(self._auditor.control, seed, options.densities)
        path = self._run(
            CONTROL, str(seed), functools.partial(_written, control, audit_results.write_runs)
        )
        return audit_results.read_runs(path)

    def attack(self) -> dict[str, Any]:
        """U-LiRA, with how many pairs of shadow nets an earlier audit had left."""
        path = self._run(ATTACK, str(self._order.options.shadow_pairs), self._write_attack)
        found: dict[str, Any] = json.loads(path.read_bytes())
        return found

    def seconds(self) -> dict[str, float]:
        """How long each kind of part took, in the attempts that finished them."""
        return self._stages.seconds_by_stage()

    def _retrained(self, name: str) -> Path:
        seed = randomness.derive_seed(self._order.recipe.seed, "audit", name)
        checkpoints = _Courteous(self._stages.checkpoints(f"{RETRAIN}/{name}"), self._make_way)
        retrain = functools.partial(
            self._auditor.retrain,
            seed,
            str(self._lease.claimed.job_id),
            checkpoints=checkpoints,
        )
        path = self._run(RETRAIN, name, retrain)
        checkpoints.kept.drop()
        return path

    def _write_attack(self, path: Path, report: progress.Progress) -> None:
        shadows = _Shadows(self._lease.claimed, self._order.base.id, self._scratch, self._make_way)
        pairs = self._order.options.shadow_pairs
        found = audit_results.attacked(
            functools.partial(self._auditor.attack, pairs, shadows, report)
        )
        told = {"pairs": pairs, "pairs_reused": shadows.reused, **found}
        path.write_text(json.dumps(told))

    def _run(
        self, stage: str, name: str, produce: Callable[[Path, progress.Progress], None]
    ) -> Path:
        """A part from the store, else made now; an attempt makes at least one."""

        def work(path: Path, report: progress.Progress) -> None:
            if self._worked:
                self._make_way()
            self._worked = True
            produce(path, report)

        return self._stages.run(stage, f"{stage}/{name}", work)

    def _make_way(self) -> None:
        if jobs.outranked(self._lease.claimed):
            raise leases.MakingWay


class _Courteous:
    """Checkpoints after each of which a more urgent job may take over."""

    def __init__(self, kept: steps.StoredCheckpoints, make_way: Callable[[], None]) -> None:
        self.kept, self._make_way = kept, make_way

    def load(self) -> Mapping[str, torch.Tensor] | None:
        """The state that was saved last, or ``None``."""
        return self.kept.load()

    def save(self, step: int, state: Mapping[str, torch.Tensor]) -> None:
        """Commit a state, then make way if somebody waits."""
        self.kept.save(step, state)
        self._make_way()


class _Shadows:
    """Confidences of shadow nets by name, shared by all audits over one base version."""

    def __init__(
        self,
        claimed: jobs.Claim,
        base_version_id: uuid.UUID,
        scratch: Path,
        make_way: Callable[[], None],
    ) -> None:
        self._claimed, self._base = claimed, base_version_id
        self._scratch, self._make_way = scratch, make_way
        self.reused = 0

    def __call__(self, name: str, compute: Callable[[], audit.Tensors]) -> audit.Tensors:
        """What is kept under that name; else computed, kept, and way made."""
        with database.transaction() as session:
            kept = audits.shadow_pair(session, self._base, name)
            older = kept is not None and audits.is_older(session, kept, self._claimed.job_id)
        if kept is not None and storage.is_intact(kept.artifact_digest):
            self.reused += older
            return weights.read(storage.path_of(kept.artifact_digest))
        tensors = compute()
        path = self._scratch / "shadow_pair"
        weights.write(path, tensors, {"name": name})
        stored = storage.put_file(path, destruction.arriving)
        with database.transaction() as session:
            jobs.hold(session, self._claimed)
            audits.keep_shadow_pair(session, self._base, name, stored.digest)
        self._make_way()
        return tensors


def _written(
    compute: Callable[[progress.Progress], Any],
    write: Callable[[Path, Any], None],
    path: Path,
    report: progress.Progress,
) -> None:
    """Compute a part and keep it."""
    write(path, compute(report))
