"""The command line: parses, calls one verb, prints. stdout is the result, stderr is progress and log."""

from __future__ import annotations

import contextlib
import json
import os
import sys
from typing import TYPE_CHECKING, NoReturn

import click

from toolchain import __version__, heap
from toolchain.cli import comparing, deploying, measuring, profiles, training
from toolchain.cli.common import INTERRUPTED, say_no
from toolchain.errors import ToolchainError

if TYPE_CHECKING:
    from collections.abc import Sequence


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="rsnn-deploy")
def commands() -> None:
    """Train robust sparse spiking networks, deploy them as integers, prove the deployed network on Lava.

    Exit codes: 0 ok; 1 the answer is no (a limit exceeded, a mismatch); 2 usage, or input that cannot be read.
    """


for _command in (
    deploying.demo,
    training.init,
    training.run,
    deploying.export,
    deploying.check,
    deploying.fit,
    training.heal,
    deploying.simulate,
    deploying.verify,
    deploying.report,
    comparing.compare,
    comparing.sweep,
    training.evaluate,
    measuring.inspect,
    profiles.profiles,
):
    commands.add_command(_command)


def main(args: Sequence[str] | None = None) -> NoReturn:
    """Runs a command and exits; each error is one sentence, and with --json one object, and no traceback reaches a user."""
    heap.keep_freed()
    given = sys.argv[1:] if args is None else args
    try:
        code = commands.main(given, prog_name="rsnn-deploy", standalone_mode=False) or 0
    except click.ClickException as error:
        error.show()
        code = _failed(given, error.format_message(), click.UsageError, error.exit_code)
    except click.Abort:
        say_no("interrupted")
        code = _failed(given, "interrupted", KeyboardInterrupt, INTERRUPTED)
    except Exception as error:
        if os.environ.get("RSNN_DEPLOY_DEBUG"):
            raise
        sentence = _sentence(error)
        say_no(sentence)
        code = _failed(given, sentence, type(error), error.exit_code if isinstance(error, ToolchainError) else 2)
    sys.exit(code)


def _sentence(error: Exception) -> str:
    match error:
        case ToolchainError():
            return str(error)
        case OSError():
            return f"{error.filename or 'the system'}: {error.strerror or error}"
    return f"internal error, {type(error).__name__}: {error}; RSNN_DEPLOY_DEBUG=1 shows where. Please report it"


def _failed(given: Sequence[str], sentence: str, kind: type[BaseException], code: int) -> int:
    """An error is on stdout too where JSON was asked for; returns the exit code."""
    if "--json" in given:
        with contextlib.suppress(OSError):  # a full or closed stdout may be the very error
            click.echo(json.dumps({"error": {"kind": kind.__name__, "message": sentence}, "exit_code": code}))
    return code
