"""Settings of every test: programs are compiled quickly rather than well, and given up in time."""

from __future__ import annotations

import os
from importlib.metadata import version
from pathlib import Path

import pytest

# Before JAX is imported. Tests compile hundreds of programs and run each for moments.
# What users run, optimised programs, the slow tests and the examples run in CI: see `.ci/run`.
QUICKLY = [
    "--xla_backend_optimization_level=0",
    "--xla_llvm_disable_expensive_passes=true",
    "--xla_cpu_parallel_codegen_split_count=4",
]
if version("jaxlib").startswith("0.10."):
    QUICKLY.append("--xla_cpu_use_fusion_emitters=false")  # unknown to later ones, which stop at it
os.environ.setdefault("XLA_FLAGS", " ".join(QUICKLY))

MAPPINGS, MANY = Path("/proc/self/maps"), 20_000
"""Every compiled program holds mappings of memory; Linux gives a process 65,530."""


@pytest.fixture(scope="module", autouse=True)
def _room_for_programs():
    """Programs of a module are given up after it, once there are many."""
    yield
    if MAPPINGS.is_file() and MAPPINGS.read_bytes().count(b"\n") > MANY:
        import jax

        jax.clear_caches()
