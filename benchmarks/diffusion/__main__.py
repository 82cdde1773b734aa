"""Do models that draw forget, do they stay good, and what does the mask buy?

``python -m benchmarks.diffusion [--on digits icons object composition] [--out DIR]`` takes the base
models of the demo, makes them forget a class or a concept by every method, and has a judge net look
at what they draw. Rows are written as they come; a run that was stopped goes on where it stopped.
"""

import argparse
import collections
import json
import statistics
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

import rich.console
import torch

from benchmarks import figures
from benchmarks.diffusion import rivals, subjects
from client import whole_files
from salun_core import errors, generation_specs, masks, weights
from salun_core.diffusion import generator, verification
from salun_core.diffusion.unlearn import methods

_COLUMNS = {
    "unlearning_accuracy": "UA",
    "retain_accuracy": "kept",
    "max_group_drop": "worst group's loss",
    "paraphrase_recall": "paraphrases",
    "composition_shift": "compositions' loss",
    "unconditional_recall": "without a prompt",
    "adversarial_recall": "by attack",
    "feature_distance": "feature distance",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what is missing and write JSON and Markdown."""
    options = _parsed(arguments)
    torch.set_num_threads(1)
    options.out.mkdir(parents=True, exist_ok=True)
    console = rich.console.Console()
    parts = []
    for name in options.on:
        rows = _rows(name, options, console)
        parts.append(_table(name, rows))
    told = "\n".join(f"- {name}: {value}" for name, value in figures.surroundings().items())
    text = "\n\n".join([*parts, told]) + "\n"
    whole_files.write(options.out / "results.md", text.encode())
    console.print(text, soft_wrap=True, markup=False, highlight=False)
    return 0


def _parsed(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.diffusion",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--on",
        nargs="+",
        choices=get_args(subjects.Name),
        default=["digits", "icons"],
        help="a class of digits; a style, an object or a coloured digit by text",
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--methods", nargs="+", choices=rivals.RIVALS, default=list(rivals.RIVALS))
    parser.add_argument("--images", type=int, default=50, help="of each thing that is judged")
    parser.add_argument("--out", type=Path, default=Path("bench-diffusion"))
    return parser.parse_args(arguments)


def _rows(
    name: subjects.Name, options: argparse.Namespace, console: rich.console.Console
) -> list[dict[str, Any]]:
    path = options.out / f"{name}.json"
    rows: list[dict[str, Any]] = json.loads(path.read_text()) if path.exists() else []
    done = {(row["key"], row["seed"]) for row in rows}
    for seed in options.seeds:
        for key in options.methods:
            rival = rivals.RIVALS[key]
            if subjects.family_of(name) not in rival.on or (key, seed) in done:
                continue
            kept = options.out / "nets" / f"{name}-{key}-{seed}"
            row = _run(subjects.load(name, options.images), rival, seed, kept)
            console.print(f"{name} {seed} {rival.title}: {row.get('values') or row['failed']}")
            rows.append({"key": key, "seed": seed, "title": rival.title, **row})
            whole_files.write(path, json.dumps(rows, indent=1).encode() + b"\n")
    return rows


def _run(subject: subjects.Subject, rival: rivals.Rival, seed: int, kept: Path) -> dict[str, Any]:
    """Make the net, or take the one that an earlier run kept, and have it judged."""
    spec = rival.spec(subject, seed)
    original, unlearned = subject.model(), subject.model()
    try:
        seconds, mask = _made(subject, original, unlearned, spec, kept)
    except errors.UnlearningError as error:
        return {"failed": str(error)}
    verified = verification.verify(
        original,
        unlearned,
        subject.looker,
        subject.asked(seed),
        verification.Subject(subject.kind, subject.family, mask, spec),
        subject.sampling,
    )
    for name, content in verified.pictures.items():
        whole_files.write(kept.with_suffix(f".{name}.png"), content)
    report = verified.report
    return {
        "seconds": seconds,
        "values": {key: found.value for key, found in report.metrics.items()},
        "original": dict(report.evidence["original"]),
        "goes_to": dict(report.evidence["forget_goes_to"]),
        "groups": dict(report.evidence["groups"]),
    }


def _made(
    subject: subjects.Subject,
    original: generator.Generator,
    unlearned: generator.Generator,
    spec: generation_specs.GenerationSpec,
    kept: Path,
) -> tuple[float, masks.SaliencyMask | None]:
    """Processor seconds of mask and unlearning, and the mask; the net is changed in place."""
    told = kept.with_suffix(".json")
    if told.exists():
        tensors = weights.read(kept.with_suffix(".mask.safetensors"))
        unlearned.denoiser.load_state_dict(weights.read(kept.with_suffix(".safetensors")))
        seconds = float(json.loads(told.read_text())["seconds"])
        return seconds, masks.SaliencyMask.from_tensors(tensors) if tensors else None
    data = subject.task(original)
    began = time.process_time()
    mask = methods.mask_for(original, data, spec)
    methods.unlearn(unlearned, data, mask, spec)
    seconds = time.process_time() - began
    kept.parent.mkdir(parents=True, exist_ok=True)
    weights.write(kept.with_suffix(".safetensors"), unlearned.denoiser.state_dict(), {})
    weights.write(
        kept.with_suffix(".mask.safetensors"),
        {} if mask is None else mask.to_tensors(),
        {"mask": "none" if mask is None else mask.kind},
    )
    record = {"seconds": seconds, "spec": spec.model_dump(mode="json")}
    whole_files.write(told, json.dumps(record).encode())  # last: now the net is there whole
    return seconds, mask


def _table(name: str, rows: Sequence[Mapping[str, Any]]) -> str:
    """A line for each method; where retrained nets are there, how near to them pictures go."""
    found = [row for row in rows if "values" in row]
    shown = [key for key in _COLUMNS if any(key in row["values"] for row in found)]
    retrained = [row for row in found if row["key"] == rivals.RETRAINED]
    further = ["goes elsewhere than retraining"] if retrained else []
    heads = ["", *(_COLUMNS[key] for key in shown), *further, "seconds"]
    heads += ["cost"] if retrained else []
    lines = [
        f"**{name}** (n = {len({row['seed'] for row in rows})} seeds, one base model)",
        "",
        "| " + " | ".join(heads) + " |",
        "| --- |" + " ---: |" * (len(heads) - 1),
    ]
    before: dict[str, list[float]] = collections.defaultdict(list)
    for row in found:
        for key in shown:
            if key in row["original"]:
                before[key].append(row["original"][key])
    empty = [""] * (len(heads) - 1 - len(shown))
    lines.append(_line(["original", *(_spread(before[key]) for key in shown), *empty]))
    for key, rival in rivals.RIVALS.items():
        own = [row for row in found if row["key"] == key]
        diverged = sum(row["key"] == key for row in rows) - len(own)
        if not own:
            continue
        cells = [_spread([row["values"][c] for row in own if c in row["values"]]) for c in shown]
        if retrained:
            cells.append(_spread([_elsewhere(row, retrained) for row in own]))
        cells.append(_spread([row["seconds"] for row in own], 0))
        if retrained:
            whole = statistics.mean(row["seconds"] for row in retrained)
            cells.append(_spread([row["seconds"] / whole for row in own]))
        note = f" ({diverged} diverged)" if diverged else ""
        lines.append(_line([f"{rival.title}{note}", *cells]))
    return "\n".join(lines)


def _elsewhere(row: Mapping[str, Any], retrained: Sequence[Mapping[str, Any]]) -> float:
    """Half the sum of differences of where pictures go, to other seeds' mean retrained net."""
    others = [one["goes_to"]["after"] for one in retrained if one is not row]
    own = row["goes_to"]["after"]
    terms = {*own, *(term for one in others for term in one)}
    means = {term: statistics.mean(one.get(term, 0.0) for one in others) for term in terms}
    return float(sum(abs(own.get(term, 0.0) - means[term]) for term in terms) / 2.0)


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _spread(values: Sequence[float], digits: int = 3) -> str:
    if not values:
        return ""
    mean = f"{statistics.mean(values):.{digits}f}"
    return f"{mean} ± {statistics.stdev(values):.{digits}f}" if len(values) > 1 else mean


if __name__ == "__main__":
    raise SystemExit(main())
