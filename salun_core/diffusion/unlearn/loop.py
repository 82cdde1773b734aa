"""The loop that all methods share: steps, schedule, precision, progress, checkpoints, resume."""

import contextlib
import math
from collections.abc import Callable, Mapping

import torch

from salun_core import errors, generation_specs, masked_adam, masks, modes, progress, randomness
from salun_core.diffusion import generator as generators
from salun_core.unlearn import contract

_SAVES = 8  # states kept over a run
_PARTS = ("retain", "forget")

# Weighted scalars by part, of the step whose random numbers are given.
Losses = Callable[[torch.Generator], Mapping[str, torch.Tensor]]


def train(
    generator: generators.Generator,
    mask: masks.SaliencyMask | None,
    spec: generation_specs.GenerationSpec,
    losses: Losses,
    report: progress.Progress,
    checkpoints: progress.Checkpoints | None = None,
    detail: Mapping[str, object] | None = None,
) -> contract.UnlearnResult:
    """``spec.steps`` steps of masked Adam on the sum of the losses; the average of them is kept.

    The denoiser stays in eval mode: no dropout, no class dropped behind our back. A resumed run
    takes the same steps as an undisturbed one: everything random is drawn from the step's seed.

    Raises:
        NonFiniteLossError: a loss became NaN or infinite; the weights are not stepped.
        CancelledError: from ``report``.
    """
    net = generator.denoiser
    net.eval()
    optimizer = masked_adam.MaskedAdam(net, mask, weight_average=spec.weight_average)
    history = torch.full((spec.steps, len(_PARTS)), math.nan, dtype=torch.float64)
    begun = _resume(optimizer, history, checkpoints)
    every = max(1, -(-spec.steps // _SAVES))
    with modes.checkpointing(net):
        for step in range(begun, spec.steps):
            optimizer.zero_grad()
            with precision(modes.device_of(net)):
                parts = losses(randomness.generator(spec.seed, "step", step))
            total = torch.stack([part.float() for part in parts.values()]).sum()
            if not math.isfinite(total.item()):
                raise errors.NonFiniteLossError(
                    f"got loss {total.item()} at step {step + 1}, expected a finite number"
                )
            total.backward()  # type: ignore[no-untyped-call]
            optimizer.step(learning_rate(spec, step))
            for column, name in enumerate(_PARTS):
                if name in parts:
                    history[step, column] = parts[name].item()
            if checkpoints is not None and (step + 1) % every == 0 and step + 1 < spec.steps:
                state = {"steps": torch.tensor(step + 1), "history": history}
                checkpoints.save(step + 1, {**state, **optimizer.state_tensors()})
            report(step + 1, spec.steps)
    optimizer.zero_grad()
    optimizer.settle()
    return contract.UnlearnResult(spec.steps, _curve(history, every), (), dict(detail or {}))


def learning_rate(spec: generation_specs.GenerationSpec, step: int) -> float:
    """That of a step counted from 0: linear to 0, or constant."""
    if spec.decay == "constant":
        return spec.learning_rate
    return spec.learning_rate * (spec.steps - step) / spec.steps


def choose(count: int, batch_size: int, random: torch.Generator) -> torch.Tensor:
    """Positions of a batch out of so many samples, drawn with replacement, int64 (B,)."""
    return torch.randint(0, count, (batch_size,), generator=random)


def precision(device: torch.device) -> contextlib.AbstractContextManager[object]:
    """bfloat16 matrix products where the device has them; float32 on a CPU."""
    if modes.has_bfloat16(device):
        return torch.autocast("cuda", dtype=torch.bfloat16)
    return contextlib.nullcontext()


def _resume(
    optimizer: masked_adam.MaskedAdam,
    history: torch.Tensor,
    checkpoints: progress.Checkpoints | None,
) -> int:
    state = None if checkpoints is None else checkpoints.load()
    if state is None:
        return 0
    history.copy_(state["history"])
    optimizer.load_state_tensors(state)
    return int(state["steps"])


def _curve(history: torch.Tensor, every: int) -> tuple[contract.EpochLosses, ...]:
    """Mean losses of each eighth of the run."""
    parts = [chunk.nanmean(0).tolist() for chunk in history.split(every)]  # type: ignore[no-untyped-call]
    return tuple(contract.EpochLosses.of(*means) for means in parts)
