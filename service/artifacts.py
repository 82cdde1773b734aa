"""What can be told about a version's files without torch: paths, headers, config.

The worker checks the rest (tensor names and shapes against the architecture) before the version
is published.
"""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

import safetensors

from salun_core import errors as core_errors
from salun_core import generation_specs, layouts, specs
from service import errors, storage

CONFIG = "config.json"
WEIGHTS = "model.safetensors"
JUDGE_CONFIG, JUDGE_WEIGHTS = f"judge/{CONFIG}", f"judge/{WEIGHTS}"
# Beside the parts that a layout needs: nothing in these folders is changed by unlearning.
_OTHER_FOLDERS = {"judge", *layouts.OPTIONAL}
_SUFFIXES = {".safetensors", ".json", ".txt", ".md", ".model", ".png"}
_SEGMENT = re.compile(r"^[A-Za-z0-9_][A-Za-z0-9._+\-]*$")
_DIGEST = re.compile(r"^[0-9a-f]{64}$")
MAX_PATH_LENGTH = 255
MAX_JSON_BYTES = 2**20


@dataclass(frozen=True)
class FileRef:
    """A file of a version: where it lies in it, and its content."""

    path: str
    digest: str
    size: int


def check_listing(files: Sequence[FileRef]) -> None:
    """Paths are plain and unique, kinds are allowed. Raises :class:`errors.Invalid`."""
    problems = [
        problem
        for index, file in enumerate(files)
        if (problem := _path_problem(f"/files/{index}/path", file.path)) is not None
    ]
    paths = [file.path for file in files]
    problems += [
        errors.Problem(f"/files/{index}/path", "duplicate-path", f"got {path!r} twice")
        for index, path in enumerate(paths)
        if path in paths[:index]
    ]
    folders = {str(parent) for path in paths for parent in PurePosixPath(path).parents}
    problems += [
        errors.Problem(
            f"/files/{index}/path",
            "unsafe-path",
            f"got {path!r} as a file and as a folder of others, expected one of them",
        )
        for index, path in enumerate(paths)
        if path in folders
    ]
    if problems:
        raise errors.Invalid("unsafe-artifact", problems[0].detail, problems)


def check(family: specs.Family, files: Sequence[FileRef], label_names: Sequence[str]) -> None:
    """Everything that can be told at once about a version of that family.

    Raises :class:`errors.Invalid` (``unsafe-artifact``) that says what was got and expected.
    """
    for index, file in enumerate(files):
        if file.path.endswith(".safetensors"):
            tensor_shapes(file.digest, pointer=f"/files/{index}")
    if family == "classifier":
        _check_classifier(files, label_names)
    else:
        _check_generator(family, files)


def layout_of(
    family: generation_specs.GenerativeFamily, files: Sequence[FileRef]
) -> layouts.Layout:
    """The parts of a generator's folder; raises :class:`errors.Invalid` where one is wrong."""
    digests = {file.path: file.digest for file in files}
    paths = list(digests)
    try:
        return layouts.read(family, digests, lambda path: _read_json(path, digests[path]))
    except core_errors.InvalidConfigError as error:
        path = str(error).split(":", 1)[0]
        pointer = f"/files/{paths.index(path)}" if path in digests else "/files"
        code = "invalid-config" if path in digests else "file-missing"
        raise _unsafe(pointer, code, str(error)) from error


def read_config(digest: str) -> specs.ClassifierConfig:
    """The config of a classifier; raises :class:`errors.Invalid`."""
    try:
        return specs.parse_classifier_config(_read_json(CONFIG, digest))
    except core_errors.InvalidConfigError as error:
        raise _unsafe(f"/{CONFIG}", "invalid-config", str(error)) from error


def tensor_shapes(digest: str, *, pointer: str = "/files") -> dict[str, tuple[int, ...]]:
    """Names and shapes in a safetensors file; raises :class:`errors.Invalid` unless it is whole."""
    path = storage.path_of(digest)
    with path.open("rb") as stream:
        start = stream.read(8)
    try:
        with safetensors.safe_open(path, framework="np") as tensors:
            return {name: tuple(tensors.get_slice(name).get_shape()) for name in tensors.keys()}  # noqa: SIM118
    except (safetensors.SafetensorError, OSError, ValueError) as error:
        detail = (
            f"expected a whole safetensors file, got {_describe(start)} "
            f"of {path.stat().st_size} bytes ({error})"
        )
        raise _unsafe(pointer, "not-safetensors", detail) from error


