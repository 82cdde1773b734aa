"""The metrics of a report, from what nets answered alone. Pure."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence

import torch
from torch.nn import functional

from salun_core import crossfit, errors, extremes, grouping, likeness, specs
from salun_core.metrics import accuracy, membership

_GAP_METRICS = ("unlearning_accuracy", "retain_accuracy", "test_accuracy", "mia_efficacy")


def all_measurements(
    outputs: Mapping[str, likeness.Outputs],
    kind: specs.ForgetKind,
    excluded_labels: tuple[int, ...],
    seed: int,
    withheld_labels: tuple[int, ...] = (),
    *,
    never_saw: bool = False,
) -> dict[str, specs.Measurement]:
    """Every metric of the table for classifiers that a forward pass can give.

    Args:
        outputs: ``forget``, ``retain``, ``holdout``, ``test`` and perhaps ``previous``;
            cross-fitted where all but ``retain`` say their folds.
        kind: ``class`` leaves the forgotten class out of the utility figures and the attacks'
            pools; ``samples`` compares the forget set with class-matched holdout samples.
        excluded_labels: classes erased earlier, left out of the same.
        seed: of the attacks' pools.
        withheld_labels: classes of which training kept nothing, and that may be known or not: left
            out of the utility figures and the attacks' pools.
        never_saw: the net was trained from scratch without the erased samples: it can only be told
            by what it knows too well of them.

    Raises:
        InvalidDataError: the forget, retain or test set is empty.
    """
    sides = _Sides.of(never_saw)
    for name in ("forget", "retain", "test"):
        if not len(outputs[name].labels):
            raise errors.InvalidDataError(f"got an empty {name} set, expected samples")
    gone = spread_labels(kind, outputs["forget"].labels, excluded_labels)
    asked_of_none = (*gone, *withheld_labels)
    kept = {name: _without(outputs[name], asked_of_none) for name in ("retain", "test")}
    kept["holdout"] = _without(outputs["holdout"], gone)
    metrics = {
        "unlearning_accuracy": (
            _class_unlearning(outputs) if kind == "class" else _unlearning(outputs, sides)
        ),
        "retain_accuracy": _utility(kept["retain"]),
        "test_accuracy": _utility(kept["test"]),
        "max_class_drop": _max_class_drop(kept["retain"], kept["test"]),
    }
    forget = outputs["forget"]
    matched = likeness.pairs(forget, kept["holdout"]) if kind == "samples" else []
    if matched:
        metrics["forget_holdout_auc"] = _auc(matched, sides)
    metrics |= _attacks(forget, matched, kept, seed, sides)
    known = likeness.pairs(forget, kept["test"]) if matched else []
    if known:
        metrics["mia_auc"] = _auc(known, sides)
        # One threshold of few samples is too much a matter of chance to stand for itself.
        metrics["tpr_at_1pct_fpr"] = likeness.measured(
            known, likeness.true_positive_rate, side=sides.known, surest=False
        )
    if "previous" in outputs and len(outputs["previous"].labels):
        metrics |= erased_before(outputs["previous"], kept["holdout"], gone, never_saw=never_saw)
    return metrics


@dataclasses.dataclass(frozen=True)
class _Sides:
    """Which misses count of a figure that grows with what is known, and of one that falls."""

    known: specs.Side = "both"
    unknown: specs.Side = "both"

    @classmethod
    def of(cls, never_saw: bool) -> "_Sides":
        return cls("not_above", "not_below") if never_saw else cls()


def erased_before(
    previous: likeness.Outputs,
    holdout: likeness.Outputs,
    gone: tuple[int, ...],
    *,
    never_saw: bool,
) -> dict[str, specs.Measurement]:
    """Is what was erased before like unseen samples, and is what is left of a gone class missed?

    Of all samples together, of every group of them, and of every gone class, the one that misses
    most: a person who came back is not lost among thousands who did not.

    Args:
        previous: of what was erased before; not empty.
        holdout: of unseen samples.
        gone: classes that the net should not give at all.
        never_saw: see :func:`all_measurements`.
    """
    sides = _Sides.of(never_saw)
    errors_of: list[specs.Measurement] = []
    members = grouping.rows_by_label(previous.labels)
    for label in sorted(members.keys() & set(gone)):
        own = previous.select(members[label])
        errors_of.append(
            specs.Measurement(
                value=1.0 - accuracy.accuracy(own.after, own.labels),
                target=1.0,
                standard_error=0.0,
                n=len(own.labels),
                side=sides.unknown,
                detail={"class": label},
            )
        )
    samples, unseen = _without(previous, gone), _without(holdout, gone)
    aucs: list[specs.Measurement] = []
    for name, own in _groups(samples):
        if matched := likeness.pairs(own, unseen):
            errors_of.append(
                likeness.measured(matched, likeness.error_rate, name, side=sides.unknown)
            )
            aucs.append(_auc(matched, sides, name))
    found: dict[str, specs.Measurement] = {}
    if errors_of:
        found["previous_erasures"] = _of_all(extremes.worst(errors_of), previous)
    else:  # nothing to hold it against: the gate says so
        value = 1.0 - accuracy.accuracy(previous.after, previous.labels)
        found["previous_erasures"] = specs.Measurement(value=value, n=len(previous.labels))
    if aucs:
        found["previous_erasures_auc"] = extremes.worst(aucs)
    return found


def spread_labels(
    kind: specs.ForgetKind, forget_labels: torch.Tensor, excluded_labels: tuple[int, ...]
) -> tuple[int, ...]:
    """Classes that the net should no longer give at all, sorted."""
    now = set(forget_labels.tolist()) if kind == "class" else set()
    return tuple(sorted(now | set(excluded_labels)))


def average_gap(
    own: Mapping[str, specs.Measurement], retrained: Mapping[str, specs.Measurement]
) -> specs.Measurement:
    """Mean distance to a retrained net over UA, RA, TA and MIA, in [0, 1] (arXiv 2310.12508).

    MIA is ``mia_efficacy``, the logistic attack's. The signed distance of every metric that both
    nets have stands in the detail.
    """
    distances = [abs(own[name].whole - retrained[name].whole) for name in _GAP_METRICS]
    gaps = {name: own[name].whole - retrained[name].whole for name in own if name in retrained}
    return specs.Measurement(
        value=sum(distances) / len(distances), target=0.0, detail={"gap_to_retrained": gaps}
    )


def group_shift(
    metrics: Mapping[str, specs.Measurement], labels: Sequence[str]
) -> dict[str, object]:
    """Whom the change fell on: accuracy change per kept class, top receiver of what was forgotten.

    The gate is ``max_class_drop``; this is for the reader. Where the forgotten samples go tells
    more than that they left: they may all go to one neighbour (arXiv 2604.08111).

    Args:
        metrics: of :func:`all_measurements`.
        labels: the name of every class.

    Returns:
        ``top_receiver`` and ``top_receiver_share`` (of the forget set; absent if no sample
        changed sides), ``worst_class``, ``worst_split`` and ``worst_change``, and
        ``change_per_class`` on the test set.
    """
    worst, forgotten = metrics["max_class_drop"], metrics["unlearning_accuracy"].detail
    found: dict[str, object] = {}
    if "top_receiver" in forgotten:
        found["top_receiver"] = labels[int(forgotten["top_receiver"])]
        found["top_receiver_share"] = forgotten["top_receiver_share"]
    return found | {
        "worst_class": labels[worst.detail["class"]],
        "worst_split": worst.detail["split"],
        "worst_change": 0.0 - worst.value,
        "change_per_class": {
            labels[int(label)]: 0.0 - drop for label, drop in worst.detail["drops"]["test"].items()
        },
    }


def _without(outputs: likeness.Outputs, gone: tuple[int, ...]) -> likeness.Outputs:
    return outputs.select(~torch.isin(outputs.labels, torch.tensor(gone, dtype=torch.int64)))


def _unlearning(outputs: Mapping[str, likeness.Outputs], sides: _Sides) -> specs.Measurement:
    """1 − accuracy on the forget set, beside the same on class-matched holdout samples.

    Only forgotten samples that have an opponent count in either; the detail has the figure of all.
    """
    forget = outputs["forget"]
    value = 1.0 - accuracy.accuracy(forget.after, forget.labels)
    detail = {"per_class_accuracy": _per_class(forget), **_top_receiver(forget)}
    matched = likeness.pairs(forget, outputs["holdout"])
    if matched:
        detail["of_all_samples"] = value
        return likeness.measured(matched, likeness.error_rate, detail, side=sides.unknown)
    return specs.Measurement(value=value, n=len(forget.labels), detail=detail)


def _class_unlearning(outputs: Mapping[str, likeness.Outputs]) -> specs.Measurement:
    """1 − accuracy on the training samples of the forgotten class, of several the best known.

    Unseen samples of theirs are in the detail, and with several classes all together as ``mean``.
    """
    forget = outputs["forget"]
    known = accuracy.per_class_accuracy(forget.after, forget.labels)
    best = max(known, key=lambda label: known[label])
    detail: dict[str, object] = {
        "per_class_accuracy": _per_class(forget),
        **_top_receiver(forget),
    }
    if len(known) > 1:
        detail["class"] = best
        detail["mean"] = 1.0 - accuracy.accuracy(forget.after, forget.labels)
    for name in ("holdout", "test"):
        unseen = outputs[name].select(torch.isin(outputs[name].labels, torch.unique(forget.labels)))
        if len(unseen.labels):
            detail[f"{name}_accuracy_of_forgotten_class"] = accuracy.accuracy(
                unseen.after, unseen.labels
            )
    receivers, counts = torch.unique(forget.after, return_counts=True)
    detail["predicted_as"] = {
        str(label): count / len(forget.labels)
        for label, count in zip(receivers.tolist(), counts.tolist(), strict=True)
    }
    return specs.Measurement(
        value=1.0 - known[best],
        target=1.0,
        n=int((forget.labels == best).sum()),
        comparisons=len(known),
        detail=detail,
    )


def _top_receiver(forget: likeness.Outputs) -> dict[str, object]:
    """The wrong class that most forgotten samples are taken for, and their share; none if none."""
    wrong = forget.after[forget.after != forget.labels]
    if not len(wrong):
        return {}
    receivers, counts = torch.unique(wrong, return_counts=True)
    most = int(counts.argmax())
    return {
        "top_receiver": str(int(receivers[most])),
        "top_receiver_share": int(counts[most]) / len(forget.labels),
    }


def _utility(outputs: likeness.Outputs) -> specs.Measurement:
    before = accuracy.correct(outputs.before, outputs.labels)
    after = accuracy.correct(outputs.after, outputs.labels)
    return specs.Measurement(
        value=after.double().mean().item(),
        target=before.double().mean().item(),
        standard_error=accuracy.paired_drop(before, after)[1],
        n=len(outputs.labels),
        detail={"per_class_accuracy": _per_class(outputs)},
    )


def _max_class_drop(retain: likeness.Outputs, test: likeness.Outputs) -> specs.Measurement:
    """The drop of the class whose drop exceeds its sampling error most, over both splits."""
    drops: dict[str, dict[str, float]] = {"retain": {}, "test": {}}
    every = []
    for split, outputs in (("retain", retain), ("test", test)):
        for label, rows in grouping.rows_by_label(outputs.labels).items():
            own = outputs.select(rows)
            drop, error = accuracy.paired_drop(
                accuracy.correct(own.before, own.labels), accuracy.correct(own.after, own.labels)
            )
            drops[split][str(label)] = drop
            where = {"class": label, "split": split, "drops": drops}
            every.append(
                specs.Measurement(
                    value=drop,
                    target=0.0,
                    standard_error=error,
                    n=len(own.labels),
                    detail=where,
                )
            )
    if not every:
        raise errors.InvalidDataError("got no class that is kept, expected at least one")
    return extremes.worst(every, lambda one: one.value)


def _auc(
    matched: list[likeness.Pair], sides: _Sides, detail: Mapping[str, object] | None = None
) -> specs.Measurement:
    told = {"score": "logit-scaled confidence", **(detail or {})}
    return likeness.measured(matched, likeness.auc, told, side=sides.known)


def _attacks(
    forget: likeness.Outputs,
    matched: list[likeness.Pair],
    kept: Mapping[str, likeness.Outputs],
    seed: int,
    sides: _Sides,
) -> dict[str, specs.Measurement]:
    """Three attacks on the forget set; targets from class-matched holdout samples."""
    retain, test = kept["retain"].scores, kept["test"].scores
    logistic = membership.logistic_attack(membership.balanced_pools(retain, test, seed))
    probabilities = membership.balanced_pools(
        torch.sigmoid(retain), torch.sigmoid(test), seed, membership.SVC_POOL
    )
    svc = membership.confidence_svc_attack(probabilities)
    threshold = membership.loss_threshold_attack(_loss(retain))
    return {
        "mia_efficacy": _efficacy(logistic, forget, matched, sides, lambda scores: scores),
        "mia_efficacy_svc": _efficacy(svc, forget, matched, sides, torch.sigmoid),
        "mia_efficacy_threshold": _efficacy(threshold, forget, matched, sides, _loss),
    }


def _loss(scores: torch.Tensor) -> torch.Tensor:
    """Cross-entropy −log p from s = log(p / (1 − p)): log(1 + exp(−s))."""
    return functional.softplus(-scores)


def _efficacy(
    attack: membership.Attack,
    forget: likeness.Outputs,
    matched: list[likeness.Pair],
    sides: _Sides,
    feature: Callable[[torch.Tensor], torch.Tensor],
) -> specs.Measurement:
    if matched:
        return likeness.measured(matched, likeness.efficacy(attack, feature), side=sides.unknown)
    value = likeness.share_called_unseen(attack, feature(forget.scores))
    return specs.Measurement(value=value, n=len(forget.labels))


def _of_all(found: specs.Measurement, previous: likeness.Outputs) -> specs.Measurement:
    whole = 1.0 - accuracy.accuracy(previous.after, previous.labels)
    more = {"n_all": len(previous.labels), "of_all_samples": whole}
    return found.model_copy(update={"detail": {**found.detail, **more}})


def _groups(samples: likeness.Outputs) -> list[tuple[dict[str, object], likeness.Outputs]]:
    """All samples, and each group that is large enough to stand for itself."""
    if not len(samples.labels):
        return []
    found: list[tuple[dict[str, object], likeness.Outputs]] = [({}, samples)]
    if samples.groups is not None:
        found += [
            ({"erased_by": group}, samples.select(rows))
            for group, rows in grouping.rows_by_label(samples.groups).items()
            if crossfit.LEAST <= len(rows) < len(samples.labels)
        ]
    return found


def _per_class(outputs: likeness.Outputs) -> dict[str, float]:
    found = accuracy.per_class_accuracy(outputs.after, outputs.labels)
    return {str(label): value for label, value in found.items()}
