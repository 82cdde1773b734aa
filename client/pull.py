"""Pulling the version that an alias points at, verified and without a moment of half a model.

``DIR`` becomes a symbolic link into ``DIR.versions/`` (layout in ``place``). A new version is
fetched beside the old one, every digest is checked, all of it is written through to the disk, and
then the link is swapped in one step: whoever opens ``DIR/...`` sees the old version or the new one.
After the swap the previous version is kept for readers that are in the middle of loading it, unless
it must be forgotten: versions below the pointer's ``min_version``, and versions that the service
answers with 410 (revoked), are deleted at once.
"""

import dataclasses
import json
import re
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path, PurePosixPath

import httpx

from client import download, errors, http, place

OnBytes = Callable[[int, int], None]
"""Hears (bytes that are here, bytes in all)."""

_HOLD_SECONDS = 30
_DIGEST = re.compile(r"[0-9a-f]{64}")


@dataclasses.dataclass(frozen=True)
class Pulled:
    """What a pull did. ``changed`` is False when ``folder`` already showed that version whole."""

    model: str
    alias: str
    version: int
    previous_version: int | None
    manifest_digest: str
    folder: Path
    changed: bool
    fetched_bytes: int
    purged_versions: tuple[int, ...]


def pull(
    api: http.Api,
    model: str,
    alias: str,
    folder: Path,
    *,
    pointer: http.Json | None = None,
    on_bytes: OnBytes = lambda _here, _total: None,
) -> Pulled:
    """Make ``folder`` show the version that the alias points at; check what is already there.

    ``pointer`` is one that was just read (else it is read here). Raises IntegrityError when bytes
    do not have the promised digest, RollbackError for a pointer to a version that must no longer
    be served, ApiError, UnreachableError, and ClientError when the disk refuses. ``folder`` goes
    on showing what it showed, unless the new version was shown already and only an old one could
    not be deleted: the next pull deletes it.
    """
    try:
        return _pull(api, model, alias, folder, pointer, on_bytes)
    except OSError as error:
        raise errors.ClientError(f"cannot write {folder}: {error}") from error


def follow(api: http.Api, model: str, alias: str) -> Iterator[http.Json]:
    """Yield the pointer now and whenever it has moved, for ever; the service holds the answer.

    Raises ApiError and UnreachableError; call again to go on.
    """
    address = http.path("v1", "models", model, "aliases", alias)
    headers: dict[str, str] = {}
    while True:
        asked_at = time.monotonic()
        response = api.call("GET", address, headers=headers, timeout=_HOLD_SECONDS + 30.0)
        if response.status_code != httpx.codes.NOT_MODIFIED:
            yield response.json()
            headers = {
                "If-None-Match": response.headers.get("ETag", ""),
                "Prefer": f"wait={_HOLD_SECONDS}",
            }
        elif time.monotonic() - asked_at < 1.0:  # it did not hold the answer
            time.sleep(2.0)


def report(api: http.Api, deployment: str, pulled: Pulled, loaded_at: str) -> None:
    """Tell the service what a deployment runs (``loaded_at``: RFC 3339)."""
    body = {
        "model": pulled.model,
        "version": pulled.version,
        "manifest_digest": pulled.manifest_digest,
        "loaded_at": loaded_at,
    }
    api.post(http.path("v1", "deployments", deployment, "reports"), body)


