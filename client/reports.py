"""A verification report as a table."""

from collections.abc import Mapping
from typing import Any

from client import render


def show(report: Mapping[str, Any]) -> None:
    """Print what was measured, the seconds, the evidence and the verdict."""
    metrics: Mapping[str, Mapping[str, Any]] = report["metrics"]
    render.table(
        ["metric", "value", "target", "tolerance", "standard error", "passed"],
        (
            [
                name,
                entry.get("value"),
                entry.get("target"),
                entry.get("tolerance"),
                entry.get("standard_error"),
                entry.get("passed"),
            ]
            for name, entry in metrics.items()
        ),
        title="verification",
    )
    seconds = report.get("seconds") or {}
    render.fields((f"{name} seconds", value) for name, value in seconds.items())
    render.fields((report.get("evidence") or {}).items())
    render.fields([("verdict", report.get("verdict"))])
