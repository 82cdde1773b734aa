"""Seeds and generators of our own: the global random state is neither read nor moved."""

import contextlib
import hashlib
from collections.abc import Iterator

import torch


def derive_seed(seed: int, *purpose: str | int) -> int:
    """A seed for one purpose, independent of those for other purposes; in [0, 2**63)."""
    text = "/".join(str(part) for part in (seed, *purpose))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def generator(seed: int, *purpose: str | int) -> torch.Generator:
    """A CPU generator for one purpose, for example ``generator(7, "order", epoch)``."""
    return torch.Generator().manual_seed(derive_seed(seed, *purpose))


@contextlib.contextmanager
def seeded(seed: int, *purpose: str | int) -> Iterator[None]:
    """Run a block whose modules draw from the global state (dropout, initialisation) by a seed.

    The global state is put back afterwards.
    """
    devices = range(torch.cuda.device_count())
    with torch.random.fork_rng(devices=devices):
        own = derive_seed(seed, *purpose)
        if devices:
            torch.manual_seed(own)
        else:  # the same, without a queue of calls for a GPU that is not there
            torch.default_generator.manual_seed(own)
        yield
