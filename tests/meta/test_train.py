"""Meta-training: the same seed gives the same bits, however often it is interrupted."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time

import jax
import numpy as np
import pytest

import metaql
from metaql.checkpoint import CheckpointStore, CheckpointWarning
from metaql.embedding.prior import fit_prior
from metaql.errors import CheckpointError, ConfigError
from metaql.meta.experience import q_learning_experience
from metaql.meta.groups import groups_of, prior_name
from metaql.meta.loop import CHECKPOINT_FOLDER
from metaql.meta.train import meta_train
from metaql.policy.beliefq import BeliefQ
from metaql.runs import read_metrics
from metaql.tasks.families.base import Family
from metaql.tasks.families.chain import Chain
from metaql.tasks.families.frozen_lake import FrozenLake
from metaql.tasks.families.mixture import Mixture

ITERATIONS = 12
SETTINGS = {
    "lifetimes": 16,
    "generations": 4,
    "segments": 2,
    "segment_steps": 4,
    "bank": 32,
    "agents": 16,
    "agent_steps": 64,
    "env_steps": 16 * 8 * ITERATIONS,
    "checkpoint_every": 3,
    "refresh": 5,
    "hidden": 8,
    "embedding": 4,
    "sweeps": 1,
}


def train(**options):
    return meta_train(FrozenLake.toy(), seed=3, **{**SETTINGS, **options})


def bits(agent):
    """Every number of an agent, as bytes."""
    leaves = jax.tree.leaves((agent.learner, agent.priors))
    return b"".join(np.asarray(x).tobytes() for x in leaves if hasattr(x, "dtype"))


@pytest.fixture(scope="module", autouse=True)
def _quick_to_compile():
    """What is tested is which bits come out, not how soon: compile without optimising."""
    before = jax.config.read("jax_disable_most_optimizations")
    jax.config.update("jax_disable_most_optimizations", True)
    jax.clear_caches()  # what was compiled with optimising, by tests before, has other last bits
    yield
    jax.config.update("jax_disable_most_optimizations", before)
    jax.clear_caches()


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    run = tmp_path_factory.mktemp("whole")
    return train(run=run), run


def stop_at(iteration):
    def on_progress(stage, done, metrics):
        if stage == "meta-training" and metrics and round(done * ITERATIONS) == iteration:
            raise KeyboardInterrupt

    return on_progress


def steps_of(run):
    return [row["env_steps"] for row in read_metrics(run)]


ALL_STEPS = [16 * 8 * (k + 1) for k in range(ITERATIONS)]


def test_the_same_seed_gives_the_same_bits_and_another_seed_others(uninterrupted):
    agent, run = uninterrupted
    assert bits(train()) == bits(agent)  # nothing depends on whether a run is written
    assert bits(meta_train(FrozenLake.toy(), seed=4, **SETTINGS)) != bits(agent)
    assert steps_of(run) == ALL_STEPS
    assert bits(metaql.load(run)) == bits(agent)


def test_training_moves_every_weight(uninterrupted):
    agent, _ = uninterrupted
    key = jax.random.split(jax.random.key(3), 5)[1]
    before = BeliefQ(key, config=agent.learner.config)
    for name in ("embed", "tune", "head", "modes"):
        pairs = zip(
            *(jax.tree.leaves(getattr(x, name)) for x in (before, agent.learner)), strict=True
        )
        arrays = [(x, y) for x, y in pairs if hasattr(x, "dtype")]
        assert all(0 < float(np.abs(x - y).max()) < 0.1 for x, y in arrays), name
    assert float(agent.learner.epsilon) == 0.0  # exploration belongs to training only
    assert agent.learner.prior is None
    assert list(agent.priors) == ["frozen_lake/9x4"]


@pytest.mark.parametrize("iteration", [1, 3, 7, 12])
def test_ctrl_c_and_resume_give_the_same_bits(iteration, uninterrupted, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        train(run=tmp_path, on_progress=stop_at(iteration))
    assert len(steps_of(tmp_path)) == iteration
    assert bits(train(run=tmp_path, resume=True)) == bits(uninterrupted[0])
    assert steps_of(tmp_path) == ALL_STEPS
    assert (tmp_path / "metrics.jsonl").read_bytes() == (
        uninterrupted[1] / "metrics.jsonl"
    ).read_bytes()


def test_rows_written_after_the_last_checkpoint_are_written_once(uninterrupted, tmp_path):
    """As after a kill: the metrics are ahead of the checkpoint, the last line is torn."""
    with pytest.raises(KeyboardInterrupt):
        train(run=tmp_path, on_progress=stop_at(5))
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write(json.dumps({"env_steps": -1}) + '\n{"env_st')
    assert bits(train(run=tmp_path, resume=True)) == bits(uninterrupted[0])
    assert steps_of(tmp_path) == ALL_STEPS


def test_a_damaged_newest_checkpoint_costs_time_and_no_bit(uninterrupted, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        train(run=tmp_path, on_progress=stop_at(8))
    store = CheckpointStore(tmp_path / CHECKPOINT_FOLDER)
    assert store.steps() == [6, 8]
    tensors = store.path(8) / "tensors.safetensors"
    raw = bytearray(tensors.read_bytes())
    raw[len(raw) // 2] ^= 1
    tensors.write_bytes(raw)
    with pytest.warns(CheckpointWarning, match="step-000008"):
        again = train(run=tmp_path, resume=True)
    assert bits(again) == bits(uninterrupted[0])
    assert steps_of(tmp_path) == ALL_STEPS


def test_resuming_needs_something_to_resume(tmp_path):
    with pytest.raises(CheckpointError, match="run"):
        train(resume=True)
    with pytest.raises(CheckpointError, match="none"):
        train(run=tmp_path, resume=True)


def test_a_wrong_setting_is_a_config_error():
    with pytest.raises(ConfigError, match="lifetimes"):
        train(lifetime=16)
    with pytest.raises(ConfigError, match="multiple"):
        train(generations=5)


def test_only_training_tasks_are_ever_drawn(monkeypatch):
    splits = []
    whole, one = Family.tasks, FrozenLake.sample

    def tasks(self, key, num_tasks, split="train"):
        splits.append(split)
        return whole(self, key, num_tasks, split)

    def sample(self, key, split):
        splits.append(split)
        return one(self, key, split)

    monkeypatch.setattr(Family, "tasks", tasks)
    monkeypatch.setattr(FrozenLake, "sample", sample)
    train()
    assert len(splits) >= 4  # agents, and a bank for each of three epochs
    assert set(splits) == {"train"}


def test_priors_are_fitted_on_what_the_agents_of_this_seed_lived(uninterrupted):
    """Stage 2 by hand: the same key, the same agents, the same prior."""
    key = jax.random.split(jax.random.split(jax.random.key(3), 5)[0], 1)[0]
    experience = q_learning_experience(FrozenLake.toy(), key, agents=16, steps=64, chunk=64)
    prior = fit_prior(experience)
    trained = uninterrupted[0].priors["frozen_lake/9x4"]
    assert np.array_equal(trained.pair.visits > 0, prior.pair.visits > 0)
    assert float(trained.transitions.sum()) > 0


@pytest.mark.slow  # two more programs to compile
def test_a_mixture_trains_one_group_for_each_prior():
    lake, chain = FrozenLake.toy(), Chain.toy()
    family = Mixture([lake, chain])
    groups = groups_of(family)
    assert [group.prior_name for group in groups] == [prior_name(lake), None]
    assert prior_name(lake) == "frozen_lake/9x4"
    rows = []
    agent = meta_train(
        family,
        seed=0,
        on_progress=lambda stage, done, row: rows.append((stage, row)),
        **{**SETTINGS, "env_steps": 16 * 8 * 4},
    )
    assert list(agent.priors) == ["frozen_lake/9x4"]
    losses = [row["fit"] for stage, row in rows if stage == "meta-training" and row]
    assert len(losses) == 4
    assert np.isfinite(losses).all()


CHILD = """
import json, sys, time
from pathlib import Path
from metaql.meta.train import meta_train
from metaql.tasks.families.frozen_lake import FrozenLake
run, resume, settings = Path(sys.argv[1]), sys.argv[2] == "resume", json.loads(sys.argv[3])
meta_train(
    FrozenLake.toy(), seed=3, run=run, resume=resume,
    on_progress=lambda stage, done, row: time.sleep(0.05), **settings,
)
"""


def start_child(run, log):
    """Train in a process of its own, from where the last one was killed."""
    resume = CheckpointStore(run / CHECKPOINT_FOLDER).steps() != []
    settings = json.dumps({**SETTINGS, "checkpoint_every": 2})
    environment = {**os.environ, "JAX_DISABLE_MOST_OPTIMIZATIONS": "1"}
    command = [sys.executable, "-c", CHILD, str(run), "resume" if resume else "start", settings]
    return subprocess.Popen(command, env=environment, stderr=log)


def wait_for_more(child, run, rows, since):
    """Wait until the child has written rows beyond these itself, or has ended."""
    metrics, until = run / "metrics.jsonl", time.monotonic() + 240
    while child.poll() is None and time.monotonic() < until:
        # What the last child wrote after its last checkpoint is there until it is cut off.
        fresh = metrics.exists() and metrics.stat().st_mtime > since
        if fresh and len(steps_of(run)) > rows:
            break
        time.sleep(0.005)


@pytest.mark.slow
def test_killed_at_random_moments_a_run_ends_with_the_same_bits(uninterrupted, tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    rng = np.random.default_rng(0)
    kills = 4
    with (tmp_path / "log").open("wb") as log:
        for _ in range(kills):
            kept = max(CheckpointStore(run / CHECKPOINT_FOLDER).steps(), default=0)
            since, child = time.time(), start_child(run, log)
            # Once it lives on: any moment of an iteration or of a write.
            wait_for_more(child, run, kept, since)
            time.sleep(rng.uniform(0.0, 0.25))
            child.send_signal(signal.SIGKILL)
            assert child.wait(timeout=60) == -signal.SIGKILL
        child = start_child(run, log)
        assert child.wait(timeout=240) == 0, (tmp_path / "log").read_text()[-2000:]
    assert bits(metaql.load(run)) == bits(uninterrupted[0])
    assert steps_of(run) == ALL_STEPS
