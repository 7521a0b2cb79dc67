"""RecurrentQ on simulators: what is lived on the host is what training and replay see."""

from __future__ import annotations

import dataclasses

import equinox as eqx
import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metaql.embedding.recurrent import Sight
from metaql.errors import CheckpointError, EndlessWarning, EnvironmentFaultError, UsageError
from metaql.meta.agent import load
from metaql.meta.foresight import believed_again
from metaql.meta.host_lives import live_in_simulators
from metaql.meta.host_train import segments_of
from metaql.meta.recurrent_config import RecurrentConfig
from metaql.meta.recurrent_loss import scenes_of, segment_loss
from metaql.meta.replay import embeddings, replay_loss
from metaql.meta.train import meta_train
from metaql.policy.network import Sizes
from metaql.policy.recurrentq import RecurrentQ
from metaql.tasks.simulators import SimulatorFamily

CONFIG = RecurrentConfig(
    lifetimes=4, minibatches=2, segment_steps=16, episodes=(2, 2), hidden=8, width=8
)
SETTINGS = {
    "lifetimes": 4,
    "minibatches": 2,
    "segment_steps": 16,
    "episodes": (1, 2),
    "hidden": 8,
    "width": 8,
    "env_steps": 4 * 48 * 4,
}


def cart(force):
    env = gymnasium.make("CartPole-v1", max_episode_steps=20)
    env.unwrapped.force_mag = force
    return env


def carts(**options):
    return SimulatorFamily(cart, {"train": [-10.0, 8.0, 12.0], "test": [9.0]}, **options)


def learner(features=0, **options):
    sight, sizes = Sight(entries=4), Sizes(8, 8, features=features)
    return RecurrentQ(jax.random.key(0), sight=sight, actions=(2,), sizes=sizes, **options)


def lives(parts, forces=3, of=None):
    """Lifetimes of two and one episodes in turn, divided into parts."""
    family, chosen = carts(), [0, 1, 2][:forces]
    budget = np.array([2, 1, 2], np.int32)
    crowds = family.crowds("train", [[chosen[i] for i in part] for part in parts])
    episodes = tuple(budget[list(part)] for part in parts)
    return live_in_simulators(of or learner(), crowds, episodes, 5, length=48, every=16)


def test_staggered_ends_and_parts_change_nothing():
    """Side by side, in two parts or alone: the same lifetimes."""
    together, apart = lives([[0, 1, 2]]), lives([[0, 1], [2]])
    alive = np.asarray(together.lifetimes.alive)
    assert alive.sum(1).min() > 5
    np.testing.assert_array_equal(alive, apart.lifetimes.alive)
    lived = [(found.lifetimes.note, found.best) for found in (together, apart)]
    for a, b in zip(*map(jax.tree.leaves, lived), strict=True):
        np.testing.assert_allclose(a[alive], b[alive], rtol=1e-5, atol=1e-5)
    alone = lives([[0]])
    first = jax.tree.map(lambda leaf: leaf[:1], together.lifetimes)
    np.testing.assert_array_equal(alone.lifetimes.returns(2), first.returns(2))
    returns = together.lifetimes.returns(2)
    assert (returns[:, 0] > 0).all()
    assert returns[1, 1] == 0  # promised one episode only
    assert together.lifetimes.alive.sum() == returns.sum()  # a cart earns 1 a step


def test_an_episode_keeps_its_share_of_random_actions():
    """At a power so high that nothing is left of one half."""

    def actions(**options):
        bold = eqx.tree_at(lambda q: q.epsilon, learner(**options), jnp.asarray(0.5))
        found = lives([[0, 1, 2]], of=bold).lifetimes
        return np.asarray(found.note.transition.action)[np.asarray(found.alive)].tolist()

    greedy = lives([[0, 1, 2]]).lifetimes
    expected = np.asarray(greedy.note.transition.action)[np.asarray(greedy.alive)].tolist()
    assert actions(epsilon_spread=1e9) == expected
    assert actions() != expected


def test_kept_embeddings_are_those_of_the_replay():
    found = lives([[0, 1, 2]])
    again = jax.vmap(lambda life: embeddings(learner(), life))(found.lifetimes)
    alive = np.asarray(found.lifetimes.alive)[:, 15::16]
    for block in range(2):
        rows = alive[:, block]
        np.testing.assert_allclose(
            found.hidden[rows, block + 1], again[rows, 16 * block + 15], atol=1e-5
        )