def _pull(
    api: http.Api,
    model: str,
    alias: str,
    folder: Path,
    pointer: http.Json | None,
    on_bytes: OnBytes,
) -> Pulled:
    here = place.Place(folder.absolute())
    with here.locked():
        if pointer is None:
            pointer = api.get(http.path("v1", "models", model, "aliases", alias))
        version, digest = int(pointer["version"]), str(pointer["manifest_digest"])
        oldest = max(int(pointer["min_version"]), here.oldest_allowed(model))
        if version < oldest:
            raise errors.RollbackError(
                f"{model}@{alias} points at version {version}, but nothing older than version "
                f"{oldest} may be served; {folder} stays as it is"
            )
        previous = here.shown_version()
        target = here.folder_of(version, digest)
        manifest, wanted = _manifest(api, model, version, digest)
        whole = here.is_whole(target, wanted)
        fetched = 0 if whole else _fetch(api, here, target, manifest, wanted, on_bytes)
        changed = not (whole and here.shows(target))
        if not here.shows(target):
            here.show(target)
        here.remember(model, oldest)
        here.clear_incoming()
        purged = _purge(api, here, model, shown=target, previous=previous, oldest=oldest)
    return Pulled(
        model=model,
        alias=alias,
        version=version,
        previous_version=previous,
        manifest_digest=digest,
        folder=folder,
        changed=changed,
        fetched_bytes=fetched,
        purged_versions=purged,
    )


def _manifest(
    api: http.Api, model: str, version: int, promised: str
) -> tuple[bytes, list[download.Wanted]]:
    address = http.path("v1", "models", model, "versions", version, "manifest")
    content = api.call("GET", address).content
    got = place.digest_of(content)
    if got != promised:
        raise errors.IntegrityError(
            f"manifest of {model} version {version}: got sha256 {got}, expected {promised}"
        )
    manifest = json.loads(content)
    if (manifest["model"], manifest["version"]) != (model, version):
        raise errors.IntegrityError(
            f"got the manifest of {manifest['model']} version {manifest['version']}, "
            f"expected that of {model} version {version}"
        )
    wanted = [
        download.Wanted(_plain(str(file["path"])), _hex(str(file["digest"])), int(file["size"]))
        for file in manifest["files"]
    ]
    return content, wanted


def _plain(path: str) -> str:
    """Refuse a path that could leave the version's folder."""
    odd = not path or path.startswith("/") or "\\" in path or "\0" in path
    if odd or any(part.startswith(".") for part in PurePosixPath(path).parts):
        raise errors.IntegrityError(f"manifest names {path!r}, expected a plain relative path")
    return path


def _hex(digest: str) -> str:
    """Refuse what is no digest: blobs are kept under it until they are in their place."""
    if not _DIGEST.fullmatch(digest):
        raise errors.IntegrityError(f"manifest names digest {digest[:80]!r}, expected a SHA-256")
    return digest


def _fetch(
    api: http.Api,
    here: place.Place,
    target: Path,
    manifest: bytes,
    wanted: Sequence[download.Wanted],
    on_bytes: OnBytes,
) -> int:
    """Build the version's folder; return how many bytes were not here before."""
    total = sum(file.size_bytes for file in wanted)
    done = fetched = 0
    for file in wanted:
        blob = here.incoming / file.digest
        local = blob if blob.exists() else here.find_local(file)
        if local is None or not download.copy_verified(local, blob, file):
            arrived = done

            def on_have(size: int, arrived: int = arrived) -> None:
                on_bytes(arrived + size, total)

            fetched += download.fetch(api, file, blob, on_have)
        done += file.size_bytes
        on_bytes(done, total)
    here.assemble(target, manifest, wanted)
    return fetched


def _purge(
    api: http.Api,
    here: place.Place,
    model: str,
    *,
    shown: Path,
    previous: int | None,
    oldest: int,
) -> tuple[int, ...]:
    """Delete what must not be kept, and what nobody needs any more."""
    purged = []
    shown_version = here.shown_version()
    has_moved = previous not in (None, shown_version)
    for version, folders in here.versions().items():
        spare = [folder for folder in folders if folder != shown]
        readers_may_be_in = version != shown_version and (version == previous or not has_moved)
        if spare and (
            version < oldest or not readers_may_be_in or _is_revoked(api, model, version)
        ):
            for folder in spare:
                here.delete(folder)
            purged.append(version)
    return tuple(purged)


def _is_revoked(api: http.Api, model: str, version: int) -> bool:
    try:
        api.get(http.path("v1", "models", model, "versions", version))
    except errors.ApiError as error:
        return error.status in (httpx.codes.GONE, httpx.codes.NOT_FOUND)
    return False
