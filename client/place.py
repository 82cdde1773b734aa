"""The folder that a pull maintains: versions side by side, a link to the one that is shown.

::

    digits -> digits.versions/3-5d41402abc4b
    digits.versions/3-5d41402abc4b/config.json, model.safetensors
    digits.versions/3-5d41402abc4b.json     the manifest it was built from
    digits.versions/state.json              the model, and the oldest version ever allowed
    digits.versions/incoming/               what is being fetched; resumed after a cut
"""

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

from client import download, errors, whole_files


class Place:
    """One such folder; every change of what it shows is a single rename."""

    def __init__(self, folder: Path) -> None:
        """Describe it; nothing is written."""
        self.link = folder
        self.store = folder.parent / f"{folder.name}.versions"
        self.incoming = self.store / "incoming"

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the folder for one pull at a time (others wait).

        Raises ClientError when something that is not ours stands there.
        """
        if not self.link.name:
            raise errors.ClientError(f"got folder {self.link}, expected one with a name")
        taken = self.link.exists() or self.link.is_symlink()  # first: another pull may make it
        ours = self.link.is_symlink() and self.link.readlink().parent == Path(self.store.name)
        if taken and not ours:
            raise errors.ClientError(
                f"{self.link} exists and is no link of `salun pull` into {self.store.name}; choose "
                "another folder, or move it away"
            )
        self.incoming.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(self.store / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)

    def oldest_allowed(self, model: str) -> int:
        """Return the oldest version that a pointer of this model has ever allowed (else 0).

        Raises ClientError when the folder holds another model.
        """
        if not self._state.exists():
            return 0
        state = json.loads(self._state.read_text(encoding="utf-8"))
        if state["model"] != model:
            raise errors.ClientError(
                f"{self.link} holds model {state['model']}, got {model}; choose another folder"
            )
        return int(state["oldest_allowed"])

    def remember(self, model: str, oldest_allowed: int) -> None:
        """Keep what ``oldest_allowed`` returns."""
        content = json.dumps({"model": model, "oldest_allowed": oldest_allowed})
        whole_files.write(self._state, content.encode("utf-8"))

    def shown_version(self) -> int | None:
        """Return the version that the link shows."""
        return _version_of(self.link.readlink().name) if self.link.is_symlink() else None

    def versions(self) -> dict[int, list[Path]]:
        """Return the folders of every version that is kept."""
        found: dict[int, list[Path]] = {}
        for entry in sorted(self.store.iterdir()):
            version = _version_of(entry.name)
            if version is not None and entry.is_dir():
                found.setdefault(version, []).append(entry)
        return found

    def folder_of(self, version: int, manifest_digest: str) -> Path:
        """Return where that version is kept, or would be."""
        return self.store / f"{version}-{manifest_digest[:12]}"

    def is_whole(self, folder: Path, wanted: Sequence[download.Wanted]) -> bool:
        """Tell whether every file is there with the promised bytes."""
        return all(download.has_digest(folder / file.path, file) for file in wanted)

    def shows(self, folder: Path) -> bool:
        """Tell whether the link shows that folder."""
        return self.link.is_symlink() and self.link.readlink().name == folder.name

    def find_local(self, wanted: download.Wanted) -> Path | None:
        """Return a file of a kept version that should have the wanted bytes, unchecked."""
        for manifest in self.store.glob("*-*.json"):
            for entry in json.loads(manifest.read_text(encoding="utf-8"))["files"]:
                if entry["digest"] == wanted.digest:
                    return manifest.with_suffix("") / str(entry["path"])
        return None

    def assemble(self, folder: Path, manifest: bytes, wanted: Sequence[download.Wanted]) -> None:
        """Make the version's folder from the blobs in ``incoming`` (named by their digests).

        A folder that is already there, but damaged, is repaired file by file.
        """
        tree = self.incoming / "tree"
        shutil.rmtree(tree, ignore_errors=True)
        for file in wanted:
            target = tree / file.path
            target.parent.mkdir(parents=True, exist_ok=True)
            os.link(self.incoming / file.digest, target)
        for directory in (tree, *(path for path in tree.rglob("*") if path.is_dir())):
            _sync_folder(directory)
        whole_files.write(folder.with_name(folder.name + ".json"), manifest)
        if folder.exists():
            for file in wanted:
                (folder / file.path).parent.mkdir(parents=True, exist_ok=True)
                (tree / file.path).replace(folder / file.path)
        else:
            tree.rename(folder)
        _sync_folder(self.store)

    def show(self, folder: Path) -> None:
        """Swap the link to that folder in one step."""
        fresh = self.link.with_name(f".{self.link.name}.new")
        fresh.unlink(missing_ok=True)
        fresh.symlink_to(Path(self.store.name) / folder.name)
        fresh.replace(self.link)
        _sync_folder(self.link.parent)

    def clear_incoming(self) -> None:
        """Drop what was fetched and is in its place now."""
        shutil.rmtree(self.incoming)

    def delete(self, folder: Path) -> None:
        """Delete a version that is not shown; a crash in between leaves it out of ``versions``."""
        doomed = self.incoming / f"deleted-{folder.name}"
        self.incoming.mkdir(exist_ok=True)
        folder.with_name(folder.name + ".json").unlink(missing_ok=True)
        shutil.rmtree(doomed, ignore_errors=True)
        folder.rename(doomed)
        shutil.rmtree(doomed)

    @property
    def _state(self) -> Path:
        return self.store / "state.json"


def digest_of(content: bytes) -> str:
    """Return the SHA-256 as bare lower-case hex."""
    return hashlib.sha256(content).hexdigest()


def _version_of(name: str) -> int | None:
    number, dash, _ = name.partition("-")
    return int(number) if dash and number.isdigit() else None


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
