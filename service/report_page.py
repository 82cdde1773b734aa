"""A verification report as one HTML page: for whoever must decide, not only for programs.

One file with everything in it: no script, nothing fetched, readable on a phone and on paper. What
the report does not have is left out; what is not known here is shown all the same. Pure.
"""

import base64
import dataclasses
import datetime
import functools
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jinja2

from service import generator_plots, report_plots, report_values

CONTENT_SECURITY_POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; "
    "form-action 'none'"
)
"""What the page needs: its own styles. It stands in the page too, for a copy on disk."""

MEANINGS: Mapping[str, str] = {
    "unlearning_accuracy": (
        "Share of the forgotten samples that the net now gets wrong. Single samples should be as "
        "hard as unseen ones of their classes; a whole class should be gone (1)."
    ),
    "forget_holdout_auc": (
        "Can forgotten samples be told from unseen ones (holdout) by how sure the net is? "
        "0.5 means they look alike; above it they are still known, below it they stand out. "
        "Where it is cross-fitted, the half that misses most surely is shown."
    ),
    "mia_efficacy": (
        "Membership inference: share of the forgotten samples that an attacker takes for never "
        "trained on. It should be as high as for samples that really never were."
    ),
    "mia_auc": (
        "Membership inference against the test set: how well an attacker tells forgotten samples "
        "from unseen ones. 0.5 is guessing."
    ),
    "tpr_at_1pct_fpr": (
        "Membership inference at its surest: share of the forgotten samples found out while 1 % "
        "of unseen ones are wrongly accused. The target is guessing."
    ),
    "mia_efficacy_svc": (
        "The same as mia_efficacy with the attack of SalUn's authors; for comparison only."
    ),
    "mia_efficacy_threshold": (
        "The same as mia_efficacy with the simplest attack: a loss above the mean is called unseen."
    ),
    "retain_accuracy": "Accuracy on what the net keeps; it should be as good as before.",
    "test_accuracy": (
        "Accuracy on samples never trained on and never shown to the method; it should be as good "
        "as before."
    ),
    "max_class_drop": "The surest loss of accuracy in any single class that is kept.",
    "frozen_weights_unchanged": (
        "Every weight that was to stay as it was, n of them, is the same to the last bit (1: yes)."
    ),
    "previous_erasures": "All that was erased earlier, judged again: it must stay forgotten.",
    "previous_erasures_auc": (
        "Can earlier erased samples be told from unseen ones? 0.5 means they look alike."
    ),
    "relearn_delay": (
        "Steps of training on the forgotten data until the net knows it as well as before; a net "
        "that never saw it needs some."
    ),
    "head_bias_shortcut": (
        "Was the class only switched off in the last layer? Share of its samples recognised once "
        "that is undone; 0 is the aim."
    ),
    "resurfacing": (
        "How far the forgotten data comes back when the net is trained on without it; 0 is the aim."
    ),
    "recognised_before": (
        "Share of the base version's own pictures of it in which the judge recognises what shall "
        "be forgotten: who does not see it there cannot miss it afterwards."
    ),
    "max_group_drop": "The largest loss in any group of prompts that is kept.",
    "feature_distance": (
        "Fréchet distance between pictures for kept prompts before and after, on the judge net's "
        "features; the judge's own scale, no FID."
    ),
    "paraphrase_recall": (
        "The concept asked for in other words: share of pictures that still show it."
    ),
    "composition_shift": (
        "Prompts that combine kept things, the same seeds before and after: how many fewer "
        "pictures show what was asked for."
    ),
    "adversarial_recall": (
        "The concept asked for plainly, and with words put before it that a short random search "
        "found for this purpose: share of pictures that still show it, the larger of the two."
    ),
    "unconditional_recall": (
        "Share of pictures drawn without any prompt that show what was forgotten."
    ),
    "average_gap": (
        "Mean distance to a net retrained without the data, over the main metrics; 0 is equal."
    ),
}
"""What a metric says, in one line; the order is the table's."""

