"""The pictures that a report names, out of the store. Those that are gone are left out."""

from collections.abc import Mapping
from typing import Any

from service import artifacts, report_values, storage

_MOST_BYTES = 4 << 20  # of one picture: a page holds it whole


def read(report: Mapping[str, Any]) -> dict[str, bytes]:
    """PNG files by name, as ``evidence.pictures`` lists them by digest."""
    listed = report_values.mapping(report.get("evidence")).get("pictures")
    found = {}
    for entry in listed if isinstance(listed, list) else []:
        told = report_values.mapping(entry)
        digest = str(told.get("digest"))
        if not artifacts.is_digest(digest):
            continue
        path = storage.path_of(digest)
        if path.is_file() and path.stat().st_size <= _MOST_BYTES:
            found[str(told.get("name"))] = path.read_bytes()
    return found
