"""The table of methods for models that draw: which setting a rival is shown at, and what beside."""

from benchmarks.diffusion import runs, tables


def _row(key: str, seed: int, rate: float | None, unlearned: float, kept: float) -> runs.Row:
    return {
        "key": key,
        "setting": {} if rate is None else {"learning_rate": rate},
        "seed": seed,
        "title": key,
        "seconds": 10.0 if key == "esd" else 50.0,
        "values": {"unlearning_accuracy": unlearned, "retain_accuracy": kept},
        "original": {"retain_accuracy": 0.99},
        "goes_to": {"after": {"eight": unlearned, "seven": 1.0 - unlearned}},
        "groups": {},
    }


_ROWS = [
    _row("esd", 0, None, 0.0, 0.99),
    _row("esd", 0, 0.01, 1.0, 0.2),
    _row("esd", 0, 0.001, 0.9, 0.9),
    _row("esd", 1, 0.001, 0.8, 0.8),
    _row("retrained", 0, None, 1.0, 0.98),
    _row("retrained", 1, None, 1.0, 0.96),
]


def test_a_rival_is_shown_at_the_setting_that_was_best_on_the_first_seed() -> None:
    line = next(line for line in tables.table("digits", _ROWS, 0).splitlines() if "ESD" in line)

    assert runs.best(_ROWS, "esd", 0) == {"learning_rate": 0.001}
    assert line.startswith("| ESD (learning_rate 0.001) | 0.850 ± 0.071 | 0.850 ± 0.071 |")
    assert line.endswith("| 0.150 ± 0.071 | 10 ± 0 | 0.200 ± 0.000 |")


def test_a_run_that_diverged_counts_as_neither_forgotten_nor_kept() -> None:
    lost = {key: value for key, value in _ROWS[3].items() if key != "values"}
    too_fast = {**lost, "seed": 0, "setting": {"learning_rate": 0.1}}

    rows = [*_ROWS[:3], lost, too_fast]
    line = next(line for line in tables.table("digits", rows, 0).splitlines() if "ESD" in line)

    assert runs.best(rows, "esd", 0) == {"learning_rate": 0.001}
    assert line.startswith("| ESD (learning_rate 0.001; 1 diverged) | 0.900 | 0.900 | 10 |")
