"""How fast requests are accepted, how soon their job starts, what a job costs beside its work.

It starts a stack of its own in a temporary folder, with the settings that users get, and measures
over HTTP. What is compared runs in turn (A B C A B C …), so that a machine that slows down slows
all. Every ratio is that of one turn.
"""

from collections.abc import Sequence
from pathlib import Path

import torch

from benchmarks import accepting, figures, jobs, served, stacks
from client import http

_DIGITS = served.TrainingSet(1797, holdout=447, test=450)
# The ledger needs many ids; what the pictures show does not matter to it.
_MANY = served.TrainingSet(accepting.POOL)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run everything and print it; 1 where a target is missed and ``--strict`` is given."""
    parser = figures.parser("benchmarks.service", __doc__)
    parser.add_argument("--seconds", type=float, default=4.0, help="length of each turn")
    parser.add_argument("--rounds", type=int, default=7, help="turns of POSTs and of their peers")
    parser.add_argument("--jobs", type=int, default=12, help="small jobs, one after another")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    console = figures.console()
    evidence = figures.surroundings()
    with (
        stacks.temporary(console) as (running, folder),
        http.Api(running.base_url, running.admin_key) as api,
    ):
        evidence |= figures.of_database(running.database_url) | accepting.evidence(running)
        with console.status("training a small net"):
            served.train(folder / "net", _DIGITS.trained)
        _serve(api, folder, "jobs", _DIGITS, 0.0)
        _serve(api, folder, "accepting", _MANY, 3600.0)
        times = jobs.measure(api, "jobs", running.database_url, options.jobs, console)
        rates = accepting.measure(running, "accepting", options.rounds, options.seconds, console)
    return figures.conclude(console, "the service", [*rates, *times], evidence, options)


def _serve(
    api: http.Api, folder: Path, name: str, training_set: served.TrainingSet, window: float
) -> None:
    """Register a model over a training set of its own; ``window`` 0 runs each request at once."""
    file = folder / f"{name}.parquet"
    training_set.write(file)
    served.ingest(api, name, file)
    served.register(api, name, dataset=name, net=folder / "net", policy=served.lenient(window))


if __name__ == "__main__":
    raise SystemExit(main())
