"""What both demos do alike: start the service, register data and nets, keep what was checked."""

import contextlib
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import rich.console
import rich.progress

from client import http, transfer, waiting
from client.local import stack
from demo import checking
from salun_core import progress as core_progress


class Chapters:
    """A story on a console, with pictures and nets in a folder.

    Args:
        console: where it is told.
        out: the folder; it exists.
    """

    def __init__(self, console: rich.console.Console, out: Path) -> None:
        self.console, self.out = console, out
        self.checks: list[checking.Check] = []

    def check(self, name: str, held: bool, found: str) -> None:
        """Keep one thing that must hold, and what was found."""
        self.checks.append(checking.Check(name, held, found))

    @contextlib.contextmanager
    def service(self, data_dir: Path, port: int) -> Iterator[stack.Running]:
        """The whole service, stopped afterwards."""
        with contextlib.ExitStack() as up:
            with self.console.status("starting"):
                running = up.enter_context(stack.running(data_dir, port=port))
            self.console.print(f"up at {running.base_url}, logs in {running.folder.logs}")
            yield running

    @contextlib.contextmanager
    def steps(self, title: str) -> Iterator[core_progress.Progress]:
        """A bar for work that is done here."""
        columns = rich.progress.Progress(
            *rich.progress.Progress.get_default_columns(),
            rich.progress.MofNCompleteColumn(),
            console=self.console,
        )
        with columns:
            task = columns.add_task(title, total=None)
            yield lambda step, total: columns.update(task, completed=step, total=total)

    def register_dataset(self, api: http.Api, name: str, parquet: Path) -> None:
        """Upload a Parquet file and wait until its rows are in the ledger."""
        uploads = transfer.push(api, [parquet])
        api.post("/v1/datasets", {"name": name, "files": [item.digest for item in uploads]})
        ready = waiting.until(
            api,
            f"/v1/datasets/{name}",
            lambda body: body["status"] != "ingesting",
            title="ingesting",
            as_json=False,
        )
        self.console.print(f"dataset {name}: {ready['status']}, {ready['splits']}")

    def register_model(self, api: http.Api, body: dict[str, Any], folder: Path) -> None:
        """Register a model and add a folder as its first version; wait until it is served."""
        api.post("/v1/models", body)
        paths = sorted(path for path in folder.rglob("*") if path.is_file())
        files = [
            {
                "path": item.path.relative_to(folder).as_posix(),
                "digest": item.digest,
                "size": item.size_bytes,
            }
            for item in transfer.push(api, paths)
        ]
        name = body["name"]
        version = api.post(f"/v1/models/{name}/versions", {"files": files}, timeout=120.0)
        published = waiting.until(
            api,
            f"/v1/models/{name}/versions/{version['version']}",
            lambda state: state["state"] != "staged" or bool(state["errors"]),
            title="validating",
            as_json=False,
        )
        self.console.print(f"model {name}: version 1 {published['state']} {published['errors']}")

    def forget(
        self, api: http.Api, model: str, target: dict[str, Any]
    ) -> tuple[dict[str, Any], dict[str, Any], float]:
        """Send a request and wait for its end; the request, its report, and the seconds it took."""
        began = time.monotonic()
        state = api.post(
            "/v1/forget-requests",
            {"model": model, "targets": [target]},
            headers={"Idempotency-Key": str(uuid.uuid4())},
        )
        self.console.print(f"POST /v1/forget-requests -> 202, {state['targets_summary']}")
        ended = waiting.forget_request(api, state["id"], as_json=False)
        report = api.get(f"/v1/forget-requests/{state['id']}/report")
        held = ended["status"] == "completed" and report["verdict"]["passed"]
        found = ended["status"] if held else f"{ended['reason']}: {report['verdict']['failures']}"
        self.check(f"{model}: {target['kind']} request", held, found)
        return ended, report, time.monotonic() - began
