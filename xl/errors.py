"""Errors that speak to a person: what was wrong, where, and what to do."""

import importlib
from types import ModuleType

DISK_FULL = "the disk is full; free some space and run the same command again: it goes on where it was"


class UserError(Exception):
    """A mistake that the user can mend. The command line prints it in one line, without a traceback."""

    exit_code = 2


class Unavailable(UserError):
    """A cluster does not answer. It may do so soon: what starts a command again after a failure may do that here too."""

    exit_code = 75  # EX_TEMPFAIL of sysexits.h


class MissingExtra(UserError):
    """A library is needed that comes with one of the package's extras."""


def require(module: str, extra: str) -> ModuleType:
    """Import a heavy library where it is used.

    Raises:
        MissingExtra: the library is not installed; the message is the exact install line.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.split(".")[0] != module.split(".", maxsplit=1)[0]:
            raise
        raise MissingExtra(f"this needs the library {module!r}; install it with: pip install 'xl[{extra}]'") from None
