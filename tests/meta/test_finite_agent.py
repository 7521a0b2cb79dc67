"""FiniteQ on the host: memory that grows changes nothing; what is known when the episodes are over."""

from __future__ import annotations

import dataclasses
import warnings

import equinox as eqx
import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnasium import spaces

import metaql
from metaql import checkpoint
from metaql.embedding.hyperprior import SPREADS
from metaql.errors import (
    CheckpointError,
    EndlessWarning,
    EnvironmentFaultError,
    UnknownNameError,
    UsageError,
)
from metaql.meta import finite_adapt, finite_agent, finite_memory
from metaql.meta.finite_adapt import judgement
from metaql.meta.finite_memory import LimitSeen, Rows, blank, more_slots, widen
from metaql.meta.unlike import warnings_for
from metaql.policy.curiosity import Curiosity
from metaql.policy.finiteq import FiniteQ, no_knowledge
from metaql.policy.uncertainty import Calibration, Z
from metaql.tasks.finite import NO_HORIZON
from metaql.types import TaskSpec, Transition


@pytest.fixture(scope="module")
def agent(make_agent):
    return make_agent()


@pytest.fixture(scope="module")
def adapted(agent, maze):
    return agent.adapt(maze(start=5), episodes=4)


def live(agent, env, patch, rows, slots, episodes=6):
    """A lifetime whose memory has this room at first, with the actions taken."""
    actions = []
    step = env.step
    env.step = lambda action: actions.append(int(action)) or step(action)
    with patch.context() as changed:
        changed.setattr(finite_memory, "FIRST_ROWS", rows)
        changed.setattr(finite_agent, "FIRST_SLOTS", slots)
        adapted = agent.adapt(env, episodes=episodes, seed=1)
    return actions, adapted


def test_a_memory_that_grows_knows_what_a_full_one_does(agent, maze, monkeypatch):
    few, small = live(agent, maze(), monkeypatch, rows=3, slots=4)
    full, large = live(agent, maze(), monkeypatch, rows=12, slots=12)
    assert small.memory.spec.state_mask.shape == (12,)
    assert small.memory.evidence.successors.counts.shape[-1] > 4
    assert few == full
    assert len(few) > 60
    jax.tree.map(
        lambda x, y: np.testing.assert_allclose(x, y, atol=1e-5),
        small.memory.evidence._replace(successors=0),
        large.memory.evidence._replace(successors=0),
    )
    np.testing.assert_allclose(small.q_table(), large.q_table(), atol=1e-4)


def told_to(agent, env, monkeypatch):
    """What a lifetime taught, and every transition it was taught by."""
    told = []
    original = finite_adapt.FiniteCompanion.next

    def spy(self, clock, last, state):
        told.append(last)
        return original(self, clock, last, state)

    monkeypatch.setattr(finite_adapt.FiniteCompanion, "next", spy)
    _, small = live(agent, env, monkeypatch, rows=3, slots=4)
    return small, told


def learned(learner, told, horizon=NO_HORIZON):
    """The memory of a learner that has a row for every state from the start."""
    spec = TaskSpec(np.ones(12, bool), np.ones(2, bool), np.int32(horizon), np.int32(6))
    memory, learn = no_knowledge(spec, learner.slots), eqx.filter_jit(learner.learn)
    for last in told:
        memory = learn(memory, last)
    return memory


def test_strides_are_of_the_numbers_and_not_of_the_rows(agent, maze, monkeypatch):
    small, told = told_to(agent, maze(), monkeypatch)
    assert list(small.rows) != sorted(small.rows)
    memory = learned(dataclasses.replace(small.learner, slots=12), told)
    for field in ("log_spread", "origins"):
        np.testing.assert_allclose(
            getattr(small.memory.evidence, field),
            getattr(memory.evidence, field),
            rtol=1e-3,
            atol=1e-2,
        )


