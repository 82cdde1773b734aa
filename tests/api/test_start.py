"""The front end starts without torch, and without what draws a report's page."""

import subprocess
import sys

_SCRIPT = """
import sys
import api.main
unwanted = {"torch", "torchvision", "timm", "diffusers", "matplotlib", "jinja2"}
heavy = unwanted & set(sys.modules)
sys.exit(f"api.main loaded {heavy}" if heavy else 0)
"""


def test_api_main_loads_nothing_heavy() -> None:
    environment = {"DATABASE_URL": "postgresql://nobody@/none", "BROKER_URL": "redis://localhost"}
    done = subprocess.run(
        [sys.executable, "-c", _SCRIPT],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
