"""How a demo ends: what was checked, where the pictures lie, the exit status."""

from collections.abc import Sequence
from pathlib import Path

import rich.console

from demo import checking


def tell(
    console: rich.console.Console,
    checks: Sequence[checking.Check],
    out: Path,
    run_seconds: float,
) -> int:
    """Print every check; 0 only if there were some and all held."""
    console.rule("checks")
    for check in checks:
        mark = "[green]✓[/]" if check.held else "[red]✗[/]"
        console.print(f"{mark} {check.name}: {check.found}")
    held = sum(check.held for check in checks)
    pictures = ", ".join(str(path) for path in sorted(out.glob("*.png")))
    console.print(f"\npictures: {pictures}")
    console.print(f"{held} of {len(checks)} checks held in {run_seconds:.0f} s; nothing runs on")
    return 0 if checks and held == len(checks) else 1
