"""One seed in a process of its own; rows are kept as they come."""

import argparse
import dataclasses
import json
import sys
from pathlib import Path
from typing import Any

import torch

from benchmarks.quality import data, runs, scenarios

_ON_EVERY_SEED: tuple[scenarios.Name, ...] = ("samples_10", "samples_50")


def run(options: argparse.Namespace, seed: int) -> None:
    """Do the scenarios that the seed's file has not got yet."""
    torch.set_num_threads(1)
    path = file_of(options, seed)
    rows: list[dict[str, Any]] = json.loads(path.read_text()) if path.exists() else []
    done = {row["scenario"] for row in rows}
    missing = [
        name
        for name in scenarios.NAMES
        if name in options.scenarios
        and name not in done
        and (name in _ON_EVERY_SEED or seed in options.seeds[: options.few])
    ]
    if not missing:
        return
    _say(f"seed {seed}: training the original")
    sizes = runs.Sizes(options.train, options.holdout, options.test, options.epochs)
    bench = runs.Bench.of(_source(options), sizes, seed)
    for name in missing:
        rows += [dataclasses.asdict(row) for row in bench.rows(name, options.methods, _say)]
        path.write_text(json.dumps(rows, indent=1) + "\n")


def file_of(options: argparse.Namespace, seed: int) -> Path:
    """Where the rows of a seed are."""
    path: Path = options.out / f"seed-{seed}.json"
    return path


def _source(options: argparse.Namespace) -> data.Source:
    if options.data is None:
        return data.packaged()
    return data.from_parquet(options.data, options.side)


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()
