from __future__ import annotations

import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from metaql.cli import interrupts, training
from metaql.cli.main import main
from metaql.config import to_dict
from metaql.meta.config import CONFIGS

FAKE = Path(__file__).with_name("fake_metaql.py")


def fake_modules():
    spec = importlib.util.spec_from_file_location("fake_metaql", FAKE)
    module = importlib.util.module_from_spec(spec)
    sys.modules["fake_metaql"] = module
    spec.loader.exec_module(module)
    return module.modules()


@pytest.fixture(autouse=True)
def _library(monkeypatch, tmp_path):
    """Every command works on the fake library, in an empty folder."""
    for name, module in fake_modules().items():
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("warnings.formatwarning", None)


def run(capfd, *words):
    code = main(words)
    captured = capfd.readouterr()
    return code, captured.out, captured.err


def trained(capfd, *words):
    """Train with the fake library and return the run folder."""
    code, out, err = run(capfd, "train", "frozen_lake", "--json", *words)
    assert code == 0, err
    return Path(json.loads(out)["run"])


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("trian",), ("trian", "train")),
        (("train", "frozen_lake", "--sed", "3"), ("--sed", "--seed")),
        (("train", "frozen_lake", "--seed", "three"), ("three",)),
        (("train", "frozen_lak"), ("frozen_lak", "'frozen_lake'")),
        (("train", "frozen_lake", "--option", "sise=3"), ("sise", "'size'")),
        (("train", "frozen_lake", "--option", "size"), ("key=value", "'size'")),
        (("train", "frozen_lake", "--set", "lifetime=3"), ("lifetime", "'lifetimes'")),
        (("train", "frozen_lake", "--env-steps", "0"), ("env_steps", "0")),
        (("train",), ("metaql families",)),
        (("train", "--resume", "nowhere"), ("nowhere", "config.json")),
        (("train", "frozen_lake", "--resume", "nowhere"), ("--resume",)),
        (("train", "frozen_lake", "--config", "nowhere.toml"), ("nowhere.toml",)),
        (("adapt", "FrozenLake-v1", "--agent", "newest"), ("runs",)),
        (("adapt", "FrozenLake-v1", "--agent", "nowhere"), ("nowhere",)),
        (("adapt", "FrozenLake-v1", "--episodes", "0"), ("--episodes", "0")),
        (("train", "frozen_lake", "--option", "size=99"), ("32", "99")),
        (("train", "frozen_lake", "--env-steps", "1e-3"), ("'1e-3' is not a whole",)),
        (("train", "frozen_lake", "--env-steps", "1e999"), ("'1e999' is not a whole",)),
        (("adapt", "FrozenLake-v1", "--episodes", "2.5"), ("--episodes", "'2.5' is not a whole")),
        (("adapt", "FrozenLake-v1", "--seed", "1.0"), ("--seed", "'1.0' is not a whole")),
        (("train", "frozen_lake", "--seed", "-1"), ("--seed", "-1")),
        (("train", "frozen_lake", "--seed", "20240101123045"), ("--seed", "20240101123045")),
        (("adapt", "FrozenLak-v1", "--agent", "."), ("FrozenLak-v1", "FrozenLake-v1")),
        (("evaluate", "nowhere"), ("nowhere",)),
        (("evaluate", ".", "--runs", "1"), ("--runs", "1")),
        (("quickstart", "--runs", "1"), ("--runs", "1")),
    ],
)
def test_wrong_request_is_exit_code_2_with_a_remedy_and_nothing_on_stdout(capfd, words, expected):
    code, out, err = run(capfd, *words)
    assert code == 2
    assert out == ""
    assert all(text in err for text in expected), err
    assert "Traceback" not in err


def test_a_wrong_request_leaves_no_run_folder(capfd, tmp_path):
    run(capfd, "train", "frozen_lake", "--set", "lifetime=3")
    run(capfd, "train", "frozen_lake", "--option", "sise=3")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[train]\nenv_step = 3\n", ("env_step", "env_steps")),
        ("[family]\nsise = 3\n", ("sise", "size")),
        ("[trian]\nenv_steps = 3\n", ("trian", "train")),
        ("train = 3\n", ("train", "table")),
        ("[train\n", ("TOML",)),
    ],
)
def test_wrong_config_file_is_exit_code_2(capfd, tmp_path, text, expected):
    (tmp_path / "my.toml").write_text(text)
    code, out, err = run(capfd, "train", "frozen_lake", "--config", "my.toml")
    assert code == 2
    assert out == ""
    assert all(word in err for word in expected), err