_GROUPS = ("unseen", "mask", "method", "spec", "pools", "run", "versions", "attacks")
_ELSEWHERE = frozenset(
    {
        "histograms", "original", "retrained", "labels", "weights_changed", "groups",
        "forget_goes_to", "pictures", "warnings", "claim",
    }
)  # fmt: skip
_LAYERS = frozenset({"layer_density", "per_layer", "losses"})
_MOST_ITEMS = 12
_NOTHING = "—"


@dataclasses.dataclass(frozen=True)
class Row:
    """One metric as the table shows it."""

    name: str
    meaning: str
    before: str
    retrained: str
    value: str
    target: str
    allowed: str
    sum: str
    passed: bool | None


@dataclasses.dataclass(frozen=True)
class Group:
    """Some evidence under one heading: names and values."""

    name: str
    entries: Sequence[tuple[str, str]]


def render(report: Mapping[str, Any], pictures: Mapping[str, bytes] | None = None) -> str:
    """The page.

    Args:
        report: as the worker kept it. Beside that, and only if known: ``version``, ``created_at``
            (of the version; RFC 3339) and ``manifest_digest``.
        pictures: PNG files by name, that the report lists by digest.

    Returns:
        An HTML document; the same report gives the same text.
    """
    rows = list(_rows(report))
    gated = [row for row in rows if row.passed is not None]
    verdict = report_values.mapping(report.get("verdict"))
    passed = verdict.get("passed")
    evidence = report_values.mapping(report.get("evidence"))
    return template("report.html.j2").render(
        policy=CONTENT_SECURITY_POLICY,
        passed=passed if isinstance(passed, bool) else None,
        headline=_headline(report, passed),
        summary=_gates_in_words(gated),
        failures=[str(item) for item in _listed(verdict.get("failures"))],
        warnings=[str(item) for item in _listed(evidence.get("warnings"))],
        resolution=_resolution(report),
        facts=list(_facts(report)),
        rows=rows,
        retrained=any(row.retrained != _NOTHING for row in rows),
        pictures=list(_pictures(pictures or {})),
        pictures_gone=len(_listed(evidence.get("pictures"))) - len(pictures or {}),
        plots=[*report_plots.all_plots(report), *generator_plots.all_plots(report)],
        groups=list(_evidence(report)),
        layers=_layers(report),
        approximate=_approximate(report),
        claim=str(evidence.get("claim") or ""),
    )


