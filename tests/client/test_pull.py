import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from client import errors, http, place, pull

CONFIG = b'{"architecture": "resnet18"}'
WEIGHTS = b"".join(n.to_bytes(4, "big") for n in range(750_000))
OTHER_WEIGHTS = WEIGHTS[::-1]


@pytest.fixture
def served(registry: Any) -> Any:
    registry.publish(1, {"config.json": CONFIG, "model.safetensors": WEIGHTS})
    return registry


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "models" / "digits"


def pull_it(api: http.Api, target: Path) -> pull.Pulled:
    return pull.pull(api, "digits", "production", target)


@pytest.mark.usefixtures("served")
def test_a_first_pull_makes_a_link_to_the_version(api: http.Api, target: Path) -> None:
    pulled = pull_it(api, target)
    assert target.is_symlink()
    assert (target / "config.json").read_bytes() == CONFIG
    assert (target / "model.safetensors").read_bytes() == WEIGHTS
    assert pulled.changed
    assert (pulled.version, pulled.previous_version) == (1, None)
    assert pulled.fetched_bytes == len(CONFIG) + len(WEIGHTS)
    assert sorted(entry.name for entry in target.iterdir()) == ["config.json", "model.safetensors"]


def test_a_second_pull_fetches_nothing_and_changes_nothing(
    served: Any, api: http.Api, target: Path
) -> None:
    pull_it(api, target)
    before = os.lstat(target)
    served.asked.clear()
    pulled = pull_it(api, target)
    assert not pulled.changed
    assert pulled.fetched_bytes == 0
    assert served.blobs_asked() == []
    assert os.lstat(target).st_ino == before.st_ino


def test_a_new_version_is_swapped_in_and_only_what_differs_is_fetched(
    served: Any, api: http.Api, target: Path
) -> None:
    pull_it(api, target)
    served.publish(2, {"config.json": CONFIG, "model.safetensors": OTHER_WEIGHTS})
    pulled = pull_it(api, target)
    assert (pulled.version, pulled.previous_version) == (2, 1)
    assert pulled.fetched_bytes == len(OTHER_WEIGHTS)
    assert (target / "model.safetensors").read_bytes() == OTHER_WEIGHTS
    assert pulled.purged_versions == ()


def test_only_the_version_before_is_kept(served: Any, api: http.Api, target: Path) -> None:
    for version in (1, 2, 3):
        served.publish(version, {"config.json": b'{"n": %d}' % version})
        pulled = pull_it(api, target)
    assert pulled.purged_versions == (1,)
    assert list(place.Place(target).versions()) == [2, 3]


def test_a_reader_never_sees_half_a_version(served: Any, api: http.Api, target: Path) -> None:
    """Both files carry their version's number, so a mixture would show."""

    def files(version: int) -> dict[str, bytes]:
        return {"config.json": b"%d" % version, "model.safetensors": b"%d" % version * 1000}

    served.publish(1, files(1))
    pull_it(api, target)
    seen: set[tuple[bytes, bytes]] = set()
    stop = threading.Event()

    def read() -> None:
        while not stop.is_set():
            shown = target.resolve()  # as a loader that resolves its folder once
            try:
                pair = (
                    (shown / "config.json").read_bytes(),
                    (shown / "model.safetensors").read_bytes()[:1],
                )
            except FileNotFoundError:  # purged after two more swaps, while we were in it
                continue
            seen.add(pair)

    reader = threading.Thread(target=read)
    reader.start()
    try:
        for version in range(2, 8):
            served.publish(version, files(version))
            pull_it(api, target)
            assert (target / "config.json").exists()
    finally:
        stop.set()
        reader.join()
    assert seen
    assert all(config == weights for config, weights in seen)


def test_a_cut_download_continues_where_it_was(served: Any, api: http.Api, target: Path) -> None:
    def cut(handler: Any, content: bytes, _offset: int) -> None:
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(content)))
        handler.end_headers()
        handler.wfile.write(content[:1_000_000])
        handler.close_connection = True

    served.versions[1] = {"model.safetensors": WEIGHTS}
    served.faults = [cut]
    pull_it(api, target)
    assert (target / "model.safetensors").read_bytes() == WEIGHTS
    ranges = [asked for asked, path in served.asked if "/blobs/" in path]
    assert len(ranges) == 2
    assert ranges[0] == ""
    assert 0 < int(ranges[1].removeprefix("bytes=").rstrip("-")) <= 1_000_000


def test_a_server_that_ignores_range_is_read_from_the_start(
    served: Any, api: http.Api, target: Path
) -> None:
    def cut(handler: Any, content: bytes, _offset: int) -> None:
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(content)))
        handler.end_headers()
        handler.wfile.write(content[:1_000_000])
        handler.close_connection = True

    def whole(handler: Any, content: bytes, offset: int) -> None:
        assert offset > 0
        handler.send(200, content)

    served.versions[1] = {"model.safetensors": WEIGHTS}
    served.faults = [cut, whole]
    pull_it(api, target)
    assert (target / "model.safetensors").read_bytes() == WEIGHTS


