"""Time of the whole quickstart, and how much of it is compilation.

Protocol: ``metaql quickstart`` with its defaults, in this process. JAX reports every tracing, lowering
and compilation; they are counted and added up. Programs nested in another are traced inside it, so the
sum of tracing counts some of it twice: an upper bound.

    python benchmarks/quickstart_time.py
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections import defaultdict
from contextlib import redirect_stdout
from pathlib import Path

import jax
from _common import emit

from metaql.cli.main import main as command_line

_STAGES = {
    "/jax/core/compile/jaxpr_trace_duration": "tracing",
    "/jax/core/compile/jaxpr_to_mlir_module_duration": "lowering",
    "/jax/core/compile/backend_compile_duration": "compilation",
}


def main() -> None:
    """Listen, run, print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    _, words = parser.parse_known_args()  # passed on to the quickstart
    seconds: dict[str, float] = defaultdict(float)
    programs, largest = 0, 0.0

    def listen(event: str, duration_secs: float, **kwargs: str | int) -> None:
        del kwargs
        nonlocal programs, largest
        stage = _STAGES.get(event)
        if stage is not None:
            seconds[stage] += duration_secs
        if stage == "compilation":
            programs, largest = programs + 1, max(largest, duration_secs)

    jax.monitoring.register_event_duration_secs_listener(listen)
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder, redirect_stdout(sys.stderr):
        code = command_line(["quickstart", "--runs-dir", str(Path(folder)), *words])
    emit(
        "quickstart_time",
        exit_code=code,
        seconds=round(time.perf_counter() - start, 1),
        compile_seconds={stage: round(each, 1) for stage, each in seconds.items()},
        programs=programs,
        longest_compilation=round(largest, 1),
    )


if __name__ == "__main__":
    main()