def test_kept_beliefs_are_those_of_the_replay():
    who = learner(features=4)
    found = lives([[0], [1, 2]], of=who)
    for row in range(3):
        life = jax.tree.map(lambda x, row=row: x[row], found.lifetimes)
        beliefs = believed_again(who, who.model.blank(), life.note)
        for block in range(3):
            if life.alive[16 * block]:
                kept = jax.tree.map(lambda x, at=(row, block): x[at], found.counts)
                again = jax.tree.map(lambda x, at=16 * block: x[at], beliefs)
                jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-4), kept, again)


@pytest.mark.parametrize(("gap", "features"), [(0.0, 0), (0.9, 0), (0.0, 4)])
def test_segments_lose_what_whole_lifetimes_lose(gap, features):
    """Cut or whole, on-policy or replayed by who lived it: one loss."""
    bold = eqx.tree_at(lambda q: q.epsilon, learner(features), jnp.asarray(0.5))
    found, config = lives([[0, 1, 2]], of=bold), dataclasses.replace(CONFIG, action_gap=gap)
    starts, segments = segments_of(found, config)
    assert segments.alive.shape == (9, 16)
    cut = segment_loss(bold, starts, segments, scenes_of(bold, starts, segments))
    whole = replay_loss(bold, found.lifetimes, config, foretell=True)
    np.testing.assert_allclose(cut, whole, rtol=1e-4)
    plain = replay_loss(bold, found.lifetimes, CONFIG, foretell=True)
    assert (float(plain) == float(replay_loss(bold, found.lifetimes, CONFIG))) == (not features)
    assert (float(cut) == pytest.approx(float(plain), rel=1e-3)) == (gap == 0)


def test_returns_end_with_the_lifetime_and_go_on_across_episodes():
    found = lives([[0, 1, 2]])
    segments = segments_of(found, CONFIG)[1]
    target = np.asarray(segments.target).reshape(3, 48)
    life = found.lifetimes
    for row in range(3):
        last = int(np.asarray(life.alive[row]).sum()) - 1
        assert target[row, last] == 1.0  # the reward of the last step and nothing after it
        ended = np.asarray(life.note.transition.terminated | life.note.transition.truncated)[row]
        first = int(ended.argmax())
        if first < last:
            onward = 0.1 * found.best[row, first + 1] + 0.9 * target[row, first + 1]
            np.testing.assert_allclose(target[row, first], 1 + 0.95 * 0.8 * onward, rtol=1e-5)


def test_a_lifetime_that_finds_no_room_is_an_error():
    crowd = carts().crowd("train", [0])
    with pytest.raises(UsageError, match="longest lifetime"):
        live_in_simulators(learner(), (crowd,), (np.array([9], np.int32),), 5, length=16, every=16)


def test_parts_share_no_environment():
    """A task that is in two parts, or twice in one, has an environment for each."""
    crowds = carts().crowds("train", [[0, 1, 0], [0]])
    hosts = [id(host.env) for crowd in crowds for host in crowd.hosts]
    assert len(set(hosts)) == 4


def bits(agent):
    return b"".join(np.asarray(x).tobytes() for x in jax.tree.leaves(agent.learner) if jnp.size(x))


@pytest.mark.parametrize("features", [0, 4])
def test_interrupted_and_resumed_it_ends_with_the_same_bits(tmp_path, features):
    settings = {**SETTINGS, "features": features}
    whole = meta_train(carts(), seed=1, run=tmp_path / "whole", **settings)

    def stop(stage, done, metrics):
        if done >= 0.5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        meta_train(carts(), seed=1, run=tmp_path / "cut", on_progress=stop, **settings)
    resumed = meta_train(carts(), seed=1, run=tmp_path / "cut", resume=True, **settings)
    assert bits(resumed) == bits(whole)
    assert bits(load(tmp_path / "whole")) == bits(whole)
    adapted = whole.adapt(cart(9.0), seed=3)
    assert len(adapted.returns) == 2


