"""``metaql``: the commands, and how errors become exit codes.

Exit codes: 0 success, 1 the work failed, 2 the request was wrong, 130 interrupted.
Nothing heavy is imported here: ``--help`` and the first line of every command come at once.
"""

from __future__ import annotations

import contextlib
import gc
import os
import sys
import warnings
from collections.abc import Sequence
from typing import NoReturn

from cyclopts import App, CycloptsError

from metaql.cli import interrupts
from metaql.cli.adapt import adapt
from metaql.cli.evaluate import evaluate
from metaql.cli.families import families
from metaql.cli.output import write
from metaql.cli.quickstart import quickstart
from metaql.cli.train import train
from metaql.cli.training import Interrupted
from metaql.errors import MetaQLError

DEBUG = "METAQL_DEBUG"
"""Environment variable: 1 shows the traceback of any error."""
FAILED, WRONG_REQUEST, INTERRUPTED = 1, 2, 130


def _version() -> str:
    import metaql

    return metaql.__version__


app = App(
    name="metaql",
    help="Learn how to Q-learn across a family of tasks, then solve a new one in a few episodes.",
    help_epilogue="First time here? Run: metaql quickstart",
    help_format="markdown",
    version=_version,
    suppress_keyboard_interrupt=False,
)
for _command in (quickstart, families, train, adapt, evaluate):
    app.command(_command)
app.register_install_completion_command(
    help="Install completion for the shell in use (bash, zsh or fish)."
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command line and return its exit code; errors are one message on stderr.

    Args:
        arguments: words after ``metaql``; default: those of this process.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    warnings.formatwarning = _warning
    try:
        app(words, exit_on_error=False, print_error=False, result_action="return_none")
        sys.stdout.flush()
    except CycloptsError as error:
        return _report(f"metaql: {error}\nSee: {_help_of(words)}", WRONG_REQUEST)
    except MetaQLError as error:
        return _report(_message(error), error.exit_code)
    except KeyboardInterrupt as error:
        remedy = str(error) if isinstance(error, Interrupted) else ""
        return _report(f"\nmetaql: interrupted. {remedy}".rstrip(), INTERRUPTED)
    except BrokenPipeError:
        # The reader left (`| head`): nothing more can be said, not even at interpreter exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    except Exception as error:
        return _failed(error)
    return 0


def run() -> NoReturn:
    """What the command ``metaql`` is: `main`, then the end of the process.

    After Ctrl-C compiled work may go on in other threads, and taking the runtime down under it can crash:
    what was to be said and saved has been, so the process ends at once.
    """
    interrupts.watch()
    code = main()
    if code == INTERRUPTED:
        with contextlib.suppress(OSError):  # a reader may be gone
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)
    # What is left ends with the process: the collector need not look for what nobody uses any more.
    gc.freeze()
    sys.exit(code)


def _warning(message: Warning | str, *_: object) -> str:
    """A warning as a person reads it: without the line of code that raised it."""
    return f"metaql: warning: {message}\n"


def _report(text: str, code: int) -> int:
    """Print a message (and the traceback, if asked for) to stderr and hand back the exit code."""
    if os.environ.get(DEBUG, "0") not in ("", "0"):
        import traceback

        traceback.print_exc()
    write(text, to_stderr=True)
    return code


def _message(error: MetaQLError) -> str:
    parts = [part for part in (error.rule, error.evidence, error.remedy) if part]
    return "metaql: " + "\n  ".join(parts)


def _failed(error: Exception) -> int:
    """The exit code of what nobody foresaw, but for Ctrl-C: within an import that comes out as anything."""
    if interrupts.pending():
        return _report("\nmetaql: interrupted.", INTERRUPTED)
    return _report(_unexpected(error), FAILED)


def _unexpected(error: Exception) -> str:
    return (
        f"metaql: unexpected {type(error).__name__}: {error}\n"
        f"  This is a fault of metaql. {DEBUG}=1 shows where; please report both with the command."
    )


def _help_of(words: Sequence[str]) -> str:
    known = words and words[0] in app.resolved_commands()
    return f"metaql {words[0]} --help" if known else "metaql --help"