def test_rows_by_need_know_what_dense_arrays_do(make_agent, maze, monkeypatch):
    """The same steps in both layouts (profiles and strides are judged in the sparse one only)."""
    plain = jnp.asarray([[0.0] * len(SPREADS), [-1e4] * len(SPREADS)])
    agent = make_agent(profile_odds=-1e4, log_spread=plain)
    small, told = told_to(agent, maze(), monkeypatch)
    dense = FiniteQ(small.learner.prior, small.learner.curiosity)
    memory = learned(dense, told, int(small.memory.spec.horizon))
    assert memory.evidence.profiled is None
    table = judgement(dense, memory, small.calibration).mean
    met = sorted(small.rows)
    np.testing.assert_allclose(small.q_table()[met], table[met], rtol=1e-3, atol=1e-4)


def test_new_rows_are_those_of_a_fresh_memory():
    small, large = blank(3, 2, 4, num_states=9), blank(9, 2, 6, num_states=9)
    small = small._replace(plan=small.plan._replace(q=np.full((3, 2), 7.0, np.float32)))
    wide = widen(small, 9, 6, spare=2)
    assert (wide.plan.q == 7.0).all()
    same = jax.tree.map(np.array_equal, wide._replace(plan=0), large._replace(plan=0))
    assert all(jax.tree.leaves(same._replace(spec=same.spec._replace(horizon=True, episodes=True))))


def test_rows_are_given_in_order_and_one_stays_spare(monkeypatch):
    monkeypatch.setattr(finite_memory, "FIRST_ROWS", 2)
    rows = Rows(20)
    assert [rows(state) for state in (7, 3, 7)] == [0, 1, 0]
    assert rows.room_for({7}) == 8
    assert rows.room_for(set(range(8, 16))) == 20
    assert [more_slots(4, 100), more_slots(4, 6), more_slots(8, 6)] == [8, 6, 8]


def test_the_learner_fits_the_size(agent):
    assert agent.learner_for(1, 3).slots is None
    assert [agent.learner_for(states, 3).slots for states in (2, 9, 10)] == [4, 9, 10]
    assert agent.learner_for(11, 3).slots == 4
    assert agent.learner_for(11, 3, slots=9).slots == 9
    with pytest.raises(UnknownNameError, match="many_states"):
        agent.learner_for(4, 2, "lake")


def rows_acted_in(adapted):
    visits = np.asarray(adapted.memory.evidence.pair.visits).sum(-1)
    return [row for row in adapted.rows.values() if visits[row] > 0]


def test_beliefs_are_of_the_states_acted_in(adapted):
    beliefs = adapted.beliefs()
    acted = rows_acted_in(adapted)
    assert list(beliefs.states) == [s + 5 for s, row in adapted.rows.items() if row in acted]
    assert 0 < len(acted) < len(adapted.rows)  # the last state, where episodes end, is none of them
    assert (beliefs.low <= beliefs.mean).all()
    assert (beliefs.mean <= beliefs.high).all()
    assert ((beliefs.best > 0.0) & (beliefs.best <= 1.0)).all()
    np.testing.assert_allclose(adapted.q_table()[beliefs.states - 5], beliefs.mean)


def test_every_program_is_compiled_once_and_ahead(agent, maze, compilations):
    adapted = agent.adapt(maze(states=9), episodes=4)
    adapted.beliefs()
    for name in ("packed_choose", "packed_learn", "judge"):
        assert compilations.count(name) == compilations.count(f"{name}, aside") == 1


class Truncating(gymnasium.Env):
    """Declares no time limit, but truncates its episodes by itself, after so many steps each."""

    observation_space, action_space = spaces.Discrete(12), spaces.Discrete(2)

    def __init__(self, *lasts):
        self.lasts, self.episode, self.clock = lasts, -1, 0

    def reset(self, *, seed=None, options=None):
        self.episode, self.clock = self.episode + 1, 0
        return 0, {}

    def step(self, action):
        self.clock += 1
        cut = self.clock == self.lasts[self.episode % len(self.lasts)]
        return self.clock % 12, float(action), False, cut, {}


@pytest.mark.filterwarnings("ignore::metaql.errors.EndlessWarning")
@pytest.mark.parametrize(
    ("lasts", "horizon"), [((20, 20), 20), ((20, 7), 20), ((7, 20), 20), ((7,), 7)]
)
def test_a_limit_that_is_not_declared_is_told_by_the_episodes(agent, lasts, horizon):
    adapted = agent.adapt(Truncating(*lasts), episodes=2)
    assert int(adapted.memory.spec.horizon) == horizon
    best = float(adapted.judged.mean[adapted.rows[0]].max())
    assert best < horizon + 1  # not what ten thousand steps would pay


