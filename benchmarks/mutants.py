"""Deliberate faults, one at a time: does a test notice each?

Protocol: every mutant replaces one piece of text in a temporary copy of ``src`` and runs the tests
named for it (``pytest -x`` with the copy first on the path). Killed: a test failed. Survived: all
passed. Invalid: the tests could not even be collected, so nothing was shown. The same tests are
first run once on an unchanged copy, where all must pass. Exit code 1 unless every mutant is killed.

    python benchmarks/mutants.py                  # all: some minutes on two cores
    python benchmarks/mutants.py --only placebo   # those with this in their name
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
_TESTS_FAILED = 1
"""pytest's exit code when tests ran and some failed; 2 to 5 mean that nothing was tested."""


class Mutant(NamedTuple):
    """One fault: where, what stands there, what is put instead, and who should notice."""

    name: str
    file: str
    """Below ``src/metaql``."""
    old: str
    """Occurs exactly once in the file (a test holds it)."""
    new: str
    tests: tuple[str, ...]
    """Node ids below ``tests``."""


_TD = "qlearning/test_td.py"
_EXACT = "tasks/test_exact.py"
_STATISTICS = "embedding/test_statistics.py"
_PRIOR = "embedding/test_prior.py"
_PLANNER = "policy/test_planner.py"
_LIFETIME = "meta/test_lifetime.py"
_LAWS = "laws/test_equivariance.py"
_OUTLOOK = "policy/test_outlook.py"
_ENDS = "policy/test_ends.py"
_STRIDES = "embedding/test_strides.py"
_EVIDENCE = "embedding/test_evidence.py"
_ADDED = "embedding/test_added.py"
_RECURRENT = "meta/test_recurrent_step.py"
_CHART = "embedding/test_chart.py"

