"""How every `tercet` verb ends: exit codes, one clear line for an error, a traceback only with --debug."""

from __future__ import annotations

import contextlib
import errno
import os
import sys
import traceback
from collections.abc import Iterable, Iterator, Sequence

import click

from indexing.compile_notice import announce_compiling
from retrieval.errors import ConfigError, TercetError

DONE, FAILED, USAGE, INTERRUPTED = 0, 1, 2, 130

HELP = {"help_option_names": ["-h", "--help"]}
"""Settings of every command; click remembers the help option of whoever asks first."""


def run(command: click.Command, arguments: Sequence[str] | None = None, name: str = "tercet") -> int:
    """Run a click command and return the process's exit code.

    0 done, 1 a data or runtime error (one line on stderr), 2 wrong usage, 130 interrupted.
    """
    given, debug = _without_debug(list(sys.argv[1:] if arguments is None else arguments))
    announce_compiling(None if {"-q", "--quiet"} & set(given) else _notice)
    try:
        result = command.main(given, prog_name=name, standalone_mode=False)
    except click.exceptions.Abort:
        return _say("interrupted; run the same command again to go on", INTERRUPTED)
    except click.ClickException as error:
        error.show(sys.stderr)
        return USAGE if isinstance(error, click.UsageError) else FAILED
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # the reader of our output has gone: nothing to tell it
        return DONE
    except KeyboardInterrupt:
        return _say("interrupted; run the same command again to go on", INTERRUPTED)
    except TercetError as error:
        return _fail(str(error), debug)
    except MemoryError:
        return _fail("out of memory; close other programs or lower --memory", debug)
    except OSError as error:
        return _fail(_system_error(error), debug)
    except Exception as error:  # noqa: BLE001 - the last line of defence of a command, for a person to read
        return _fail(f"unexpected {type(error).__name__}: {error} (--debug shows where)", debug)
    finally:
        announce_compiling(None)
    return result if isinstance(result, int) else DONE


@contextlib.contextmanager
def reading_options() -> Iterator[None]:
    """Around the code that makes sense of a verb's options: a ConfigError there is wrong usage, not a failure."""
    try:
        yield
    except ConfigError as error:
        raise click.UsageError(str(error)) from error


def refuse_given(names: Iterable[str], why: str) -> None:
    """Refuse options of the running verb that have no effect as it was called.

    Args:
        names: of parameters of the verb's function.
        why: goes on after the option: "has no effect ...".

    Raises:
        click.UsageError: one of them was given.
    """
    context = click.get_current_context()
    for parameter in context.command.params:
        default = context.get_parameter_source(parameter.name or "") is click.core.ParameterSource.DEFAULT
        if parameter.name in names and not default:
            raise click.UsageError(f"{max(parameter.opts, key=len)} {why}")


def _without_debug(arguments: list[str]) -> tuple[list[str], bool]:
    """The arguments for the verb, and whether --debug (before "--", which ends options) was one of them."""
    end = arguments.index("--") if "--" in arguments else len(arguments)
    options = [argument for argument in arguments[:end] if argument != "--debug"]
    return options + arguments[end:], len(options) < end or bool(os.environ.get("TERCET_DEBUG"))


_REMEDIES = {
    errno.ENOSPC: "the last commit is intact: free space and run the same command again",
    errno.EACCES: "check who owns it and whether you may read and write it and its folder (ls -ld)",
    errno.EPERM: "check who owns it and whether you may read and write it and its folder (ls -ld)",
    errno.EROFS: "the disk is mounted for reading only; copy it to another",
    errno.ENOLCK: "its file system has no locks; keep it on a local disk",
    errno.EOPNOTSUPP: "its file system does not support this; keep it on a local disk",
}


def _system_error(error: OSError) -> str:
    where = f"{error.filename}: " if error.filename else ""
    remedy = f"; {_REMEDIES[error.errno]}" if error.errno in _REMEDIES else ""
    return f"{where}{error.strerror or error}{remedy}"


def _fail(message: str, debug: bool) -> int:
    if debug:
        traceback.print_exc()
    return _say(message, FAILED)


def _notice(message: str) -> None:
    sys.stderr.write(f"{message}\n")  # click would write past the progress bars, into the middle of one


def _say(message: str, code: int) -> int:
    click.echo(f"tercet: {message}", err=True)
    return code
