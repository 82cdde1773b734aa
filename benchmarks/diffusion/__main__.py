"""Do models that draw forget, do they stay good, and what does the mask buy?

``python -m benchmarks.diffusion [--on digits icons object composition] [--out DIR]`` takes the base
models of the demo, makes them forget a class or a concept by every method, and has a judge net look
at what they draw. A rival to the default recipe is tried at several settings on the first seed, and
goes on with the one of most unlearning and retained accuracy together. Rows are written as they
come; a run that was stopped goes on where it stopped.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import get_args

import rich.console
import torch

from benchmarks import figures
from benchmarks.diffusion import rivals, runs, subjects, tables
from client import whole_files


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what is missing and write JSON and Markdown."""
    options = _parsed(arguments)
    torch.set_num_threads(1)
    options.out.mkdir(parents=True, exist_ok=True)
    console = rich.console.Console()
    parts = []
    for name in options.on:
        bench = runs.Bench(name, options.images, options.out, console.print)
        for key in options.methods:
            if bench.family in rivals.RIVALS[key].on:
                bench.run(key, options.seeds)
        parts.append(tables.table(name, bench.rows, options.seeds[0]))
    told = "\n".join(f"- {name}: {value}" for name, value in figures.surroundings().items())
    text = "\n\n".join([*parts, told]) + "\n"
    whole_files.write(options.out / "results.md", text.encode())
    console.print(text, soft_wrap=True, markup=False, highlight=False)
    return 0


def _parsed(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.diffusion",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--on",
        nargs="+",
        choices=get_args(subjects.Name),
        default=["digits", "icons"],
        help="a class of digits; a style, an object or a coloured digit by text",
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--methods", nargs="+", choices=rivals.RIVALS, default=list(rivals.RIVALS))
    parser.add_argument("--images", type=int, default=50, help="of each thing that is judged")
    parser.add_argument("--out", type=Path, default=Path("bench-diffusion"))
    return parser.parse_args(arguments)


if __name__ == "__main__":
    raise SystemExit(main())
