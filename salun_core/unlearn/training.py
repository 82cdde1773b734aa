"""The loop that all methods share: steps, schedule, progress, checkpoints, resume."""

import functools
import math
from collections.abc import Callable, Iterator, Mapping

import torch

from salun_core import (
    errors,
    images,
    masked_step,
    masks,
    modes,
    preprocessing,
    progress,
    randomness,
    specs,
)
from salun_core.unlearn import contract

_WEIGHTS, _MOMENTUM, _OWN = "weights.", "momentum.", "own."
_LOSSES, _TOTAL_STEPS = "losses", "total_steps"
_NO_LOSS = float("nan")


class Training:
    """One run over a net, resumable at the end of every epoch.

    A resumed run takes the same steps as an undisturbed one: the state holds weights, momentum,
    the method's own tensors and the losses so far, and everything random is drawn from seeds of
    the epoch or step.

    Args:
        own_state: tensors of the method, by name; they are saved and overwritten in place.
    """

    def __init__(
        self,
        net: torch.nn.Module,
        config: specs.ClassifierConfig,
        mask: masks.SaliencyMask | None,
        spec: specs.UnlearningSpec,
        steps_per_epoch: int,
        report: progress.Progress,
        checkpoints: progress.Checkpoints | None,
        own_state: Mapping[str, torch.Tensor] | None = None,
    ) -> None:
        self.net = net
        self.spec = spec
        self.preprocess = preprocessing.Preprocessing(config.pretrained_cfg)
        self.device = modes.device_of(net)
        self.total_steps = steps_per_epoch * spec.epochs
        self.steps = 0
        self._steps_per_epoch = steps_per_epoch
        self._report = report
        self._checkpoints = checkpoints
        self._own_state = own_state or {}
        self._optimizer = masked_step.MaskedOptimizer(
            net, mask, momentum=spec.momentum, weight_decay=spec.weight_decay
        )
        self._losses: list[tuple[float, float]] = []
        self._parts: dict[str, list[float]] = {"retain": [], "forget": []}

    def epochs(self) -> Iterator[int]:
        """Numbers of the epochs still to do; a state is saved after each."""
        epoch = self._resume()
        while self.steps < self.total_steps:
            yield epoch
            self._losses.append((self._mean("retain"), self._mean("forget")))
            epoch += 1
            self._save(epoch)

    def step(self, losses: Callable[[], dict[str, torch.Tensor]]) -> None:
        """One step on the sum of the losses that the function gives.

        Args:
            losses: weighted scalars named ``retain`` and/or ``forget``; called in train mode.

        Raises:
            NonFiniteLossError: the sum is NaN or infinite; the weights are not stepped.
        """
        self.net.train()
        self._optimizer.zero_grad()
        with randomness.seeded(self.spec.seed, "step", self.steps):
            parts = losses()
            total = torch.stack(list(parts.values())).sum()
            value = total.item()
            if not math.isfinite(value):
                raise errors.NonFiniteLossError(
                    f"got loss {value} at step {self.steps + 1}, expected a finite number"
                )
            total.backward()  # type: ignore[no-untyped-call]
        self._optimizer.step(self._learning_rate())
        self.steps += 1
        for name, part in parts.items():
            self._parts[name].append(part.item())
        self._report(self.steps, self.total_steps)

    def step_losses(self, part: str) -> tuple[float, ...]:
        """``retain`` or ``forget``, of the steps since :meth:`epochs` last recorded their mean."""
        return tuple(self._parts[part])

    def end_after(self, epochs: int) -> None:
        """End after so many epochs more; the learning rate is that of a run planned so long."""
        self.total_steps = self.steps + epochs * self._steps_per_epoch

    @property
    def is_shortened(self) -> bool:
        """Whether :meth:`end_after` was called."""
        return self.total_steps != self._steps_per_epoch * self.spec.epochs

    def pass_over(
        self,
        part: str,
        image_set: images.ImageSet,
        labels: torch.Tensor,
        epoch: int,
        loss: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
    ) -> None:
        """One shuffled pass, a step on every batch.

        Args:
            part: ``retain`` or ``forget``: what the loss is recorded as.
            image_set: N samples.
            labels: int64 (N,), what they are to be called.
            epoch: of the run; every epoch has its own order.
            loss: of a batch of inputs and labels on the net's device, called in train mode.
        """
        for rows in images.shuffled_batches(
            len(image_set), self.spec.batch_size, self.spec.seed, part, epoch
        ):
            inputs = self.inputs(image_set.images[rows])
            wanted = labels[rows].to(self.device)
            self.step(functools.partial(_one_part, part, loss, inputs, wanted))

    def inputs(self, pictures: torch.Tensor) -> torch.Tensor:
        """uint8 (B, C, H, W) from the CPU as the net's float32 input on its device."""
        return self.preprocess.normalise(pictures.to(self.device))

    def result(
        self,
        changed_buffers: tuple[str, ...],
        detail: Mapping[str, object] | None = None,
    ) -> contract.UnlearnResult:
        """Close the run: the net in eval mode without gradients, and what was done.

        The detail begins with the recipe's ``learning_rate``, after a probe that which held.
        """
        self._optimizer.zero_grad()
        self.net.eval()
        return contract.UnlearnResult(
            steps=self.steps,
            losses=tuple(contract.EpochLosses.of(*means) for means in self._losses),
            changed_buffers=changed_buffers,
            detail={"learning_rate": self.spec.learning_rate, **(detail or {})},
        )

    def _learning_rate(self) -> float:
        return learning_rate(self.spec, self.steps, self.total_steps)

    def _mean(self, name: str) -> float:
        values, self._parts[name] = self._parts[name], []
        return sum(values) / len(values) if values else _NO_LOSS

    def _save(self, epochs_done: int) -> None:
        if self._checkpoints is None:
            return
        state = {"epochs_done": torch.tensor(epochs_done)}
        state[_TOTAL_STEPS] = torch.tensor(self.total_steps)
        state[_LOSSES] = torch.tensor(self._losses, dtype=torch.float64)
        state |= {_WEIGHTS + k: v.detach() for k, v in self.net.state_dict().items()}
        state |= {_MOMENTUM + k: v for k, v in self._optimizer.state_tensors().items()}
        state |= {_OWN + k: v for k, v in self._own_state.items()}
        self._checkpoints.save(self.steps, state)

    def _resume(self) -> int:
        state = self._checkpoints.load() if self._checkpoints is not None else None
        if state is None:
            return 0
        epochs_done = int(state["epochs_done"])
        self.net.load_state_dict(_part(state, _WEIGHTS))
        self._optimizer.load_state_tensors(_part(state, _MOMENTUM))
        for name, tensor in self._own_state.items():
            tensor.copy_(state[_OWN + name])
        self._losses = [(float(r), float(f)) for r, f in state[_LOSSES].tolist()]
        self.steps = epochs_done * self._steps_per_epoch
        self.total_steps = int(state[_TOTAL_STEPS])
        return epochs_done


def learning_rate(spec: specs.UnlearningSpec, steps_done: int, total_steps: int) -> float:
    """That of the next step: linear warm-up, then linear to 0 or constant."""
    warmup = spec.warmup_fraction * total_steps
    if steps_done + 1 < warmup:
        return spec.learning_rate * (steps_done + 1) / warmup
    if spec.decay == "constant":
        return spec.learning_rate
    left = (total_steps - steps_done) / max(1.0, total_steps - warmup + 1.0)
    return spec.learning_rate * min(1.0, left)


def _one_part(
    part: str,
    loss: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
    inputs: torch.Tensor,
    labels: torch.Tensor,
) -> dict[str, torch.Tensor]:
    return {part: loss(inputs, labels)}


def _part(state: Mapping[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
    return {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}