MUTANTS = (
    Mutant(
        "target: the worst action instead of the best",
        "qlearning/td.py",
        "return r_t + discount_t * jnp.where(action_mask, q_t, NEVER).max()",
        "return r_t + discount_t * jnp.where(action_mask, q_t, -NEVER).min()",
        (f"{_TD}::test_q_target_by_hand",),
    ),
    Mutant(
        "target: padded actions count",
        "qlearning/td.py",
        "return r_t + discount_t * jnp.where(action_mask, q_t, NEVER).max()",
        "return r_t + discount_t * q_t.max()",
        (f"{_TD}::test_a_padded_action_never_counts",),
    ),
    Mutant(
        "target: double Q values with the table that selects",
        "qlearning/td.py",
        "return r_t + discount_t * q_t_value[best]",
        "return r_t + discount_t * q_t_select[best]",
        (f"{_TD}::test_double_q_selects_with_one_table_and_values_with_the_other",),
    ),
    Mutant(
        "termination: bootstrapped through",
        "qlearning/td.py",
        "return gamma * (1.0 - terminated)",
        "return gamma + 0.0 * terminated",
        (f"{_TD}::test_q_target_by_hand", "qlearning/test_tabular.py::test_one_update_by_hand"),
    ),
    Mutant(
        "lambda-returns: the mixture the wrong way round",
        "qlearning/td.py",
        "((1.0 - lam) * v + lam * g_next)",
        "(lam * v + (1.0 - lam) * g_next)",
        (f"{_TD}::test_lambda_returns_by_hand",),
    ),
    Mutant(
        "lifetime returns: the last episode is followed by another",
        "meta/rollout.py",
        "jnp.where(ended, episode_discount * lived.more, 1.0)",
        "jnp.where(ended, episode_discount, 1.0)",
        ("meta/test_rollout.py::test_lifetime_returns_by_hand",),
    ),
    Mutant(
        "lifetime returns: a truncation is no episode end",
        "meta/rollout.py",
        "ended = transition.terminated | transition.truncated",
        "ended = transition.terminated",
        ("meta/test_rollout.py::test_lifetime_returns_by_hand",),
    ),
    Mutant(
        "oracle: the discount is forgotten",
        "tasks/exact.py",
        "return model.reward + discount * jnp.einsum",
        "return model.reward + jnp.einsum",
        (f"{_EXACT}::test_a_low_discount_prefers_the_near_reward_by_hand",),
    ),
    Mutant(
        "oracle: termination is ignored",
        "tasks/exact.py",
        "onward=task.transition * (1.0 - task.termination),",
        "onward=task.transition,",
        (f"{_EXACT}::test_termination_cuts_the_bootstrap_and_truncation_does_not",),
    ),
    Mutant(
        "oracle: one step of the horizon is missing",
        "tasks/exact.py",
        "return jax.lax.fori_loop(0, horizon, sweep, jnp.zeros_like(model.reward))",
        "return jax.lax.fori_loop(1, horizon, sweep, jnp.zeros_like(model.reward))",
        (f"{_EXACT}::test_finite_horizon_by_hand",),
    ),
    Mutant(
        "mask: padded actions are greedy in the oracle",
        "tasks/exact.py",
        "return jnp.where(action_mask, q, NEVER).max(-1)",
        "return q.max(-1)",
        (f"{_EXACT}::test_padding_changes_no_answer",),
    ),
    Mutant(
        "clock: truncated one step late",
        "meta/lifetime.py",
        "truncated = (clock >= task.horizon) & ~outcome.terminated",
        "truncated = (clock > task.horizon) & ~outcome.terminated",
        (f"{_LIFETIME}::test_returns_lengths_and_ends_by_hand",),
    ),
    Mutant(
        "clock: a truncation is reported as a termination",
        "meta/lifetime.py",
        "        outcome.terminated,\n        truncated,\n",
        "        ended,\n        truncated,\n",
        (f"{_LIFETIME}::test_returns_lengths_and_ends_by_hand",),
    ),
    Mutant(
        "keys: one is used to act and to learn",
        "meta/lifetime.py",
        "memory=learner.update(key_update, life.memory, transition)",
        "memory=learner.update(key_act, life.memory, transition)",
        ("qlearning/test_protocol.py::test_no_key_is_used_twice",),
    ),
    Mutant(
        "keys: a mode is drawn with the coin's key",
        "policy/beliefq.py",
        "jax.random.randint(key_mode, ",
        "jax.random.randint(key_coin, ",
        ("policy/test_beliefq.py::test_no_key_is_used_twice",),
    ),
    Mutant(
        "placebo: nobody is given another's memory",
        "meta/lifetime.py",
        "jnp.roll(x, 1, axis=0)",
        "x",
        (f"{_LIFETIME}::test_the_placebo_acts_on_the_neighbours_memory_and_learns_into_its_own",),
    ),
    Mutant(
        "statistics: counted from arrival to departure",
        "embedding/statistics.py",
        "statistics.transitions + at_pair[..., None] * at_arrival",
        "statistics.transitions + (at_pair[..., None] * at_arrival).swapaxes(0, 2)",
        (f"{_STATISTICS}::test_counts_by_hand",),
    ),
    Mutant(
        "statistics: arrivals are tallied at departure",
        "embedding/statistics.py",
        "arrival=_add(statistics.arrival, at_arrival, transition.reward, ended)",
        "arrival=_add(statistics.arrival, at_state, transition.reward, ended)",
        (f"{_STATISTICS}::test_tallies_by_pair_and_by_arrival_by_hand",),
    ),
    Mutant(
        "statistics: a truncation is counted as an end",
        "embedding/statistics.py",
        "ended = transition.terminated.astype(jnp.float32)",
        "ended = (transition.terminated | transition.truncated).astype(jnp.float32)",
        (f"{_STATISTICS}::test_truncation_is_no_termination",),
    ),
    Mutant(
        "statistics: a prior that is not trusted counts fully",
        "embedding/statistics.py",
        "lambda e, p: e + trust * p",
        "lambda e, p: e + p",
        (f"{_STATISTICS}::test_a_posterior_is_evidence_plus_trust_times_prior",),
    ),
    Mutant(
        "prior: tasks weigh by their visits",
        "embedding/prior.py",
        "weight = total / (total + strength)",
        "weight = total",
        (f"{_PRIOR}::test_a_cell_that_is_a_hole_in_some_tasks_is_settled_by_one_look",),
    ),
    Mutant(
        "prior: the normaliser of the likelihood is left out",
        "embedding/prior.py",
        "likelihood = ways - scale.sum(-1)",
        "likelihood = ways - 0.0 * scale.sum(-1)",
        (f"{_PRIOR}::test_the_strength_maximises_the_likelihood",),
    ),
    Mutant(
        "planner: terminations by arrival are bootstrapped through",
        "policy/planner.py",
        "onward = settings.discount[:, None] * arrival_goes_on**gate_ends",
        "onward = settings.discount[:, None] * arrival_goes_on**0.0",
        (f"{_PLANNER}::test_termination_zeroes_the_bootstrap",),
    ),
    Mutant(
        "planner: the usual value knows no ends",
        "policy/planner.py",
        "return mean_reward / (fade + mean_ends)",
        "return mean_reward / (fade + 0.0 * mean_ends)",
        (f"{_PLANNER}::test_the_usual_value_and_its_unit_by_hand",),
    ),
    Mutant(
        "statistics: the Bayes factor the wrong way round",
        "embedding/statistics.py",
        "(error_pair - error_arrival) / (2.0 * variance)",
        "(error_arrival - error_pair) / (2.0 * variance)",
        (f"{_STATISTICS}::test_scores_by_hand",),
    ),
    Mutant(
        "planner: padded actions are the maximum",
        "policy/planner.py",
        "masked = jnp.where(mask, q, -jnp.inf)",
        "masked = q",
        (f"{_PLANNER}::test_padded_pairs_are_zero_and_never_the_maximum",),
    ),
    Mutant(
        "embedding: padding is counted among what was visited",
        "embedding/embed.py",
        "pooled = (codes * visited).sum(0) / jnp.maximum(visited.sum(), 1)",
        "pooled = codes.mean(0) + 0.0 * visited.sum()",
        (f"{_LAWS}::test_padding_changes_nothing",),
    ),
    Mutant(
        "head: padded actions join the others",
        "policy/head.py",
        "shared = (hidden * mask[:, None]).sum(0) / jnp.maximum(mask.sum(), 1)",
        "shared = hidden.sum(0) / jnp.maximum(mask.sum(), 1)",
        (f"{_LAWS}::test_padding_changes_nothing",),
    ),
    Mutant(
        "head: the first action is treated unlike the others",
        "policy/head.py",
        "hidden = jax.nn.gelu(jax.vmap(self.row)(rows))",
        "hidden = jax.nn.gelu(jax.vmap(self.row)(rows)).at[0].multiply(1.1)",
        (f"{_LAWS}::test_relabelling_states_and_actions_relabels_every_value",),
    ),
    Mutant(
        "FiniteQ: half the horizon",
        "policy/outlook.py",
        "discount = 1.0 - 1.0 / jnp.clip(horizon, 2.0, LONGEST)",
        "discount = 1.0 - 2.0 / jnp.clip(horizon, 2.0, LONGEST)",
        (f"{_OUTLOOK}::test_discount_stands_for_the_horizon",),
    ),
    Mutant(
        "FiniteQ: a truncation is an end",
        "embedding/judging.py",
        "transition.reward, transition.terminated.astype(jnp.float32)",
        "transition.reward, (transition.terminated | transition.truncated).astype(jnp.float32)",
        (f"{_OUTLOOK}::test_an_end_is_worth_nothing_after_it_and_a_truncation_is",),
    ),
    Mutant(
        "FiniteQ: planned on beyond an end",
        "policy/outlook.py",
        "return jnp.clip(mean + jnp.sign(later) * lift * jnp.sqrt(variance), 0.0, 1.0)",
        "return jnp.ones_like(mean + jnp.sign(later) * lift * jnp.sqrt(variance))",
        (f"{_OUTLOOK}::test_an_end_is_worth_nothing_after_it_and_a_truncation_is",),
    ),
    Mutant(
        "FiniteQ: hopes know no bounds",
        "policy/outlook.py",
        "return plain + bounds.hold * (within - plain)",
        "return plain + 0.0 * within",
        (f"{_OUTLOOK}::test_hopes_stay_within_the_two_values_that_were_told",),
    ),
    Mutant(
        "FiniteQ: one noise for all",
        "embedding/rewards.py",
        "apart = jnp.where(seen.binary, 0.0, jax.nn.sigmoid(odds + rewards.odds))",
        "apart = jnp.zeros(()) * odds * rewards.odds",
        (f"{_EVIDENCE}::test_a_sure_thing_does_not_make_all_else_sure",),
    ),
    Mutant(
        "strides: from where it led to where it was",
        "embedding/strides.py",
        "return numbers[transition.next_state] - numbers[transition.state]",
        "return numbers[transition.state] - numbers[transition.next_state]",
        (f"{_STRIDES}::test_an_untried_pair_is_foreseen_where_others_were_tried",),
    ),
    Mutant(
        "strides: of rows instead of numbers",
        "embedding/strides.py",
        "    return spec.numbers\n",
        "    return jnp.arange(spec.state_mask.shape[0])\n",
        (f"{_STRIDES}::test_rows_may_be_in_any_order_if_numbers_are_told",),
    ),
    Mutant(
        "strides: what is open is forgotten",
        "embedding/strides.py",
        "made = (strides.by_state > 0) * moves",
        "made = 0.0 * strides.by_state * moves",
        (f"{_STRIDES}::test_an_untried_pair_is_foreseen_where_others_were_tried",),
    ),
    Mutant(
        "strides: believed whatever they foresaw",
        "embedding/judging.py",
        "bases = jnp.stack([likelihood, by_stride])[:, None]",
        "bases = jnp.stack([likelihood * 1e-3, by_stride])[:, None]",
        (f"{_STRIDES}::test_whether_numbers_mean_anything_is_inferred",),
    ),
    Mutant(
        "splits: validation tasks are test tasks",
        "tasks/families/frozen_lake.py",
        "order[num_test:][:num_validation]",
        "order[:num_validation]",
        ("contracts/test_families.py::test_splits_never_share_a_task[frozen_lake]",),
    ),
    Mutant(
        "checkpoint: the manifest is not verified",
        "checkpoint.py",
        "    if not intact:\n",
        "    if not manifest:\n",
        ("test_checkpoint.py::test_one_flipped_bit_anywhere_is_refused",),
    ),
    Mutant(
        "curiosity: what was learned counts where episodes end by themselves",
        "policy/curiosity.py",
        "jnp.where(ended, closed, bent)",
        "jnp.where(ended, bent, bent)",
        (
            "policy/test_curiosity.py"
            "::test_where_episodes_end_by_themselves_the_closed_form_comes_back",
        ),
    ),
    Mutant(
        "recurrent: something follows the last episode",
        "meta/recurrent_step.py",
        "crossed, more = after.episode > life.episode, after.episode < after.episodes",
        "crossed, more = after.episode > life.episode, after.episode >= 0",
        (f"{_RECURRENT}::test_returns_go_on_across_episodes_and_end_with_the_lifetime",),
    ),
    Mutant(
        "recurrent: nothing follows an episode",
        "meta/recurrent_step.py",
        "crossed, more = after.episode > life.episode, after.episode < after.episodes",
        "crossed, more = after.episode > life.episode, after.step > 0",
        (f"{_RECURRENT}::test_returns_go_on_across_episodes_and_end_with_the_lifetime",),
    ),
    Mutant(
        "recurrent: a segment is replayed from an empty memory",
        "meta/recurrent_loss.py",
        "last, before = jax.lax.scan(body, start.hidden, encoded)",
        "last, before = jax.lax.scan(body, 0.0 * start.hidden, encoded)",
        (f"{_RECURRENT}::test_a_replayed_segment_has_the_values_of_the_steps",),
    ),
    Mutant(
        "recurrent: a step is valued after it was read",
        "meta/recurrent_loss.py",
        "return learner.advance(hidden, row), hidden",
        "return (learner.advance(hidden, row),) * 2",
        (f"{_RECURRENT}::test_a_replayed_segment_has_the_values_of_the_steps",),
    ),
    Mutant(
        "chart: replayed from an empty one",
        "meta/recurrent_loss.py",
        "jax.lax.scan(body, start.counts, notes.transition)[1]",
        "jax.lax.scan(body, jax.tree.map(jnp.zeros_like, start.counts), notes.transition)[1]",
        (f"{_RECURRENT}::test_a_replayed_segment_has_the_values_of_the_steps",),
    ),
    Mutant(
        "chart: rows and columns swapped",
        "embedding/chart.py",
        "view = layers[:, down][:, :, across]",
        "view = layers[:, across][:, :, down]",
        (f"{_CHART}::test_a_view_has_every_cell_where_it_lies_from_here",),
    ),
    Mutant(
        "chart: what an episode has paid is not forgotten at its end",
        "embedding/chart.py",
        "(self.rewarded | (seen.reward > 0)) & ~ended",
        "self.rewarded | (seen.reward > 0)",
        (f"{_CHART}::test_cells_are_met_before_and_after_the_first_reward_of_an_episode",),
    ),
    Mutant(
        "chart: the cell left is written down, not the one arrived in",
        "embedding/chart.py",
        "== seen.next_state)",
        "== seen.state)",
        (f"{_CHART}::test_a_cell_keeps_the_last_reward_it_paid",),
    ),
    Mutant(
        "ledger: rewards are entered where one arrived",
        "embedding/ledger.py",
        "== seen.state)",
        "== seen.next_state)",
        ("embedding/test_ledger.py::test_rewards_are_entered_where_one_acted",),
    ),
    Mutant(
        "network: facts and actions swapped",
        "policy/network.py",
        ".reshape(self.each.facts, -1))",
        ".reshape(-1, self.each.facts).T)",
        ("policy/test_recurrentq.py::test_what_was_counted_of_an_action_speaks_for_it_alone",),
    ),
    Mutant(
        "network: the head of every action keeps the old scale",
        "policy/network.py",
        "found.append(cast(ActionHead, network.each).weigh)",
        "pass",
        ("policy/test_recurrentq.py::test_another_scale_keeps_the_values",),
    ),
    Mutant(
        "action gap: segments forget it",
        "meta/recurrent_step.py",
        "Segment(notes, alive, target - config.action_gap * short)",
        "Segment(notes, alive, target)",
        (
            "meta/test_recurrent_step.py::test_an_action_gap_lowers_targets_by_what_actions_are_worth_less",
        ),
    ),
    Mutant(
        "action gap: simulators forget what an action was worth less",
        "meta/host_lives.py",
        "worth[..., 0], worth[..., 1], memory.hidden",
        "worth[..., 0], 0.0 * worth[..., 1], memory.hidden",
        ("meta/test_host_train.py::test_segments_lose_what_whole_lifetimes_lose",),
    ),
    Mutant(
        "exploring: all parts of an action at once or none",
        "qlearning/schedules.py",
        "jax.random.uniform(key, (*parts, num_actions + 1))",
        "jax.random.uniform(key, (num_actions + 1,))",
        ("policy/test_recurrentq.py::test_every_part_of_an_action_explores_by_itself",),
    ),
    Mutant(
        "bandits: one arm's repeated value tells two",
        "embedding/judging.py",
        "(fewest > 0.5) & (arms > 1)",
        "(fewest > 0.5) & (arms > 0)",
        ("embedding/test_evidence.py::test_of_a_bandit_a_value_of_two_arms_tells_two_values",),
    ),
    Mutant(
        "bandits: going anywhere explains what arms pay",
        "policy/model.py",
        "jnp.where(seen.alone, 0.0, jax.nn.sigmoid",
        "jnp.where(False, 0.0, jax.nn.sigmoid",
        ("policy/test_outlook.py::test_of_a_bandit_arrivals_explain_no_rewards",),
    ),
    Mutant(
        "bandits: records are rare as states met, not as arms tried",
        "policy/finiteq.py",
        "jnp.where(seen.alone, tried, seen.met.sum())",
        "seen.met.sum()",
        ("policy/test_outlook.py::test_an_arm_never_tried_may_set_a_record",),
    ),
    Mutant(
        "bandits: arms that win or lose may set records too",
        "policy/model.py",
        "(prior.unit == 0) & ~seen.binary",
        "(prior.unit == 0)",
        (
            "policy/test_outlook.py::test_no_record_is_set_where_arms_win_or_lose_or_scale_is_known_or_states_are_many",
        ),
    ),
    Mutant(
        "bandits: an offset of all rewards counts",
        "embedding/rewards.py",
        "moved = jnp.where(seen.binary, 0.0, moved)",
        "moved = jnp.where(seen.binary, 0.0, 0.0 * moved)",
        ("embedding/test_rewards.py::test_arms_close_to_each_other_have_a_zero_of_their_own",),
    ),
    Mutant(
        "bandits: few rewards show the whole range",
        "embedding/rewards.py",
        "jnp.where(seen.binary, 1.0, _growth(seen.steps))",
        "jnp.where(seen.binary, 1.0, 1.0 + 0.0 * _growth(seen.steps))",
        ("embedding/test_rewards.py::test_arms_on_both_sides_of_nothing_keep_their_zero",),
    ),
    Mutant(
        "bandits: the prior's zero stays where nothing is paid",
        "embedding/rewards.py",
        "prior.mean_weight * (zero + prior.mean * unit)",
        "prior.mean_weight * (0.0 * zero + prior.mean * unit)",
        ("embedding/test_rewards.py::test_what_is_usual_of_arms_moves_along_with_all_rewards",),
    ),
    Mutant(
        "bandits: no index",
        "policy/curiosity.py",
        "curve + arms.indexed * (index - curve)",
        "curve + 0.0 * arms.indexed * (index - curve)",
        (
            "policy/test_curiosity.py::test_of_arms_the_index_decides_as_far_as_their_scale_is_known",
        ),
    ),
    Mutant(
        "bandits: the index decides from the first pull on",
        "policy/finiteq.py",
        "jnp.where((self.prior.unit > 0) | ~seen.binary, 1.0, model.bounds.hold)",
        "jnp.ones_like(model.bounds.hold)",
        ("policy/test_outlook.py::test_the_index_decides_once_the_scale_is_known",),
    ),
    Mutant(
        "bandits: values are alike by what is common to all",
        "policy/finiteq.py",
        "_ALIKE * jnp.minimum(unit / jnp.maximum(seen.peak, 1e-30), 1.0)",
        "_ALIKE + 0.0 * unit",
        ("policy/test_outlook.py::test_an_offset_makes_no_arms_alike",),
    ),
    Mutant(
        "bandits: a long episode is thought short",
        "policy/finiteq.py",
        "jnp.where(sure, horizon, jnp.minimum(horizon, _UNLIMITED))",
        "jnp.minimum(horizon, _UNLIMITED)",
        (
            "policy/test_outlook.py"
            "::test_a_first_episode_is_as_long_as_told_where_nothing_can_end_it",
        ),
    ),
    Mutant(
        "records: a stroke that was thrown back leaves no hope",
        "policy/model.py",
        "_BY_OUTCOME * each * jnp.maximum(1.0 - led.kept, 0.0)",
        "0.0 * each * jnp.maximum(1.0 - led.kept, 0.0)",
        (
            "policy/test_records.py"
            "::test_a_stroke_that_was_thrown_back_leaves_hope_for_one_that_holds",
        ),
    ),
    Mutant(
        "records: pairs that paid the most may still set them",
        "policy/model.py",
        "jnp.maximum(1.0 - led.kept, 0.0) * plain**2",
        "jnp.maximum(1.0 - led.kept, 0.0) * plain**0",
        ("policy/test_records.py::test_a_pair_that_paid_as_much_as_any_shows_what_it_pays",),
    ),
    Mutant(
        "records: outcomes not shown may set them where episodes end",
        "policy/model.py",
        "& ~seen.alone & ~seen.ended, left, 0.0)",
        "& ~seen.alone, left, 0.0)",
        ("policy/test_records.py::test_nothing_is_left_where_episodes_end_or_of_a_bandit",),
    ),
    Mutant(
        "optimism: a few pairs tell how dense rewards are",
        "embedding/evidence.py",
        "/ peak / (tried.sum() + 10.0)",
        "/ peak / (tried.sum() + 1.0)",
        ("policy/test_records.py::test_density_is_what_pairs_pay_of_the_most_that_one_did",),
    ),
    Mutant(
        "evaluation: differences are not within a task",
        "evaluation/summary.py",
        "mean_cell((rows - first).mean(1))",
        "mean_cell(rows.mean(1) - first.mean())",
        ("evaluation/test_evaluate.py::test_differences_are_those_within_a_task",),
    ),
    Mutant(
        "records: arms of every state may set them",
        "policy/model.py",
        "seen.alone & (prior.unit == 0)",
        "(prior.unit == 0)",
        (
            "policy/test_outlook.py::test_no_record_is_set_where_arms_win_or_lose_or_scale_is_known_or_states_are_many",
        ),
    ),
    Mutant(
        "planning: far plans hope as much in the end as in the beginning",
        "policy/finiteq.py",
        "jnp.minimum(_TRAINED / ahead, 1.0) ** over",
        "jnp.minimum(_TRAINED / ahead, 1.0) ** 0.0",
        (
            "policy/test_outlook.py"
            "::test_what_looking_far_adds_to_hopes_is_taken_back_as_the_lifetime_goes_by",
        ),
    ),
    Mutant(
        "exploring: all episodes alike",
        "policy/recurrentq.py",
        "jnp.where(ended, self.power(key), power)",
        "power",
        ("policy/test_recurrentq.py::test_every_episode_has_a_share_of_random_actions_of_its_own",),
    ),
    Mutant(
        "exploring: simulators forget an episode's share of random actions",
        "meta/host_lives.py",
        "power=before.power,\n",
        "power=None,\n",
        ("meta/test_host_train.py::test_an_episode_keeps_its_share_of_random_actions",),
    ),
    Mutant(
        "beliefs: steps have no noise",
        "embedding/regression.py",
        "gain = toward / (1.0 + row.features @ toward)",
        "gain = toward / (1e-3 + row.features @ toward)",
        ("embedding/test_regression.py::test_step_by_step_is_all_at_once",),
    ),
    Mutant(
        "beliefs: changes are foretold from where they led",
        "embedding/regression.py",
        "self.changes.features(jnp.concatenate([here, taken]))",
        "self.changes.features(jnp.concatenate([there, taken]))",
        ("embedding/test_regression.py::test_nothing_is_foretold_from_itself",),
    ),
    Mutant(
        "beliefs: values train what is foretold",
        "embedding/regression.py",
        "return jax.lax.stop_gradient(jnp.concatenate([self.rewards.view, self.changes.view]))",
        "return jnp.concatenate([self.rewards.view, self.changes.view])",
        ("embedding/test_regression.py::test_values_do_not_train_what_is_foretold",),
    ),
    Mutant(
        "beliefs: evidence of steps after the lifetime",
        "embedding/regression.py",
        "x = rows.features * counts[:, None]",
        "x = rows.features",
        ("meta/test_foresight.py::test_a_segment_is_seen_as_step_by_step",),
    ),
    Mutant(
        "beliefs: the prior is not learned",
        "meta/foresight.py",
        "lambda fresh, kept: jnp.where(newborn, fresh, kept)",
        "lambda fresh, kept: kept",
        ("meta/test_foresight.py::test_the_prior_is_learned_where_a_lifetime_begins",),
    ),
    Mutant(
        "beliefs: segments begin with nothing known",
        "meta/host_train.py",
        "return Context(hidden, clock, spec, counts), cuts",
        "return Context(hidden, clock, spec, jax.tree.map(jnp.zeros_like, counts)), cuts",
        ("meta/test_host_train.py::test_segments_lose_what_whole_lifetimes_lose",),
    ),
    Mutant(
        "counts: rewards are not in units of the largest",
        "policy/recurrentq.py",
        "return counts.after(transition._replace(reward=reward))",
        "return counts.after(transition)",
        ("policy/test_recurrentq.py::test_a_chart_is_of_where_one_arrived",),
    ),
    Mutant(
        "recurrent: what is lived after the lifetime is learned from",
        "meta/recurrent_loss.py",
        "error = (chosen - segment.target / learner.scale) * segment.alive",
        "error = chosen - segment.target / learner.scale",
        (f"{_RECURRENT}::test_dead_steps_count_for_nothing",),
    ),
    Mutant(
        "recurrent: every lifetime is renewed",
        "meta/recurrent_step.py",
        "over = old.episode >= old.episodes",
        "over = old.episode >= 0",
        (f"{_RECURRENT}::test_only_what_is_over_is_renewed",),
    ),
    Mutant(
        "recurrent: the scale counts steps after the lifetime",
        "meta/recurrent_step.py",
        "weight = _shares(segments.alive)\n    mean =",
        "weight = _shares(jnp.ones(segments.alive.shape))\n    mean =",
        (f"{_RECURRENT}::test_the_scale_of_returns_is_their_standard_deviation_slowly_followed",),
    ),
    Mutant(
        "recurrent: generated weights keep the old scale",
        "policy/network.py",
        "found.append(network.generator)",
        "pass",
        ("policy/test_recurrentq.py::test_another_scale_keeps_the_values",),
    ),
    Mutant(
        "recurrent: the observation arrived in is not read",
        "embedding/recurrent.py",
        "sight(seen.next_state),",
        "sight(seen.state),",
        ("embedding/test_recurrent.py::test_every_part_of_a_transition_is_read",),
    ),
    Mutant(
        "recurrent: another scale changes the values",
        "policy/recurrentq.py",
        "self.network.times(self.scale / scale)",
        "self.network.times(scale / self.scale)",
        ("policy/test_recurrentq.py::test_another_scale_keeps_the_values",),
    ),
    Mutant(
        "recurrent: a part of an action is worth the best of another",
        "qlearning/td.py",
        "return q_t.max(-1).mean()",
        "return q_t.max()",
        ("policy/test_recurrentq.py::test_parts_of_an_action_are_chosen_by_themselves",),
    ),
    Mutant(
        "host: a lifetime goes on past its last episode",
        "meta/host_lives.py",
        "self.alive = self.alive & (self.episode < self.episodes)",
        "self.alive = self.alive & (self.episode <= self.episodes)",
        ("meta/test_host_train.py::test_staggered_ends_and_parts_change_nothing",),
    ),
    Mutant(
        "host: two parts share their keys",
        "meta/host_lives.py",
        "ids = np.split(np.arange(sum(sizes)), np.cumsum(sizes)[:-1])",
        "ids = [np.arange(size) for size in sizes]",
        ("meta/test_host_train.py::test_staggered_ends_and_parts_change_nothing",),
    ),
    Mutant(
        "host: an environment is in two parts",
        "tasks/simulators.py",
        "taken[index] += 1",
        "taken[index] = 1",
        ("meta/test_host_train.py::test_parts_share_no_environment",),
    ),
    Mutant(
        "host: an episode without a limit goes on for ever",
        "tasks/host.py",
        "or self._clock >= self.longest",
        "or self._clock >= self.horizon",
        ("tasks/test_host.py::test_nothing_goes_on_for_ever",),
    ),
    Mutant(
        "estimates: rewards that differ are their mean",
        "tasks/gymnasium.py",
        'return {"reward_noise": np.sqrt(variance)}',
        "return {}",
        ("tasks/test_gymnasium.py::test_rewards_that_differ_are_noise",),
    ),
    Mutant(
        "resuming: with other settings",
        "meta/loop.py",
        'name in held and name != "checkpoint_every" and held[name] != value',
        "False",
        ("meta/test_recurrent_train.py::test_other_settings_of_the_same_shape_are_named_too",),
    ),
    Mutant(
        "host: a process that was stopped is late",
        "tasks/watchdog.py",
        "_BELL.late is not None and _BELL.left <= 0",
        "_BELL.late is not None",
        ("tasks/test_simulators.py::test_a_process_that_was_stopped_is_not_late",),
    ),
    Mutant(
        "host: what terminates in its last step is truncated too",
        "tasks/crowd.py",
        "(self._clock >= self.horizon)) & who & ~ended",
        "(self._clock >= self.horizon)) & who",
        ("tasks/test_simulators.py::test_what_ends_by_itself_at_the_last_step_is_not_truncated",),
    ),
    Mutant(
        "replay: gradients go through the returns",
        "meta/replay.py",
        "jax.lax.stop_gradient(values), -jnp.inf)",
        "values, -jnp.inf)",
        ("meta/test_replay.py::test_gradients_do_not_go_through_the_returns",),
    ),
    Mutant(
        "replay: the lifetime goes on after its last episode",
        "meta/replay.py",
        "more = life.episode + crossed < life.spec.episodes",
        "more = life.episode < life.spec.episodes",
        ("meta/test_replay.py::test_what_is_not_alive_does_not_count",),
    ),
    Mutant(
        "rewards: those of a loop are taken for those of arrivals",
        "embedding/judging.py",
        "change = of_arrival - _either(pair, both, odds.odds)",
        "change = of_arrival - pair",
        (f"{_ADDED}::test_who_stays_in_a_loop_does_not_take_its_rewards_for_those_of_arrivals",),
    ),
    Mutant(
        "rewards: pairs add nothing to those of arrivals",
        "policy/model.py",
        "pair.mean + by_arrival * more.mean,",
        "pair.mean + 0.0 * more.mean,",
        (f"{_ADDED}::test_pairs_that_are_known_pay_what_they_paid_whatever_explains_it",),
    ),
    Mutant(
        "rewards: arrivals keep what pairs add",
        "embedding/added.py",
        "seen.arrival.reward - shift",
        "seen.arrival.reward - 0.0 * shift",
        (f"{_ADDED}::test_the_sum_of_two_effects_is_told_apart_and_stays_with_arrivals[1.0]",),
    ),
    Mutant(
        "rewards: what pairs cost is a promise",
        "policy/model.py",
        "down = upwards * (more.fresh_variance - more.upward)",
        "down = 0.0 * upwards * more.upward",
        (f"{_ADDED}::test_hopes_for_what_is_added_grow_by_what_lies_above_only",),
    ),
    Mutant(
        "rewards: of two values, yet refined",
        "embedding/judging.py",
        "jnp.where(seen.binary, pair, both)",
        "jnp.where(seen.binary, both, both)",
        (f"{_ADDED}::test_nothing_is_refined_while_rewards_have_two_values",),
    ),
    Mutant(
        "hopes: a disaster is a promise",
        "policy/model.py",
        "down = share * (means.between - means.upward)",
        "down = 0.0 * share * (means.between - means.upward)",
        (f"{_OUTLOOK}::test_a_disaster_is_a_threat_and_no_promise",),
    ),
    Mutant(
        "hopes: what follows a state never met has no bound",
        "policy/outlook.py",
        "later = discount * jnp.minimum(plan.fresh, hopes.most)",
        "later = discount * plan.fresh",
        (
            f"{_ENDS}::test_what_follows_a_state_never_met_is_worth_no_more_than_the_best_known",
            f"{_ENDS}::test_a_goal_is_gone_back_to_however_many_numbers_were_never_met",
        ),
    ),
    Mutant(
        "hopes: going on from what was met has no bound",
        "policy/outlook.py",
        "jnp.minimum(jnp.where(model.mask.any(-1), values, 0.0), hopes.most)",
        "jnp.where(model.mask.any(-1), values, 0.0)",
        (f"{_ENDS}::test_going_on_is_worth_no_more_than_the_best_known_from_any_state",),
    ),
    Mutant(
        "hopes: plans to the step are bounded as if they were discounted",
        "policy/finiteq.py",
        "bound = jnp.where(now[1], hoped.most, to_the_step)",
        "bound = hoped.most",
        (f"{_ENDS}::test_the_bound_takes_nothing_from_what_is_known",),
    ),
    Mutant(
        "hopes: of two values as bold where episodes end",
        "policy/outlook.py",
        "jnp.where(bounds.careful, jnp.minimum(within, plain), within)",
        "within",
        (f"{_OUTLOOK}::test_hope_is_so_many_deviations_of_log_odds",),
    ),
    Mutant(
        "hopes: of two values as careful where nothing ended",
        "policy/model.py",
        "return Bounds(low, high, hold, seen.has_goals)",
        "return Bounds(low, high, hold, ~seen.alone)",
        (f"{_ENDS}::test_hopes_of_two_values_are_careful_once_something_ended_but_of_no_bandit",),
    ),
    Mutant(
        "training: the usual agent takes no notice of shared states",
        "meta/config.py",
        "if not family.shares_states:",
        "if True:",
        (
            "meta/test_finite_session.py"
            "::test_it_is_the_usual_agent_where_states_have_no_numbers_in_common",
        ),
    ),
    Mutant(
        "training: a run does not keep its agent",
        "cli/training.py",
        'agent = agent_with(dict(content.get("train_in_full") or {}))',
        "pass",
        ("cli/test_main.py::test_a_run_keeps_the_agent_it_began_with",),
    ),
    Mutant(
        "hopes: what a pair pays is known to be had forever, though it ends the episode",
        "policy/outlook.py",
        "(1.0 - discount * model.stay.mean * goes_on)",
        "(1.0 - discount * model.stay.mean)",
        (f"{_ENDS}::test_what_ends_an_episode_half_of_the_time_goes_on_in_the_other_half",),
    ),
    Mutant(
        "hopes: bounded before anything was paid",
        "policy/finiteq.py",
        "told = seen.ended & (seen.peak > 0)",
        "told = seen.ended",
        (f"{_ENDS}::test_before_anything_was_paid_hopes_have_no_bound",),
    ),
    Mutant(
        "plans of before the first end are gone on from",
        "policy/finiteq.py",
        "factor = jnp.where(evidence.ended & ~memory.evidence.ended, 0.0, factor)",
        "factor = jnp.where(evidence.ended & ~memory.evidence.ended, 1.0, factor)",
        (f"{_ENDS}::test_the_first_end_makes_other_hopes_and_no_later_one_does",),
    ),
    Mutant(
        "adapting: environments of one's own are closed",
        "tasks/host.py",
        "        if isinstance(env, str):\n            with",
        "        if True:\n            with",
        ("tasks/test_host.py::test_what_was_opened_by_its_id_is_closed_and_nothing_else",),
    ),
    Mutant(
        "simulators: 2 and 2.0 are two tasks",
        "tasks/simulators.py",
        "return float(task) if float(task) == task else repr(task)",
        "return repr(task)",
        ("tasks/test_simulators.py::test_a_task_is_the_same_whatever_types_its_numbers_have",),
    ),
    Mutant(
        "simulators: one environment for all",
        "tasks/simulators.py",
        "if self._made.get(id(inner)) is inner:",
        "if False:",
        ("tasks/test_simulators.py::test_every_lifetime_needs_an_environment_of_its_own",),
    ),
    Mutant(
        "resume: other tasks that look the same are taken",
        "meta/loop.py",
        'elif extra.get("contents", self.contents) != self.contents:',
        "elif False:",
        ("meta/test_host_train.py::test_a_run_goes_on_with_the_tasks_and_settings_it_began_with",),
    ),
    Mutant(
        "outcomes are told backwards alone",
        "meta/unlike.py",
        "page_walk(page[::-1])",
        "page_walk(page)",
        ("meta/test_unlike.py::test_drifting_chances_are_noticed_and_called_so",),
    ),
    Mutant(
        "rewards of which more than half are the least all count as large",
        "meta/unlike.py",
        "[value > middle if least else value >= middle for value in values]",
        "[value >= middle for value in values]",
        ("meta/test_unlike.py::test_drifting_chances_are_noticed_and_called_so",),
    ),
    Mutant(
        "actions of an integer Box are cut off",
        "tasks/actions.py",
        "np.rint(value) if",
        "value if",
        ("tasks/test_vectors.py::test_whole_actions_are_the_nearest_ones_and_found_again",),
    ),
    Mutant(
        "adapting: nothing is compiled ahead",
        "meta/finite_adapt.py",
        "            self._prepare(row)",
        "            pass",
        ("meta/test_finite_agent.py::test_every_program_is_compiled_once_and_ahead",),
    ),
    Mutant(
        "a state is worth as many visits as there are episodes, however few the steps",
        "policy/finiteq.py",
        "pulls = jnp.where(seen.has_goals, jnp.minimum(once, steps_left), steps_left)",
        "pulls = jnp.where(seen.has_goals, once, steps_left)",
        (f"{_ENDS}::test_a_state_is_worth_no_more_visits_than_there_are_episodes",),
    ),
    Mutant(
        "a goal may be had at every step of an episode",
        "policy/finiteq.py",
        "pulls = jnp.where(seen.has_goals, jnp.minimum(once, steps_left), steps_left)",
        "pulls = jnp.where(seen.has_goals, steps_left, steps_left)",
        (f"{_ENDS}::test_a_state_is_worth_no_more_visits_than_there_are_episodes",),
    ),
    Mutant(
        "plans look beyond the lifetime",
        "policy/finiteq.py",
        "return jnp.minimum(reach(memory.spec, visits), jnp.maximum(remaining, 2.0))",
        "return jnp.maximum(reach(memory.spec, visits), jnp.maximum(remaining, 2.0))",
        (f"{_OUTLOOK}::test_what_comes_after_the_lifetime_is_worth_nothing",),
    ),
    Mutant(
        "long episodes: the last steps are planned beyond the end",
        "policy/finiteq.py",
        "times = usual + jnp.where(is_closing(memory), left, 0)",
        "times = usual + jnp.where(is_closing(memory), 2 * left, 0)",
        (f"{_OUTLOOK}::test_the_last_steps_of_a_long_episode_are_planned_to_its_very_end",),
    ),
    Mutant(
        "long episodes: the last steps are lived like all others",
        "policy/finiteq.py",
        "q = jnp.where(is_closing(memory), memory.closing.q[state], memory.plan.q[state])",
        "q = memory.plan.q[state]",
        (f"{_OUTLOOK}::test_the_last_steps_of_a_long_episode_are_planned_to_its_very_end",),
    ),
    Mutant(
        "plans reach as far in what is hardly known",
        "policy/outlook.py",
        "known = jnp.clip(LONGEST * (visits / _ENOUGH) ** 2, LONGEST, _FARTHEST)",
        "known = jnp.clip(0.0 * visits + _FARTHEST, LONGEST, _FARTHEST)",
        (f"{_OUTLOOK}::test_acting_looks_the_farther_the_more_is_known",),
    ),
    Mutant(
        "logs: the trace goes on where another action was taken",
        "meta/replay.py",
        "trace = trace * jnp.append(greedy[1:], False)",
        "trace = trace * 1.0",
        ("meta/test_logged_train.py::test_the_trace_is_cut_where_another_action_was_taken",),
    ),
    Mutant(
        "logs: lifetimes go on into the next task's log",
        "meta/logged_train.py",
        "logs.episodes[task] - budget + 1",
        "logs.episodes[task] + 1",
        ("meta/test_logged_train.py::test_lifetimes_are_successive_episodes_of_one_task",),
    ),
    Mutant(
        "logs: one that breaks off goes on in the next task's",
        "tasks/logged.py",
        'truncated[-1] |= not columns["terminations"][-1]  # the log ends there',
        "truncated[-1] |= False",
        (
            "tasks/test_logged.py"
            "::test_an_episode_as_long_as_they_last_is_over_and_a_log_of_one_is_kept",
        ),
    ),
    Mutant(
        "logs: nothing follows where one breaks off",
        "tasks/logged.py",
        "if not len(ends) or lengths[-1] >= horizon:",
        "if True:",
        ("tasks/test_logged.py::test_the_episode_that_a_log_breaks_off_in_is_left_out",),
    ),
    Mutant(
        "logs: an episode stopped by hand tells the time limit",
        "tasks/logs.py",
        "return cut if cut == longest else 0",
        "return cut",
        (
            "meta/test_offline.py::test_the_horizon_is_that_of_the_longest_episode_if_it_was_truncated",
        ),
    ),
    Mutant(
        "adapting: how an episode ended is forgotten where the next one fails to begin",
        "meta/adapt.py",
        "        companion.next(clock, last, over)\n",
        "",
        (
            "meta/test_finite_agent.py::"
            "test_how_an_episode_ended_is_learned_though_the_next_one_fails_to_begin",
        ),
    ),
    Mutant(
        "resume: goes on in another family",
        "meta/loop.py",
        "if before != now:",
        "if False:",
        (
            "meta/test_finite_session.py::"
            "test_a_training_that_was_interrupted_goes_on_to_the_same_agent",
        ),
    ),
    Mutant(
        "predict: small values are all alike",
        "meta/finite_adapt.py",
        "float(self.learner.alike(self.memory)) * np.abs(top)",
        "float(self.learner.alike(self.memory)) * (1.0 + np.abs(top))",
        ("meta/test_finite_agent.py::test_small_values_are_acted_on_as_large_ones_are",),
    ),
    Mutant(
        "intervals: whether an episode ended is not seen",
        "policy/uncertainty.py",
        "            seen.ended.astype(jnp.float32),\n",
        "            jnp.zeros(()),\n",
        (
            "meta/test_finite_agent.py::"
            "test_intervals_that_were_fitted_without_a_fact_stay_as_they_were",
        ),
    ),
    Mutant(
        "Reptile: the outer rate stays",
        "meta/reptile.py",
        "rate = 1.0 - state.iteration / config.iterations",
        "rate = 1.0",
        ("meta/test_reptile.py::test_the_outer_rate_falls",),
    ),
    Mutant(
        "gradient: nothing holds the weights",
        "meta/gradient.py",
        "loss + 0.5 * pull",
        "loss + 0.0 * pull",
        ("meta/test_gradient.py::test_steps_lower_the_loss_on_the_new_task",),
    ),
    Mutant(
        "gradient: weights are the wrong way round",
        "meta/propensity.py",
        "jnp.minimum(jnp.exp(scaled[len(new) :] @ beta), _MOST)",
        "jnp.minimum(jnp.exp(-scaled[len(new) :] @ beta), _MOST)",
        ("meta/test_gradient.py::test_weights_are_ratios_of_densities",),
    ),
    Mutant(
        "gradient: steps after the end of a replayed lifetime count",
        "meta/propensity.py",
        "number = jnp.maximum(old_alive.sum(), 1.0)",
        "number = 1.0 * len(old_alive)",
        ("meta/test_gradient.py::test_what_is_alike_counts_in_full_and_what_is_not_hardly",),
    ),
    Mutant(
        "training: the rate stays where nothing was learned from",
        "meta/recurrent_step.py",
        "state._replace(count=state.count + 1)",
        "state._replace(count=state.count + 0)",
        ("meta/test_recurrent_step.py::test_where_nothing_was_lived_the_rate_falls_all_the_same",),
    ),
    Mutant(
        "uncertainty: what is paid at the end is sure",
        "policy/uncertainty.py",
        "reward[1] + of_paid + going_on",
        "reward[1] + stay[0] * of_paid + going_on",
        (
            "policy/test_uncertainty.py"
            "::test_what_is_paid_on_arrival_is_open_where_that_is_the_end_too",
        ),
    ),
    Mutant(
        "changing: the change comes a step late",
        "tasks/families/changing.py",
        "(step >= self.moment)",
        "(step > self.moment)",
        ("tasks/test_changing.py::test_the_goal_moves_at_its_moment",),
    ),
    Mutant(
        "physics: both actions push the same way",
        "tasks/families/cart_pole.py",
        "push = jnp.where(action == 1, self.force, -self.force)",
        "push = jnp.where(action == 1, self.force, jnp.abs(self.force))",
        ("tasks/test_physics.py::test_cart_pole_is_gymnasiums",),
    ),
    Mutant(
        "physics: a band is in two splits",
        "tasks/families/physics.py",
        '"test": (5,)}',
        '"test": (4,)}',
        ("tasks/test_physics.py::test_splits_own_bands_of_one_constant",),
    ),
    Mutant(
        "actions: levels are numbers of actions",
        "tasks/actions.py",
        "share = np.asarray(self.levels)[index].reshape(low.shape)",
        "share = np.asarray(index).reshape(low.shape)",
        ("tasks/test_vectors.py::test_levels_are_what_the_environment_gets",),
    ),
    Mutant(
        "levels: acting at random does not count as not adapting",
        "evaluation/compare.py",
        "jnp.maximum(alike.mean(), blind.mean())",
        "jnp.maximum(alike.mean(), alike.mean() + 0.0 * blind.mean())",
        (
            "evaluation/test_compare.py"
            "::test_acting_at_random_is_the_best_without_adapting_where_it_is_worth_more",
        ),
    ),
    Mutant(
        "family of its own: what agents met is not learned from",
        "meta/finite_session.py",
        "        if done:\n            prior = fit",
        "        if done < 0:\n            prior = fit",
        ("meta/test_finite_session.py::test_the_prior_is_that_of_the_family",),
    ),
    Mutant(
        "family of its own: its successors are forgotten",
        "meta/finite_agent.py",
        'self.card.get("slots", FIRST_SLOTS)',
        "FIRST_SLOTS",
        ("meta/test_finite_session.py::test_as_many_successors_are_remembered_as_the_family_has",),
    ),
    Mutant(
        "arms: what one paid says nothing of the others",
        "embedding/arms.py",
        "scaled = root[:, None] * prior.covariance\n",
        "scaled = root[:, None] * jnp.diag(jnp.diag(prior.covariance))\n",
        ("embedding/test_arms.py::test_all_rewards_at_once_tell_what_they_do_one_by_one",),
    ),
    Mutant(
        "arms: the first two of many rewards are wins and losses",
        "embedding/rewards.py",
        "told = seen.binary & seen.told_two\n    # No mean",
        "told = seen.binary\n    # No mean",
        (
            "embedding/test_arms.py::test_the_first_two_of_very_many_rewards_are_not_wins_and_losses",
        ),
    ),
    Mutant(
        "arms: their number is no matter",
        "meta/finite_agent.py",
        "if (num_states, num_actions) != (1, before.num_arms):",
        "if num_actions > (before.num_arms or 0):",
        ("meta/test_finite_session.py::test_of_other_numbers_of_arms_none_is_told_apart",),
    ),
    Mutant(
        "arms: the largest model is the best one",
        "meta/armfit.py",
        "models[int(np.argmin(costs))][0]",
        "models[-1][0]",
        ("meta/test_armfit.py::test_arms_that_are_alike_are_not_told_apart",),
    ),
    Mutant(
        "arms: agents in one task are many tasks",
        "meta/armfit.py",
        "if tasks is not None:",
        "if tasks is not None and len(tasks) < 0:",
        ("meta/test_armfit.py::test_tasks_that_agents_share_count_once",),
    ),
    Mutant(
        "arms: any scale will do",
        "meta/armfit.py",
        "if not binary and not _one_scale(known):",
        "if not binary and not _one_scale(known) and number > 99:",
        ("meta/test_armfit.py::test_scales_of_tasks_are_not_taken_for_what_arms_have_in_common",),
    ),
    Mutant(
        "arms: an offset is part of their range",
        "meta/armfit.py",
        "_TINY * float(highest - lowest) ** 2",
        "_TINY * float(highest) ** 2",
        ("meta/test_armfit.py::test_an_offset_of_all_rewards_is_an_offset_of_their_means",),
    ),
    Mutant(
        "arms: a sure one is sure for ever",
        "meta/armfit.py",
        "+ apart.T @ apart + usual * np.eye(len(mean))",
        "+ apart.T @ apart",
        ("meta/test_armfit.py::test_a_sure_arm_is_told_from_the_others_and_they_from_nothing",),
    ),
)


