"""The container files against the code they start, and the promises made about them.

Schema and Dockerfile lint are in ``make check``; here is what those cannot know.
"""

import importlib.util
import os
import subprocess
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ruamel import yaml

from service import queue, settings

ROOT = Path(__file__).parents[2]
OURS = ["api", "bootstrap", "housekeeping", "migrate", "sweeper", "worker"]
SECRETS = {"POSTGRES_PASSWORD", "VALKEY_PASSWORD", "PGPASSWORD", "REDISCLI_AUTH", "BROKER_URL"}


@pytest.fixture(scope="module")
def services() -> dict[str, Any]:
    text = (ROOT / "docker-compose.yml").read_text()
    document: dict[str, Any] = yaml.YAML(typ="safe", pure=True).load(text)
    return dict(document["services"])


def test_only_the_api_is_reachable_and_only_from_this_host(services: dict[str, Any]) -> None:
    published = {name: service["ports"] for name, service in services.items() if "ports" in service}
    assert published == {"api": ["${SALUN_BIND:-127.0.0.1}:${PORT:-8000}:8000"]}


def test_every_service_is_hardened(services: dict[str, Any]) -> None:
    for name, service in services.items():
        assert service["read_only"] is True, name
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert "privileged" not in service, name
        assert "cap_add" not in service, name


def test_nothing_runs_as_root(services: dict[str, Any]) -> None:
    for name, service in services.items():
        if "build" in service:
            dockerfile = (ROOT / service["build"]["dockerfile"]).read_text()
            users = [line for line in dockerfile.splitlines() if line.startswith("USER ")]
            assert users == ["USER 10001:10001"], name
        else:
            assert service["user"] not in {"root", "0", "0:0"}, name


def test_a_missing_secret_stops_compose(services: dict[str, Any]) -> None:
    seen = set()
    for name, service in services.items():
        for variable, value in service.get("environment", {}).items():
            if variable in SECRETS:
                assert ":?set " in value, f"{name}: {variable}"
                seen.add(variable)
    assert seen == SECRETS


def test_our_services_get_every_setting_without_default(services: dict[str, Any]) -> None:
    fields = settings.Settings.model_fields.items()
    required = {name.upper() for name, field in fields if field.is_required()}
    assert required == {"DATABASE_URL", "BROKER_URL"}
    for name in OURS:
        assert required | {"SALUN_DATA_DIR"} <= set(services[name]["environment"]), name
        assert "data:/data" in services[name]["volumes"], name


def test_commands_start_modules_that_exist(services: dict[str, Any]) -> None:
    for name in OURS:
        for module in _modules(services[name]["command"]):
            assert importlib.util.find_spec(module) is not None, f"{name}: {module}"


def test_each_queue_has_its_worker(services: dict[str, Any]) -> None:
    queues = {name: _option(services[name]["command"], "-Q") for name in ("worker", "housekeeping")}
    assert queues == {"worker": queue.UNLEARNING, "housekeeping": queue.HOUSEKEEPING}
    for name in queues:
        assert _option(services[name]["command"], "-P") == "prefork"
        assert _option(services[name]["command"], "-c") == "1"


def test_the_schema_is_there_before_anything_of_ours_starts(services: dict[str, Any]) -> None:
    assert services["migrate"]["depends_on"] == {"postgres": {"condition": "service_healthy"}}
    for name in set(OURS) - {"migrate"}:
        needs = services[name]["depends_on"]
        assert needs["migrate"] == {"condition": "service_completed_successfully"}, name


@pytest.mark.parametrize("name", ["api", "sweeper"])
def test_what_needs_no_broker_starts_without(services: dict[str, Any], name: str) -> None:
    assert "valkey" not in services[name]["depends_on"]


def test_only_the_unlearning_worker_reserves_gpus(services: dict[str, Any]) -> None:
    reserving = [name for name, service in services.items() if "deploy" in service]
    assert reserving == ["worker"]
    devices = services["worker"]["deploy"]["resources"]["reservations"]["devices"]
    assert devices == [{"driver": "nvidia", "count": "all", "capabilities": ["gpu"]}]


def test_replicas_take_one_gpu_each(tmp_path: Path) -> None:
    """Two GPUs, three replicas: two get one each, the third is refused until one is free."""
    environment = _driver(tmp_path, ["GPU-aaaa", "GPU-bbbb"])
    first, second = _hold(environment), _hold(environment)
    try:
        taken = {_taken(first): first, _taken(second): second}
        assert set(taken) == {"GPU-aaaa", "GPU-bbbb"}
        refused = _one_gpu(environment)
        assert refused.returncode == 75
        assert "taken by another worker" in refused.stderr
        taken["GPU-aaaa"].kill()
        taken["GPU-aaaa"].wait()
        assert _one_gpu(environment).stdout == "GPU-aaaa\n"
    finally:
        for holder in (first, second):
            holder.kill()
            holder.communicate()


def _modules(command: list[str]) -> Iterator[str]:
    for flag in ("-m", "-A"):
        if flag in command:
            yield _option(command, flag)
    yield from (word.removesuffix(":app") for word in command if word.endswith(":app"))


def _option(command: list[str], flag: str) -> str:
    return command[command.index(flag) + 1]


def _driver(folder: Path, uuids: list[str]) -> dict[str, str]:
    """An environment whose ``nvidia-smi`` reports these GPUs: the border to the hardware."""
    program = folder / "nvidia-smi"
    program.write_text("#!/bin/sh\n" + "".join(f"echo {uuid}\n" for uuid in uuids))
    program.chmod(0o755)
    path = f"{folder}{os.pathsep}{os.defpath}"
    return {"PATH": path, "GPU_LOCK_DIR": str(folder)}


_PRINT = 'printf "%s\\n" "$CUDA_VISIBLE_DEVICES"'


def _hold(environment: dict[str, str]) -> subprocess.Popen[str]:
    script = textwrap.dedent(f"""\
        {_PRINT}
        exec sleep 60
        """)
    return subprocess.Popen(
        [ROOT / "docker/one-gpu.sh", "sh", "-c", script],
        env=environment,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def _taken(holder: subprocess.Popen[str]) -> str:
    assert holder.stdout is not None
    return holder.stdout.readline().strip()


def _one_gpu(environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [ROOT / "docker/one-gpu.sh", "sh", "-c", _PRINT],
        env=environment,
        text=True,
        capture_output=True,
        timeout=30,
        check=False,
    )
