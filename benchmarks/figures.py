"""What every benchmark prints: figures with n and spread, targets, and what they stand on."""

import argparse
import dataclasses
import datetime
import importlib.metadata
import json
import os
import platform
import statistics
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import psycopg
import rich.console
import rich.table

_WIDTH_IN_FILES = 160  # a pipe or file has no width; the table must not be folded there
_PACKAGES = ("fastapi", "uvicorn", "sqlalchemy", "psycopg", "pyarrow", "pillow", "torch", "timm")


@dataclasses.dataclass(frozen=True)
class Figure:
    """One figure over all its samples, and what its median is held against (``None``: nothing)."""

    name: str
    unit: str
    target: str | None
    met: bool | None
    median: float
    least: float
    greatest: float
    n: int


def summarise(
    name: str,
    unit: str,
    values: Sequence[float],
    *,
    at_most: float | None = None,
    at_least: float | None = None,
) -> Figure:
    """Median, least and greatest of some values, held against a bound on the median."""
    median = statistics.median(values)
    target, met = None, None
    if at_most is not None:
        target, met = f"<= {at_most:g}", median <= at_most
    if at_least is not None:
        target, met = f">= {at_least:g}", median >= at_least
    return Figure(name, unit, target, met, median, min(values), max(values), len(values))


def spread(values: Sequence[float], digits: int) -> str:
    """``mean ± sd``, or what there is of it."""
    if not values:
        return ""
    mean = f"{statistics.mean(values):.{digits}f}"
    return f"{mean} ± {statistics.stdev(values):.{digits}f}" if len(values) > 1 else mean


def parser(module: str, doc: str | None) -> argparse.ArgumentParser:
    """A command line with the options that all benchmarks have."""
    made = argparse.ArgumentParser(
        prog=f"python -m {module}",
        description=doc,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument("--json", type=Path, metavar="PATH", help="write the figures there as well")
    made.add_argument(
        "--strict",
        action="store_true",
        help="exit with 1 where a target is missed; without it the table says so and the exit "
        "status is 0",
    )
    return made


def console() -> rich.console.Console:
    """Where the table goes: as wide as the terminal, or wide enough for a file."""
    return rich.console.Console(width=None if sys.stdout.isatty() else _WIDTH_IN_FILES)


def conclude(
    out: rich.console.Console,
    title: str,
    found: Sequence[Figure],
    evidence: Mapping[str, str],
    options: argparse.Namespace,
) -> int:
    """Print the figures, write them where ``options`` say, and return the exit status."""
    out.print(render(title, found, evidence))
    if options.json is not None:
        rows = [dataclasses.asdict(figure) for figure in found]
        options.json.write_text(json.dumps({**evidence, "results": rows}, indent=2) + "\n")
    missed = any(figure.met is False for figure in found)
    return 1 if options.strict and missed else 0


def render(title: str, found: Sequence[Figure], evidence: Mapping[str, str]) -> rich.table.Table:
    """The figures as a table, with what they were measured on below it."""
    caption = "\n".join(f"{name}: {value}" for name, value in evidence.items())
    table = rich.table.Table(title=title, caption=caption, caption_justify="left")
    table.add_column("figure")
    for heading in ("median", "min", "max", "n"):
        table.add_column(heading, justify="right")
    table.add_column("unit")
    table.add_column("target")
    for figure in found:
        verdict = "" if figure.met is None else " met" if figure.met else " missed"
        values = map(_shown, (figure.median, figure.least, figure.greatest))
        table.add_row(
            figure.name, *values, str(figure.n), figure.unit, (figure.target or "") + verdict
        )
    return table


def surroundings() -> dict[str, str]:
    """When, on what machine and with which versions something was measured."""
    load, *_ = os.getloadavg()
    versions = (f"{name} {importlib.metadata.version(name)}" for name in _PACKAGES)
    return {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "machine": f"{os.cpu_count()} cores, {_processor()}, {platform.system()} "
        f"{platform.release()}; load average before: {load:.1f}",
        "versions": f"Python {platform.python_version()}, " + ", ".join(versions),
    }


def of_database(database_url: str) -> dict[str, str]:
    """The server's version and what makes its commits durable."""
    with psycopg.connect(database_url, autocommit=True) as connection:
        row = connection.execute(
            "SELECT current_setting('server_version'), current_setting('fsync'),"
            " current_setting('synchronous_commit'), current_setting('wal_sync_method')"
        ).fetchone()
    version, fsync, commit, method = row or ("", "", "", "")
    told = f"fsync {fsync}, synchronous_commit {commit}, wal_sync_method {method}"
    return {"database": f"PostgreSQL {version}, {told}; all processes share the machine"}


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def _shown(value: float) -> str:
    return f"{value:.3g}" if abs(value) < 100 else f"{value:,.0f}"
