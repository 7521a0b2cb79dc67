"""A checkpoint comes back bit by bit, or it is refused."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
import warnings
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metaql import checkpoint
from metaql.checkpoint import CheckpointStore, CheckpointWarning, FingerprintWarning
from metaql.errors import CheckpointError

DTYPES = ["bool", "int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64"]
DTYPES += ["float16", "bfloat16", "float32", "float64", "complex64"]
SHAPES = [(), (0,), (3,), (2, 0, 3), (2, 3)]


class Pair(NamedTuple):
    left: Any
    right: Any


def random_bits(dtype: str, shape: tuple[int, ...]) -> np.ndarray:
    """Any bit pattern, so that NaN payloads, subnormals and minus zero are in it."""
    kind = jnp.dtype(dtype)
    rng = np.random.default_rng(0)
    if dtype == "bool":
        return rng.integers(0, 2, shape).astype(bool)
    return np.frombuffer(rng.bytes(kind.itemsize * int(np.prod(shape))), kind).reshape(shape)


def same_bits(left: Any, right: Any) -> bool:
    left, right = np.asarray(left), np.asarray(right)
    same_form = left.dtype == right.dtype and left.shape == right.shape
    return same_form and left.tobytes() == right.tobytes()


def filled(step: int) -> dict[str, jax.Array]:
    return {"w": jnp.full((40, 50), step, jnp.float32), "n": jnp.asarray(step)}


def saved(tmp_path, tree: Any, extra: dict | None = None):
    folder = tmp_path / "saved"
    checkpoint.save(folder, tree, kind="test", extra=extra or {})
    return folder


def edit_manifest(folder, **changes: Any) -> None:
    """Change fields of the manifest and make its digest right again."""
    path = folder / checkpoint.MANIFEST
    manifest = json.loads(path.read_text()) | changes | {"sha256": "0" * 64}
    text = json.dumps(manifest)
    path.write_text(text.replace("0" * 64, checkpoint._sha256(text.encode()), 1))


def flip(path, bit: int) -> None:
    data = bytearray(path.read_bytes())
    data[bit // 8] ^= 1 << bit % 8
    path.write_bytes(data)


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_dtype_and_shape_comes_back_bit_by_bit(tmp_path, dtype):
    tree = {str(shape): random_bits(dtype, shape) for shape in SHAPES}
    back, _ = checkpoint.load(saved(tmp_path, tree), tree, kind="test")
    for name, array in tree.items():
        assert isinstance(back[name], np.ndarray)
        assert same_bits(back[name], array)


def test_jax_arrays_of_narrow_types_come_back_as_jax_arrays(tmp_path):
    tree = [jnp.asarray(random_bits(d, (5,))) for d in ("bfloat16", "float32", "bool", "uint32")]
    like = jax.eval_shape(lambda: tree)
    back, _ = checkpoint.load(saved(tmp_path, tree), like, kind="test")
    assert all(isinstance(array, jax.Array) for array in back)
    assert all(map(same_bits, back, tree))


def test_float64_is_refused_rather_than_narrowed(tmp_path):
    folder = saved(tmp_path, np.float64([0.1]))
    with pytest.raises(CheckpointError, match="float32, expected float64"):
        checkpoint.load(folder, jax.ShapeDtypeStruct((1,), np.float64), kind="test")


@pytest.mark.parametrize("impl", ["threefry2x32", "rbg"])
def test_typed_keys_keep_their_stream(tmp_path, impl):
    keys = {"one": jax.random.key(7, impl=impl), "many": jax.random.split(jax.random.key(1), 3)}
    back, _ = checkpoint.load(saved(tmp_path, keys), jax.eval_shape(lambda: keys), kind="test")
    assert back["one"].dtype == keys["one"].dtype
    assert same_bits(jax.random.bits(back["one"]), jax.random.bits(keys["one"]))
    draw = jax.vmap(jax.random.bits)
    assert same_bits(draw(back["many"]), draw(keys["many"]))


def test_a_key_is_not_taken_for_its_data(tmp_path):
    folder = saved(tmp_path, jax.random.key(0))
    with pytest.raises(CheckpointError, match="PRNG key as uint32"):
        checkpoint.load(folder, jnp.zeros(2, jnp.uint32), kind="test")


def test_another_prng_implementation_is_refused(tmp_path):
    folder = saved(tmp_path, jax.random.key(0, impl="rbg"))
    with pytest.raises(CheckpointError, match="expected key<urbg>"):
        checkpoint.load(folder, jax.random.key(0, impl="unsafe_rbg"), kind="test")


def test_python_numbers_functions_and_structure_come_back(tmp_path):
    tree = Pair({"flag": True, "count": 2**62, "rate": 0.1}, [np.float32(0.1), jnp.tanh, None])
    like = Pair({"flag": False, "count": 0, "rate": 0.0}, [np.float32(0), jnp.tanh, None])
    back, extra = checkpoint.load(saved(tmp_path, tree, {"a": [1, {}]}), like, kind="test")
    assert back == tree
    assert {name: type(x) for name, x in back.left.items()} == {
        "flag": bool,
        "count": int,
        "rate": float,
    }
    assert type(back.right[0]) is np.float32
    assert extra == {"a": [1, {}]}


def test_a_network_comes_back_into_a_fresh_one(tmp_path):
    old, new = (eqx.nn.MLP(2, 1, 8, 1, key=jax.random.key(seed)) for seed in (0, 1))
    back, _ = checkpoint.load(saved(tmp_path, old), new, kind="test")
    assert eqx.tree_equal(back, old)
    names = json.loads((tmp_path / "saved" / checkpoint.MANIFEST).read_text())["tensors"]
    assert ".layers[0].weight" in names


@pytest.mark.parametrize("leaf", ["text", 2**63, 1j, np.array(["a"]), np.complex128(1)])
def test_what_cannot_be_stored_is_said_before_anything_is_written(tmp_path, leaf):
    with pytest.raises(CheckpointError):
        saved(tmp_path, {"good": jnp.ones(2), "bad": leaf})
    with pytest.raises(CheckpointError, match="JSON form"):
        saved(tmp_path, {}, {"bad": object()})
    assert not list(tmp_path.iterdir())


def test_extra_is_read_without_the_tensors_and_holds_numpy_numbers(tmp_path):
    folder = saved(tmp_path, {}, {"loss": np.float32(0.5), "path": tmp_path, "x": jnp.ones(2)})
    (folder / checkpoint.TENSORS).unlink()
    expected = {"loss": 0.5, "path": str(tmp_path), "x": [1.0, 1.0]}
    assert checkpoint.read_extra(folder, kind="test") == expected


@pytest.mark.parametrize("name", [checkpoint.TENSORS, checkpoint.MANIFEST])
def test_one_flipped_bit_anywhere_is_refused(tmp_path, name):
    tree = {"a": jnp.arange(3.0), "k": jax.random.key(0)}
    path = saved(tmp_path, tree, {"note": "x", "rate": 0.25}) / name
    original = path.read_bytes()
    bits = random.Random(0).sample(range(8 * len(original)), 200)
    for bit in bits:
        flip(path, bit)
        with pytest.raises(CheckpointError):
            checkpoint.load(path.parent, tree, kind="test")
        path.write_bytes(original)
    checkpoint.load(path.parent, tree, kind="test")


def test_a_type_changed_in_the_header_is_refused(tmp_path):
    path = saved(tmp_path, filled(1)) / checkpoint.TENSORS
    path.write_bytes(path.read_bytes().replace(b'"F32"', b'"I32"'))
    with pytest.raises(CheckpointError, match=r"tensors\.safetensors does not match its SHA-256"):
        checkpoint.load(path.parent, filled(0), kind="test")


@pytest.mark.parametrize("name", [checkpoint.TENSORS, checkpoint.MANIFEST])
@pytest.mark.parametrize("share", [0.0, 0.5, 0.99])
def test_a_truncated_file_is_refused(tmp_path, name, share):
    path = saved(tmp_path, filled(1)) / name
    os.truncate(path, int(share * path.stat().st_size))
    with pytest.raises(CheckpointError, match=r"intact.*Use another checkpoint"):
        checkpoint.load(path.parent, filled(0), kind="test")


@pytest.mark.parametrize(
    ("like", "told"),
    [
        ({"w": jnp.zeros((40, 50))}, "`['n']` is int32[], expected nothing"),
        (filled(0) | {"b": jnp.zeros(1)}, "`['b']` is missing, expected float32[1]"),
        (filled(0) | {"w": jnp.zeros((50, 40))}, "float32[40, 50], expected float32[50, 40]"),
        (filled(0) | {"w": jnp.zeros((40, 50), jnp.int32)}, "expected int32[40, 50]"),
    ],
)
def test_another_structure_is_refused_and_named(tmp_path, like, told):
    with pytest.raises(CheckpointError) as caught:
        checkpoint.load(saved(tmp_path, filled(1)), like, kind="test")
    assert told in str(caught.value)
    store = CheckpointStore(tmp_path / "store")
    store.save(1, filled(1), {})
    store.save(2, filled(2), {})
    with pytest.raises(CheckpointError, match="must be those"):
        store.load_latest(like)


def test_a_tensor_missing_from_the_file_is_damage(tmp_path):
    folder = saved(tmp_path, filled(1))
    other = saved(tmp_path / "other", {"n": jnp.asarray(1)})
    shutil.copy(other / checkpoint.TENSORS, folder / checkpoint.TENSORS)
    manifest = json.loads((other / checkpoint.MANIFEST).read_text())
    edit_manifest(folder, file=manifest["file"])
    with pytest.raises(CheckpointError, match=r"Tensor `\['w'\]` is missing"):
        checkpoint.load(folder, filled(0), kind="test")


def test_another_version_or_kind_is_told_and_not_skipped(tmp_path):
    store = CheckpointStore(tmp_path)
    store.save(1, filled(1), {})
    newest = store.save(2, filled(2), {})
    edit_manifest(newest, format_version=999)
    with pytest.raises(CheckpointError, match=r"version 1\. .* version 999\. Load it with"):
        store.load_latest(filled(0))
    edit_manifest(newest, format_version=1, kind="agent")
    with pytest.raises(CheckpointError, match=r"'training' is needed.*holds 'agent'"):
        store.load_latest(filled(0))


def test_another_jax_is_a_warning(tmp_path):
    folder = saved(tmp_path, filled(3))
    edit_manifest(folder, fingerprint=checkpoint.fingerprint() | {"jax": "0.1"})
    with pytest.warns(FingerprintWarning, match=r"jax 0\.1 -> "):
        tree, _ = checkpoint.load(folder, filled(0), kind="test")
    assert int(tree["n"]) == 3


def test_the_same_environment_is_no_warning(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        checkpoint.load(saved(tmp_path, filled(3)), filled(0), kind="test")


def test_paths_that_cannot_be_read_are_typed_errors(tmp_path):
    (tmp_path / "file").write_text("x")
    (tmp_path / "empty").mkdir()
    for name, told in (
        ("nowhere", "No such file"),
        ("file", "not a folder"),
        ("empty", "manifest.json: No such file"),
    ):
        with pytest.raises(CheckpointError, match=told):
            checkpoint.load(tmp_path / name, {}, kind="test")
    with pytest.raises(CheckpointError, match="It holds none"):
        CheckpointStore(tmp_path / "nowhere").load_latest({})


def test_paths_that_cannot_be_written_are_typed_errors(tmp_path):
    (tmp_path / "file").write_text("x")
    for place in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(CheckpointError, match="must be writable"):
            checkpoint.save(place, {}, kind="test", extra={})
    with pytest.raises(CheckpointError, match="must be writable"):
        CheckpointStore(tmp_path / "file").save(1, {}, {})


@pytest.mark.skipif(not hasattr(os, "seteuid"), reason="needs POSIX permissions")
def test_folders_without_permission_are_typed_errors(tmp_path):
    store = CheckpointStore(tmp_path / "locked" / "store")
    store.save(1, {}, {})
    (tmp_path / "locked").chmod(0)
    user = os.geteuid()
    os.seteuid(65534 if user == 0 else user)  # root may do everything
    attempts = (
        lambda: checkpoint.save(tmp_path / "locked" / "x", {}, kind="test", extra={}),
        lambda: checkpoint.load(store.path(1), {}, kind="training"),
        lambda: store.load_latest({}),
        lambda: store.save(2, {}, {}),
    )
    try:
        for attempt in attempts:
            with pytest.raises(CheckpointError, match="Permission denied"):
                attempt()
    finally:
        os.seteuid(user)
        (tmp_path / "locked").chmod(0o700)


def test_saving_replaces_a_checkpoint_but_nothing_else(tmp_path):
    folder = saved(tmp_path, filled(1))
    assert saved(tmp_path, filled(2)) == folder
    tree, _ = checkpoint.load(folder, filled(0), kind="test")
    assert int(tree["n"]) == 2
    assert [path.name for path in tmp_path.iterdir()] == ["saved"]
    (folder / "thesis.tex").write_text("years of work")
    with pytest.raises(CheckpointError, match=r"also holds thesis\.tex"):
        saved(tmp_path, filled(3))
    assert (folder / "thesis.tex").exists()


def test_a_failed_save_leaves_the_old_one(tmp_path, monkeypatch):
    folder = saved(tmp_path, filled(1))
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", lambda _: (_ for _ in ()).throw(OSError(28, "No space left")))
        with pytest.raises(CheckpointError, match="No space left"):
            saved(tmp_path, filled(2))
    tree, _ = checkpoint.load(folder, filled(0), kind="test")
    assert int(tree["n"]) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["saved"]


def test_a_swap_killed_half_way_still_reads_and_heals(tmp_path):
    folder = saved(tmp_path, filled(1))
    stranded = tmp_path / ".saved.previous"
    folder.rename(stranded)
    tree, _ = checkpoint.load(folder, filled(0), kind="test")
    assert int(tree["n"]) == 1
    saved(tmp_path, filled(2))
    assert [path.name for path in tmp_path.iterdir()] == ["saved"]
    store = CheckpointStore(tmp_path / "store", keep=1)
    path = store.save(4, filled(4), {})
    path.rename(path.with_name(".step-000004.previous"))
    assert store.load_latest(filled(0)).step == 4


def test_the_store_keeps_the_newest_and_clears_leftovers(tmp_path):
    store = CheckpointStore(tmp_path, keep=2)
    (tmp_path / ".step-000001.tmp-0123abcd").mkdir()
    (tmp_path / "notes.txt").write_text("mine")
    for step in (1, 5, 1_234_567, 9):
        store.save(step, filled(step), {"row": step})
    assert store.steps() == [9, 1_234_567]
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["notes.txt", "step-000009", "step-1234567"]
    newest = store.load_latest(filled(0))
    assert (newest.step, newest.extra) == (1_234_567, {"row": 1_234_567})
    assert same_bits(newest.tree["w"], filled(1_234_567)["w"])


def test_saving_a_step_again_replaces_it(tmp_path):
    store = CheckpointStore(tmp_path, keep=2)
    store.save(1, filled(1), {})
    store.save(2, filled(2), {})
    store.save(2, filled(20), {})
    assert store.steps() == [1, 2]
    assert int(store.load_latest(filled(0)).tree["n"]) == 20


@pytest.mark.parametrize("name", [checkpoint.TENSORS, checkpoint.MANIFEST])
def test_a_damaged_one_is_skipped_for_the_previous(tmp_path, name):
    store = CheckpointStore(tmp_path, keep=3)
    for step in (1, 2, 3):
        store.save(step, filled(step), {})
    flip(store.path(3) / name, 8 * 200 + 3)
    (store.path(2) / name).unlink()
    with pytest.warns(CheckpointWarning, match="Skipped") as warned:
        assert store.load_latest(filled(0)).step == 1
    assert len(warned) == 2
    shutil.rmtree(store.path(1))
    with pytest.warns(CheckpointWarning), pytest.raises(CheckpointError, match="at least one"):
        store.load_latest(filled(0))


WRITER = """
import itertools, os, sys
import numpy as np
from metaql.checkpoint import CheckpointStore, fingerprint, save

