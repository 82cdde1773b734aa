"""The SalUn authors' own code, run from a checkout of their repository: nothing of it is ours.

``https://github.com/OPTML-Group/Unlearn-Saliency``, read at a6e89fd: the mask is
``generate_mask.save_gradient_ratio``'s ``with_0.5.pt``, the unlearning ``unlearn.RL``, which for
ten classes or so (their CIFAR-10 branch) goes over the forget set with random labels and then over
the retain set. What it does that ours does not: y′ is the true label in one draw of K; batch norm
is in train mode, so its averages drift under the forget batches too; where gradients tie at 0 the
mask takes arbitrary ones up to the density. Weight decay reaches frozen weights, but every step
puts them back since that commit.

Their package cannot be imported as it stands: ``trainer`` asks itself for a function that it has
not got, and ``imagenet`` needs a library of data sets. Neither mask nor random labels call these
two or ``pruner``, so hollow modules stand in for them.
"""

import argparse
import contextlib
import functools
import importlib
import io
import subprocess
import sys
import tempfile
import types
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

import torch
from torch.utils import data as loading

from salun_core import errors, images, preprocessing, randomness, specs
from salun_core.unlearn import methods

_NEEDED = ("generate_mask.py", "arg_parser.py", "unlearn/RL.py")
_HOLLOW = ("imagenet", "pruner", "trainer")
_DENSITY = 0.5


@functools.cache
def load(path: Path) -> tuple[types.ModuleType, types.ModuleType, types.ModuleType]:
    """Their modules ``generate_mask``, ``unlearn`` and ``arg_parser``.

    Args:
        path: the checkout.

    Raises:
        InvalidInputError: it is no such checkout, or what it imports is not installed.
    """
    folder = (path / "Classification").resolve()
    missing = [name for name in _NEEDED if not (folder / name).is_file()]
    if missing:
        raise errors.InvalidInputError(
            f"got {path} without Classification/{missing[0]}, "
            "expected a checkout of OPTML-Group/Unlearn-Saliency"
        )
    try:
        with _importing_from(folder), contextlib.redirect_stdout(io.StringIO()):
            names = ("generate_mask", "unlearn", "arg_parser")
            mask, unlearning, arguments = map(importlib.import_module, names)
    except ModuleNotFoundError as error:
        raise errors.InvalidInputError(
            f"{path} needs the package {error.name}: install it in the environment that runs this"
        ) from error
    return mask, unlearning, arguments


def commit(path: Path) -> str:
    """The checkout's commit, and whether its code differs from it; ``unknown`` without git."""
    head = _git(path, "rev-parse", "HEAD")
    if head.returncode:
        return "unknown"
    changed = _git(path, "diff", "--quiet", "HEAD", "--", "Classification").returncode
    return head.stdout.strip() + (", changed" if changed else "")


def _git(path: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = ["git", "-C", str(path), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def unlearn(
    path: Path,
    net: torch.nn.Module,
    config: specs.ClassifierConfig,
    forget_set: images.ImageSet,
    retain_set: images.ImageSet,
    *,
    learning_rate: float,
    epochs: int = 10,
    batch_size: int = 64,
    seed: int,
) -> None:
    """Their saliency mask of density 0.5, then their random labels within it; in place, on the CPU.

    Their nets normalise pictures themselves; ours get them normalised. All else (momentum, weight
    decay, constant rate) is their parser's default.

    Raises:
        InvalidInputError: as for :func:`load`.
        NonFiniteLossError: a weight is not finite afterwards.
    """
    generate_mask, unlearning, arg_parser = load(path)
    loaders = {
        "forget": _loader(forget_set, config, batch_size),
        "retain": _loader(retain_set, config, batch_size),
    }
    criterion = torch.nn.CrossEntropyLoss()
    with (
        _on_the_cpu(),
        contextlib.redirect_stdout(io.StringIO()),
        randomness.seeded(seed, "reference"),
        tempfile.TemporaryDirectory() as folder,
    ):
        arguments = _arguments(
            arg_parser,
            dataset="cifar10",
            num_classes=config.num_classes,
            unlearn="RL",
            unlearn_lr=learning_rate,
            unlearn_epochs=epochs,
            batch_size=batch_size,
            save_dir=folder,
        )
        generate_mask.save_gradient_ratio(loaders, net, criterion, arguments)
        mask = torch.load(Path(folder) / f"with_{_DENSITY}.pt", weights_only=True)  # noqa: TID251 - their format
        unlearning.get_unlearn_method("RL")(loaders, net, criterion, arguments, mask)
    net.zero_grad()
    net.eval()
    methods.assert_finite(net)


@contextlib.contextmanager
def _importing_from(folder: Path) -> Iterator[None]:
    """Bare names are found in the folder first, as their modules import each other, and gone after.

    None of what is called imports anything later.
    """
    sys.path.insert(0, str(folder))
    sys.modules.update({name: mock.MagicMock() for name in _HOLLOW})
    try:
        yield
    finally:
        sys.path.remove(str(folder))
        for name, module in list(sys.modules.items()):
            if name in _HOLLOW or (getattr(module, "__file__", None) or "").startswith(f"{folder}"):
                del sys.modules[name]


def _loader(
    image_set: images.ImageSet, config: specs.ClassifierConfig, batch_size: int
) -> loading.DataLoader[tuple[torch.Tensor, ...]]:
    """Shuffled anew in every pass by torch's global state, as theirs."""
    pictures = preprocessing.Preprocessing(config.pretrained_cfg).normalise(image_set.images[:])
    return loading.DataLoader(
        loading.TensorDataset(pictures, image_set.labels),
        batch_size=batch_size,
        shuffle=True,
        # Their batch norm, in train mode, cannot take one sample whose last maps are one pixel.
        drop_last=len(image_set) % batch_size == 1,
    )


def _arguments(arg_parser: types.ModuleType, **chosen: object) -> argparse.Namespace:
    """What their command line gives without options, with what is chosen."""
    with mock.patch.object(sys, "argv", ["main_random.py"]):
        arguments: argparse.Namespace = arg_parser.parse_args()
    for name, value in chosen.items():
        setattr(arguments, name, value)
    return arguments


@contextlib.contextmanager
def _on_the_cpu() -> Iterator[None]:
    """``tensor.cuda()`` gives the tensor itself, since their code asks for it at every batch."""

    def stay(tensor: torch.Tensor, *_: object, **__: object) -> torch.Tensor:
        return tensor

    with mock.patch.object(torch.Tensor, "cuda", stay):
        yield
