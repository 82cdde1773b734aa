"""Twelve requests in a row on one model: are the earlier ones still forgotten, is it still good?

The same demands (samples, persons, two classes) go to one model whose versions are made from the
anchor and to one whose versions are only chained. What is served in the end is pulled and compared
with a net that was trained from scratch on what is left. Gates let everything pass: this shows what
happens, not whether it may be served.
"""

import dataclasses
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import rich.console

from benchmarks import figures, served, stacks
from client import http, pull, waiting
from demo import checking, digits, nets
from salun_core import preprocessing

SAMPLES_A_REQUEST = 20
CLASSES = ("seven", "two")  # the fifth and the tenth demand
REQUESTS = 12
WITHIN = 0.02  # of retraining
_POLICIES: Mapping[str, Mapping[str, Any]] = {
    "reanchor": {"composition": "reanchor"},
    "chain": {"composition": "chain", "max_chain": 10_000},
}
_OPEN: Mapping[str, Any] = {
    "max_drift": 1.0,
}


@dataclasses.dataclass(frozen=True)
class Demand:
    """A target as it is sent, and the training samples that it names."""

    target: Mapping[str, Any]
    names: frozenset[str]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run everything and print it; 1 where a target is missed and ``--strict`` is given."""
    parser = figures.parser("benchmarks.sequences", __doc__)
    parser.add_argument("--seed", type=int, default=0, help="of the draw of samples")
    options = parser.parse_args(arguments)
    console = figures.console()
    data = digits.load()
    demands = _demands(data, options.seed)
    evidence = figures.surroundings()
    with stacks.temporary(console) as (running, folder):
        pulled = _served(http.Api(running.base_url, running.admin_key), folder, data, demands)
        found = _figures(folder, data, demands, pulled)
    evidence["subject"] = (
        f"slim ResNet-18 on 1,000 grainy MNIST digits, {REQUESTS} demands, seed {options.seed}"
    )
    return figures.conclude(console, "requests in a row", found, evidence, options)


def _demands(data: Sequence[digits.Digit], seed: int) -> list[Demand]:
    """Samples and persons in turn, a class as fifth and as tenth."""
    generator = np.random.default_rng(seed)
    train = [one for one in data if one.split == "train"]
    others = [one.sample_id for one in train if one.label not in CLASSES]
    order = iter(generator.permutation(others).tolist())
    classes = iter(CLASSES)
    demands = []
    for turn in range(REQUESTS):
        if turn in (4, 9):
            label = next(classes)
            named = frozenset(one.sample_id for one in train if one.label == label)
            demands.append(Demand({"kind": "class", "label": label}, named))
            continue
        named = frozenset(next(order) for _ in range(SAMPLES_A_REQUEST))
        target: dict[str, Any] = {"kind": "sample", "ids": sorted(named)}
        if turn % 2:
            target = {"kind": "subject", "subject_id": f"person-{turn}"}
        demands.append(Demand(target, named))
    return demands


def _served(
    api: http.Api, folder: Path, data: list[digits.Digit], demands: Sequence[Demand]
) -> dict[str, Path]:
    """What each composition serves in the end, in a folder of its own."""
    console = rich.console.Console(stderr=True)
    train = digits.image_set([one for one in data if one.split == "train"], _decode())
    nets.save(nets.train(train, lambda *_: None), folder / "base")
    _write(data, demands, folder / "digits.parquet")
    served.ingest(api, "digits", folder / "digits.parquet")
    for name, policy in _POLICIES.items():
        served.register(
            api,
            name,
            dataset="digits",
            net=folder / "base",
            policy={**served.lenient(0.0), **_OPEN, **policy},
        )
        for turn, demand in enumerate(demands):
            body = {"model": name, "targets": [demand.target]}
            request = api.post("/v1/forget-requests", body, idempotency_key=uuid.uuid4().hex)
            ended = waiting.forget_request(api, request["id"], as_json=False)
            console.print(f"{name}: demand {turn + 1} of {len(demands)} is {ended['status']}")
            if ended["status"] != "completed":
                raise RuntimeError(f"{name}: demand {turn + 1} ended as {ended}")
        pull.pull(api, name, "production", folder / name)
    return {name: folder / name for name in _POLICIES}


def _figures(
    folder: Path,
    data: Sequence[digits.Digit],
    demands: Sequence[Demand],
    pulled: Mapping[str, Path],
) -> list[figures.Figure]:
    erased = frozenset().union(*(demand.names for demand in demands))
    left = [one for one in data if one.split == "train" and one.sample_id not in erased]
    nets.save(nets.train(digits.image_set(left, _decode()), lambda *_: None), folder / "retrained")
    kept = [one for one in data if one.split == "test" and one.label not in CLASSES]
    best = checking.accuracy(folder / "retrained", kept)
    found = [figures.summarise("retrained on what is left: test accuracy", "share", [best])]
    for name, own in {**pulled, "retrained": folder / "retrained"}.items():
        lost = best - checking.accuracy(own, kept)
        distances, allowed = _recognised(own, data, demands)
        found += [
            figures.summarise(f"{name}: behind retraining", "share", [lost], at_most=WITHIN),
            figures.summarise(
                f"{name}: demands of {len(distances)} told from unseen data, beyond chance",
                "",
                [sum(far > most for far, most in zip(distances, allowed, strict=True))],
                at_most=0.0,
            ),
            figures.summarise(f"{name}: |AUC − 0.5| of a demand", "", distances),
            figures.summarise(
                f"{name}: erased classes still named",
                "share",
                [checking.accuracy(own, [d for d in data if d.label == one]) for one in CLASSES],
                at_most=0.01,
            ),
        ]
    return found


def _recognised(
    net: Path, data: Sequence[digits.Digit], demands: Sequence[Demand]
) -> tuple[list[float], list[float]]:
    """How far each demand's samples are told from unseen ones, and how far chance may tell them."""
    unseen = [one for one in data if one.split == "holdout" and one.label not in CLASSES]
    distances, allowed = [], []
    for demand in demands:
        if demand.target["kind"] == "class":
            continue
        named = [one for one in data if one.sample_id in demand.names]
        auc, most = checking.separation(net, named, unseen)
        distances.append(abs(auc - 0.5))
        allowed.append(most)
    return distances, allowed


def _write(data: list[digits.Digit], demands: Sequence[Demand], path: Path) -> None:
    """The digits as Parquet, with the persons that demands name."""
    digits.write_parquet(data, path)
    persons = {
        name: demand.target["subject_id"]
        for demand in demands
        if demand.target["kind"] == "subject"
        for name in demand.names
    }
    table = pq.read_table(path)
    column = pa.array([persons.get(one.sample_id) for one in data], pa.string())
    pq.write_table(table.append_column("subject_id", column), path)


def _decode() -> preprocessing.Preprocessing:
    return preprocessing.Preprocessing(nets.config().pretrained_cfg)


if __name__ == "__main__":
    raise SystemExit(main())
