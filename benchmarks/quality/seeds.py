"""One seed in a process of its own; rows are kept as they come."""

import argparse
import dataclasses
import json
import sys
from pathlib import Path
from typing import Any

import torch

from benchmarks.quality import data, nets, rivals, runs, scenarios
from client import whole_files

_ON_EVERY_SEED: tuple[scenarios.Name, ...] = ("samples_10", "samples_50")


def run(options: argparse.Namespace, seed: int) -> None:
    """Make the rows that the seed's file has not got yet.

    Raises:
        InvalidInputError: the folder's nets, and so its rows, were made with other options.
    """
    torch.set_num_threads(1)
    sizes = runs.Sizes(options.train, options.holdout, options.test, options.epochs)
    made_of = f"{data.name_of(options.data, options.side)}, seed {seed}, {sizes}"
    store = nets.Store(options.out / f"seed-{seed}", made_of)
    store.check()
    path = file_of(options, seed)
    rows: list[dict[str, Any]] = json.loads(path.read_text()) if path.exists() else []
    done = {(row["scenario"], row["key"]) for row in rows}
    missing = {
        name: keys
        for name in _scenarios(options, seed)
        if (keys := [key for key in _keys(options, seed) if (name, key) not in done])
    }
    if not missing:
        return
    _say(f"seed {seed}: the original")
    bench = runs.Bench.of(_source(options), sizes, seed, store, options.reference)
    for name, keys in missing.items():
        for row in bench.rows(name, keys, _say):
            rows.append(dataclasses.asdict(row))
            whole_files.write(path, json.dumps(rows, indent=1).encode() + b"\n")


def file_of(options: argparse.Namespace, seed: int) -> Path:
    """Where the rows of a seed are."""
    path: Path = options.out / f"seed-{seed}.json"
    return path


def _scenarios(options: argparse.Namespace, seed: int) -> list[scenarios.Name]:
    few = seed in options.seeds[: options.few]
    return [
        name
        for name in scenarios.NAMES
        if name in options.scenarios and (few or name in _ON_EVERY_SEED)
    ]


def _keys(options: argparse.Namespace, seed: int) -> list[str]:
    """Yardsticks first, then the rivals of this seed."""
    few = seed in options.seeds[: options.rivals_on]
    asked = [*options.methods, *([] if options.reference is None else [rivals.REFERENCE])]
    chosen = [key for key in rivals.RIVALS if key in asked and (few or key in rivals.ON_EVERY_SEED)]
    return [*runs.YARDSTICKS, *chosen]


def _source(options: argparse.Namespace) -> data.Source:
    if options.data is None:
        return data.packaged()
    return data.from_parquet(options.data, options.side)


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()
