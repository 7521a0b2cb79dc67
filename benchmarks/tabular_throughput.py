"""Updates per second of tabular Q-learning: 8,192 agents in parallel on FrozenLake-v1's map.

Runs the lifetime loop (`metaql.meta.lifetime`) after compilation; JSON to stdout.

    python benchmarks/tabular_throughput.py --agents 8192 --steps 1000 --repeats 5

With ``--peer-python`` the peers of ``tabular_peer.py`` are measured by that interpreter in the same run.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path

import jax
from _common import emit, say

from metaql.meta.lifetime import advance_unrecorded, begin_all
from metaql.qlearning import QLearning
from metaql.tasks.families.frozen_lake import FrozenLake


def measure(agents: int, steps: int, repeats: int, seed: int) -> dict[str, object]:
    """Best of ``repeats`` timings of ``agents * steps`` updates."""
    task = FrozenLake().default()
    learner = QLearning()
    keys = jax.random.split(jax.random.key(seed), agents)
    lives = begin_all(learner, task, keys, 1_000_000)
    start = time.perf_counter()
    lives = jax.block_until_ready(advance_unrecorded(learner, task, lives, steps))
    first = time.perf_counter() - start
    seconds, cpu_seconds = [], []
    for repeat in range(repeats):
        start, cpu_start = time.perf_counter(), time.process_time()
        lives = jax.block_until_ready(advance_unrecorded(learner, task, lives, steps))
        seconds.append(time.perf_counter() - start)
        cpu_seconds.append(time.process_time() - cpu_start)
        say(f"repeat {repeat + 1}: {seconds[-1]:.3f} s")
    return {
        "agents": agents,
        "steps": steps,
        "repeats": repeats,
        "updates_per_second": round(agents * steps / min(seconds)),
        # Wall time suffers from whatever else the machine does; this does not.
        "cpu_nanoseconds_per_update": round(min(cpu_seconds) / (agents * steps) * 1e9),
        "seconds": [round(s, 4) for s in seconds],
        "first_call_seconds": round(first, 2),
        "finished_episodes": int(lives.episode.sum()),
    }


def peers(python: str) -> dict[str, object]:
    """What ``tabular_peer.py`` finds under another interpreter."""
    script = str(Path(__file__).with_name("tabular_peer.py"))
    answer = subprocess.run([python, script], stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(answer.stdout)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--agents", type=int, default=8192)
    parser.add_argument("--steps", type=int, default=500)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--peer-python", default=sys.executable)
    options = parser.parse_args()
    found = measure(options.agents, options.steps, options.repeats, options.seed)
    emit("tabular_throughput", seed=options.seed, **found, peers=peers(options.peer_python))
