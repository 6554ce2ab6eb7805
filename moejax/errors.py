"""Errors that are meant for the user, and those by which a run ends on purpose.

Whoever knows what is wrong raises a `Refused` there: one line that names the thing and says what would have been valid.
The command line prints it and leaves with code 1; every other exception is a bug and keeps its traceback. Each is also
the built-in error that a caller from Python expects, so `except ValueError` and `except FileNotFoundError` go on
working.
"""

EXIT_PREEMPTED = 75  # EX_TEMPFAIL of sysexits.h: run the same command again and it goes on


class Refused(Exception):
    """Bad input, or a state of the machine, that the user can do something about."""


class BadValue(Refused, ValueError):
    """A value, a file's content, or things that do not go together."""


class BadType(Refused, TypeError):
    """An option that does not exist, or a value of another type than it takes."""


class UnknownName(Refused, KeyError):
    """A name that nothing has; the message lists those that there are."""

    __str__ = Exception.__str__  # a KeyError would show its message in quotes


class NotThere(Refused, FileNotFoundError):
    """A file or folder that is missing."""


class AlreadyThere(Refused, FileExistsError):
    """A place that holds something which would be overwritten."""


class NotAFolder(Refused, NotADirectoryError):
    """A file where a folder has to be."""


class NotWritten(Refused, OSError):
    """Something that the file system did not take."""


class NotInstalled(Refused, ModuleNotFoundError):
    """An extra that has to be installed first; the message says by which command."""


class Failed(Refused, RuntimeError):
    """Another program that we started did not do its work."""


class NotFinite(BadValue):
    """Too many updates were left out because loss or gradient was not finite."""


class Preempted(Exception):
    """The run was asked to stop (SIGTERM, SIGINT) and has saved; the command line leaves with `exit_code`."""

    exit_code = EXIT_PREEMPTED


class Remark(UserWarning):
    """What goes on otherwise than the user may think; the command line shows it in one line, and goes on."""