def test_what_goes_on_beyond_a_truncation_has_no_limit():
    seen, found = LimitSeen(), []
    for ended in [0, 0, 1, 0, 0, 0, 0]:
        found.append(seen.after(Transition(0, 0, 0.0, 0, False, bool(ended))))
    assert found == [NO_HORIZON, NO_HORIZON, 3, 3, 3, 3, NO_HORIZON]


def test_predict_is_greedy_on_what_is_believed_also_where_never_met(adapted, maze):
    table = adapted.q_table()
    assert table.shape == (12, 2)
    actions, _ = adapted.predict(np.arange(5, 17))
    np.testing.assert_array_equal(actions, table.argmax(1))
    assert adapted.predict(5, deterministic=False)[0] in (0, 1)
    with pytest.raises(UsageError, match="from 5 to 16"):
        adapted.predict(4)
    assert repr(adapted).startswith("FiniteAdapted(4 episodes, mean return ")


def test_what_was_learned_survives_a_failing_environment(agent, maze):
    env = maze()
    good = env.step
    env.step = lambda action: good(action) if env.age < 7 else 1 / 0
    with pytest.raises(EnvironmentFaultError, match="ZeroDivision") as caught:
        agent.adapt(env, episodes=3)
    assert float(caught.value.adapted.memory.evidence.steps) == 7


def test_how_an_episode_ended_is_learned_though_the_next_one_fails_to_begin(agent, maze):
    env = maze(patience=1)
    good, begun = env.reset, []

    def reset(**how):
        begun.append(how)
        return good(**how) if len(begun) < 3 else 1 / 0

    env.reset = reset
    with pytest.raises(EnvironmentFaultError, match="ZeroDivision") as caught:
        agent.adapt(env, episodes=5)
    found = caught.value.adapted
    assert len(found.returns) == float(found.memory.evidence.steps) == 2


def test_small_values_are_acted_on_as_large_ones_are(adapted):
    small = jax.tree.map(lambda x: x * 2.0**-20, adapted.memory.plan)
    large, shrunk = (
        dataclasses.replace(
            adapted,
            memory=adapted.memory._replace(plan=plan),
            _chance=np.random.default_rng(0),
        )
        for plan in (adapted.memory.plan, small)
    )
    states = np.arange(5, 16)
    acting = (each.predict(states, deterministic=False)[0] for each in (large, shrunk))
    np.testing.assert_array_equal(*acting)


def test_among_equals_not_always_the_same_is_chosen(adapted):
    nobody = dataclasses.replace(adapted, rows={}, _chance=np.random.default_rng(0))
    chosen = {int(nobody.predict(5, deterministic=False)[0]) for _ in range(30)}
    assert len(chosen) > 1


@pytest.mark.parametrize(
    "wrong", [{"episodes": 0}, {"seed": -1}, {"seed": 2**32}, {"seed": True}, {"num_states": 4}]
)
def test_requests_that_make_no_sense_are_usage_errors(agent, maze, wrong):
    with pytest.raises(UsageError, match=next(iter(wrong))):
        agent.adapt(maze(), **wrong)


def test_a_misspelt_argument_is_refused(agent, maze):
    with pytest.raises(TypeError, match="unexpected keyword argument 'episode'"):
        agent.adapt(maze(), episode=2)


def test_an_environment_without_a_limit_is_warned_of(agent, maze):
    with pytest.warns(EndlessWarning, match="Maze declares no time limit"):
        agent.adapt(maze(), episodes=1)
    with warnings.catch_warnings():
        warnings.simplefilter("error", EndlessWarning)
        agent.adapt(gymnasium.wrappers.TimeLimit(maze(), 20), episodes=1)


