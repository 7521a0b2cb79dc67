"""Checkpoints that are either intact or refused.

A checkpoint is a folder of two files: ``tensors.safetensors`` and ``manifest.json``. The manifest
holds a SHA-256 of itself, of the tensor file and of every tensor, so a single flipped bit is found.
A folder is written beside its final place, synced to disk and renamed: a process killed at any
moment leaves either the old checkpoint or the new one. One writer at a time per folder.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import importlib.metadata
import json
import os
import platform
import re
import warnings
from collections.abc import Generator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from safetensors import SafetensorError, deserialize
from safetensors.numpy import save as safetensors_bytes

from metaql import files
from metaql.errors import CheckpointError
from metaql.leaves import Spec, is_key, named_leaves, restore, spec_of, to_numpy

FORMAT_VERSION = 1
"""Version of the folder format; the manifest's own digest keeps its place in every version."""
TENSORS = "tensors.safetensors"
MANIFEST = "manifest.json"
_NO_DIGEST = "0" * 64
_USE_ANOTHER = "Use another checkpoint, or train again."


class CheckpointWarning(UserWarning):
    """A damaged checkpoint was skipped and an older one used."""


class FingerprintWarning(CheckpointWarning):
    """The checkpoint was written by another version of JAX: results may differ in the last bits."""


class _DamagedError(CheckpointError):
    """Unreadable or altered: an older checkpoint may still do."""


class Restored(NamedTuple):
    """What `CheckpointStore.load_latest` found."""

    step: int
    tree: Any
    """The tree, with the structure of ``like``."""
    extra: dict[str, Any]


def save(folder: str | os.PathLike[str], tree: Any, *, kind: str, extra: Mapping[str, Any]) -> None:
    """Write ``tree`` as one checkpoint folder, replacing an older checkpoint there atomically.

    Args:
        folder: where to; its parents are made. A folder with other files in it is not replaced.
        tree: any pytree of arrays, typed PRNG keys, bools, ints and floats. Functions in it are
            code, not data: they are not stored.
        kind: what this is, checked by `load` ("agent", "training").
        extra: anything JSON can hold (configuration, counters).

    Raises:
        CheckpointError: a leaf or ``extra`` cannot be stored, or the folder cannot be written.
    """
    target = Path(folder).expanduser().resolve()
    contents = _encode(tree, kind, extra)
    with _writing(target):
        _refuse_foreign(target)
        files.write_folder(target, contents)


def load(folder: str | os.PathLike[str], like: Any, *, kind: str) -> tuple[Any, dict[str, Any]]:
    """Read what `save` wrote; every byte is verified.

    Args:
        folder: the checkpoint folder.
        like: a tree of the same structure, shapes and dtypes (arrays or ``jax.ShapeDtypeStruct``).
            Each leaf comes back as the kind it has here (JAX array, NumPy array, Python number);
            functions are taken from here. JAX arrays come back strongly typed, on one device.
        kind: the kind it must have.

    Returns:
        The tree and ``extra``.

    Raises:
        CheckpointError: missing, damaged, of another format version or kind, or unlike ``like``.
    """
    place = files.readable(Path(folder).expanduser())
    manifest = _read_manifest(place, kind)
    _warn_if_elsewhere(place, manifest["fingerprint"])
    stored = _read_tensors(place, manifest)
    return _decode(place, like, stored, manifest), manifest["extra"]


def read_extra(folder: str | os.PathLike[str], *, kind: str) -> dict[str, Any]:
    """Read only ``extra``: what is needed to build the ``like`` that `load` wants.

    Raises:
        CheckpointError: as `load`, for the manifest.
    """
    return _read_manifest(files.readable(Path(folder).expanduser()), kind)["extra"]


def kind_of(folder: str | os.PathLike[str]) -> str:
    """The kind of an intact checkpoint.

    Raises:
        CheckpointError: missing, damaged or of another format version.
    """
    return _read_manifest(files.readable(Path(folder).expanduser()), None)["kind"]


