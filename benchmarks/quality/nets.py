"""Nets trained from scratch, kept on disk so that a stopped run need not train them again."""

import dataclasses
import time
from pathlib import Path

import torch

from salun_core import architectures, errors, images, specs, weights
from salun_core.unlearn import retrain


@dataclasses.dataclass(frozen=True, eq=False)
class Trained:
    """A net in eval mode, and the processor seconds that its training took."""

    net: torch.nn.Module
    seconds: float


@dataclasses.dataclass(frozen=True)
class Store:
    """The nets of one seed.

    Attributes:
        folder: holds one safetensors file for each.
        made_of: everything that the nets depend on beside their names.
    """

    folder: Path
    made_of: str

    def check(self) -> None:
        """Every net that is there was made of this.

        Raises:
            InvalidInputError: one was made of something else.
        """
        for path in sorted(self.folder.glob("*.safetensors")):
            self._read_metadata(path)

    def trained(
        self,
        name: str,
        config: specs.ClassifierConfig,
        train_set: images.ImageSet,
        epochs: int,
        seed: int,
    ) -> Trained:
        """The net of this name, trained now unless it is there.

        It always comes from the file, so a run that goes on gets the same as one that was not
        stopped.

        Raises:
            InvalidInputError: the file's net was made of something else.
            NonFiniteLossError: the loss became NaN or infinite.
        """
        path = self.folder / f"{name}.safetensors"
        if not path.exists():
            self.folder.mkdir(parents=True, exist_ok=True)
            fresh = _train(config, train_set, epochs, seed)
            metadata = {"made_of": self.made_of, "seconds": repr(fresh.seconds)}
            weights.write(path, fresh.net.state_dict(), metadata)
        metadata = self._read_metadata(path)
        net = architectures.build(config)
        net.load_state_dict(weights.read(path))
        return Trained(net.eval(), float(metadata["seconds"]))

    def _read_metadata(self, path: Path) -> dict[str, str]:
        metadata = weights.read_metadata(path)
        if metadata["made_of"] != self.made_of:
            raise errors.InvalidInputError(
                f"{path}: got a net made of {metadata['made_of']}, expected {self.made_of}; "
                "results of other options need another folder"
            )
        return metadata


def _train(
    config: specs.ClassifierConfig, train_set: images.ImageSet, epochs: int, seed: int
) -> Trained:
    spec = specs.UnlearningSpec(
        method="retrain",
        mask="none",
        density=1.0,
        epochs=epochs,
        batch_size=64,
        learning_rate=0.05,
        seed=seed,
    )
    began = time.process_time()
    net = retrain.train(config, train_set, spec)
    return Trained(net, time.process_time() - began)
