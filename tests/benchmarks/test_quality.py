"""The comparison with retraining: complete tables, and runs that go on where they stopped."""

import dataclasses
import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks.quality import __main__ as quality
from benchmarks.quality import data, nets, reference, rivals, runs, seeds, tables
from salun_core import architectures, errors, unseen

_TINY = ["--train", "120", "--holdout", "60", "--test", "60", "--epochs", "1", "--jobs", "1"]

# As much of a checkout as is asked for: a mask of density 0.5, and one step of gradient descent on
# random labels within it. Like the real one it asks for a GPU and for modules that cannot be
# imported.
_CHECKOUT = {
    "arg_parser.py": """
import argparse

def parse_args():
    parser = argparse.ArgumentParser()
    parser.add_argument("--momentum", type=float, default=0.9)
    return parser.parse_args()
""",
    "generate_mask.py": """
import os
import torch

def save_gradient_ratio(data_loaders, model, criterion, args):
    mask = {
        name: torch.arange(p.numel()).reshape(p.shape) % 2 for name, p in model.named_parameters()
    }
    torch.save(mask, os.path.join(args.save_dir, "with_0.5.pt"))
""",
    "unlearn/__init__.py": """
from .RL import RL

def get_unlearn_method(name):
    return {"RL": RL}[name]
""",
    "unlearn/RL.py": """
import torch
from pruner import extract_mask

def RL(data_loaders, model, criterion, args, mask):
    for image, target in data_loaders["forget"]:
        target = torch.randint(0, args.num_classes, target.shape).cuda()
        criterion(model(image.cuda()), target).backward()
    with torch.no_grad():
        for name, p in model.named_parameters():
            p -= args.unlearn_lr * mask[name] * p.grad
""",
    "pruner.py": "raise ImportError('as published')",
}


def _rows(folder: Path, seed: int) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = json.loads((folder / f"seed-{seed}.json").read_text())
    return rows


def _lasting(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{k: v for k, v in row.items() if k not in ("seconds", "cost")} for row in rows]


def _checkout(folder: Path) -> Path:
    for name, text in _CHECKOUT.items():
        path = folder / "Classification" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder


def test_every_method_has_a_row_and_a_stopped_run_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # One setting of each: this is about rows.
    one = {
        key: dataclasses.replace(rival, tried=rival.tried[:1])
        for key, rival in rivals.RIVALS.items()
    }
    monkeypatch.setattr(rivals, "RIVALS", one)
    out, checkout = tmp_path / "out", _checkout(tmp_path / "theirs")
    asked = [*_TINY, "--out", str(out), "--seeds", "0", "--scenarios", "samples_50"]
    asked += ["--reference", str(checkout)]
    out.mkdir()
    options = quality.parsed(asked)
    seeds.run(options, 0)
    rows = _rows(out, 0)
    assert {row["key"] for row in rows} == {*runs.YARDSTICKS, *rivals.RIVALS}
    table = tables.write(out, rows, {})
    for row in rows:
        assert f"| {row['net']} |" in table

    trained = {path: path.stat().st_mtime_ns for path in (out / "seed-0").iterdir()}
    assert len(trained) == 3
    lost = {"retrained_again", "default", rivals.REFERENCE}
    kept = [row for row in rows if row["key"] not in lost]
    (out / "seed-0.json").write_text(json.dumps(kept))
    seeds.run(options, 0)
    again = _rows(out, 0)
    assert again[: len(kept)] == kept
    assert sorted(map(str, _lasting(again))) == sorted(map(str, _lasting(rows)))
    assert trained == {path: path.stat().st_mtime_ns for path in (out / "seed-0").iterdir()}


def test_further_rivals_run_on_the_first_seeds_only(tmp_path: Path) -> None:
    asked = [*_TINY, "--out", str(tmp_path), "--scenarios", "class", "--rivals-on", "1"]
    quality.main([*asked, "--seeds", "3", "4", "--methods", "gradient_ascent"])
    assert [row["key"] for row in _rows(tmp_path, 3)] == [*runs.YARDSTICKS, "gradient_ascent"]
    assert [row["key"] for row in _rows(tmp_path, 4)] == list(runs.YARDSTICKS)
    assert "| gradient ascent (n = 1) |" in (tmp_path / "results.md").read_text()
    assert all({"relearn", "shortcut"} <= row["values"].keys() for row in _rows(tmp_path, 3))


def test_traces_of_a_class_stand_in_its_table_alone_and_older_rows_leave_them_empty(
    tmp_path: Path,
) -> None:
    def row(scenario: str, seed: int, key: str, **values: float) -> dict[str, Any]:
        figures = {"gap": 0.1, "seconds": 1.0, "cost": 1.0, "values": values}
        return {"scenario": scenario, "seed": seed, "key": key, "net": key, **figures}

    rows = [
        row("class", 0, "retrained again", relearn=12.0, shortcut=0.5),
        row("class", 1, "retrained again", relearn=14.0, shortcut=0.5),
        row("class", 0, "older", RA=0.97),
        row("samples_10", 0, "retrained again", RA=0.97, relearn=3.0),
        row("samples_10", 0, "older", RA=0.97),
    ]
    samples, of_class, *_ = tables.write(tmp_path, rows, {}).split("\n\n**")
    assert "relearn" not in samples.splitlines()[2]
    found = {line.split(" | ")[0]: line.split(" | ")[2:-2] for line in of_class.splitlines()[2:]}
    heads = found["| net"]
    assert heads[-2:] == ["relearn", "shortcut"]
    assert found["| retrained again"][-2:] == ["13.0 ± 1.4", "50.0 ± 0.0"]
    assert found["| older (n = 1)"] == ["97.0" if head == "RA" else "" for head in heads]


