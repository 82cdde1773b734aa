"""Pictures of a report: confidence histograms before and after, and what the mask let change."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib import figure

mpl.use("Agg")
_COLOURS = {"retain": "#9aa0a6", "holdout": "#1a73e8", "forget": "#d93025"}


def confidence(report: Mapping[str, Any], title: str, path: Path) -> None:
    """Logit-scaled confidence of the true class: forget, holdout and retain, before and after."""
    histograms = report["evidence"]["histograms"]
    edges = np.asarray(histograms["bin_edges"], dtype=float)
    drawn = figure.Figure(figsize=(9, 3.6), layout="constrained")
    axes = drawn.subplots(1, 2, sharey=True)
    for axis, when in zip(axes, ("before", "after"), strict=True):
        for name, colour in _COLOURS.items():
            shares = _shares(histograms[when][name])
            axis.stairs(shares, edges, label=name, color=colour, linewidth=1.6)
            axis.stairs(shares, edges, color=colour, fill=True, alpha=0.12)
        axis.set_title(f"{when} forgetting")
        axis.set_xlabel("logit-scaled confidence in the true class")
    axes[0].set_ylabel("share of samples")
    axes[1].legend(frameon=False)
    drawn.suptitle(title)
    drawn.savefig(path, dpi=130)


def layer_density(report: Mapping[str, Any], title: str, path: Path) -> None:
    """Share of each parameter's weights that the saliency mask lets change."""
    layers: Mapping[str, float] = report["evidence"]["mask"]["layer_density"]
    names, values = list(layers), list(layers.values())
    drawn = figure.Figure(figsize=(8, 0.19 * len(names) + 1.4), layout="constrained")
    axis = drawn.subplots()
    places = np.arange(len(names))
    axis.barh(places, values, color="#1a73e8", height=0.7)
    axis.axvline(
        report["evidence"]["mask"]["density"], color="#d93025", linewidth=1, linestyle="--"
    )
    axis.set_yticks(places, names, fontsize=6)
    axis.invert_yaxis()
    axis.set_xlim(0, 1)
    axis.set_xlabel("share of weights that may change (dashed: over all layers)")
    axis.set_title(title)
    drawn.savefig(path, dpi=130)


def _shares(counts: Sequence[float]) -> np.ndarray:
    values = np.asarray(counts, dtype=float)
    shares: np.ndarray = values / max(values.sum(), 1.0)
    return shares
