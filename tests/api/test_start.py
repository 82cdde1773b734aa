"""The front end starts without torch."""

import subprocess
import sys

_SCRIPT = """
import sys
import api.main
heavy = {"torch", "torchvision", "timm", "diffusers"} & set(sys.modules)
sys.exit(f"api.main loaded {heavy}" if heavy else 0)
"""


def test_api_main_loads_no_torch() -> None:
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
