"""What the parts of an audit say together, as it is kept and read. Pure but for two files."""

import dataclasses
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from salun_core import controls, errors, measures, specs
from service import audit_nets, plans, tables

GAP = "average_gap"
_LIKE_TRAINING = 0.05  # two trainings that should be alike differ by less, on any set of use
Metrics = Mapping[str, specs.Measurement]


def write_metrics(path: Path, metrics: Metrics) -> None:
    """Keep what one net measures, with the details."""
    path.write_text(json.dumps(_dumped(metrics)))


def read_metrics(path: Path) -> Metrics:
    """What :func:`write_metrics` kept."""
    return _validated(json.loads(path.read_bytes()))


def write_report(path: Path, report: specs.VerificationReport) -> None:
    """Keep what one net measures beside others."""
    path.write_text(report.model_dump_json())


def read_report(path: Path) -> specs.VerificationReport:
    """What :func:`write_report` kept."""
    return specs.VerificationReport.model_validate_json(path.read_bytes())


def write_runs(path: Path, runs: Sequence[controls.Run]) -> None:
    """Keep the controls of one seed."""
    path.write_text(
        json.dumps(
            [
                {
                    **dataclasses.asdict(run),
                    "spec": run.spec.model_dump(mode="json"),
                    "metrics": _dumped(run.metrics),
                }
                for run in runs
            ]
        )
    )


def read_runs(path: Path) -> list[controls.Run]:
    """What :func:`write_runs` kept."""
    return [
        controls.Run(
            **{
                **run,
                "spec": specs.UnlearningSpec.model_validate(run["spec"]),
                "metrics": _validated(run["metrics"]),
            }
        )
        for run in json.loads(path.read_bytes())
    ]


def attacked(attack: Callable[[], Metrics]) -> dict[str, Any]:
    """``metrics`` of an attack, or ``diverged``: what became non-finite in a shadow net."""
    try:
        return {"metrics": _dumped(attack()), "diverged": None}
    except errors.NonFiniteLossError as error:
        return {"metrics": {}, "diverged": str(error)}


def render(
    version: tables.Version,
    plan: plans.Plan,
    recipe: specs.UnlearningSpec,
    *,
    training: specs.UnlearningSpec | None,
    reference: Metrics,
    compared: Sequence[specs.VerificationReport],
    runs: Sequence[controls.Run],
    ulira: Mapping[str, Any] | None,
    seconds: Mapping[str, float],
    versions: Mapping[str, str],
    run: Mapping[str, Any],
) -> dict[str, Any]:
    """The result of an audit.

    Args:
        version: the audited one, with its verification report.
        plan: by which it was made.
        recipe: that made it.
        training: of nets trained from scratch, where there were any.
        reference: what the first retrained net measures, or nothing.
        compared: the version and the second retrained net beside the first, or nothing.
        runs: of all controls by all seeds.
        ulira: of the attack, if it was asked for.
        seconds: by kind of part.
        versions: of the libraries that made the nets.
        run: the attempt that finished it.

    Returns:
        ``nets``: for each net ``name``, ``density`` (share of weights that could change; ``None``
        for one trained from scratch), ``runs`` and by metric ``value`` (the mean over the runs) and
        ``sd`` (``None`` for a single run). Of a control also ``diverged``: by seed, what became
        non-finite; such a run counts in nothing else. ``warnings``: where the retrained net is no
        reference, and what diverged. Beside them what the nets were made by. ``left_out``: how many
        samples were in no set, for the model must forget them and the version did not yet.
    """
    own = compared[0].metrics if compared else _reported(version)
    nets = [
        _single(audit_nets.ORIGINAL, _original(version), None),
        _single(audit_nets.VERSION, own, _density(version)),
    ]
    if compared:
        nets += [
            _single(audit_nets.RETRAINED, {**reference, GAP: specs.Measurement(value=0.0)}, None),
            _single(audit_nets.AGAIN, compared[1].metrics, None),
        ]
    nets += _controls(runs, reference)
    evidence = (version.report or {}).get("evidence", {})
    return {
        "model": plan.model,
        "version": version.number,
        "base_version": plan.base_version,
        "kind": plan.kind,
        "forget_count": len(plan.forget_ids),
        "recipe": recipe.model_dump(mode="json"),
        "training": None if training is None else training.model_dump(mode="json"),
        "average_gap": compared[0].metrics[GAP].value if compared else None,
        "average_gap_floor": compared[1].metrics[GAP].value if compared else None,
        "warnings": [
            *_warnings(_original(version), reference),
            *_diverged(nets, ulira),
        ],
        "nets": nets,
        "ulira": None if ulira is None else dict(ulira),
        "seconds": dict(seconds),
        "evidence": {
            "pools": (compared[0].evidence if compared else evidence).get("pools"),
            "left_out": len(plan.withheld_ids),
            "unseen": evidence.get("unseen"),
            "gap_to_retrained": (
                dict(compared[0].metrics[GAP].detail["gap_to_retrained"]) if compared else None
            ),
            "target_digest": plan.target_digest,
            "versions": dict(versions),
            "run": dict(run),
        },
    }


