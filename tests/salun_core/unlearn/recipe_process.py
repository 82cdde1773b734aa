"""A process that carries out a recipe, for the tests: ``recipe_process.py THREADS FOLDER NAME``.

The folder holds net, sets and recipe; the unlearned net is written there under the name.
"""

import json
import sys
from pathlib import Path

import torch

from salun_core import architectures, images, specs, trials, weights
from salun_core.unlearn import contract


def main(threads: int, folder: Path, name: str) -> None:
    """Mask and method, with so many threads."""
    torch.set_num_threads(threads)
    config = specs.parse_classifier_config(json.loads((folder / "config.json").read_text()))
    spec = specs.UnlearningSpec.model_validate_json((folder / "spec.json").read_text())
    net = architectures.load(config, folder / "original")
    forget_set, retain_set, holdout_set = (
        _read(folder / name) for name in ("forget", "retain", "holdout")
    )
    data = contract.UnlearningData(forget_set, retain_set, holdout_set)
    trials.carry_out(net, config, data, spec)
    weights.write(folder / name, net.state_dict())


def _read(path: Path) -> images.ImageSet:
    stored = weights.read(path)
    ids = tuple(f"{path.name}-{row:04d}" for row in range(len(stored["labels"])))
    return images.ImageSet(stored["images"], stored["labels"], ids)


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]), sys.argv[3])