def test_config_file_gives_way_to_the_command_line(capfd, tmp_path):
    (tmp_path / "my.toml").write_text(
        '[family]\nname = "frozen_lake"\nsize = 3\nhorizon = 9\n'
        "[train]\nenv_steps = 5000\nlearning_rate = 0.5\n"
    )
    words = ("--config", "my.toml", "--option", "size=5", "--env-steps", "7000", "--seed", "4")
    code, out, _ = run(capfd, "train", "--json", *words)
    assert code == 0
    config = json.loads((Path(json.loads(out)["run"]) / "config.json").read_text())
    assert config["family"] == {"name": "frozen_lake", "options": {"size": 5, "horizon": 9}}
    assert config["train"] == {"env_steps": 7000, "learning_rate": 0.5}
    assert config["train_in_full"]["lifetimes"] > 0
    assert config["seed"] == 4


def test_unexpected_failure_is_exit_code_1_with_one_message(capfd, monkeypatch):
    words = ("train", "frozen_lake", "--env-steps", "666")
    monkeypatch.delenv("METAQL_DEBUG", raising=False)
    code, out, err = run(capfd, *words)
    assert (code, out) == (1, "")
    assert "RuntimeError: the fan fell off" in err
    assert "METAQL_DEBUG=1" in err
    assert "Traceback" not in err
    monkeypatch.setenv("METAQL_DEBUG", "1")
    assert "Traceback" in run(capfd, *words)[2]


def test_failed_work_is_exit_code_1(capfd):
    code, _, err = run(capfd, "adapt", "FrozenLake-v1", "--agent", "damaged")
    assert code == 1
    assert "damaged" in err
    assert "Traceback" not in err


def test_help_and_version(capfd):
    code, out, _ = run(capfd, "--help")
    assert code == 0
    for command in ("quickstart", "families", "train", "adapt", "evaluate", "--install-completion"):
        assert command in out
    for command in ("quickstart", "families", "train", "adapt", "evaluate"):
        code, out, _ = run(capfd, command, "--help")
        assert code == 0
        assert f"Example: metaql {command}" in out
        assert "--seed" in out
    code, out, _ = run(capfd, "--version")
    assert code == 0
    assert out.strip()[0].isdigit()


def test_nothing_heavy_is_imported_before_a_command_runs():
    heavy = "{'jax', 'numpy', 'gymnasium', 'matplotlib', 'scipy', 'equinox'}"
    code = f"import sys, metaql, metaql.cli.main; print({heavy} & set(sys.modules))"
    found = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert found.stdout.strip() == "set()"


def test_families_lists_every_family_with_options_and_baselines(capfd):
    from metaql.tasks.families import FAMILIES, RECURRENT_FAMILIES

    code, out, _ = run(capfd, "families")
    assert code == 0
    assert all(name in out for name in FAMILIES)
    assert "pendulum: features=16" in out
    code, out, _ = run(capfd, "families", "--json")
    listed = json.loads(out)
    assert set(listed) == {*FAMILIES, *RECURRENT_FAMILIES}
    assert listed["frozen_lake"]["options"]["size"] == 4
    assert listed["frozen_lake"]["baselines"]["optimum"] > 0.8
    assert listed["pendulum"]["suits"] == {"features": 16}
    assert listed["frozen_lake"]["suits"] == {}


def test_adapt_prints_each_episode_and_json_is_alone_on_stdout(capfd):
    folder = trained(capfd)
    words = ("adapt", "FrozenLake-v1", "--episodes", "3", "--env-option", "map_name=8x8")
    code, out, err = run(capfd, *words, "--agent", "newest")
    assert code == 0
    assert out.splitlines() == [
        "episode 1: return 0 in 7 steps",
        "episode 2: return 1 in 8 steps",
        "episode 3: return 0 in 9 steps",
    ]
    assert str(folder) in err
    sure = "the best with probability 0.75, on average over 2 states acted in (at least 0.9 in 1 of them)"
    assert sure in err
    assert "the best with probability" not in run(capfd, *words[:2], "--episodes", "1")[2], (
        "of no state"
    )
    assert "agent finite" in run(capfd, *words)[2], "the one for any task is the default"
    code, out, _ = run(capfd, *words, "--json", "--agent", str(folder))
    document = json.loads(out)
    assert document["returns"] == [0, 1, 0]
    assert document["lengths"] == [7, 8, 9]
    assert document["beliefs"]["best"] == [0.5, 1.0]
    assert document["env_options"] == {"map_name": "8x8"}