def is_digest(text: str) -> bool:
    """Whether that is a bare lower-case hex SHA-256."""
    return _DIGEST.fullmatch(text) is not None


def _check_classifier(files: Sequence[FileRef], label_names: Sequence[str]) -> None:
    """timm's hub layout."""
    by_path = {file.path: file for file in files}
    for name in (CONFIG, WEIGHTS):
        if name not in by_path:
            got = ", ".join(sorted(by_path)) or "no files"
            raise _unsafe("/files", "file-missing", f"got {got}; expected {CONFIG} and {WEIGHTS}")
    _check_labels(read_config(by_path[CONFIG].digest), label_names)


def _check_generator(family: generation_specs.GenerativeFamily, files: Sequence[FileRef]) -> None:
    """A diffusers folder, perhaps with a judge in timm's hub layout."""
    layout = layout_of(family, files)
    for index, file in enumerate(files):
        if file.path.endswith(".safetensors") and not _is_known_weights(layout, file.path):
            detail = (
                f"{file.path}: got weights that unlearning would leave as they are; expected no "
                f"others than {layout.weights_file} and those of the parts that never change"
            )
            raise _unsafe(f"/files/{index}/path", "stray-weights", detail)
    digests = {file.path: file.digest for file in files}
    judge = {JUDGE_CONFIG, JUDGE_WEIGHTS}
    if judge & digests.keys():
        if missing := judge - digests.keys():
            detail = f"{missing.pop()}: missing; a judge needs {' and '.join(sorted(judge))}"
            raise _unsafe("/files", "file-missing", detail)
        read_config(digests[JUDGE_CONFIG])


def _is_known_weights(layout: layouts.Layout, path: str) -> bool:
    if path == layout.weights_file:
        return True
    folder = path.split("/")[0] if "/" in path else ""
    return folder in _OTHER_FOLDERS | (layout.components.keys() - {layout.denoiser})


def _read_json(name: str, digest: str) -> Any:  # noqa: ANN401
    """The parsed content; raises :class:`InvalidConfigError` where it is too long or no JSON."""
    path = storage.path_of(digest)
    if path.stat().st_size > MAX_JSON_BYTES:
        raise core_errors.InvalidConfigError(f"{name}: got over {MAX_JSON_BYTES} bytes")
    try:
        return json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise core_errors.InvalidConfigError(f"{name}: expected JSON, got {error}") from error


def _check_labels(config: specs.ClassifierConfig, label_names: Sequence[str]) -> None:
    if config.num_classes < len(label_names):
        detail = (
            f"num_classes is {config.num_classes}; the dataset has {len(label_names)} labels, "
            "expected at least that many outputs"
        )
        raise _unsafe(f"/{CONFIG}", "labels-mismatch", detail)
    if config.label_names and list(config.label_names)[: len(label_names)] != list(label_names):
        detail = (
            f"label_names are {list(config.label_names)[:12]}; "
            f"the dataset's are {list(label_names)[:12]}, expected the same in the same order"
        )
        raise _unsafe(f"/{CONFIG}", "labels-mismatch", detail)


def _path_problem(pointer: str, path: str) -> errors.Problem | None:
    if len(path) > MAX_PATH_LENGTH or not all(map(_SEGMENT.fullmatch, path.split("/"))):
        detail = (
            f"got path {path[:80]!r}; expected a relative path such as 'unet/config.json' of "
            "letters, digits, '.', '_', '+', '-' and '/', with no part that starts with a dot"
        )
        return errors.Problem(pointer, "unsafe-path", detail)
    if PurePosixPath(path).suffix not in _SUFFIXES:
        expected = ", ".join(sorted(_SUFFIXES))
        detail = f"got {path!r}; expected one of {expected} (weights are safetensors, never pickle)"
        return errors.Problem(pointer, "unsafe-file-type", detail)
    return None


def _describe(start: bytes) -> str:
    if start[:2] == b"PK":
        return "a zip archive (a PyTorch pickle file?)"
    if start[:1] == b"\x80":
        return "a pickle"
    return "a truncated or foreign file"


def _unsafe(pointer: str, code: str, detail: str) -> errors.Invalid:
    return errors.Invalid("unsafe-artifact", detail, [errors.Problem(pointer, code, detail)])