def test_a_connection_that_always_breaks_is_given_up(
    served: Any, api: http.Api, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def nothing(handler: Any, content: bytes, _offset: int) -> None:
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(content)))
        handler.end_headers()
        handler.close_connection = True

    monkeypatch.setattr(time, "sleep", lambda _: None)
    served.faults = [nothing] * 20
    with pytest.raises(errors.UnreachableError, match="times in a row"):
        pull_it(api, target)
    assert not target.exists()


def test_wrong_bytes_are_refused_and_the_old_version_stays(
    served: Any, api: http.Api, target: Path
) -> None:
    def flipped(handler: Any, content: bytes, _offset: int) -> None:
        handler.send(200, content[:-1] + bytes([content[-1] ^ 1]))

    pull_it(api, target)
    served.publish(2, {"config.json": CONFIG, "model.safetensors": OTHER_WEIGHTS})
    served.faults = [flipped]
    with pytest.raises(errors.IntegrityError, match=r"model\.safetensors: got sha256 .* expected"):
        pull_it(api, target)
    assert (target / "model.safetensors").read_bytes() == WEIGHTS
    assert place.Place(target).shown_version() == 1
    assert pull_it(api, target).version == 2  # and it can be tried again


def test_more_bytes_than_promised_are_refused(served: Any, api: http.Api, target: Path) -> None:
    def longer(handler: Any, content: bytes, _offset: int) -> None:
        handler.send(200, content + b"more")

    served.faults = [longer]
    with pytest.raises(errors.IntegrityError, match="more than"):
        pull_it(api, target)
    assert not target.exists()


def test_a_manifest_with_another_digest_is_refused(
    served: Any, api: http.Api, target: Path
) -> None:
    served.manifest_suffix = b" "
    with pytest.raises(errors.IntegrityError, match="manifest of digits version 1: got sha256"):
        pull_it(api, target)


@pytest.mark.parametrize("path", ["../evil", "/etc/evil", "a/../../evil", "a\\b", ".hidden", ""])
def test_a_path_that_leaves_the_folder_is_refused(
    served: Any, api: http.Api, target: Path, path: str
) -> None:
    served.extra_files = [{"path": path, "digest": "0" * 64, "size": 1}]
    with pytest.raises(errors.IntegrityError, match="plain relative path"):
        pull_it(api, target)
    assert served.blobs_asked() == []


def test_what_is_no_digest_is_refused(served: Any, api: http.Api, target: Path) -> None:
    served.extra_files = [{"path": "a.json", "digest": str(target.parent / "other"), "size": 1}]
    with pytest.raises(errors.IntegrityError, match="expected a SHA-256"):
        pull_it(api, target)
    assert list(target.parent.iterdir()) == [place.Place(target).store]


def test_it_never_goes_back_below_the_oldest_version_ever_allowed(
    served: Any, api: http.Api, target: Path
) -> None:
    served.publish(2, {"config.json": CONFIG})
    served.min_version = 2
    pull_it(api, target)
    served.production, served.min_version = 1, 1  # as an attacker or a restored backup would say
    with pytest.raises(errors.RollbackError, match="nothing older than version 2"):
        pull_it(api, target)
    assert place.Place(target).shown_version() == 2


def test_a_pointer_below_its_own_minimum_is_refused(
    served: Any, api: http.Api, target: Path
) -> None:
    served.min_version = 5
    with pytest.raises(errors.RollbackError):
        pull_it(api, target)
    assert not target.exists()


def test_revoked_and_too_old_versions_are_deleted_here_too(
    served: Any, api: http.Api, target: Path
) -> None:
    pull_it(api, target)
    served.publish(2, {"config.json": b"2"})
    served.revoked = {1}
    pulled = pull_it(api, target)
    assert pulled.purged_versions == (1,)
    assert list(place.Place(target).versions()) == [2]
    served.publish(3, {"config.json": b"3"})
    served.min_version = 3
    assert pull_it(api, target).purged_versions == (2,)
    left = [path for path in target.parent.rglob("*") if path.is_file()]
    assert not [path for path in left if path.read_bytes() in (WEIGHTS, b"2")]


def test_a_version_revoked_later_is_deleted_by_a_pull_that_changes_nothing(
    served: Any, api: http.Api, target: Path
) -> None:
    pull_it(api, target)
    served.publish(2, {"config.json": b"2"})
    assert pull_it(api, target).purged_versions == ()
    served.revoked = {1}
    pulled = pull_it(api, target)
    assert not pulled.changed
    assert pulled.purged_versions == (1,)


