"""Reading a report as it was kept, however much of it is there.

A report comes back from the database as plain JSON: keys in no order of ours, and parts that an
older or another worker did not write. What cannot be read counts as missing. Pure.
"""

import math
import re
from collections.abc import Iterable, Mapping
from typing import Any

_DIGITS = re.compile(r"(\d+)")


def mapping(value: object) -> Mapping[str, Any]:
    """The value if it is a mapping, else an empty one."""
    return value if isinstance(value, Mapping) else {}


def number(value: object) -> float | None:
    """The value as a finite float, else ``None``; booleans are no numbers here."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        found = float(value)
    except OverflowError:
        return None
    return found if math.isfinite(found) else None


def numbers(value: object) -> dict[str, float]:
    """The entries of a mapping that are finite numbers."""
    found = {str(name): number(item) for name, item in mapping(value).items()}
    return {name: item for name, item in found.items() if item is not None}


def ordered(names: Iterable[str], first: Iterable[str] = ()) -> list[str]:
    """``first`` as far as they are there, then the rest in natural order (``layer2``, then 10)."""
    there = set(names)
    leading = [name for name in first if name in there]
    return leading + sorted(there - set(leading), key=_natural)


def label_names(report: Mapping[str, Any]) -> dict[str, str]:
    """Class names by index as text; a class without a name is left out."""
    labels = mapping(report.get("evidence")).get("labels")
    if not isinstance(labels, list | tuple):
        return {}
    return {str(index): str(name) for index, name in enumerate(labels)}


def detail(report: Mapping[str, Any], metric: str) -> Mapping[str, Any]:
    """The ``detail`` of a metric."""
    return mapping(mapping(mapping(report.get("metrics")).get(metric)).get("detail"))


def _natural(name: str) -> list[tuple[int, int, str]]:
    parts = [part for part in _DIGITS.split(name) if part]
    return [(0, int(part), part) if part.isdecimal() else (1, 0, part) for part in parts]