class Verdict(NamedTuple):
    """What came of one mutant."""

    name: str
    outcome: str
    """``killed``, ``survived`` or ``invalid``."""
    seconds: float


def run_tests(source: Path, tests: tuple[str, ...]) -> int:
    """Exit code of pytest on ``tests`` with the package in ``source``."""
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider"]
    environment = {**os.environ, "PYTHONPATH": str(source), "PYTHONDONTWRITEBYTECODE": "1"}
    nodes = [f"tests/{test}" for test in tests]
    done = subprocess.run(
        [*command, *nodes], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    if done.returncode > _TESTS_FAILED:
        print(done.stdout[-2000:], done.stderr[-2000:], file=sys.stderr)
    return done.returncode


def mutated(mutant: Mutant, text: str) -> str:
    """The file's text with the fault in it.

    Raises:
        ValueError: the text to replace does not occur exactly once.
    """
    if text.count(mutant.old) != 1:
        raise ValueError(
            f"{mutant.file} must hold the text of {mutant.name!r} once, not "
            f"{text.count(mutant.old)} times: bring the mutant up to date."
        )
    return text.replace(mutant.old, mutant.new)


def try_mutant(mutant: Mutant, source: Path) -> Verdict:
    """Put the fault into the copy, run its tests, take it out again."""
    start = time.perf_counter()
    path = source / "metaql" / mutant.file
    sound = path.read_text()
    path.write_text(mutated(mutant, sound))
    try:
        code = run_tests(source, mutant.tests)
    finally:
        path.write_text(sound)
    outcome = {0: "survived", _TESTS_FAILED: "killed"}.get(code, "invalid")
    return Verdict(mutant.name, outcome, round(time.perf_counter() - start, 1))


def main() -> int:
    """Try the mutants asked for; JSON to stdout."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", default="", help="only mutants with this in their name")
    chosen = [mutant for mutant in MUTANTS if parser.parse_args().only in mutant.name]
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "src"
        shutil.copytree(ROOT / "src", source, ignore=shutil.ignore_patterns("__pycache__"))
        tests = tuple(sorted({test for mutant in chosen for test in mutant.tests}))
        if not tests or run_tests(source, tests) != 0:
            print("The tests must pass before anything is broken on purpose.", file=sys.stderr)
            return 1
        verdicts = []
        for mutant in chosen:
            verdicts.append(try_mutant(mutant, source))
            print(*verdicts[-1], sep="\t", file=sys.stderr)
    killed = sum(verdict.outcome == "killed" for verdict in verdicts)
    document = {
        "benchmark": "mutants",
        "mutants": len(verdicts),
        "killed": killed,
        "verdicts": [verdict._asdict() for verdict in verdicts],
    }
    print(json.dumps(document, indent=2))
    return int(killed < len(verdicts))


if __name__ == "__main__":
    sys.exit(main())