def test_what_was_lived_before_an_environment_failed_is_not_lost(capfd):
    words = ("adapt", "FrozenLake-v1", "--episodes", "67")
    code, out, err = run(capfd, *words, "--json")
    document = json.loads(out)
    assert code == 1
    assert len(document["returns"]) == 66
    assert document["error"].startswith("Rewards must be finite.")
    assert "q" in document
    assert "Step 400 paid nan." in err


def test_an_environment_without_a_time_limit_is_named_before_its_first_step(capfd):
    trained(capfd)
    words = ("adapt", "CliffWalking-v1", "--episodes", "1")
    assert "no time limit" in run(capfd, *words)[2]
    _, _, err = run(capfd, *words, "--env-option", "max_episode_steps=200")
    assert "no time limit" not in err


def test_quickstart_ends_with_table_report_and_next_steps(capfd):
    code, out, err = run(capfd, "quickstart", "--env-steps", "1000", "--runs", "20")
    assert code == 0, err
    assert "meta-learned agent" in out
    assert "11-20" in out
    assert "0.744" in out
    assert "metaql adapt FrozenLake-v1 --agent runs/frozen_lake/" in err
    (report,) = Path("runs/frozen_lake").glob("*/report.html")
    assert "One lifetime on FrozenLake-v1" in report.read_text()
    assert (report.parent / "config.json").exists()


def test_quickstart_takes_its_length_from_a_file_too(capfd, tmp_path):
    (tmp_path / "my.toml").write_text("[train]\nenv_steps = 5000\n")
    words = ("quickstart", "--runs", "20", "--json", "--config", "my.toml")
    for more, steps in (((), 5000), (("--env-steps", "1000"), 1000)):
        code, out, _ = run(capfd, *words, *more)
        assert code == 0
        config = json.loads((Path(json.loads(out)["run"]) / "config.json").read_text())
        assert config["train"]["env_steps"] == steps


def test_quickstart_json_is_one_document(capfd):
    code, out, _ = run(
        capfd, "quickstart", "--env-steps", "1000", "--runs", "20", "--json", "--out", "here"
    )
    assert code == 0
    document = json.loads(out)
    assert Path(document["report"]).is_relative_to("here")
    assert document["blocks"] == ["1-2", "3-5", "6-10", "11-20"]
    row = document["learners"]["meta-learned agent"][3]
    assert row["low"] < row["mean"] < row["high"]
    assert document["levels"]["optimum"] == 0.744
    assert len(document["adaptation"]["returns"]) == 20
    assert document["adaptation"]["env"] == "FrozenLake-v1"


def test_evaluate_compares_and_writes_a_report(capfd):
    folder = trained(capfd, "--option", "size=3")
    code, out, err = run(
        capfd, "evaluate", str(folder), "--runs", "10", "--episodes", "6", "--no-across", "--json"
    )
    assert code == 0, err
    document = json.loads(out)
    assert document["task"] == "test task 0 of seed 0"
    assert document["blocks"] == ["1-2", "3-5", "6"]
    assert Path(document["report"]) == folder / "evaluation.html"
    assert Path(document["report"]).exists()
    code, out, _ = run(capfd, "evaluate", "newest", "--runs", "10", "--json")
    assert (code, json.loads(out)["run"]) == (0, str(folder))


@pytest.mark.parametrize("target", ["nowhere/report.html", "."])
def test_where_no_report_can_be_written_nothing_is_lived(capfd, monkeypatch, target):
    folder = trained(capfd, "--option", "size=3")
    monkeypatch.setattr("metaql.cli.evaluate._found", lambda *_, **how: pytest.fail("lived"))
    code, _, err = run(capfd, "evaluate", str(folder), "--out", target)
    assert code == 2
    assert "The report must be a file" in err