def test_an_agent_comes_back_as_it_was_saved(agent, tmp_path):
    agent.save(tmp_path / "a")
    again = metaql.load(tmp_path / "a")
    assert type(again) is type(agent)
    assert repr(again) == "FiniteAgent('finite', kinds of task: many_states, one_state)"
    same = jax.tree.map(np.array_equal, agent.priors, again.priors)
    assert all(jax.tree.leaves(same))
    (tmp_path / "a" / "tensors.safetensors").write_bytes(b"")
    with pytest.raises(CheckpointError):
        metaql.load(tmp_path / "a")


def test_sizes_beyond_training_are_warned_of(make_agent, maze):
    agent = make_agent(card={"range": {"many_states": {"states": [2, 10], "actions": [2, 5]}}})
    unlike, endless = agent.adapt(maze(), episodes=1).warnings
    assert "states 12 (trained with 2 to 10)" in unlike
    assert "declares no time limit" in endless


def test_an_environment_whose_rules_change_is_warned_of(agent, maze):
    calm = agent.adapt(maze(successors=1), episodes=15, seed=2)
    assert len(calm.warnings) == 1  # that there is no time limit
    restless = agent.adapt(maze(successors=1, period=60), episodes=15, seed=2)
    assert any("not stationary" in warning for warning in restless.warnings)


def test_the_shipped_ranges_are_those_of_the_courses_of_their_kind():
    card = metaql.load("finite").card
    many, one = (card["range"][kind] for kind in ("many_states", "one_state"))
    courses = card["courses"]

    def largest(kind, field):
        return max(course.get(field, 0) for course in courses[kind])

    for field, name in (
        ("horizon", "horizon"),
        ("episodes", "episodes"),
        ("num_actions", "actions"),
    ):
        assert many[name][1] == largest("many_states", field)
    assert (one["horizon"][1], one["actions"][1]) == (
        largest("one_state", "horizon"),
        largest("one_state", "arms"),
    )
    assert one["horizon"][0] == min(course["horizon"] for course in courses["one_state"])
    assert one["states"] == [1, 1]


def test_nothing_is_said_of_usual_sizes():
    known = metaql.load("finite").card["range"]
    lake = {"states": 16, "actions": 4, "horizon": 100, "episodes": 10}
    arms = {"states": 1, "actions": 10, "horizon": 1, "episodes": 500}
    assert warnings_for(known["many_states"], lake) == []
    assert warnings_for(known["one_state"], arms) == []
    (long,) = warnings_for(known["many_states"], lake | {"horizon": 400})
    assert "horizon 400 (trained with 10 to 150). Expect" in long
    (both,) = warnings_for(known["many_states"], lake | {"states": 48, "horizon": 200})
    assert "states 48 (trained with 2 to 36), horizon 200 (trained with 10 to 150)." in both


def test_intervals_that_were_fitted_without_a_fact_stay_as_they_were(agent, adapted, tmp_path):
    rng = np.random.default_rng(0)
    fitted = rng.normal(0.0, 0.1, (2, 9)).astype(np.float32), np.eye(9, dtype=np.float32)[8]
    older = eqx.tree_at(lambda c: (c.weights, c.odds), Calibration(9), fitted)
    few = {kind: Curiosity(10) for kind in agent.priors}
    tree = (agent.priors, few, dict.fromkeys(agent.priors, older))
    extra = {"kinds": sorted(agent.priors), "arms": {}, "family": "finite", "card": {}}
    checkpoint.save(tmp_path / "older", tree, kind=finite_agent.KIND, extra=extra)
    found = metaql.load(tmp_path / "older").calibrations["many_states"]
    judged = judgement(adapted.learner, adapted.memory, found)
    ended = judged.facts[..., 7]
    assert ended.all()
    facts = np.delete(judged.facts, 7, axis=-1)
    reach = np.exp(facts @ fitted[0].T) * Z * judged.std[..., None]
    np.testing.assert_allclose(judged.mean - judged.low, reach[..., 0], rtol=1e-3)
    np.testing.assert_allclose(judged.high - judged.mean, reach[..., 1], rtol=1e-3)


def test_one_state_is_asked_for_without_a_table_of_all(adapted):
    """Of ten to the twelve states there would be none."""
    vast = dataclasses.replace(adapted, num_states=10**12)
    for state in (5, 10**12 + 4):
        for certain in (True, False):
            assert 0 <= int(vast.predict(state, deterministic=certain)[0]) < 10**6
