"""How every `tercet` verb ends: exit codes, one clear line for an error, a traceback only with --debug."""

from __future__ import annotations

import errno
import os
import sys
import traceback
from collections.abc import Sequence

import click

from retrieval.errors import TercetError

DONE, FAILED, USAGE, INTERRUPTED = 0, 1, 2, 130


def run(command: click.Command, arguments: Sequence[str] | None = None, name: str = "tercet") -> int:
    """Run a click command and return the process's exit code.

    0 done, 1 a data or runtime error (one line on stderr), 2 wrong usage, 130 interrupted.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in given or bool(os.environ.get("TERCET_DEBUG"))
    given = [argument for argument in given if argument != "--debug"]
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
    return result if isinstance(result, int) else DONE


def _system_error(error: OSError) -> str:
    where = f"{error.filename}: " if error.filename else ""
    if error.errno == errno.ENOSPC:
        return f"{where}no space left on the disk; the last commit is intact: free space and run the same command again"
    return f"{where}{error.strerror or error}"


def _fail(message: str, debug: bool) -> int:
    if debug:
        traceback.print_exc()
    return _say(message, FAILED)


def _say(message: str, code: int) -> int:
    click.echo(f"tercet: {message}", err=True)
    return code