@pytest.mark.parametrize("command", ["evaluate", "quickstart"])
def test_a_report_that_cannot_be_written_takes_nothing_else_with_it(capfd, monkeypatch, command):
    def full(path, data):
        raise OSError(28, "No space left on device")

    words = (str(trained(capfd, "--option", "size=3")),) if command == "evaluate" else ()
    monkeypatch.setattr("metaql.evaluation.report.write_file", full)
    code, out, err = run(capfd, command, *words, "--runs", "7", "--json")
    document = json.loads(out)
    assert code == 1
    assert document["report"] is None
    assert "None" not in err
    assert "meta-learned agent" in document["learners"]
    assert "No space left on device" in err


def test_what_was_lived_before_ctrl_c_is_printed(capfd, monkeypatch):
    def adapt(self, env, *, episodes, seed, on_episode):
        on_episode(0, 1.0, 7)
        raise KeyboardInterrupt

    monkeypatch.setattr(sys.modules["metaql.meta.agent"].Agent, "adapt", adapt)
    code, out, _ = run(capfd, "adapt", "FrozenLake-v1", "--json")
    document = json.loads(out)
    assert code == 130
    assert (document["returns"], document["error"]) == ([1.0], "interrupted")


def test_after_training_ctrl_c_says_where_the_agent_is(capfd, monkeypatch):
    def interrupt(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("metaql.cli.quickstart.comparison", interrupt)
    code, _, err = run(capfd, "quickstart", "--env-steps", "700")
    assert code == 130
    assert "metaql evaluate runs/frozen_lake/" in err


def test_the_newest_run_is_resumed_by_that_name(capfd):
    folder = trained(capfd, "--option", "size=3")
    code, out, _ = run(capfd, "train", "--resume", "newest", "--json")
    assert (code, json.loads(out)["run"]) == (0, str(folder))


def test_a_swallowed_ctrl_c_is_heeded_at_the_next_step(capfd, monkeypatch):
    """As in JAX's callback of the garbage collector, or within an import."""
    monkeypatch.setattr(interrupts._Came, "pending", True)
    code, out, err = run(capfd, "train", "frozen_lake")
    assert (code, out) == (130, "")
    assert "interrupted" in err

    def swallowed(*_):
        raise ImportError("an extension")

    monkeypatch.setattr("metaql.cli.training.Plan.make_family", swallowed)
    monkeypatch.setattr("metaql.cli.progress.interrupts.check", lambda: None)
    code, _, err = run(capfd, "train", "frozen_lake")
    assert code == 130
    assert "fault of metaql" not in err


def test_newest_is_the_newest_that_has_an_agent(capfd):
    folder = trained(capfd, "--option", "size=3")
    empty = folder.with_name("20991231T000000Z-s0")
    empty.mkdir()
    (empty / "config.json").write_text("{}")
    code, out, _ = run(capfd, "evaluate", "newest", "--runs", "10", "--json")
    assert (code, json.loads(out)["run"]) == (0, str(folder))


def test_a_training_that_stopped_on_the_way_is_called_so(capfd):
    folder = trained(capfd, "--option", "size=3", "--env-steps", "1e3")
    words = run(capfd, "evaluate", str(folder), "--runs", "10")[2]
    assert "is trained for 700 of 1,000 steps so far." in words
    assert f"metaql train --resume {folder}" in words
    lake = ("adapt", "FrozenLake-v1", "--agent", str(folder))
    assert "700 of 1,000" in run(capfd, *lake)[2]
    whole = trained(capfd, "--option", "size=3", "--env-steps", "700")
    assert "so far" not in run(capfd, "evaluate", str(whole), "--runs", "10")[2]


@pytest.mark.parametrize(
    ("size", "words", "told"),
    [
        (3, (), "7 test tasks of seed 0"),
        (3, ("--task", "2"), "test task 2 of seed 0"),
        (4, (), "Gymnasium's own 4x4 map"),
        (4, ("--across",), "7 test tasks of seed 0"),
    ],
)
def test_evaluate_lives_in_many_tasks_where_a_family_has_none_of_its_own(capfd, size, words, told):
    folder = trained(capfd, "--option", f"size={size}")
    request = ("evaluate", str(folder), *words, "--runs", "7", "--episodes", "3", "--json")
    code, out, err = run(capfd, *request)
    assert code == 0, err
    document = json.loads(out)
    assert document["task"] == told
    assert (document["runs"], document["score"]) == (7, "success")


def test_evaluate_shows_other_agents_beside_the_run(capfd):
    folder = trained(capfd, "--option", "size=3")
    request = ("evaluate", str(folder), "--runs", "7", "--episodes", "3", "--json")
    code, out, err = run(capfd, *request, "--beside", "finite", "--beside", "newest")
    assert code == 0, err
    named = list(json.loads(out)["learners"])
    assert named == ["meta-learned agent", "PSRL", "finite", "newest"]
    code, _, err = run(capfd, *request, "--beside", "finit")
    assert code == 2
    assert "finit" in err


def test_one_task_and_many_are_not_asked_for_together(capfd):
    folder = trained(capfd, "--option", "size=3")
    code, _, err = run(capfd, "evaluate", str(folder), "--across", "--task", "1")
    assert code == 2
    assert "Got both" in err


def test_quiet_leaves_stderr_empty(capfd):
    code, out, err = run(capfd, "train", "frozen_lake", "--quiet")
    assert (code, err) == (0, "")
    assert "runs/frozen_lake" in out


def test_resume_takes_the_plan_from_the_run(capfd):
    folder = trained(capfd, "--option", "size=3", "--seed", "5")
    code, out, _ = run(capfd, "train", "--resume", str(folder), "--json")
    assert code == 0
    assert json.loads(out) == {
        "run": str(folder), "family": "frozen_lake", "options": {"size": 3}, "seed": 5,
    }  # fmt: skip


def test_resume_takes_no_other_length_and_be_it_zero(capfd):
    folder = trained(capfd, "--option", "size=3")
    code, _, err = run(capfd, "train", "--resume", str(folder), "--env-steps", "0")
    assert code == 2
    assert "Leave them out" in err


def test_resume_goes_on_with_the_seed_of_the_run(capfd):
    folder = trained(capfd, "--option", "size=3", "--seed", "5")
    assert run(capfd, "train", "--resume", str(folder), "--seed", "5")[0] == 0
    code, _, err = run(capfd, "train", "--resume", str(folder), "--seed", "7")
    assert code == 2
    assert "It is 5; got 7" in err


def test_a_run_keeps_the_agent_it_began_with(capfd):
    """BeliefQ was the usual one for this family, and runs said no more than that."""
    code, out, _ = run(capfd, "train", "--json", "navigation")
    assert code == 0
    folder = Path(json.loads(out)["run"])
    config = json.loads((folder / "config.json").read_text())
    assert config["agent"] == training.read(folder).agent == "finite"
    older = {**config, "agent": "auto", "train_in_full": to_dict(CONFIGS["belief"]())}
    (folder / "config.json").write_text(json.dumps(older))
    code, out, _ = run(capfd, "train", "--json", "--resume", str(folder))
    assert code == 0
    assert (folder / "agent" / "kind.txt").read_text() == "belief"
    for broken in (None, []):
        (folder / "config.json").write_text(json.dumps({**older, "train_in_full": broken}))
        assert training.read(folder).agent == "auto"


def child(*words, **options):
    command = [sys.executable, str(FAKE), *words]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options
    )


@pytest.mark.skipif(os.name == "nt", reason="SIGINT to a child is POSIX")
def test_interrupt_is_exit_code_130_and_says_how_to_go_on(tmp_path):
    process = child("train", "frozen_lake", "--env-steps", "600", cwd=tmp_path)
    try:
        seen = ""
        deadline = time.monotonic() + 30
        while "meta-training" not in seen and time.monotonic() < deadline:
            seen += process.stderr.readline()
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=30)
    finally:
        process.kill()
    assert process.returncode == 130
    assert out == ""
    assert "metaql train --resume runs/frozen_lake/" in err
    assert "Traceback" not in err


def test_a_reader_that_leaves_is_no_traceback(tmp_path):
    process = child("families", cwd=tmp_path)
    process.stdout.close()
    err = process.stderr.read()
    process.stderr.close()
    assert process.wait(timeout=30) == 1
    assert err == ""


def test_a_module_is_found_in_the_folder_where_the_command_is_given(tmp_path):
    (tmp_path / "mine_alone.py").write_text("import sys\nprint('imported', file=sys.stderr)\n")
    process = child("adapt", "mine_alone:Nothing-v0", cwd=tmp_path)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 2
    assert "imported" in err
    assert "No module named" not in err
