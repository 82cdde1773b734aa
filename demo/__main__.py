"""``make demo``: the whole product on real data, checked from outside.

A net learns 1,000 digits by heart and is registered over HTTP; 50 of the digits, then the whole
class "seven", must be forgotten; stock ``huggingface_hub`` pulls what is served afterwards, and
this program measures the pulled net itself. Exit status 0 only if every check held.
"""

import argparse
import shutil
import sys
import time
from pathlib import Path

import rich.console
import torch

from client import errors
from demo import ending, walk


def main() -> int:
    """Run the demo; returns the exit status."""
    parser = argparse.ArgumentParser(prog="salun demo", description=__doc__)
    parser.add_argument("--data-dir", type=Path, help="where the service keeps its data")
    parser.add_argument("--port", type=int, default=0, help="port of the API; default: a free one")
    parser.add_argument(
        "--out", type=Path, default=Path("demo-output"), help="where pictures and nets are written"
    )
    arguments = parser.parse_args()
    torch.set_num_threads(1)  # the net is small: more threads only wait for each other
    console = rich.console.Console(highlight=False)
    began = time.monotonic()
    out: Path = arguments.out
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    try:
        checks = walk.Walk(console, out).go(arguments.data_dir or out / "service", arguments.port)
    except errors.ClientError as error:
        console.print(f"[bold red]the demo stopped:[/] {error}")
        return 1
    status = ending.tell(console, checks, out, time.monotonic() - began)
    console.print("the same for models that draw: make demo-diffusion")
    return status


if __name__ == "__main__":
    sys.exit(main())
