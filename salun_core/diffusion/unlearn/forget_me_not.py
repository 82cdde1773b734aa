"""Forget-Me-Not (arXiv 2303.17591): no place of a picture may attend to the concept's words.

The loss is the squared norm of the cross-attention maps at the concept's tokens, on noised forget
samples, as a mean over layers, heads and places, so that no resolution outweighs another.
"""

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

import torch

from salun_core import errors, generation_specs, masks, progress
from salun_core.diffusion import denoising
from salun_core.diffusion import generator as generators
from salun_core.diffusion.unlearn import contract, cross_attention, loop
from salun_core.unlearn import contract as results


def unlearn(
    generator: generators.Generator,
    data: contract.GenerationData,
    mask: masks.SaliencyMask | None,
    spec: generation_specs.GenerationSpec,
    report: progress.Progress,
    checkpoints: progress.Checkpoints | None = None,
) -> results.UnlearnResult:
    """Look away from the concept; in place. There is no retain term.

    Raises:
        InvalidDataError: the net has no cross-attention, or no concept is named.
        NonFiniteLossError: the loss became NaN or infinite.
    """
    layers = cross_attention.layers_of(generator, "forget_me_not")
    if not data.concepts:
        raise errors.InvalidDataError("got no concept for forget_me_not, expected its words")
    places = cross_attention.places(generator, data.forget.texts, data.concepts)  # type: ignore[arg-type]
    schedule = denoising.Schedule(generator)

    with attention_maps(layers) as maps:

        def losses(random: torch.Generator) -> Mapping[str, torch.Tensor]:
            chosen = loop.choose(len(data.forget), spec.forget_batch_size, random)
            noised = schedule.noise(data.forget.latents[chosen], random)
            conditions = data.forget.conditions(chosen)
            generator.predict(noised.latents, noised.timesteps, conditions)
            marked = places[data.forget.rows[chosen]].to(noised.latents.device)
            return {"forget": attention_at(list(maps.values()), marked)}

        return loop.train(generator, mask, spec, losses, report, checkpoints)


def attention_at(maps: list[torch.Tensor], marked: torch.Tensor) -> torch.Tensor:
    """The squared attention that marked tokens (B, length) get, a scalar.

    Args:
        maps: of every layer (B, heads, places, length), each place's attention adding up to 1.
        marked: bool (B, length).
    """
    at = marked[:, None, None, :]
    return torch.stack([(found.float().square() * at).sum(-1).mean() for found in maps]).mean()


@contextlib.contextmanager
def attention_maps(layers: Mapping[str, Any]) -> Iterator[dict[str, torch.Tensor]]:
    """What the layers attend to in the newest forward pass, by name, with gradients.

    The maps are computed beside the net's own attention, which may be fused and show none.
    """
    found: dict[str, torch.Tensor] = {}

    def watch(name: str) -> Any:  # noqa: ANN401
        def hook(layer: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:  # noqa: ANN401
            found[name] = _map_of(layer, args[0], kwargs["encoder_hidden_states"])

        return hook

    with contextlib.ExitStack() as watched:
        for name, layer in layers.items():
            handle = layer.register_forward_pre_hook(watch(name), with_kwargs=True)
            watched.callback(handle.remove)
        yield found


def _map_of(layer: Any, hidden: torch.Tensor, text: torch.Tensor) -> torch.Tensor:  # noqa: ANN401
    query = layer.head_to_batch_dim(layer.to_q(hidden))  # (B · heads, places, width)
    key = layer.head_to_batch_dim(layer.to_k(text))  # (B · heads, length, width)
    scores: torch.Tensor = layer.get_attention_scores(query, key)
    return scores.unflatten(0, (len(hidden), layer.heads))  # type: ignore[no-untyped-call,no-any-return]
