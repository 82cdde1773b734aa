"""The demo's net: a slim ResNet, trained on the spot, and retrained without the data to compare."""

import json
from pathlib import Path
from typing import Any

import torch

from demo import digits
from salun_core import images, progress, specs, weights
from salun_core.unlearn import retrain

CONFIG: dict[str, Any] = {
    "architecture": "resnet18",
    "num_classes": 10,
    "label_names": list(digits.LABELS),
    "model_args": {"layers": [1, 1, 1, 1], "channels": [16, 32, 64, 128]},
    "pretrained_cfg": {
        "input_size": [1, 14, 14],
        "mean": [0.1307],
        "std": [0.3081],
        "interpolation": "bilinear",
        "crop_pct": 1.0,
    },
}
# No augmentation and no weight decay: the net learns its training data by heart, so that there is
# something to forget.
RECIPE = specs.UnlearningSpec(
    method="retrain",
    mask="none",
    density=1.0,
    epochs=30,
    batch_size=64,
    learning_rate=0.02,
    weight_decay=0.0,
)


def config() -> specs.ClassifierConfig:
    """The net's configuration."""
    return specs.parse_classifier_config(CONFIG)


def train(train_set: images.ImageSet, report: progress.Progress, seed: int = 0) -> torch.nn.Module:
    """A net trained from scratch on a set; the same for the same seed."""
    return retrain.train(config(), train_set, RECIPE.model_copy(update={"seed": seed}), report)


def save(net: torch.nn.Module, folder: Path) -> None:
    """The net in timm's hub layout."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(CONFIG, indent=2))
    weights.write(folder / "model.safetensors", net.state_dict())