@pytest.mark.usefixtures("served")
def test_a_damaged_local_file_is_repaired(api: http.Api, target: Path) -> None:
    pull_it(api, target)
    (target / "model.safetensors").write_bytes(b"damaged")
    pulled = pull_it(api, target)
    assert pulled.changed
    assert (target / "model.safetensors").read_bytes() == WEIGHTS
    assert (target / "config.json").read_bytes() == CONFIG


def test_a_leftover_of_an_earlier_run_that_is_damaged_is_fetched_anew(
    served: Any, api: http.Api, target: Path
) -> None:
    served.versions[1] = {"model.safetensors": WEIGHTS}
    here = place.Place(target)
    here.incoming.mkdir(parents=True)
    digest = place.digest_of(WEIGHTS)
    (here.incoming / f"{digest}.part").write_bytes(b"garbage" * 1000)
    pull_it(api, target)
    assert (target / "model.safetensors").read_bytes() == WEIGHTS


def test_a_killed_pull_leaves_the_old_version_and_is_continued(
    served: Any, api: http.Api, target: Path
) -> None:
    started = threading.Event()
    release = threading.Event()

    def hang(handler: Any, content: bytes, _offset: int) -> None:
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(content)))
        handler.end_headers()
        handler.wfile.write(content[:2_000_000])
        handler.wfile.flush()
        started.set()
        release.wait(30)
        handler.close_connection = True

    pull_it(api, target)
    served.publish(2, {"model.safetensors": OTHER_WEIGHTS})
    served.faults = [hang]
    script = (
        "import sys; from pathlib import Path; from client import http, pull;"
        "pull.pull(http.Api(sys.argv[1], 'key'), 'digits', 'production', Path(sys.argv[2]))"
    )
    puller = subprocess.Popen([sys.executable, "-c", script, served.url, str(target)])
    assert started.wait(30)
    part = place.Place(target).incoming / f"{place.digest_of(OTHER_WEIGHTS)}.part"
    deadline = time.monotonic() + 10
    while not (part.exists() and part.stat().st_size) and time.monotonic() < deadline:
        time.sleep(0.01)
    puller.kill()
    puller.wait()
    release.set()
    assert (target / "model.safetensors").read_bytes() == WEIGHTS
    here_before = part.stat().st_size
    assert pull_it(api, target).fetched_bytes == len(OTHER_WEIGHTS) - here_before
    assert (target / "model.safetensors").read_bytes() == OTHER_WEIGHTS


@pytest.mark.usefixtures("served")
def test_something_that_is_not_ours_is_left_alone(api: http.Api, target: Path) -> None:
    target.mkdir(parents=True)
    (target / "precious").touch()
    with pytest.raises(errors.ClientError, match="no link of `salun pull`"):
        pull_it(api, target)
    assert (target / "precious").exists()
    elsewhere = target.parent / "elsewhere"
    for found in (target, target.parent / "nowhere"):  # a link that stands, and one that dangles
        elsewhere.symlink_to(found)
        with pytest.raises(errors.ClientError, match="no link of `salun pull`"):
            pull_it(api, elsewhere)
        assert elsewhere.readlink() == found
        elsewhere.unlink()
    with pytest.raises(errors.ClientError, match="expected one with a name"):
        pull_it(api, Path("/"))


def test_a_folder_holds_one_model(served: Any, api: http.Api, target: Path) -> None:
    pull_it(api, target)
    served.model = "letters"
    with pytest.raises(errors.ClientError, match="holds model digits, got letters"):
        pull.pull(api, "letters", "production", target)


def test_two_files_with_the_same_content(served: Any, api: http.Api, target: Path) -> None:
    served.publish(2, {"a.json": b"same", "deep/er/b.json": b"same", "empty.txt": b""})
    pull_it(api, target)
    assert (target / "a.json").read_bytes() == b"same"
    assert (target / "deep" / "er" / "b.json").read_bytes() == b"same"
    assert (target / "empty.txt").read_bytes() == b""


def test_following_yields_each_move_once(served: Any, api: http.Api) -> None:
    moves = pull.follow(api, "digits", "production")
    assert next(moves)["version"] == 1
    timer = threading.Timer(0.2, served.publish, [2, {"config.json": b"2"}])
    timer.start()
    assert next(moves)["version"] == 2
    timer.join()


def test_a_report_names_what_was_loaded(served: Any, api: http.Api, target: Path) -> None:
    pulled = pull_it(api, target)
    pull.report(api, "edge-7", pulled, "2026-11-24T07:00:00Z")
    assert served.reports == [
        {
            "path": "/v1/deployments/edge-7/reports",
            "model": "digits",
            "version": 1,
            "manifest_digest": pulled.manifest_digest,
            "loaded_at": "2026-11-24T07:00:00Z",
        }
    ]
