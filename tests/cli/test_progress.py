from __future__ import annotations

import io

import pytest
from rich.console import Console

from metaql.cli.progress import Clock, Progress, duration


class Time:
    now = 100.0

    def __call__(self):
        return self.now


def plain_lines(steps):
    """Lines printed for (seconds, stage, share, metrics) without a terminal."""
    clock, text = Time(), io.StringIO()
    with Progress(Console(file=text, width=100), now=clock) as progress:
        for seconds, stage, share, metrics in steps:
            clock.now = 100.0 + seconds
            progress(stage, share, metrics)
    return text.getvalue().splitlines()


def test_plain_lines_are_occasional_and_carry_time_left():
    lines = plain_lines(
        [
            (0, "prior", 0.0, None),
            (1, "prior", 0.5, None),
            (2, "prior", 1.0, None),
            (3, "prior", 1.0, None),
            (2, "meta-training", 0.0, {}),
            (4, "meta-training", 0.1, {"loss": 0.51234}),
            (22, "meta-training", 0.25, {"loss": 0.25, "steps": 1000}),
        ]
    )
    assert lines == [
        "prior",
        "prior: 100%  0:02 in all",
        "meta-training",
        "meta-training:  25%  0:20 gone, left 1:30  loss 0.25  steps 1000",
    ]


def test_time_left_counts_from_the_first_share_of_a_resumed_stage():
    time = Time()
    clock = Clock(time)
    clock.update(0.5)
    assert clock.left is None
    time.now += 10.0
    clock.update(0.6)
    assert clock.left is None, "the first gain holds compilation and says nothing of the rest"
    time.now += 5.0
    clock.update(0.8)
    assert clock.left == pytest.approx(5.0)
    time.now += 2.0
    assert clock.left == pytest.approx(3.0), "it counts down between updates"
    time.now -= 2.0
    clock.update(1.0)
    time.now += 60.0
    assert (clock.left, clock.elapsed) == (0.0, pytest.approx(15.0)), "an ended stage stands still"


def test_a_terminal_gets_a_bar_per_stage():
    text = io.StringIO()
    console = Console(file=text, force_terminal=True, width=120)
    with Progress(console) as progress:
        progress("prior", 0.3)
        progress("meta-training", 1.0, {"loss": 0.5})
    last = text.getvalue()
    assert "prior" in last
    assert "100%" in last
    assert "loss 0.5" in last


def test_quiet_prints_nothing():
    text = io.StringIO()
    with Progress(Console(file=text, quiet=True)) as progress:
        progress("prior", 1.0)
    assert text.getvalue() == ""


def test_duration():
    assert [duration(x) for x in (0.4, 61, 3600)] == ["0:00", "1:01", "1:00:00"]