class CheckpointStore:
    """The checkpoints of one run: ``folder/step-000123/``, the newest ``keep`` of them."""

    def __init__(
        self, folder: str | os.PathLike[str], keep: int = 2, *, kind: str = "training"
    ) -> None:
        """Nothing is written before the first `save`.

        Raises:
            CheckpointError: ``keep`` is less than 1.
        """
        if keep < 1:
            raise CheckpointError("A store keeps at least one checkpoint.", f"Got keep={keep}.")
        self.folder, self.keep, self.kind = Path(folder).expanduser().resolve(), keep, kind

    def steps(self) -> list[int]:
        """Steps of the complete writes that are here, oldest first (not yet verified).

        Raises:
            CheckpointError: the folder may not be read.
        """
        try:
            names = os.listdir(self.folder)
        except (FileNotFoundError, NotADirectoryError):
            names = []
        except OSError as error:
            raise CheckpointError(
                f"{self.folder} must be readable.", f"{error.strerror}.", "Check its permissions."
            ) from error
        found = (re.fullmatch(r"step-(\d+)|\.step-(\d+)\.previous", name) for name in names)
        return sorted({int(match[1] or match[2]) for match in found if match})

    def path(self, step: int) -> Path:
        """Folder of one step."""
        return self.folder / f"step-{step:06d}"

    def save(self, step: int, tree: Any, extra: Mapping[str, Any]) -> Path:
        """Write one checkpoint, then remove those beyond ``keep`` and leftovers of killed writes.

        Raises:
            CheckpointError: as `save` (module).
        """
        contents = _encode(tree, self.kind, {**extra, "step": step})
        with _writing(self.folder):
            for old in self.steps():
                files.recover(self.path(old))
            files.write_folder(self.path(step), contents)
            files.remove_leftovers(self.folder, r"step-\d+")
            others = [old for old in self.steps() if old != step]
            for old in others[: max(len(others) + 1 - self.keep, 0)]:
                files.remove_folder(self.path(old))
        return self.path(step)

    def load_latest(self, like: Any) -> Restored:
        """Read the newest intact checkpoint; a damaged one is skipped with a `CheckpointWarning`.

        Raises:
            CheckpointError: none is intact, or the newest intact one is of another version or
                kind or unlike ``like`` (an older one would be no better).
        """
        reasons = []
        for step in reversed(self.steps()):
            try:
                tree, extra = load(self.path(step), like, kind=self.kind)
            except _DamagedError as error:
                reasons.append(str(error))
                warnings.warn(f"Skipped {self.path(step)}: {error}", CheckpointWarning, 2)
                continue
            return Restored(extra.pop("step"), tree, extra)
        raise CheckpointError(
            f"{self.folder} must hold at least one intact checkpoint.",
            " ".join(reasons) or "It holds none.",
            "Check the path, or start the training again without resuming.",
        )


@contextlib.contextmanager
def _writing(target: Path) -> Generator[None]:
    try:
        yield
    except OSError as error:
        raise CheckpointError(
            f"The checkpoint {target} must be writable.",
            f"{error.strerror or type(error).__name__}: {error.filename or target}.",
            "Check the path, its permissions and the free space.",
        ) from error


def _refuse_foreign(target: Path) -> None:
    """Never replace a folder that is not a checkpoint."""
    foreign = sorted(set(os.listdir(target)) - {TENSORS, MANIFEST}) if target.exists() else []
    if foreign:
        raise CheckpointError(
            "Only a checkpoint or an empty folder is replaced.",
            f"{target} also holds {', '.join(foreign[:3])}.",
            "Choose a new folder.",
        )


# --- from tree to bytes ---


def _sha256(data: Any) -> str:
    return hashlib.sha256(data).hexdigest()


def _entry(leaf: Any, array: np.ndarray) -> dict[str, Any]:
    entry: dict[str, Any] = {"dtype": array.dtype.name, "shape": list(array.shape)}
    if is_key(leaf):
        entry["prng"] = str(jax.random.key_impl(leaf))
    return entry | {"sha256": _sha256(array.tobytes())}


def _encode(tree: Any, kind: str, extra: Mapping[str, Any]) -> dict[str, bytes]:
    """The two files of a checkpoint."""
    leaves = {name: leaf for name, leaf in named_leaves(tree)[0].items() if not callable(leaf)}
    arrays = {name: to_numpy(name, leaf) for name, leaf in leaves.items()}
    try:
        tensors = safetensors_bytes(arrays)
    except SafetensorError as error:
        raise CheckpointError(
            "Every dtype must be one that safetensors has.", f"{error}.", "Cast it before saving."
        ) from error
    manifest = {
        "sha256": _NO_DIGEST,
        "format_version": FORMAT_VERSION,
        "kind": kind,
        "fingerprint": fingerprint(),
        "extra": dict(extra),
        "file": {"name": TENSORS, "bytes": len(tensors), "sha256": _sha256(tensors)},
        "tensors": {name: _entry(leaf, arrays[name]) for name, leaf in leaves.items()},
    }
    try:
        text = files.to_json(manifest, indent=1).encode()
    except (TypeError, ValueError) as error:
        raise CheckpointError(
            "`extra` must have a JSON form.",
            f"{error}.",
            "Use dicts, lists, strings, numbers, booleans and None.",
        ) from error
    return {
        TENSORS: tensors,
        MANIFEST: text.replace(_NO_DIGEST.encode(), _sha256(text).encode(), 1),
    }


@functools.cache
def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "unknown"


def fingerprint() -> dict[str, Any]:
    """Versions and settings that decide whether a run repeats bit by bit."""
    return {
        "python": platform.python_version(),
        **{name: _version(name) for name in ("jax", "jaxlib", "numpy", "metaql")},
        "platform": f"{platform.system()}-{platform.machine()}-{jax.default_backend()}",
        "float64": bool(jax.config.read("jax_enable_x64")),
    }


