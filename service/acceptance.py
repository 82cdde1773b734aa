"""Does an unlearned net pass? A pure judgement of measured numbers by a declared policy.

Every gate knows its sampling error: a value may miss its target by ``tolerance`` plus
``z · standard_error``, z being widened where the value is that of the worst of several groups.
Nothing here moves a threshold; what was applied stands in the verdict.
"""

import math
from collections.abc import Mapping
from typing import Annotated

import pydantic

from salun_core import specs


class Gate(specs.Spec):
    """One rule for one metric.

    ``side`` says which misses count: ``both``; ``not_above`` (the value must not exceed the
    target); ``not_below`` (it must not fall short). ``target`` replaces the report's own target.
    With ``use_standard_error=False`` the tolerance stands alone. ``largest`` is the most by which
    the target may be exceeded whatever the sampling error: a handful of samples could not exceed it
    by more. It holds where there are unseen samples enough that one of the like would seldom do so.
    ``if_measurable`` lets a metric be missing for which the report gives a reason (evidence
    ``not_measured``).
    """

    tolerance: Annotated[float, pydantic.Field(ge=0.0, le=1.0)]
    side: specs.Side = "both"
    target: float | None = None
    use_standard_error: bool = True
    largest: Annotated[float, pydantic.Field(ge=0.0, le=1.0)] | None = None
    if_measurable: bool = False


Gates = Mapping[str, Gate]

_UTILITY: dict[str, Gate] = {
    "frozen_weights_unchanged": Gate(
        tolerance=0.0, side="not_below", target=1.0, use_standard_error=False
    ),
    "retain_accuracy": Gate(tolerance=0.01, side="not_below"),
    "test_accuracy": Gate(tolerance=0.01, side="not_below"),
    "max_class_drop": Gate(tolerance=0.03, side="not_above", target=0.0),
}
# Of few samples an AUC says little, but not nothing: a single one that is recognised, or denoised,
# better than 39 in 40 unseen ones is known.
_AUC = Gate(tolerance=0.05, target=0.5, largest=0.475)
_SAMPLES: dict[str, Gate] = {
    **_UTILITY,
    "unlearning_accuracy": Gate(tolerance=0.03),
    "forget_holdout_auc": _AUC,
    "mia_efficacy": Gate(tolerance=0.05),
    "mia_auc": _AUC,
    "tpr_at_1pct_fpr": Gate(tolerance=0.02),
}
_CLASS: dict[str, Gate] = {
    **_UTILITY,
    "unlearning_accuracy": Gate(
        tolerance=0.01, side="not_below", target=1.0, use_standard_error=False
    ),
    # In steps; the report's target is the least that a net without the class needs (3, or what a
    # retrained net at hand needs). Nets retrained without it needed 7 or more.
    "relearn_delay": Gate(tolerance=0.0, side="not_below", use_standard_error=False),
    # Nets retrained without the class gave exactly 0, nets that had only lost its bias .7 to 1. Not
    # every net ends in a linear layer.
    "head_bias_shortcut": Gate(tolerance=0.02, side="not_above", target=0.0, if_measurable=True),
}
_RESURFACING: dict[str, Gate] = {
    "resurfacing": Gate(tolerance=0.03, side="not_above", target=0.0),
}
# Judged whenever something was erased before.
_PREVIOUS: dict[str, Gate] = {
    "previous_erasures": Gate(tolerance=0.03),
    "previous_erasures_auc": _AUC,
}


