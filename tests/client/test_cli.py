"""Every command against a running stack, as users call them."""

import io
import json
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import safetensors.torch
import timm
from PIL import Image

from client import errors, session, settings
from client.local import stack

LABELS = ["circle", "square", "star"]
ARCHITECTURE = "mobilenetv3_small_050"
Call = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[stack.Running]:
    with stack.running(tmp_path_factory.mktemp("cli")) as running:
        yield running


@pytest.fixture(scope="module")
def salun(up: stack.Running) -> Call:
    """Run the command with the stack's data folder, as on the machine of `salun up`."""

    def call(*arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
        return run(arguments, SALUN_DATA_DIR=str(up.folder.root), **environment)

    return call


@pytest.fixture(scope="module")
def parquet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """120 noisy pictures of three classes in the Hugging Face image convention."""
    random = np.random.default_rng(0)
    splits = ["train", "train", "train", "test", "holdout"]
    rows = []
    for index in range(120):
        pixels = random.integers(0, 60, (32, 32, 3)) + 60 * (index % 3)
        picture = io.BytesIO()
        Image.fromarray(pixels.astype(np.uint8)).save(picture, "PNG")
        rows.append(
            {
                "sample_id": f"img_{index:03d}",
                "image": {"bytes": picture.getvalue(), "path": None},
                "label": LABELS[index % 3],
                "subject_id": f"person-{index % 10}",
                "split": splits[index % 5],
            }
        )
    path = tmp_path_factory.mktemp("data") / "pictures.parquet"
    pq.write_table(pa.Table.from_pylist(rows), path)
    return path


@pytest.fixture(scope="module")
def net(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("net")
    model = timm.create_model(ARCHITECTURE, num_classes=3)
    tensors = {name: value.contiguous() for name, value in model.state_dict().items()}
    safetensors.torch.save_file(tensors, folder / "model.safetensors")
    config = {
        "architecture": ARCHITECTURE,
        "num_classes": 3,
        "label_names": LABELS,
        "pretrained_cfg": {"input_size": [3, 32, 32], "mean": [0.5] * 3, "std": [0.5] * 3},
    }
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    (folder / "pytorch_model.bin").write_bytes(b"never sent")
    (folder / ".cache").mkdir()
    (folder / ".cache" / "hidden.json").write_text("{}", encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def served(salun: Call, parquet: Path, net: Path) -> str:
    """The name of a model that is published."""
    pushed = salun("datasets", "push", "pictures", parquet)
    assert pushed.returncode == 0, pushed.stderr
    assert "120" in pushed.stdout
    published = salun("models", "push", "shapes", net, "--dataset", "pictures")
    assert published.returncode == 0, published.stderr
    assert "published" in published.stdout
    assert "pytorch_model.bin is left out" in published.stderr
    assert "hidden" not in published.stderr
    return "shapes"


@pytest.fixture(scope="module")
def finished(salun: Call, served: str) -> dict[str, Any]:
    """A forget request that has been watched to its end."""
    done = salun("forget", served, "--sample", "img_000", "--sample", "img_005", "--wait", "--json")
    last = last_object(done)
    assert last["status"] in ("completed", "action_required")
    assert done.returncode == (0 if last["status"] == "completed" else 1)
    assert last["targets_summary"]["matched"] == 2
    return last


def run(arguments: Sequence[object], **environment: str) -> subprocess.CompletedProcess[str]:
    clean = {"SALUN_URL": "", "SALUN_API_KEY": "", **environment}
    return subprocess.run(
        [sys.executable, "-m", "client.main", *map(str, arguments)],
        env=settings.child_environment(**clean),
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )


def last_object(done: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def test_a_key_is_made_listed_and_revoked(salun: Call, up: stack.Running) -> None:
    made = last_object(salun("keys", "create", "reader", "--scope", "requests:read", "--json"))
    assert made["scopes"] == ["requests:read"]
    listed = salun("keys", "list")
    assert made["id"] in listed.stdout
    assert made["key"] not in listed.stdout
    away = {"SALUN_URL": up.base_url, "SALUN_API_KEY": made["key"]}
    assert run(["status"], **away).returncode == 0
    forbidden = run(["keys", "list"], **away)
    assert forbidden.returncode == 1
    assert forbidden.stderr.startswith("error 403")
    assert salun("keys", "revoke", made["id"]).returncode == 0
    refused = run(["status"], **away)
    assert refused.returncode == 1
    assert refused.stderr.startswith("error 401")


def test_models_and_datasets_are_listed(salun: Call, served: str) -> None:
    (model,) = last_object(salun("models", "list", "--json"))["items"]
    assert (model["name"], model["dataset"], model["aliases"]["production"]) == (
        served,
        "pictures",
        model["head"],
    )
    told = salun("models", "list").stdout
    assert served in told
    assert "production" in told
    found = last_object(salun("datasets", "list", "--json"))["items"]
    assert next(one for one in found if one["name"] == "pictures")["status"] == "ready"
    assert "120" in salun("datasets", "list").stdout


def test_a_policy_is_given_with_a_new_model_and_stays(
    salun: Call, served: str, net: Path, tmp_path: Path
) -> None:
    assert served
    policy = tmp_path / "policy.json"
    policy.write_text('{"max_forget_share": 0.2, "acceptance": {"z": 2.5}}')
    push = ("models", "push", "careful", net, "--dataset", "pictures", "--policy")
    assert salun(*push, f"@{policy}").returncode == 0
    listed = last_object(salun("models", "list", "--json"))["items"]
    kept = next(model for model in listed if model["name"] == "careful")["policy"]
    assert (kept["max_forget_share"], kept["acceptance"]["z"]) == (0.2, 2.5)
    other = salun(*push, '{"acceptance": {"z": 3.0}}')
    assert other.returncode == 1
    assert "acceptance.z is 2.5, got 3" in other.stderr
    told_no = last_object(salun(*push, '{"auto_publish": false}', "--json"))
    assert told_no["error"]["detail"].endswith("auto_publish is true, got false")
    for wrong, told in (
        ("{", "--policy: expected JSON"),
        ("[]", "--policy: expected a JSON object"),
        (f"@{tmp_path / 'none'}", "--policy: cannot read"),
    ):
        refused = salun("models", "push", "new", net, "--dataset", "pictures", "--policy", wrong)
        assert (refused.returncode, told in refused.stderr) == (1, True), refused.stderr
        assert "Traceback" not in refused.stderr
    odd = salun(*push[:2], "new", *push[3:], '{"sampling": 3}', "--steps", "4")
    assert (odd.returncode, "got 3 for sampling" in odd.stderr) == (1, True), odd.stderr
    unknown = salun(*push[:2], "new", *push[3:], '{"sigmas": 1}')
    assert (unknown.returncode, "/policy/sigmas" in unknown.stderr) == (1, True), unknown.stderr


def test_a_dataset_name_in_use_is_refused(salun: Call, served: str, parquet: Path) -> None:
    assert served
    again = salun("datasets", "push", "pictures", parquet)
    assert again.returncode == 1
    assert again.stderr.splitlines()[-1].startswith("error 409")


def test_a_dataset_without_the_columns_is_refused(salun: Call, tmp_path: Path) -> None:
    path = tmp_path / "wrong.parquet"
    pq.write_table(pa.table({"picture": [b"x"], "label": ["a"]}), path)
    refused = salun("datasets", "push", "wrong", path)
    assert refused.returncode == 1
    assert "got the columns picture, label" in refused.stderr
    assert "missing sample_id, image, split" in refused.stderr


def test_a_dataset_that_fails_while_it_is_read_says_why(
    salun: Call, parquet: Path, tmp_path: Path
) -> None:
    table = pq.read_table(parquet)
    path = tmp_path / "twice.parquet"
    pq.write_table(pa.concat_tables([table, table.slice(0, 1)]), path)
    refused = salun("datasets", "push", "twice", path)
    assert refused.returncode == 1
    assert "img_000" in refused.stderr


def test_weights_that_do_not_fit_are_refused_with_the_reason(
    salun: Call, served: str, net: Path, tmp_path: Path
) -> None:
    tensors = safetensors.torch.load_file(net / "model.safetensors")
    tensors["classifier.weight"] = tensors["classifier.weight"][:2].contiguous()
    safetensors.torch.save_file(tensors, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_bytes((net / "config.json").read_bytes())
    refused = salun("models", "push", served, tmp_path, "--dataset", "pictures")
    assert refused.returncode == 1
    assert "classifier.weight" in refused.stderr


def test_a_folder_with_nothing_to_send_is_refused(salun: Call, tmp_path: Path) -> None:
    refused = salun("models", "push", "empty", tmp_path, "--dataset", "pictures")
    assert refused.returncode == 1
    assert "expected config.json and model.safetensors" in refused.stderr


def test_a_model_name_of_another_dataset_is_refused(salun: Call, served: str, net: Path) -> None:
    refused = salun("models", "push", served, net, "--dataset", "letters")
    assert refused.returncode == 1
    assert "trained on pictures, got classifier on letters" in refused.stderr


def test_a_net_trained_without_the_erasures_of_no_version_is_refused(
    salun: Call, served: str, net: Path
) -> None:
    refused = salun(
        "models", "push", served, net, "--dataset", "pictures", "--trained-without", "99"
    )
    assert refused.returncode == 1
    assert "has no version 99" in refused.stderr


def test_a_dry_run_changes_nothing(salun: Call, served: str, tmp_path: Path) -> None:
    before = last_object(salun("status", "--json"))["items"]
    ids = tmp_path / "ids.txt"
    ids.write_text("\ufeffimg_010\n\n img_011 \n", encoding="utf-8")
    dry = last_object(salun("forget", served, "--samples-file", ids, "--dry-run", "--json"))
    assert dry["targets_summary"]["matched"] == 2
    assert last_object(salun("status", "--json"))["items"] == before


def test_a_file_of_ids_that_is_no_text_is_told(salun: Call, served: str, tmp_path: Path) -> None:
    ids = tmp_path / "ids.txt"
    ids.write_bytes(b"img_010\n\xff\xfe\n")
    done = salun("forget", served, "--samples-file", ids)
    assert done.returncode == 1
    assert done.stderr.startswith("error --samples-file: cannot read")


def test_a_repeated_call_is_one_request(salun: Call, finished: dict[str, Any]) -> None:
    model = finished["model"]
    call = ["forget", model, "--sample", "img_020", "--idempotency-key", "k1", "--json"]
    first, second = last_object(salun(*call)), last_object(salun(*call))
    assert first["id"] == second["id"]
    other = salun("forget", model, "--sample", "img_001", "--idempotency-key", "k1")
    assert other.returncode == 1
    assert other.stderr.startswith("error 422")
    salun("watch", first["id"])  # to its end: tests that follow expect a model at rest


def test_no_target_and_unknown_models_are_refused(salun: Call, served: str) -> None:
    nothing = salun("forget", served)
    assert nothing.returncode == 1
    assert "expected --sample, --samples-file, --class, --subject or --concept" in nothing.stderr
    unknown = salun("forget", "no-such-model", "--sample", "x")
    assert unknown.returncode == 1
    assert "no-such-model" in unknown.stderr


def test_status_and_watch_show_a_request(salun: Call, finished: dict[str, Any]) -> None:
    listed = salun("status", "--model", finished["model"])
    assert finished["id"] in listed.stdout
    shown = salun("status", finished["id"])
    assert finished["status"] in shown.stdout
    watched = salun("watch", finished["id"])
    assert watched.returncode == (0 if finished["status"] == "completed" else 1)
    assert finished["status"] in watched.stdout
    assert "no forget requests" in salun("status", "--status", "cancelled").stdout


def test_a_person_decides_at_the_terminal(salun: Call, finished: dict[str, Any]) -> None:
    refused = salun("deny", finished["id"], "--reason", "too late")
    if finished["status"] == "completed":
        assert refused.returncode == 1
        assert "completed" in refused.stderr
    late = salun("withdraw", finished["id"])
    assert (late.returncode, "pending" in late.stderr) == (1, True)
    bad = salun("approve", finished["id"], "--reason", "r", "--method", "{")
    assert bad.returncode == 1
    assert bad.stderr.startswith("error --method: expected JSON, got '{'")
    assert (
        "expected a JSON object"
        in salun("approve", finished["id"], "--reason", "r", "--method", "[]").stderr
    )


def test_a_report_shows_before_and_after(salun: Call, finished: dict[str, Any]) -> None:
    measured = last_object(salun("report", finished["id"], "--json"))
    shown = salun("report", finished["id"])
    assert shown.returncode == 0
    for name, entry in measured["metrics"].items():
        line = next(line for line in shown.stdout.splitlines() if f" {name} " in line)
        assert f"{entry['value']:.4g}" in line
    assert "before" in shown.stdout
    verdict = "passed" if measured["verdict"]["passed"] else "refused"
    assert f"verdict  {verdict}" in shown.stdout
    for failure in measured["verdict"]["failures"]:
        assert str(failure) in shown.stdout
    assert max(map(len, shown.stdout.splitlines())) <= 160


def test_a_report_is_written_as_a_page(
    salun: Call, finished: dict[str, Any], tmp_path: Path
) -> None:
    target = tmp_path / "report.html"
    target.write_text("an older one", encoding="utf-8")
    shown = salun("report", finished["id"], "--html", target)
    assert shown.returncode == 0, shown.stderr
    assert "verdict" in shown.stdout  # the table comes all the same
    assert str(target) in shown.stderr
    page = target.read_text(encoding="utf-8")
    assert page.startswith("<!doctype html>")
    assert page.rstrip().endswith("</html>")
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]
    assert salun("report", finished["id"], "--html", "-").stdout == page
    as_json = salun("report", finished["id"], "--html", target, "--json")
    assert last_object(as_json)["model"] == finished["model"]

    nowhere = salun("report", finished["id"], "--html", tmp_path / "none" / "report.html")
    assert nowhere.returncode == 1
    assert nowhere.stderr.startswith("error cannot write")
    both = salun("report", finished["id"], "--html", "-", "--json")
    assert both.returncode == 1
    assert "alone" in last_object(both)["error"]["detail"]


def test_a_report_opens_in_the_browser(
    salun: Call, finished: dict[str, Any], tmp_path: Path
) -> None:
    browser = tmp_path / "browser"
    browser.write_text('#!/bin/sh\necho "$1" > "$0.seen"\n', encoding="utf-8")
    browser.chmod(0o700)
    environment = {"BROWSER": f"{browser} %s", "TMPDIR": str(tmp_path)}
    assert salun("report", finished["id"], "--open", **environment).returncode == 0
    opened = Path((tmp_path / "browser.seen").read_text().strip().removeprefix("file://"))
    assert opened.parent.parent == tmp_path
    assert opened.read_text(encoding="utf-8").startswith("<!doctype html>")


def test_an_audit_is_waited_for_listed_and_written_as_a_page(
    salun: Call, finished: dict[str, Any], tmp_path: Path
) -> None:
    call = ["audit", finished["model"], 2, "--no-controls", "--epochs", 1, "--batch-size", 32]
    done = salun(*call, "--wait")
    assert done.returncode == 0, done.stderr
    assert ": comparing" in done.stderr
    for told in ("retrained again", "unlearning_accuracy", "noise floor"):
        assert told in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 160
    listed = last_object(salun("audits", finished["model"], 2, "--json"))["items"]
    (own,) = [item for item in listed if item["status"] == "completed"]
    assert own["options"]["training"] == {"epochs": 1, "batch_size": 32, "learning_rate": None}
    assert own["id"] in salun("audits", finished["model"], 2).stdout

    target = tmp_path / "audit.html"
    shown = salun("audits", finished["model"], 2, own["id"], "--html", target)
    assert shown.returncode == 0, shown.stderr
    assert "average_gap" in shown.stdout
    assert "retrained again" in target.read_text(encoding="utf-8")
    assert salun("audits", finished["model"], 2, "--html", target).returncode == 1
    assert "no audits" in salun("audits", finished["model"], 1).stdout
    refused = salun("audit", finished["model"], 1)
    assert refused.returncode == 1
    assert "was uploaded" in refused.stderr


def test_pull_brings_the_published_files_and_reports(
    salun: Call, served: str, net: Path, tmp_path: Path
) -> None:
    target = tmp_path / "here"
    call = ["pull", served, "--to", target, "--deployment", "edge-7", "--json"]
    pulled = last_object(salun(*call))
    assert pulled["changed"]
    assert pulled["fetched_bytes"] > 100_000
    assert json.loads((target / "config.json").read_bytes())["architecture"] == ARCHITECTURE
    if pulled["version"] == 1:
        weights = (net / "model.safetensors").read_bytes()
        assert (target / "model.safetensors").read_bytes() == weights
    again = last_object(salun(*call))
    assert not again["changed"]
    assert again["fetched_bytes"] == 0
    assert "was here already" in salun(*call[:-1]).stdout
    (listed,) = last_object(salun("deployments", served, "--json"))["items"]
    assert (listed["deployment"], listed["version"]) == ("edge-7", pulled["version"])
    assert "edge-7" in salun("deployments", served).stdout
    refused = salun("deployments", served, "--remove", "edge-8")
    assert refused.returncode == 1
    assert "edge-8" in refused.stderr
    assert "edge-7" not in salun("deployments", served, "--remove", "edge-7").stdout


def test_a_watching_pull_brings_the_version_at_once_and_stays(
    up: stack.Running, served: str, tmp_path: Path
) -> None:
    command = [sys.executable, "-m", "client.main", "pull", served, "--watch", "--json"]
    with subprocess.Popen(
        [*command, "--to", str(tmp_path / "here")],
        env=settings.child_environment(SALUN_DATA_DIR=str(up.folder.root), SALUN_URL=""),
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert json.loads(process.stdout.readline())["model"] == served
        assert (tmp_path / "here" / "model.safetensors").exists()
        assert process.poll() is None
        process.terminate()


def test_who_did_what_is_told_and_can_be_proved(
    salun: Call, up: stack.Running, finished: dict[str, Any]
) -> None:
    request = finished["id"]
    told = salun("audit-events", "--object", request, "--json")
    entries = [json.loads(line) for line in told.stdout.splitlines()]
    assert entries[0]["action"] == "forget_request.submit"
    assert {entry["object_id"] for entry in entries} == {request}
    assert "img_00" not in told.stdout
    shown = salun("audit-events", "--action", "alias.move").stdout
    assert "alias.move" in shown
    assert "forget_request.submit" not in shown
    last = last_object(salun("audit-events", "--json"))
    noted = last_object(salun("audit-events", "--verify", "--json"))
    assert noted["entries"] >= last["position"]
    whole = salun("audit-events", "--verify", "--known", last["digest"])
    assert (whole.returncode, "the chain is whole" in whole.stdout) == (0, True), whole.stderr
    unknown = salun("audit-events", "--verify", "--known", "0" * 64)
    assert (unknown.returncode, "no entry has the digest" in unknown.stderr) == (1, True)
    assert salun("audit-events", "--verify", "--after", 3).returncode == 1
    behind = salun("audit-events", "--after", last["position"] - 1, "--json").stdout
    assert json.loads(behind.splitlines()[0]) == last
    key = last_object(salun("keys", "create", "r", "--scope", "requests:read", "--json"))["key"]
    away = {"SALUN_URL": up.base_url, "SALUN_API_KEY": key}
    forbidden = run(["audit-events"], **away)
    assert (forbidden.returncode, "audit:read" in forbidden.stderr) == (1, True)


def test_an_error_as_json_carries_the_problem(salun: Call, tmp_path: Path) -> None:
    done = salun("pull", "no-such-model", "--to", str(tmp_path / "nowhere"), "--json")
    assert done.returncode == 1
    problem = last_object(done)["error"]
    assert problem["status"] == 404
    assert problem["type"].startswith("/problems/")


def test_no_key_is_told_in_one_line(tmp_path: Path) -> None:
    done = run(["status"], SALUN_DATA_DIR=str(tmp_path), SALUN_URL="https://salun.example")
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.startswith("error no API key for https://salun.example: give --key")
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("environment", "said"),
    [
        ({"PORT": "abc"}, "error PORT: got 'abc'"),
        ({"SALUN_URL": "http://[::1", "SALUN_API_KEY": "k"}, "error got address 'http://[::1'"),
    ],
)
def test_a_wrong_setting_is_told_in_one_line(environment: dict[str, str], said: str) -> None:
    for command in ["status"], ["demo"] if "PORT" in environment else ["keys", "list"]:
        done = run(command, **environment)
        assert done.returncode == 1
        assert done.stderr.startswith(said)
        assert len(done.stderr.splitlines()) == 1


def test_the_local_admin_key_never_leaves_this_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "admin.key").write_text("secret", encoding="utf-8")
    monkeypatch.setenv("SALUN_DATA_DIR", str(tmp_path))
    monkeypatch.delenv("SALUN_API_KEY", raising=False)
    with pytest.raises(errors.ClientError, match="no API key"):
        session.connect("https://salun.example")
    with session.connect("http://127.0.0.1:1") as api:
        assert api.url == "http://127.0.0.1:1"


@pytest.mark.parametrize(
    "command",
    [
        ["up"],
        ["demo"],
        ["keys", "create"],
        ["keys", "list"],
        ["keys", "revoke"],
        ["datasets", "push"],
        ["models", "push"],
        ["forget"],
        ["status"],
        ["watch"],
        ["report"],
        ["approve"],
        ["deny"],
        ["extend"],
        ["withdraw"],
        ["audit"],
        ["audits"],
        ["pull"],
    ],
)
def test_help_teaches_with_an_example(command: list[str]) -> None:
    done = run([*command, "--help"])
    assert done.returncode == 0
    assert "Example" in done.stdout
    assert f"salun {' '.join(command)}" in done.stdout


def test_the_client_starts_without_torch_or_a_database_driver() -> None:
    script = (
        "import sys, client.main;"
        "print([name for name in ('torch', 'psycopg', 'sqlalchemy', 'celery') "
        "if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"
