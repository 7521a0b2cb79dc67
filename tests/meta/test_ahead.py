"""Programs compiled on threads of their own: once, and as if they were not."""

from __future__ import annotations

import multiprocessing
from concurrent.futures import Future

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metaql.meta import ahead
from metaql.meta.ahead import compile_aside, wait


def double():
    """A jitted function that nobody has compiled."""

    def doubled(x):
        return 2.0 * x

    return jax.jit(doubled)


def test_what_was_compiled_aside_is_not_compiled_again(compilations):
    program = double()
    compile_aside(program, np.ones(3, np.float32))
    wait(program)
    assert compilations.count("doubled") == 1
    np.testing.assert_array_equal(program(np.full(3, 2.0, np.float32)), 4.0)
    np.testing.assert_array_equal(program(jnp.full(3, 2.0, jnp.float32)), 4.0)
    assert compilations.count("doubled") == 1
    program(np.ones(4, np.float32))
    assert compilations.count("doubled") == 2  # the count counts


def test_shapes_will_do_for_arguments(compilations):
    program = double()
    compile_aside(program, jax.ShapeDtypeStruct((2,), jnp.float32))
    wait(program)
    np.testing.assert_array_equal(program(np.ones(2, np.float32)), 2.0)
    assert compilations.count("doubled") == 1


def test_waiting_is_for_this_program_alone():
    program, other = double(), double()
    ahead._UNDER_WAY[program], ahead._UNDER_WAY[other] = (done := Future()), (never := Future())
    done.set_result(None)
    wait(program)
    assert program not in ahead._UNDER_WAY
    assert ahead._UNDER_WAY.pop(other) is never
    wait(program)  # nothing is under way: at once


def test_while_it_is_compiled_it_is_not_compiled_beside(compilations):
    """Whoever adapts to one task after the other would wait for the same program twice."""
    program = double()
    ahead._UNDER_WAY[program] = (running := Future())
    compile_aside(program, np.ones(7, np.float32))
    assert ahead._UNDER_WAY[program] is running
    running.set_result(None)
    compile_aside(program, np.ones(7, np.float32))
    wait(program)
    assert compilations.count("doubled") == 1


def test_what_failed_is_tried_again_when_called():
    program = double()
    failed = Future()
    failed.set_exception(MemoryError())
    ahead._UNDER_WAY[program] = failed
    wait(program)
    np.testing.assert_array_equal(program(np.ones(2, np.float32)), 2.0)


def test_without_jit_nothing_is_compiled(compilations):
    program = double()
    with jax.disable_jit():
        compile_aside(program, np.ones(5, np.float32))
    assert program not in ahead._UNDER_WAY
    assert "doubled" not in compilations


def _lines_of_threads(pipe):
    pipe.send((len(ahead._UNDER_WAY), ahead._workers.cache_info().currsize))


@pytest.mark.filterwarnings("ignore:.*fork.*")
def test_a_forked_process_waits_for_no_thread_it_does_not_have():
    compile_aside(double(), np.ones(6, np.float32))
    ours, theirs = multiprocessing.get_context("fork").Pipe()
    child = multiprocessing.get_context("fork").Process(target=_lines_of_threads, args=(theirs,))
    child.start()
    assert ours.poll(60.0)
    assert ours.recv() == (0, 0)
    child.join()
