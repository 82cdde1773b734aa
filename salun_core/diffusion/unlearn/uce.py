"""Unified Concept Editing (arXiv 2308.14761): cross-attention projections edited in closed form.

Every key and value projection W minimises

    Σ ‖W c − Wo c*‖² + α Σ ‖W k − Wo k‖² + β ‖W − Wo‖²

over the token embeddings c of what is forgotten, c* of what stands in for it and k of what is
kept. Attention does not ask where a token stands, so c and c* are paired place by place: the edited
layer then answers the forgotten text as it answered the other. With δ = W − Wo the minimum is
δ M = R, M = Σ c cᵀ + α Σ k kᵀ + β I, R = Wo Σ (c* − c) cᵀ; where a mask freezes weights of a row,
the same holds for its free ones alone.
"""

import dataclasses

import torch

from salun_core import free_weights, generation_specs, masks, modes, progress
from salun_core.diffusion import generator as generators
from salun_core.diffusion.unlearn import contract, cross_attention
from salun_core.unlearn import contract as results

_IDENTITY = 0.1  # β, the authors'
_PROJECTIONS = ("to_k", "to_v")
_ROWS_AT_ONCE = 32
_TEXTS_AT_ONCE = 256


def unlearn(
    generator: generators.Generator,
    data: contract.GenerationData,
    mask: masks.SaliencyMask | None,
    spec: generation_specs.GenerationSpec,
    report: progress.Progress,
    checkpoints: progress.Checkpoints | None = None,  # noqa: ARG001
) -> results.UnlearnResult:
    """Edit in place, in one step; ``spec.alpha`` is α. Nothing is saved on the way.

    Raises:
        InvalidDataError: the net has no cross-attention.
        CancelledError: from ``report``.
    """
    layers = cross_attention.layers_of(generator, "uce")
    device = modes.device_of(generator.denoiser)
    system = system_of(data, results.given(spec.alpha, "alpha"), device)
    free = free_weights.FreeWeights(generator.denoiser, mask)
    names = [f"{layer}.{projection}.weight" for layer in layers for projection in _PROJECTIONS]
    editable = [name for name in names if name in free.parameters]
    moved = 0.0
    for step, name in enumerate(editable, start=1):
        change = edit(system, free.parameters[name].detach(), free.frozen.get(name))
        moved += float(change.square().sum())
        free.replace({name: (free.parameters[name].double() + change).float()})
        report(step, len(editable))
    detail = {"projections": len(editable), "distance": moved**0.5}
    return results.UnlearnResult(steps=1, losses=(), changed_buffers=(), detail=detail)


@dataclasses.dataclass(frozen=True, eq=False)
class System:
    """The sums over tokens that every projection's edit is solved from.

    Attributes:
        curvature: float64 (width, width), M.
        pull: float64 (width, width), Σ (c* − c) cᵀ.
    """

    curvature: torch.Tensor
    pull: torch.Tensor


def system_of(data: contract.GenerationData, alpha: float, device: torch.device) -> System:
    """The system of a request, on a device; several texts that may stand in for one are averaged.

    Texts are summed up part by part: there may be more of them than the device holds.
    """
    width = data.forget.table.shape[-1]
    curvature = _IDENTITY * torch.eye(width, dtype=torch.float64, device=device)
    pull = torch.zeros_like(curvature)
    erased, choices, kept = (
        torch.split(table, _TEXTS_AT_ONCE)
        for table in (data.forget.table, data.choices, data.retain.table)
    )
    for own, options in zip(erased, choices, strict=True):
        tokens = own.to(device).double().reshape(-1, width)
        wanted = data.anchors[options].to(device).double().mean(1).reshape(-1, width)
        curvature += tokens.T @ tokens
        pull += (wanted - tokens).T @ tokens
    for own in kept:
        tokens = own.to(device).double().reshape(-1, width)
        curvature += alpha * (tokens.T @ tokens)
    return System(curvature, pull)


def edit(system: System, weight: torch.Tensor, frozen: torch.Tensor | None) -> torch.Tensor:
    """δ of a projection (out, width), float64; 0 where it is frozen.

    Args:
        system: of the request.
        weight: the original projection.
        frozen: bool, of its shape; ``None`` where all of it is free.
    """
    pulled = weight.double() @ system.pull
    if frozen is None:
        whole: torch.Tensor = torch.linalg.solve(system.curvature, pulled, left=False)
        return whole
    changes = []
    for rows, held in zip(pulled.split(_ROWS_AT_ONCE), frozen.split(_ROWS_AT_ONCE), strict=True):  # type: ignore[no-untyped-call]
        free = ~held
        both = free.unsqueeze(1) & free.unsqueeze(2)  # (rows, width, width)
        own = torch.where(both, system.curvature, 0.0) + torch.diag_embed(held.double())
        changes.append(torch.linalg.solve(own, rows.masked_fill(held, 0.0)))
    return torch.cat(changes)