@functools.cache
def template(name: str) -> jinja2.Template:
    """A page's template."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("service", "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(name)


# --- the headline ---------------------------------------------------------------------------


def _headline(report: Mapping[str, Any], passed: object) -> str:
    version = report.get("version")
    which = "The new version" if version is None else f"Version {version}"
    model = report.get("model")
    of_model = f" of {model}" if model is not None else ""
    what = _forgotten(report)
    if passed is True:
        return f"{which}{of_model} has forgotten {what}"
    if passed is False:
        return f"{which}{of_model} was to forget {what} and did not pass"
    return f"{which}{of_model} was to forget {what}"


def _forgotten(report: Mapping[str, Any]) -> str:
    count = report_values.number(report_values.mapping(report.get("evidence")).get("forget_count"))
    if report.get("kind") == "concept":
        return _concepts(report)
    if report.get("kind") != "class":
        return "samples" if count is None else _samples(count)
    names = _forgotten_classes(report)
    quoted = ", ".join(f"“{name}”" for name in names)
    what = f"the class{'es' if len(names) > 1 else ''} {quoted}" if names else "a whole class"
    return what if count is None else f"{what} ({_samples(count)})"


def _concepts(report: Mapping[str, Any]) -> str:
    told = report_values.mapping(report.get("evidence")).get("concepts")
    names = [str(report_values.mapping(one).get("concept")) for one in _listed(told)]
    quoted = ", ".join(f"“{name}”" for name in names[:_MOST_ITEMS])
    return f"the concept{'s' if len(names) > 1 else ''} {quoted}" if names else "a concept"


def _samples(count: float) -> str:
    return "1 sample" if count == 1 else f"{count:,.0f} samples"


def _forgotten_classes(report: Mapping[str, Any]) -> list[str]:
    """Names of the classes in the forget set, where their accuracy was measured."""
    detail = report_values.detail(report, "unlearning_accuracy")
    labels = report_values.mapping(detail.get("per_class_accuracy"))
    names = report_values.label_names(report)
    return [names.get(label, label) for label in report_values.ordered(labels)][:_MOST_ITEMS]


def _gates_in_words(gated: Sequence[Row]) -> str:
    failed = sum(not row.passed for row in gated)
    if not gated:
        return "No gate was applied."
    every = f"{'The one' if len(gated) == 1 else f'All {len(gated)}'} gate"
    if not failed:
        return f"{every}{'s' if len(gated) > 1 else ''} passed."
    return (
        f"{failed} of {len(gated)} gates failed. A version that fails a gate is never served; the "
        "duty to forget stays."
    )


def _resolution(report: Mapping[str, Any]) -> str:
    """How small a leak the gate on likeness could have seen; empty where nothing was judged."""
    gate = report_values.mapping(
        report_values.mapping(report.get("metrics")).get("forget_holdout_auc")
    )
    target, allowed = (report_values.number(gate.get(name)) for name in ("target", "allowed"))
    if target is None or allowed is None:
        return ""
    within = (
        f"up to an AUC of {target + allowed:.2g}"
        if gate.get("side") == "not_above"
        else f"within an AUC of {target:g} ± {allowed:.2g}"
    )
    return (
        f"What the gate could not see: a leak {within} between forgotten and unseen samples passes."
    )


def _facts(report: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    evidence = report_values.mapping(report.get("evidence"))
    versions = [report.get("base_version"), report.get("version")]
    told = {
        "model": report.get("model"),
        "version": " → ".join(str(item) for item in versions if item is not None) or None,
        "kind": {
            "samples": "single samples",
            "class": "a whole class",
            "concept": "a concept",
        }.get(str(report.get("kind")), report.get("kind")),
        "forgotten": evidence.get("forget_count"),
        "forgotten before": evidence.get("previous_count"),
        "made": moment(report.get("created_at")),
        "method": _method(report.get("method")),
        # The recipe names the rate that was tried first.
        "learning rate": report_values.mapping(evidence.get("method")).get("learning_rate"),
    }
    for name, value in told.items():
        if value is not None:
            yield name, text(value)


def _method(value: object) -> str | None:
    method = report_values.mapping(value)
    if not method:
        return None if value is None else text(value)
    named = [method.get("method"), method.get("targets")]
    told = ", ".join(str(item) for item in named if item is not None)
    mask = method.get("mask")
    told += f", {mask} mask" if mask is not None else ""
    for name in ("epochs", "steps"):
        count = method.get(name)
        told += (
            "" if count is None else f", {count} {name.removesuffix('s') if count == 1 else name}"
        )
    return told


def moment(value: object) -> str | None:
    """A time in UTC to the minute."""
    if isinstance(value, str):
        try:
            value = datetime.datetime.fromisoformat(value)
        except ValueError:
            return str(value)
    if not isinstance(value, datetime.datetime):
        return None
    aware = value.replace(tzinfo=datetime.UTC) if value.tzinfo is None else value
    return f"{aware.astimezone(datetime.UTC):%Y-%m-%d %H:%M} UTC"


def _approximate(report: Mapping[str, Any]) -> str:
    told = str(report.get("approximate") or "approximate unlearning; not certified")
    return told[:1].upper() + told[1:]


# --- the gates ------------------------------------------------------------------------------


def _rows(report: Mapping[str, Any]) -> Iterator[Row]:
    metrics = report_values.mapping(report.get("metrics"))
    evidence = report_values.mapping(report.get("evidence"))
    before = report_values.mapping(evidence.get("original"))
    retrained = report_values.mapping(evidence.get("retrained"))
    for name in report_values.ordered(metrics, MEANINGS):
        entry = metrics[name] if isinstance(metrics[name], Mapping) else {"value": metrics[name]}
        passed = entry.get("passed")
        yield Row(
            name=name,
            meaning=MEANINGS.get(name, ""),
            before=_value(before.get(name)),
            retrained=_value(retrained.get(name)),
            value=text(entry.get("value")),
            target=text(entry.get("target")),
            allowed=_allowed(entry),
            sum=_sum(entry),
            passed=passed if isinstance(passed, bool) else None,
        )


def _value(found: object) -> str:
    """A bare number, or a measurement's value."""
    return text(found.get("value") if isinstance(found, Mapping) else found)


