"""``metaql train``: meta-train on a family, with checkpoints and resume."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from metaql.cli.options import Common, key_values, sections, whole
from metaql.cli.output import Output
from metaql.cli.progress import Progress
from metaql.cli.training import STARTING, Plan, create, fit, newest_or, read
from metaql.errors import UsageError


def train(
    family: Annotated[
        str | None, Parameter(help="Name of a family: see `metaql families`.")
    ] = None,
    /,
    *,
    resume: Annotated[
        Path | None,
        Parameter(
            help="A run folder to go on with, from its last checkpoint; newest: the newest run."
        ),
    ] = None,
    config: Annotated[
        Path | None, Parameter(help="TOML file with the tables [family] and [train].")
    ] = None,
    agent: Annotated[
        str,
        Parameter(
            help="belief or finite: for finite families; recurrent: for any; auto: belief where tasks share "
            "their states (and for mixtures), finite for other finite families, else recurrent."
        ),
    ] = "auto",
    env_steps: Annotated[
        int | None, whole(help="Environment steps of meta-training, over all lifetimes.")
    ] = None,
    option: Annotated[
        tuple[str, ...],
        Parameter(negative=(), show_default=False, help="key=value for the family; repeatable."),
    ] = (),
    set_: Annotated[
        tuple[str, ...],
        Parameter(
            name="--set",
            negative=(),
            show_default=False,
            help="key=value of the training configuration (see its reference); repeatable.",
        ),
    ] = (),
    common: Common | None = None,
) -> None:
    """Train an agent on a family of tasks and keep it in a new run folder.

    What is given on the command line goes before the configuration file. Ctrl-C keeps a checkpoint;
    the message says how to go on.

    Example: metaql train frozen_lake --option size=5 --env-steps 2000000

    Example: metaql train cart_pole --agent recurrent
    """
    common = common or Common()
    output = common.output()
    if resume is not None:
        _check_resume_alone(family, config, env_steps, option, set_, agent != "auto")
        resume, plan = _resumed(resume, common)
    else:
        tables = sections(config, ("family", "train"))
        named = {"name": family} if family is not None else {}
        length = {"env_steps": env_steps} if env_steps is not None else {}
        options = {**tables["family"], **key_values(option, "--option"), **named}
        settings = {**tables["train"], **key_values(set_, "--set"), **length}
        name = _name(options)
        plan = Plan(family=name, options=options, train=settings, seed=common.seed, agent=agent)
    output.say(f"metaql train: {plan.family}, seed {plan.seed}")
    with Progress(output.words) as progress:
        progress(STARTING, 0.0)
        run = resume if resume is not None else create(plan, common.runs_dir)
        fit(plan, run, progress, resume=resume is not None)
    _close(output, plan, run)


def _resumed(run: Path, common: Common) -> tuple[Path, Plan]:
    """The folder to go on in, and its plan."""
    folder = Path(newest_or(str(run), common.runs_dir))
    plan = read(folder)
    _check_seed_is(plan.seed, common.seed)
    return folder, plan


def _name(options: dict[str, object]) -> str:
    """Take the name of the family out of its options."""
    name = options.pop("name", None)
    if not isinstance(name, str):
        raise UsageError(
            "`train` needs a family or `--resume RUN`.",
            "Neither was given.",
            "List the families with: metaql families",
        )
    return name


def _check_resume_alone(*others: object) -> None:
    """A resumed run takes its configuration from its folder, so nothing else may be given."""
    if any(other is not None and other is not False and other != () for other in others):
        raise UsageError(
            "`--resume` goes on with the run as it was configured.",
            "A family, a configuration or an option was given too.",
            "Leave them out, or start a new run without `--resume`.",
        )


def _check_seed_is(own: int, given: int) -> None:
    """A resumed run goes on with its own seed; 0 is what is given where nothing was."""
    if given not in (0, own):
        raise UsageError(
            "`--resume` goes on with the seed of the run.", f"It is {own}; got {given}."
        )


def _close(output: Output, plan: Plan, run: Path) -> None:
    output.line(f"Trained on {plan.family}: {run}")
    output.say(f"Next: metaql evaluate {run}")
    environment = plan.make_family().environment
    if environment:
        output.say(f"      metaql adapt {environment} --agent {run}")
    else:
        output.say(f"      in Python: metaql.load({str(run)!r}).adapt(an environment of yours)")
    output.document({"run": run, "family": plan.family, "options": plan.options, "seed": plan.seed})