def test_a_run_goes_on_with_the_tasks_and_settings_it_began_with(tmp_path):
    family = SimulatorFamily(cart, {"train": [-10.0, 8.0], "test": [9.0]})
    meta_train(family, seed=1, run=tmp_path, **{**SETTINGS, "env_steps": 1})
    how = {"seed": 1, "run": tmp_path, "resume": True}
    same = SimulatorFamily(cart, {"train": (-10, np.float32(8)), "test": [9.0]})
    assert bits(meta_train(same, **{**SETTINGS, "env_steps": 1}, **how)) == bits(load(tmp_path))
    for other in (
        SimulatorFamily(cart, {"train": [-10.0, 8.5], "test": [9.0]}),
        SimulatorFamily(cart, {"train": [-10.0, 8.0], "test": [9.0]}, horizon=19),
    ):
        with pytest.raises(CheckpointError, match="other tasks, or another time limit"):
            meta_train(other, **{**SETTINGS, "env_steps": 1}, **how)
    more = {**SETTINGS, "env_steps": 1, "lifetimes": 8}
    with pytest.raises(CheckpointError, match=r"lifetimes was 4, asked for 8\."):
        meta_train(family, **more, **how)


def test_an_agent_truncates_what_has_no_limit_as_in_training(tmp_path):
    """A pole whose fall is not the end would be carried for ever."""

    class Held(gymnasium.Wrapper):
        def step(self, action):
            return *self.env.step(action)[:2], False, False, {}

    meta_train(carts(), seed=1, run=tmp_path, **{**SETTINGS, "env_steps": 1})
    agent = load(tmp_path)
    assert agent.card["horizon"] == 20
    endless = Held(gymnasium.make("CartPole-v1").unwrapped)
    endless.observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (4,), np.float32)
    with pytest.warns(EndlessWarning, match="truncated after 20 steps"):
        adapted = agent.adapt(endless, episodes=2)
    assert adapted.lengths.tolist() == [20, 20]
    assert float(adapted.memory.spec.horizon) == 20


def test_what_was_earned_before_a_fault_is_kept(tmp_path):
    class Tired(gymnasium.Wrapper):
        steps = 0

        def step(self, action):
            Tired.steps += 1
            return self.env.step(None if Tired.steps > 160 else action)

    family = SimulatorFamily(lambda force: Tired(cart(force)), {"train": [-10.0, 8.0, 12.0]})
    with pytest.raises(EnvironmentFaultError, match=r"task .* of 'train'"):
        meta_train(family, seed=1, run=tmp_path, **SETTINGS, checkpoint_every=100)
    assert load(tmp_path).card["env_steps"] >= 4 * 48


def test_actions_of_several_parts_are_learned_and_kept(tmp_path):
    """A point in the plane, pushed along two axes, on which one is to stay at a hidden place."""

    class Plane(gymnasium.Env):
        def __init__(self, place):
            self.place = np.asarray(place)
            self.observation_space = gymnasium.spaces.Box(-2.0, 2.0, (2,), np.float32)
            self.action_space = gymnasium.spaces.Box(-0.5, 0.5, (2,), np.float32)

        def reset(self, *, seed=None, options=None):
            super().reset(seed=seed)
            self.at = np.zeros(2)
            return self.at.astype(np.float32), {}

        def step(self, action):
            assert action in self.action_space
            self.at = np.clip(self.at + action, -2, 2)
            reward = -np.abs(self.at - self.place).sum()
            return self.at.astype(np.float32), reward, False, False, {}

    places = {"train": [(1.0, -1.0), (-1.0, 0.5)], "test": [(0.5, 0.5)]}
    family = SimulatorFamily(Plane, places, horizon=8, levels=(-1.0, 0.0, 1.0))
    agent = meta_train(family, seed=0, **SETTINGS)
    assert agent.actions == (2, 3)
    agent.save(tmp_path / "agent")
    loaded = load(tmp_path / "agent")
    adapted = loaded.adapt(family.open("test", 0), episodes=1)
    action, _ = adapted.predict(np.zeros(2, np.float32))
    assert action.shape == (2,)
    assert set(action.tolist()) <= {-0.5, 0.0, 0.5}


def test_segments_are_long_enough_for_the_longest_task():
    def make(limit):
        return gymnasium.make("CartPole-v1", max_episode_steps=limit)

    family = SimulatorFamily(make, {"train": [5, 5, 30], "test": [9]})
    agent = meta_train(family, seed=0, **{**SETTINGS, "env_steps": 4 * 64 * 2})
    assert agent.card["horizon"] == 30
