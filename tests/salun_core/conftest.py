"""Real digits under noise, so that unseen ones are harder, and a small real net trained on them."""

from collections.abc import Callable

import pytest
import sklearn.datasets
import torch

from salun_core import architectures, images, preprocessing, randomness, specs
from salun_core.unlearn import contract, methods

# Nets this small gain nothing from a second thread, and lose much where the cores are shared.
torch.set_num_threads(1)

DIGITS = (1, 3, 8, 9)  # the ones that are mixed up most
FORGET, RETAIN, UNSEEN = 6, 54, 30  # samples of every class
FORGOTTEN_CLASS = 2
PLACES = {"forget": 0, "retain": FORGET, "holdout": 60, "test": 90}


@pytest.fixture(scope="session")
def config() -> specs.ClassifierConfig:
    """A slim ResNet on 16×16 grey pictures."""
    return specs.parse_classifier_config(
        {
            "architecture": "resnet18",
            "num_classes": len(DIGITS),
            "label_names": [f"digit {digit}" for digit in DIGITS],
            "model_args": {
                "channels": [8, 16, 16, 32], "layers": [1, 1, 1, 1], "output_stride": 8,
            },
            "pretrained_cfg": {
                "input_size": [1, 16, 16], "mean": [0.4], "std": [0.35], "crop_pct": 1.0,
            },
        }
    )  # fmt: skip


@pytest.fixture(scope="session")
def preprocess(config: specs.ClassifierConfig) -> preprocessing.Preprocessing:
    return preprocessing.Preprocessing(config.pretrained_cfg)


@pytest.fixture(scope="session")
def make_set() -> Callable[[str, int], images.ImageSet]:
    """``make_set(split, per_class)``: that many samples of every class, classes in turn."""
    pictures, targets = sklearn.datasets.load_digits(return_X_y=True)
    generator = randomness.generator(0, "noise")
    scaled = torch.tensor(pictures, dtype=torch.float32).reshape(-1, 1, 8, 8) * 15.0
    noisy = (scaled + 90.0 * torch.randn(scaled.shape, generator=generator)).clamp(0.0, 255.0)
    large = noisy.to(torch.uint8).repeat_interleave(2, 2).repeat_interleave(2, 3)  # (N, 1, 16, 16)
    members = [(torch.tensor(targets) == digit).nonzero().flatten().tolist() for digit in DIGITS]

    def make(split: str, per_class: int) -> images.ImageSet:
        start = PLACES[split]
        rows = [
            (members[label][start + turn], label)
            for turn in range(per_class)
            for label in range(len(DIGITS))
        ]
        return images.ImageSet(
            large[[row for row, _ in rows]],
            torch.tensor([label for _, label in rows]),
            tuple(f"digit-{row:04d}" for row, _ in rows),
        )

    return make


@pytest.fixture(scope="session")
def data(make_set: Callable[[str, int], images.ImageSet]) -> contract.UnlearningData:
    """A request for some samples of every class."""
    return contract.UnlearningData(
        make_set("forget", FORGET), make_set("retain", RETAIN), make_set("holdout", UNSEEN)
    )


@pytest.fixture(scope="session")
def class_data(data: contract.UnlearningData) -> contract.UnlearningData:
    """A request for a whole class."""
    everything = images.concatenate(data.forget_set, data.retain_set)
    others = [label for label in range(len(DIGITS)) if label != FORGOTTEN_CLASS]
    return contract.UnlearningData(
        everything.without_labels(others),
        everything.without_labels([FORGOTTEN_CLASS]),
        data.holdout_set,
    )


@pytest.fixture(scope="session")
def trained(config: specs.ClassifierConfig, data: contract.UnlearningData) -> torch.nn.Module:
    """The net that was trained on forget and retain set; copy it before changing it."""
    with randomness.seeded(0):
        net = architectures.build(config)
    unseen = data.holdout_set
    everything = contract.UnlearningData(
        forget_set=unseen.subset([0]),
        retain_set=images.concatenate(data.forget_set, data.retain_set),
        holdout_set=unseen.subset([]),
    )
    spec = specs.UnlearningSpec(
        method="retrain", mask="none", epochs=15, batch_size=32, learning_rate=0.05, seed=1
    )
    methods.unlearn(net, config, everything, None, spec)
    return net


@pytest.fixture
def random_net(config: specs.ClassifierConfig) -> Callable[[int], torch.nn.Module]:
    """``random_net(seed)``: a fresh net in eval mode."""

    def make(seed: int) -> torch.nn.Module:
        with randomness.seeded(seed):
            return architectures.build(config).eval()

    return make


@pytest.fixture
def line_config() -> specs.ClassifierConfig:
    """Inputs are pixels / 255."""
    return specs.parse_classifier_config(
        {
            "architecture": "line",
            "num_classes": 2,
            "pretrained_cfg": {"input_size": [1, 1, 3], "mean": [0.0], "std": [1.0]},
        }
    )