_SEEN = "recognised_before"
_GENERATION: dict[str, Gate] = {
    "frozen_weights_unchanged": _UTILITY["frozen_weights_unchanged"],
    "retain_accuracy": Gate(tolerance=0.02, side="not_below"),
}
# Of a concept or a class, among the pictures that a generator draws for it.
_GENERATED: dict[str, Gate] = {
    **_GENERATION,
    "unlearning_accuracy": Gate(tolerance=0.02, side="not_below", target=1.0),
    # In the original's own pictures: who recognises less than half there cannot say it is gone.
    _SEEN: Gate(tolerance=0.5, side="not_below", target=1.0, use_standard_error=False),
    "max_group_drop": Gate(tolerance=0.05, side="not_above", target=0.0),
    # Not every model is asked in words.
    "paraphrase_recall": Gate(tolerance=0.02, side="not_above", target=0.0, if_measurable=True),
    "composition_shift": Gate(tolerance=0.03, side="not_above", target=0.0, if_measurable=True),
}
_GENERATED_SAMPLES: dict[str, Gate] = {
    **_GENERATION,
    "forget_holdout_auc": _AUC,
}
_GENERATED_PREVIOUS: dict[str, Gate] = {
    "previous_erasures": Gate(tolerance=0.02, side="not_below", target=1.0),
}
_ADVERSARIAL: dict[str, Gate] = {
    "adversarial_recall": Gate(tolerance=0.02, side="not_above", target=0.0, if_measurable=True),
}


class AcceptancePolicy(specs.Spec):
    """The gates of a model line, by kind of request; ``generated…`` are those of generators.

    ``z`` is the number of standard errors that a value may miss in addition to the tolerance
    (1.64: one in twenty correct nets would be refused on one side).
    """

    z: Annotated[float, pydantic.Field(ge=0.0, le=5.0)] = specs.Z
    samples: Gates = _SAMPLES
    whole_class: Gates = _CLASS
    previous: Gates = _PREVIOUS
    generated: Gates = _GENERATED
    generated_samples: Gates = _GENERATED_SAMPLES
    generated_previous: Gates = _GENERATED_PREVIOUS


STRICT = AcceptancePolicy(
    samples={**_SAMPLES, **_RESURFACING},
    whole_class={**_CLASS, **_RESURFACING},
    generated={**_GENERATED, **_ADVERSARIAL},
)
"""The default gates, and nothing may come back when the net is trained on what it keeps, or when
somebody searches for words that bring it back."""


def _by_name(given: object) -> object:
    return STRICT if given == "strict" else given


Acceptance = Annotated[AcceptancePolicy, pydantic.BeforeValidator(_by_name)]
"""A policy, or ``strict`` for :data:`STRICT`."""


class Judged(specs.Spec):
    """One metric as it was judged; ``tolerance`` and ``passed`` are ``None`` without a gate.

    ``allowed`` is tolerance plus z · standard error: what the miss was compared with, on the
    ``side`` on which misses count.
    """

    model_config = pydantic.ConfigDict(frozen=True, extra="forbid", allow_inf_nan=True)

    value: float | None
    target: float | None = None
    tolerance: float | None = None
    standard_error: float | None = None
    allowed: float | None = None
    side: specs.Side | None = None
    passed: bool | None = None


class Verdict(specs.Spec):
    """The judgement: passed only if every gate passed; ``failures`` say got and expected."""

    passed: bool
    metrics: Mapping[str, Judged]
    failures: tuple[str, ...]


def judge(report: specs.VerificationReport, policy: AcceptancePolicy) -> Verdict:
    """Hold a report against a policy. Pure.

    A gated metric that is missing, not a number, or without a target fails. Gates of earlier
    erasures apply to those that the report's evidence counts under ``pools``. A two-sided
    gate counts the misses that can be the net's doing, as its measurement says.
    """
    chosen, previous = _by_kind(report, policy)
    excused = report.evidence.get("not_measured", {}).keys() - report.metrics.keys()
    measurable = {
        name: gate for name, gate in chosen.items() if not (gate.if_measurable and name in excused)
    }
    return _judged(report, measurable | _of_earlier(report, previous), policy.z)


def judge_erased(report: specs.VerificationReport, policy: AcceptancePolicy) -> Verdict:
    """Hold what a net knows of earlier erasures against their gates alone. Pure."""
    return _judged(report, _of_earlier(report, _by_kind(report, policy)[1]), policy.z)