# --- from bytes to tree ---


def _damaged(place: Path, evidence: str) -> _DamagedError:
    return _DamagedError(f"A checkpoint must be intact: {place}.", evidence, _USE_ANOTHER)


def _read_file(place: Path, name: str) -> bytes:
    try:
        return (place / name).read_bytes()
    except OSError as error:
        reason = error.strerror or type(error).__name__
        if os.path.isdir(place):
            raise _damaged(place, f"{name}: {reason}.") from error
        raise _DamagedError(
            f"{place} must be a checkpoint folder.",
            "It is not a folder." if os.path.exists(place) else f"{reason}.",
            "Check the path.",
        ) from error


def _read_manifest(place: Path, kind: str | None) -> dict[str, Any]:
    """The manifest, if it is intact, of this format version and of the right kind (None: any)."""
    raw = _read_file(place, MANIFEST)
    try:
        manifest = json.loads(raw)
        digest, version, found = (manifest[k] for k in ("sha256", "format_version", "kind"))
        intact = digest == _sha256(raw.replace(digest.encode(), _NO_DIGEST.encode(), 1))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise _damaged(place, f"{MANIFEST} cannot be read ({error}).") from error
    if version != FORMAT_VERSION:
        raise (CheckpointError if intact else _DamagedError)(
            f"This metaql reads checkpoints of format version {FORMAT_VERSION}.",
            f"{place} says version {version!r}" + ("." if intact else ", and is altered."),
            "Load it with the metaql that wrote it, or train again.",
        )
    if not intact:
        raise _damaged(place, f"{MANIFEST} does not match its SHA-256.")
    if kind is not None and found != kind:
        raise CheckpointError(
            f"A checkpoint of kind {kind!r} is needed.", f"{place} holds {found!r}."
        )
    return manifest


def _warn_if_elsewhere(place: Path, written: Mapping[str, Any]) -> None:
    here = fingerprint()
    changed = [k for k in ("jax", "jaxlib", "float64") if written.get(k) != here[k]]
    if changed:
        pairs = ", ".join(f"{key} {written.get(key)} -> {here[key]}" for key in changed)
        text = f"{place} was written elsewhere ({pairs}): results may differ in the last bits."
        warnings.warn(text, FingerprintWarning, stacklevel=3)


def _read_tensors(place: Path, manifest: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """All tensors, each verified: file, names, shapes and bytes."""
    raw, entries = _read_file(place, TENSORS), manifest["tensors"]
    if len(raw) != manifest["file"]["bytes"]:
        raise _damaged(place, f"{TENSORS} has {len(raw)} bytes, not {manifest['file']['bytes']}.")
    if _sha256(raw) != manifest["file"]["sha256"]:
        raise _damaged(place, f"{TENSORS} does not match its SHA-256.")
    try:
        found = {name: (tuple(part["shape"]), part["data"]) for name, part in deserialize(raw)}
    except SafetensorError as error:
        raise _damaged(place, f"{TENSORS} cannot be read ({error}).") from error
    stored = {}
    for name, entry in entries.items():
        shape, data = found.get(name, ((), b""))
        if name not in found or list(shape) != entry["shape"] or _sha256(data) != entry["sha256"]:
            raise _damaged(place, f"Tensor `{name}` is missing or does not match its SHA-256.")
        stored[name] = np.frombuffer(data, jnp.dtype(entry["dtype"])).reshape(shape)
    return stored


def _decode(
    place: Path, like: Any, stored: Mapping[str, np.ndarray], manifest: Mapping[str, Any]
) -> Any:
    """The stored tensors in the structure of ``like``; raises where the two differ."""
    leaves, structure = named_leaves(like)
    entries = manifest["tensors"]
    wanted = {name: spec_of(name, leaf) for name, leaf in leaves.items() if not callable(leaf)}
    found = {
        name: Spec(entry["dtype"], tuple(entry["shape"]), "prng" in entry)
        for name, entry in entries.items()
    }
    wrong = [
        f"`{name}` is {found.get(name, 'missing')}, expected {wanted.get(name, 'nothing')}"
        for name in sorted(wanted.keys() | found.keys())
        if wanted.get(name) != found.get(name)
    ]
    if wrong:
        raise CheckpointError(
            f"The tensors of {place} must be those this configuration has.",
            f"{len(wrong)} differ: {'; '.join(wrong[:3])}.",
            "Load it with the configuration it was written with.",
        )
    filled = [
        leaf if callable(leaf) else restore(name, leaf, stored[name], entries[name].get("prng"))
        for name, leaf in leaves.items()
    ]
    return jax.tree_util.tree_unflatten(structure, filled)
