"""One process of a group, for the tests: does what a folder says and writes what it got there.

``spread_member.py RANK SIZE FOLDER``; the group meets at a file in the folder, by gloo.
"""

import datetime
import json
import sys
from pathlib import Path
from typing import Any

import torch
from torch import distributed

from salun_core import (
    architectures,
    errors,
    images,
    preprocessing,
    progress,
    saliency,
    selection,
    shards,
    specs,
    spread,
    weights,
)

TIMEOUT = datetime.timedelta(seconds=60)


def main(rank: int, size: int, folder: Path) -> None:
    """Meet the others and run every task of the folder in groups of the first 1, 2, … of them."""
    torch.set_num_threads(1)
    distributed.init_process_group(
        "gloo",
        init_method=f"file://{folder / 'meeting'}",
        rank=rank,
        world_size=size,
        timeout=TIMEOUT,
    )
    for count in range(1, size + 1):
        group = distributed.new_group(list(range(count)))
        if isinstance(group, distributed.ProcessGroup):  # not so where this one is no member
            run_tasks(folder, spread.Spread(group))
    distributed.destroy_process_group()


def run_tasks(folder: Path, members: spread.Spread) -> None:
    """Write what this member of the group gets, or the error that it is told."""
    for path in sorted(folder.glob("*.json")):
        task = json.loads(path.read_text())
        try:
            found = TASKS[task["run"]](folder, task, members)
        except errors.SalunError as error:
            found = {type(error).__name__: torch.tensor(list(str(error).encode()))}
        weights.write(folder / f"{path.stem}-{members.size}-{members.rank}.safetensors", found)


def mask(folder: Path, task: dict[str, Any], members: spread.Spread) -> dict[str, torch.Tensor]:
    """The saliency mask of a net for some samples; a ``dispute`` gives each process others."""
    config = specs.parse_classifier_config(task["config"])
    net = architectures.load(config, folder / task["net"])
    stored = weights.read(folder / "samples.safetensors")
    count = task["samples"] - (members.rank if task["dispute"] else 0)
    ids = tuple(f"sample-{row:04d}" for row in range(count))
    return saliency.saliency_mask(
        net,
        images.ImageSet(stored["images"][:count], stored["labels"][:count], ids),
        preprocessing.Preprocessing(config.pretrained_cfg),
        task["density"],
        batch_size=task["batch_size"],
        members=members,
    ).to_tensors()


def gradient(folder: Path, task: dict[str, Any], members: spread.Spread) -> dict[str, torch.Tensor]:
    """This process's shard of the sum of stored gradients, one a batch."""
    stored = weights.read(folder / "gradients.safetensors")["gradients"][: task["batches"]]
    net = torch.nn.Linear(task["inputs"], task["outputs"])

    def backward(index: int) -> None:
        flat = torch.cat([net.weight.reshape(-1), net.bias])
        (flat * stored[index]).sum().backward()  # type: ignore[no-untyped-call]

    layout = shards.Shards(net, members)
    return {"shard": layout.sum_gradients(backward, len(stored), progress.silent)}


def largest(folder: Path, task: dict[str, Any], members: spread.Spread) -> dict[str, torch.Tensor]:
    """The largest of this process's shard of magnitudes; the shard may be of two tensors."""
    magnitudes = weights.read(folder / task["magnitudes"])["magnitudes"]
    start, end = task["cuts"][str(members.size)][members.rank : members.rank + 2]
    parts = magnitudes[start:end].tensor_split(2)
    return {"chosen": torch.cat(list(selection.largest(parts, task["k"], members)))}


TASKS = {"mask": mask, "gradient": gradient, "largest": largest}

if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]))
