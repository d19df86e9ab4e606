"""What can go wrong, and the exit code that each kind of failure has.

A message says where (file, key, line, step), what was found, what was wanted, and what to do.
"""


class PenjingError(Exception):
    """A failure whose message is written for the person at the screen; no traceback is shown."""

    exit_code = 1


class ConfigError(PenjingError):
    """The run file, or a command line, asks for something that cannot be done."""

    exit_code = 2


class DataError(PenjingError):
    """An input file or row cannot be used."""


class ArtifactError(PenjingError):
    """A directory that Penjing wrote is missing, incomplete, altered or of another run."""


class DiskFullError(ArtifactError):
    """The disk has no room for what is to be written; nothing that was there is lost."""


class DivergedError(PenjingError):
    """Training produced non-finite values or jumps that skipping steps did not cure."""


class StoppedEarly(PenjingError):  # noqa: N818 - an orderly stop is not an error
    """Training was asked to stop and left a checkpoint from which it resumes."""

    exit_code = 75
