"""Updates per second of tabular Q-learning: 8,192 agents in parallel on FrozenLake-v1's map.

Runs the lifetime loop (`metaql.meta.lifetime`) after compilation; JSON to stdout.

    python benchmarks/tabular_throughput.py --agents 8192 --steps 1000 --repeats 5
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time

import jax

from metaql.meta.lifetime import advance_unrecorded, begin_all
from metaql.qlearning import QLearning
from metaql.tasks.families.frozen_lake import FrozenLake


def measure(agents: int, steps: int, repeats: int) -> dict[str, object]:
    """Best of ``repeats`` timings of ``agents * steps`` updates."""
    task = FrozenLake().default()
    learner = QLearning()
    keys = jax.random.split(jax.random.key(0), agents)
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
        print(f"repeat {repeat + 1}: {seconds[-1]:.3f} s", file=sys.stderr)
    return {
        "benchmark": "tabular_throughput",
        "agents": agents,
        "steps": steps,
        "repeats": repeats,
        "updates_per_second": round(agents * steps / min(seconds)),
        # Wall time suffers from whatever else the machine does; this does not.
        "cpu_nanoseconds_per_update": round(min(cpu_seconds) / (agents * steps) * 1e9),
        "seconds": [round(s, 4) for s in seconds],
        "first_call_seconds": round(first, 2),
        "finished_episodes": int(lives.episode.sum()),
        "cpus": os.cpu_count(),
        "jax": jax.__version__,
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--agents", type=int, default=8192)
    parser.add_argument("--steps", type=int, default=500)
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    print(json.dumps(measure(options.agents, options.steps, options.repeats), indent=2))
