"""An audit as one HTML page, in the look of :mod:`service.report_page`. Pure."""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from service import audit_plots, report_page, report_values

CONTENT_SECURITY_POLICY = report_page.CONTENT_SECURITY_POLICY

_ATTACK: Mapping[str, str] = {
    "ulira_auc": (
        "Can nets that unlearnt the data by this recipe be told from nets that never saw it? "
        "0.5 is guessing."
    ),
    "ulira_accuracy": "The share of rightly told (net, sample) pairs; 0.5 is guessing.",
    "ulira_net_auc": (
        "The same attack on this version itself, which learnt from more data than its shadows: "
        "some of what is above 0.5 is that."
    ),
}
_ORDER = tuple(dict.fromkeys((audit_plots.GAP, *report_page.MEANINGS)))
_NOTHING = "—"


@dataclasses.dataclass(frozen=True)
class Cell:
    """A value under the heading of a column; ``spread`` is empty for a single figure."""

    column: str
    value: str
    spread: str = ""


@dataclasses.dataclass(frozen=True)
class Row:
    """One metric: what it says, and its cells."""

    name: str
    meaning: str
    cells: Sequence[Cell]


def render(result: Mapping[str, Any]) -> str:
    """The page.

    Args:
        result: as the worker kept it; beside that, if known, ``finished_at`` (RFC 3339).

    Returns:
        An HTML document; the same result gives the same text.
    """
    nets = audit_plots.by_name(result)
    ulira = report_values.mapping(result.get("ulira"))
    return report_page.template("audit.html.j2").render(
        policy=CONTENT_SECURITY_POLICY,
        headline=f"Version {result.get('version')} of {result.get('model')}, audited",
        summary=_summary(result),
        warnings=_warnings(result),
        facts=list(_facts(result)),
        nets=[_spoken(name) for name in nets],
        rows=list(_rows(nets)),
        attack=list(_attack(ulira)),
        attack_told=_attack_told(ulira),
        plots=audit_plots.all_plots(result),
        groups=list(_groups(result)),
    )


def _summary(result: Mapping[str, Any]) -> str:
    gap = report_values.number(result.get("average_gap"))
    floor = report_values.number(result.get("average_gap_floor"))
    if gap is None or floor is None:
        return "No net was retrained for this audit."
    return (
        f"On average it is {100 * gap:.3g} points from a net retrained without the data; "
        f"a second retrained net is {100 * floor:.3g} points from the first."
    )


def _warnings(result: Mapping[str, Any]) -> list[str]:
    found = result.get("warnings")
    return [str(item) for item in found] if isinstance(found, list | tuple) else []


def _facts(result: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    training = report_values.mapping(result.get("training"))
    told = {
        "model": result.get("model"),
        "version": f"{result.get('base_version')} → {result.get('version')}",
        "forgotten": result.get("forget_count"),
        "finished": report_page.moment(result.get("finished_at")),
        "method": report_values.mapping(result.get("recipe")).get("method"),
        "epochs of retraining": training.get("epochs"),
    }
    for name, value in told.items():
        if value is not None:
            yield name, report_page.text(value)


def _rows(nets: Mapping[str, Mapping[str, Any]]) -> Iterator[Row]:
    metrics = {str(name) for net in nets.values() for name in net["metrics"]}
    for name in report_values.ordered(metrics, _ORDER):
        cells = [_cell(_spoken(net), found["metrics"].get(name)) for net, found in nets.items()]
        yield Row(name, report_page.MEANINGS.get(name, ""), cells)


def _attack(ulira: Mapping[str, Any]) -> Iterator[Row]:
    metrics = report_values.mapping(ulira.get("metrics"))
    for name in report_values.ordered(metrics, _ATTACK):
        entry = report_values.mapping(metrics[name])
        cells = [
            Cell(_spoken(column), report_page.text(entry.get(column)))
            for column in ("value", "target", "standard_error")
        ]
        yield Row(name, _ATTACK.get(name, ""), cells)


def _attack_told(ulira: Mapping[str, Any]) -> str:
    pairs = report_values.number(ulira.get("pairs"))
    if pairs is None:
        return ""
    return (
        f"U-LiRA with {pairs:.0f} pairs of shadow nets, half of the retained data each: one learnt "
        "the forgotten data and unlearnt it by this recipe, the other never saw it."
    )


def _groups(result: Mapping[str, Any]) -> Iterator[report_page.Group]:
    evidence = report_values.mapping(result.get("evidence"))
    groups = {
        "recipe": result.get("recipe"),
        "training from scratch": result.get("training"),
        "gap to retrained": evidence.get("gap_to_retrained"),
        "pools": evidence.get("pools"),
        "seconds": result.get("seconds"),
        "versions": evidence.get("versions"),
        "run": evidence.get("run"),
    }
    for name, value in groups.items():
        if entries := list(report_page.flattened(report_values.mapping(value))):
            yield report_page.Group(name, entries)


def _cell(column: str, entry: object) -> Cell:
    found = report_values.mapping(entry)
    value, sd = (report_values.number(found.get(name)) for name in ("value", "sd"))
    if value is None:
        return Cell(column, _NOTHING)
    return Cell(column, f"{value:.3g}", "" if sd is None else f"{sd:.2g}")


def _spoken(name: str) -> str:
    return name.replace("_", " ")