def write_for_ever(folder):
    store = CheckpointStore(folder + "/store", keep=2)
    start = max(store.steps(), default=0)
    fingerprint()  # starts JAX
    print(os.getpid(), flush=True)
    for step in itertools.count(start + 1):
        tree = {"w": np.full((300, 300), step, np.float32), "n": np.int64(step)}
        store.save(step, tree, {"twice": 2 * step})
        save(folder + "/single", tree, kind="agent", extra={"twice": 2 * step})

for _ in sys.stdin:  # each line asks for a writer; forking saves the imports
    writer = os.fork()
    if writer == 0:
        write_for_ever(sys.argv[1])
    os.waitpid(writer, 0)
    print("dead", flush=True)
"""


@pytest.fixture
def kill_a_writer(tmp_path):
    """Starts a process that saves for ever and kills it after a delay in seconds."""
    command = [sys.executable, "-W", "ignore", "-c", WRITER, str(tmp_path)]
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, **pipes) as nursery:
        assert nursery.stdin is not None
        assert nursery.stdout is not None
        ask, answer = nursery.stdin, nursery.stdout

        def kill(delay: float) -> None:
            ask.write("one\n")
            ask.flush()
            writer = int(answer.readline())
            time.sleep(delay)
            os.kill(writer, signal.SIGKILL)
            assert answer.readline() == "dead\n"

        yield kill
        ask.close()


def consistent(tree: Any, extra: dict) -> int:
    step = int(tree["n"])
    assert np.array_equal(tree["w"], np.full((300, 300), step, np.float32))
    assert extra["twice"] == 2 * step
    return step


def test_killed_at_any_moment_the_newest_is_whole(tmp_path, kill_a_writer):
    like = {"w": np.zeros((300, 300), np.float32), "n": np.int64(0)}
    delays, store = random.Random(0), CheckpointStore(tmp_path / "store")
    seen = seen_single = 0
    kill_a_writer(0.5)
    for _ in range(24):
        kill_a_writer(delays.uniform(0.0, 0.15))
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            newest = store.load_latest(like)
            single = checkpoint.load(tmp_path / "single", like, kind="agent")
        assert consistent(newest.tree, newest.extra) == newest.step >= seen
        assert seen_single <= consistent(*single) <= newest.step
        seen, seen_single = newest.step, consistent(*single)
    assert seen > 24