def _dumped(metrics: Metrics) -> dict[str, Any]:
    return {name: found.model_dump(mode="json") for name, found in metrics.items()}


def _validated(metrics: Mapping[str, Any]) -> Metrics:
    return {name: specs.Measurement.model_validate(found) for name, found in metrics.items()}


def _warnings(original: Metrics, reference: Metrics) -> list[str]:
    """Whether the reference is one: it keeps what the original knew of the rest, near enough."""
    return [
        f"the retrained net has {name} {reference[name].value:.3f}, the original "
        f"{original[name].value:.3f}: it was trained otherwise, so what differs is not what was "
        "forgotten; give training as the original had it"
        for name in ("retain_accuracy", "test_accuracy")
        if reference and abs(reference[name].value - original[name].value) > _LIKE_TRAINING
    ]


def _density(version: tables.Version) -> float:
    """Share of the weights that the version's mask let change."""
    mask = (version.report or {})["evidence"]["mask"]
    return 1.0 if mask is None else float(mask["density"])


def _original(version: tables.Version) -> Metrics:
    values = (version.report or {})["evidence"]["original"]
    return {name: specs.Measurement(value=value) for name, value in values.items()}


def _reported(version: tables.Version) -> Metrics:
    """As the version was verified; what was proved against its mask is no comparison."""
    metrics = (version.report or {})["metrics"]
    return {
        name: specs.Measurement(value=entry["value"], detail=entry.get("detail") or {})
        for name, entry in metrics.items()
        if name != "frozen_weights_unchanged" and entry["value"] is not None
    }


def _single(name: str, metrics: Metrics, density: float | None) -> dict[str, Any]:
    told = {metric: {"value": found.whole, "sd": None} for metric, found in metrics.items()}
    return {"name": name, "density": density, "runs": 1, "metrics": told}


def _controls(runs: Sequence[controls.Run], reference: Metrics) -> list[dict[str, Any]]:
    runs = [_beside(run, reference) for run in runs]
    summary = controls.summary(runs)
    return [
        {
            "name": name,
            "density": density,
            "runs": sum(run.name == name and run.diverged is None for run in runs),
            "metrics": {
                metric: {"value": spread["mean"], "sd": spread.get("sd")}
                for metric, spread in summary.get(name, {}).items()
            },
            "diverged": {
                str(run.spec.seed): run.diverged
                for run in runs
                if run.name == name and run.diverged is not None
            },
        }
        for name, density in {run.name: run.density for run in runs}.items()
    ]


def _beside(run: controls.Run, reference: Metrics) -> controls.Run:
    if not reference or run.diverged is not None:
        return run
    gap = measures.average_gap(run.metrics, reference)
    return dataclasses.replace(run, metrics={**run.metrics, GAP: gap})


def _diverged(nets: Sequence[Mapping[str, Any]], ulira: Mapping[str, Any] | None) -> list[str]:
    """What there is no figure of, for it became non-finite."""
    found = [
        f"{net['name']} with seed {seed} diverged: {detail}"
        for net in nets
        for seed, detail in net.get("diverged", {}).items()
    ]
    if ulira is not None and ulira.get("diverged") is not None:
        found.append(f"a shadow net diverged: {ulira['diverged']}")
    return found