def test_the_sizes_that_are_drawn_without_options_fill_every_set(tmp_path: Path) -> None:
    options = quality.parsed([])
    sizes = options.train, options.holdout, options.test
    drawn = data.draw(data.packaged(), 0, *sizes)
    assert tuple(map(len, (drawn.train_set, drawn.holdout_set, drawn.test_set))) == sizes
    # Enough unseen samples of every class that they are not crossed.
    assert min(torch.bincount(drawn.holdout_set.labels)) >= unseen.ENOUGH
    of_a_file = quality.parsed(["--data", str(tmp_path / "other.parquet"), "--test", "7"])
    assert (of_a_file.train, of_a_file.holdout, of_a_file.test) == (4000, 2000, 7)


@pytest.mark.parametrize(("option", "size"), [("--holdout", "4000"), ("--test", "1001")])
def test_sizes_that_cannot_be_drawn_are_told_before_anything_is_trained(
    option: str, size: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = [*_TINY, "--out", str(tmp_path), "--seeds", "0", "1", option, size]
    assert quality.main(asked) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "expected 4000 and 1000 at most" in line
    assert not list(tmp_path.iterdir())


def test_nets_of_other_options_are_not_taken(tmp_path: Path) -> None:
    source = data.packaged()
    train_set = data.draw(source, 0, 100, 10, 10).train_set
    store = nets.Store(tmp_path, "some options")
    first = store.trained("original", source.config, train_set, 1, 0)
    second = store.trained("original", source.config, train_set, 1, 0)
    assert first.seconds == second.seconds
    state = second.net.state_dict()
    assert all(torch.equal(state[name], tensor) for name, tensor in first.net.state_dict().items())
    with pytest.raises(errors.InvalidInputError, match="some options, expected others"):
        nets.Store(tmp_path, "others").trained("original", source.config, train_set, 1, 0)


def test_a_finished_folder_is_not_taken_for_one_of_other_options(tmp_path: Path) -> None:
    asked = [*_TINY, "--out", str(tmp_path), "--seeds", "0", "--scenarios", "samples_10"]
    asked += ["--methods", "gradient_ascent"]
    seeds.run(quality.parsed(asked), 0)
    rows = _rows(tmp_path, 0)
    seeds.run(quality.parsed(asked), 0)
    with pytest.raises(errors.InvalidInputError, match="results of other options"):
        seeds.run(quality.parsed([*asked, "--epochs", "2"]), 0)
    with pytest.raises(errors.InvalidInputError, match=r"expected other, 16 × 16, seed 0"):
        seeds.run(quality.parsed([*asked, "--data", str(tmp_path / "other.parquet")]), 0)
    assert _rows(tmp_path, 0) == rows


def test_the_reference_runs_on_the_cpu_within_its_mask(tmp_path: Path) -> None:
    source = data.packaged()
    drawn = data.draw(source, 0, 65, 20, 10)
    net = architectures.build(source.config)
    before = {name: parameter.detach().clone() for name, parameter in net.named_parameters()}
    moves = torch.Tensor.cuda
    reference.unlearn(
        _checkout(tmp_path),
        net,
        source.config,
        drawn.train_set,
        drawn.holdout_set,
        learning_rate=0.1,
        seed=0,
    )
    assert torch.Tensor.cuda is moves
    assert not net.training
    changed = torch.cat([(p != before[name]).flatten() for name, p in net.named_parameters()])
    mask = torch.cat([torch.arange(p.numel()) % 2 == 1 for p in before.values()])
    assert changed.any()
    assert not changed[~mask].any()


def test_a_folder_that_is_no_checkout_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(errors.InvalidInputError, match=r"without Classification/generate_mask\.py"):
        reference.load(tmp_path)
    with pytest.raises(SystemExit):
        quality.main(["--reference", str(tmp_path)])
    assert "expected a checkout of OPTML-Group/Unlearn-Saliency" in capsys.readouterr().err


def test_a_package_that_is_missing_is_named(tmp_path: Path) -> None:
    checkout = _checkout(tmp_path)
    (checkout / "Classification" / "arg_parser.py").write_text("import no_such_package")
    with pytest.raises(errors.InvalidInputError, match="needs the package no_such_package"):
        reference.load(checkout)


def test_the_commit_says_whether_the_code_was_changed(tmp_path: Path) -> None:
    assert reference.commit(tmp_path) == "unknown"
    checkout = _checkout(tmp_path)
    who = ["-c", "user.name=a", "-c", "user.email=a@b"]
    git = shutil.which("git")
    assert git is not None
    for command in (["init", "-q"], ["add", "-A"], [*who, "commit", "-qm", "all"]):
        subprocess.run([git, "-C", str(checkout), *command], check=True)
    clean = reference.commit(checkout)
    assert len(clean) == 40
    (checkout / "Classification" / "generate_mask.py").write_text("")
    assert reference.commit(checkout) == f"{clean}, changed"