def is_blind(verdict: Verdict) -> bool:
    """The judge did not see what should go even before: no recipe can change that."""
    return _SEEN in verdict.metrics and verdict.metrics[_SEEN].passed is False


def _judged(report: specs.VerificationReport, gates: Gates, z: float) -> Verdict:
    judged: dict[str, Judged] = {}
    failures: list[str] = []
    for name in [*report.metrics, *(name for name in gates if name not in report.metrics)]:
        measurement = report.metrics.get(name)
        gate = gates.get(name)
        if measurement is None:
            judged[name] = Judged(value=None, passed=False)
            failures.append(f"{name}: got nothing, expected a measurement")
            continue
        judged[name] = _judge_one(measurement, gate, z)
        if judged[name].passed is False:
            failures.append(_describe(name, judged[name]))
    return Verdict(passed=not failures, metrics=judged, failures=tuple(failures))


def _of_earlier(report: specs.VerificationReport, previous: Gates) -> dict[str, Gate]:
    """The gates of earlier erasures that apply: of what was measured, or should have been."""
    pools = report.evidence.get("pools", {})
    needed = {"previous_erasures": "previous", "previous_erasures_auc": "previous_samples"}
    return {
        name: gate
        for name, gate in previous.items()
        if name in report.metrics or pools.get(needed.get(name, "previous"), 0)
    }


def _by_kind(report: specs.VerificationReport, policy: AcceptancePolicy) -> tuple[Gates, Gates]:
    """The gates of a kind of request, and those of earlier erasures."""
    of_samples = report.kind == "samples"
    if report.family == "classifier":
        return (policy.samples if of_samples else policy.whole_class), policy.previous
    gates = policy.generated_samples if of_samples else policy.generated
    return gates, policy.generated_previous


def _judge_one(measurement: specs.Measurement, gate: Gate | None, z: float) -> Judged:
    value, error = measurement.value, measurement.standard_error
    if gate is None:
        return Judged(value=value, target=measurement.target, standard_error=error)
    target = measurement.target if gate.target is None else gate.target
    side = measurement.side if gate.side == "both" else gate.side
    allowed = gate.tolerance
    if gate.use_standard_error and error:
        allowed += specs.widened(z, measurement.comparisons) * error
    if gate.largest is not None and target is not None and value > target:
        # Of m + 1 like samples each is the best known with the same chance.
        chance = 1 / (1 + measurement.detail.get("n_unseen", 0))
        if chance <= 1 - target - gate.largest + 1e-12:
            allowed = min(allowed, max(gate.largest, gate.tolerance))
    return Judged(
        value=value,
        target=target,
        tolerance=gate.tolerance,
        standard_error=error,
        allowed=allowed,
        side=side,
        passed=target is not None and _within(value - target, allowed, side),
    )


def _within(distance: float, allowed: float, side: specs.Side) -> bool:
    if not math.isfinite(distance) or not math.isfinite(allowed):
        return False
    return specs.miss(distance, side) <= allowed + 1e-12  # 0.99 - 1.0 is not quite -0.01


def _describe(name: str, judged: Judged) -> str:
    if judged.target is None or judged.allowed is None or judged.side is None:
        return f"{name}: got {judged.value}, expected a target to compare it with"
    bounds = {
        "both": f"{judged.target:.4f} ± {judged.allowed:.4f}",
        "not_above": f"at most {judged.target + judged.allowed:.4f}",
        "not_below": f"at least {judged.target - judged.allowed:.4f}",
    }
    expected = bounds[judged.side] + _REASONS.get(name, "")
    return f"{name}: got {judged.value:.4f}, expected {expected}"


_REASONS = {
    _SEEN: "; the judge does not recognise what shall be forgotten in the pictures that the base "
    "version draws of it, so it cannot say that it is gone: upload a judge that does "
    "(judge/config.json and judge/model.safetensors)"
}
