"""Leaves of a pytree as plain NumPy arrays and back, bit by bit."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from metaql.errors import CheckpointError


class Spec(NamedTuple):
    """How a leaf is stored; the stored form of a PRNG key is its uint32 data."""

    dtype: str
    shape: tuple[int, ...]
    key: bool

    def __str__(self) -> str:
        return f"{'PRNG key as ' * self.key}{self.dtype}{list(self.shape)}"


def named_leaves(tree: Any) -> tuple[dict[str, Any], Any]:
    """Leaves by readable path, ``.layers[0].weight`` (a bare leaf is ``.``), and the structure."""
    pairs, structure = jax.tree_util.tree_flatten_with_path(tree)
    return {jax.tree_util.keystr(path) or ".": leaf for path, leaf in pairs}, structure


def is_key(leaf: Any) -> bool:
    """Whether it is an array of typed PRNG keys (or its shape and dtype)."""
    dtype = getattr(leaf, "dtype", None)
    return dtype is not None and jnp.issubdtype(dtype, jax.dtypes.prng_key)


def to_numpy(name: str, leaf: Any) -> np.ndarray:
    """The stored form of one leaf; Python numbers as 64-bit, whatever the JAX float64 flag."""
    if is_key(leaf):
        leaf = jax.random.key_data(leaf)
    if isinstance(leaf, (jax.Array, np.ndarray, np.generic)):
        array = np.asarray(leaf)
        return np.ascontiguousarray(array, array.dtype.newbyteorder("=")).reshape(array.shape)
    for kind, dtype in ((bool, np.bool_), (int, np.int64), (float, np.float64)):
        if isinstance(leaf, kind) and (kind is not int or -(2**63) <= leaf < 2**63):
            return np.asarray(leaf, dtype)
    raise CheckpointError(
        "A checkpoint holds arrays, PRNG keys, bools, 64-bit ints and floats.",
        f"Leaf `{name}` is {type(leaf).__name__}: {leaf!r:.60}.",
        "Make it a static field, or put it into `extra`.",
    )


def digest(leaves: Iterable[Any]) -> str:
    """What tells arrays from others, down to the last bit: a SHA-256 of their numbers in a row."""
    found = hashlib.sha256()
    for leaf in leaves:
        found.update(to_numpy("leaf", leaf).tobytes())
    return found.hexdigest()


def spec_of(name: str, leaf: Any) -> Spec:
    """How ``leaf`` of ``like`` (an array or only its shape and dtype) would be stored."""
    if is_key(leaf):
        data = jax.eval_shape(jax.random.key_data, leaf)
        return Spec(data.dtype.name, data.shape, key=True)
    if not (hasattr(leaf, "dtype") and hasattr(leaf, "shape")):
        leaf = to_numpy(name, leaf)
    return Spec(jnp.dtype(leaf.dtype).name, tuple(leaf.shape), key=False)


def restore(name: str, leaf: Any, array: np.ndarray, prng: str | None) -> Any:
    """One leaf, of the kind it has in ``like``."""
    if isinstance(leaf, np.generic):
        return array[()]
    if isinstance(leaf, (bool, int, float)):
        return type(leaf)(array.item())
    if isinstance(leaf, np.ndarray):
        return array.copy()
    # A copy: JAX may otherwise alias the file's buffer.
    value = jnp.array(array)
    if prng is not None:
        value = jax.random.wrap_key_data(value, impl=prng)
    if value.dtype != leaf.dtype:
        raise CheckpointError(
            "A tensor must come back with the dtype it was written with.",
            f"`{name}` would be {value.dtype}, expected {leaf.dtype}.",
            "Use the same PRNG implementation and the same jax_enable_x64 as when it was written.",
        )
    return value