def _allowed(entry: Mapping[str, Any]) -> str:
    found = report_values.number(entry.get("allowed", entry.get("tolerance")))
    sign = _SIGNS.get(str(entry.get("side")), "±")
    return _NOTHING if found is None else f"{sign} {found:.3g}"


_SIGNS = {"not_above": "+", "not_below": "\N{MINUS SIGN}"}


def _sum(entry: Mapping[str, Any]) -> str:
    """How what is allowed came about: tolerance + z × standard error; z follows from the three."""
    names = ("tolerance", "allowed", "standard_error")
    tolerance, allowed, error = (report_values.number(entry.get(name)) for name in names)
    if tolerance is None or allowed is None or not error or allowed - tolerance < 1e-12:
        return ""
    return f"{tolerance:.3g} + {(allowed - tolerance) / error:.3g} × {error:.3g}"


# --- the pictures ---------------------------------------------------------------------------


def _pictures(pictures: Mapping[str, bytes]) -> Iterator[tuple[str, str]]:
    """Names for people, and the files as data URIs."""
    for name, content in pictures.items():
        encoded = base64.b64encode(content).decode("ascii")
        yield name.replace("_", " "), f"data:image/png;base64,{encoded}"


# --- the evidence ---------------------------------------------------------------------------


def _evidence(report: Mapping[str, Any]) -> Iterator[Group]:
    evidence = report_values.mapping(report.get("evidence"))
    told = {name: report[name] for name in ("version", "manifest_digest") if name in report}
    plain = {
        name: value
        for name, value in evidence.items()
        if not isinstance(value, Mapping) and name not in _ELSEWHERE
    }
    groups: dict[str, Mapping[str, Any]] = {"general": told | plain}
    groups |= {
        name: value
        for name, value in evidence.items()
        if isinstance(value, Mapping) and name not in _ELSEWHERE
    }
    if (share := report_values.mapping(evidence.get("weights_changed")).get("share")) is not None:
        groups["mask"] = {**groups.get("mask", {}), "share_of_weights_changed": share}
    for name in report_values.ordered(groups, ("general", *_GROUPS)):
        entries = list(flattened(groups[name]))
        if entries:
            yield Group(name, entries)


def flattened(value: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Names with dots and values for people; what is told by layer or epoch is left out."""
    for name in report_values.ordered(str(key) for key in value):
        item = value.get(name)
        if name in _LAYERS:
            continue
        if isinstance(item, Mapping):
            yield from flattened(item, f"{prefix}{name}.")
        else:
            yield prefix + name, text(item)


def _layers(report: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """Each layer with the share that might change, and that did."""
    evidence = report_values.mapping(report.get("evidence"))
    might = report_values.numbers(report_values.mapping(evidence.get("mask")).get("layer_density"))
    did = report_values.numbers(
        report_values.mapping(evidence.get("weights_changed")).get("per_layer")
    )
    return [
        (name, text(might.get(name)), text(did.get(name)))
        for name in report_values.ordered(might.keys() | did.keys())
    ]


def _listed(value: object) -> Sequence[Any]:
    return value if isinstance(value, list | tuple) else ()


def text(value: object) -> str:
    """A value for people: four digits, and the beginning of what is long."""
    if value is None or value == {} or value == []:
        return _NOTHING
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, list | tuple):
        shown = ", ".join(text(item) for item in value[:_MOST_ITEMS])
        more = len(value) - _MOST_ITEMS
        return f"{shown} and {more} more" if more > 0 else shown
    if isinstance(value, Mapping):
        return json.dumps(value, sort_keys=True, ensure_ascii=False, default=str)
    return str(value)
