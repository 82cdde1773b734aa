"""Running out of memory: how it is told, and a recipe that needs less."""

from typing import TypeVar

import torch

from salun_core import specs

SpecT = TypeVar("SpecT", bound=specs.Recipe)

_BATCH_SIZES = ("batch_size", "forget_batch_size", "retain_batch_size")
# Torch has a type of its own for CUDA alone; for the rest its words are all there is. The last two
# are oneDNN's, which says no more.
_WORDS = (
    "can't allocate memory",
    "Cannot allocate memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "could not create a primitive",
    "could not create a memory",
)
_LEAST_BATCH = 2  # a batch norm needs two


def is_told_by(error: BaseException | None) -> bool:
    """Whether an error, or one that it was raised from, says that memory was short.

    Who builds a net or reads a file raises that the net or the file is wrong, from whatever it met.
    """
    while error is not None:
        if _says_so(error):
            return True
        error = error.__cause__
    return False


def _says_so(error: BaseException) -> bool:
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError | OSError) and any(
        words in str(error) for words in _WORDS
    )


def smaller(spec: SpecT, halvings: int) -> SpecT:
    """The recipe with its batches halved so many times."""
    sizes = {name: getattr(spec, name) for name in _BATCH_SIZES if hasattr(spec, name)}
    least = {name: min(size, _LEAST_BATCH) for name, size in sizes.items()}
    return spec.model_copy(
        update={name: max(least[name], size >> halvings) for name, size in sizes.items()}
    )
