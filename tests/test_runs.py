"""Run folders never collide, configs are whole, metrics have no duplicate rows after a resume."""

from __future__ import annotations

import json
import math
import os
import time

import numpy as np
import pytest

from metaql.errors import UsageError
from metaql.runs import (
    CONFIG,
    METRICS,
    MetricsWriter,
    create_run,
    latest_run,
    open_run,
    read_metrics,
    write_config,
)


def test_runs_of_the_same_second_get_their_own_folder(tmp_path):
    runs = [create_run(tmp_path / "runs", "lake", 3) for _ in range(12)]
    assert len(set(runs)) == 12
    assert all(run.is_dir() and run.parent == tmp_path / "runs" / "lake" for run in runs)
    stamp = time.strftime("%Y%m%dT", time.gmtime())
    assert all(run.name.startswith(stamp) and "Z-s3" in run.name for run in runs)


def test_a_family_name_cannot_leave_the_folder(tmp_path):
    for name in ("../../etc", "a/b", "..", "", "my lake"):
        assert create_run(tmp_path, name, 0).parent.parent == tmp_path
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a-b", "etc", "family", "my-lake"]


def test_the_config_comes_back_and_is_replaced_whole(tmp_path):
    run = create_run(tmp_path, "lake", 0)
    write_config(run, {"family": "lake", "gamma": np.float32(0.5), "out": run})
    assert open_run(run) == (run, {"family": "lake", "gamma": 0.5, "out": str(run)})
    with pytest.raises(UsageError, match="JSON form"):
        write_config(run, {"bad": object()})
    assert open_run(run).config["family"] == "lake"
    assert [path.name for path in run.iterdir()] == [CONFIG]


def test_the_latest_run_is_the_newest_with_a_config(tmp_path):
    names = {
        "lake": ["20260101T000000Z-s9", "20260102T000000Z-s10"],
        "chain": ["20260103T000000Z-s0", "20260103T000000Z-s0+2", "20260103T000000Z-s0+10"],
    }
    for family, runs in names.items():
        for name in runs:
            (tmp_path / family / name).mkdir(parents=True)
            write_config(tmp_path / family / name, {})
    (tmp_path / "lake" / "20260109T000000Z-s0").mkdir()
    assert latest_run(tmp_path).name == "20260103T000000Z-s0+10"
    assert latest_run(tmp_path, "lake").name == "20260102T000000Z-s10"
    (tmp_path / "lake" / "20260102T000000Z-s10" / "agent").mkdir()
    assert latest_run(tmp_path, holding="agent").name == "20260102T000000Z-s10"
    with pytest.raises(UsageError, match=r"Found \d+ without `weights`"):
        latest_run(tmp_path, holding="weights")
    with pytest.raises(UsageError, match="run of bandit"):
        latest_run(tmp_path, "bandit")
    with pytest.raises(UsageError, match="Train first"):
        latest_run(tmp_path / "nowhere")


def test_paths_that_are_no_runs_are_usage_errors(tmp_path):
    (tmp_path / "file").write_text("x")
    for path in (tmp_path / "nowhere", tmp_path / "file", tmp_path):
        with pytest.raises(UsageError, match="A run is a folder"):
            open_run(path)
    for text, told in (("{", "must be JSON"), ("[]", "must be an object")):
        (tmp_path / CONFIG).write_text(text)
        with pytest.raises(UsageError, match=told):
            open_run(tmp_path)
    with pytest.raises(UsageError, match="must be writable"):
        create_run(tmp_path / "file", "lake", 0)
    with pytest.raises(UsageError, match="must be writable"):
        MetricsWriter(tmp_path / "nowhere")
    with pytest.raises(UsageError, match="must be writable"):
        write_config(tmp_path / "nowhere", {})


def test_rows_are_strict_json_and_there_as_soon_as_written(tmp_path):
    writer = MetricsWriter(tmp_path)
    writer.write({"loss": math.nan, "x": np.array([1.0, np.inf]), "n": np.int32(3)})
    (line,) = (tmp_path / METRICS).read_text().splitlines()
    assert json.loads(line, parse_constant=pytest.fail) == {"loss": None, "x": [1, None], "n": 3}
    writer.close()


def test_a_resumed_run_repeats_no_row(tmp_path):
    with MetricsWriter(tmp_path) as writer:
        for step in range(3):
            writer.write({"step": step})
        writer.sync()
        kept = writer.rows
        for step in range(3, 5):
            writer.write({"step": step, "old": True})
    with (tmp_path / METRICS).open("a") as file:
        file.write('{"step": 5, "to')
    assert [row["step"] for row in read_metrics(tmp_path)] == [0, 1, 2, 3, 4]
    with MetricsWriter(tmp_path, keep=kept) as writer:
        assert writer.rows == 3
        writer.write({"step": 3, "old": False})
    assert [row.get("old") for row in read_metrics(tmp_path)] == [None, None, None, False]
    with MetricsWriter(tmp_path):
        assert read_metrics(tmp_path) == []


def test_lost_rows_are_told(tmp_path):
    with MetricsWriter(tmp_path) as writer:
        writer.write({"step": 0})
        writer.write({"step": 1})
    os.truncate(tmp_path / METRICS, 15)
    with pytest.warns(UserWarning, match="1 of 2 rows"):
        writer = MetricsWriter(tmp_path, keep=2)
    assert writer.rows == 1
    writer.write({"step": 7})
    writer.close()
    assert [row["step"] for row in read_metrics(tmp_path)] == [0, 7]
