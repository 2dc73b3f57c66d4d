"""Errors that a user can act on.

Every message says what is wrong, shows the actual value, and tells what to do. The command line prints
the message alone and exits with 2; a traceback, with which it exits with 70, means a bug in dinoidd.
"""


class DinoiddError(Exception):
    """Base of every error that is the user's to mend."""


class ConfigError(DinoiddError):
    """An option or a configuration value is wrong."""


class ClassTableError(DinoiddError):
    """A class table is unknown or malformed."""


class CheckpointError(DinoiddError):
    """Weights are missing, broken, or do not fit the model."""


class InputError(DinoiddError):
    """The input of a run cannot be listed or read at all."""


class OutputError(DinoiddError):
    """The output of a run cannot be written, or belongs to another run."""


class ClusterError(DinoiddError):
    """The Ray cluster cannot satisfy the request."""


class TrainingError(DinoiddError):
    """A training run cannot go on: its loss is not a number, or its memory is spent."""


class DivergedError(TrainingError):
    """A loss or gradient is not a number: with these settings it would come to that again."""


class StorageError(DinoiddError):
    """One object or bucket could not be read or written; `kind` is a short fixed word.

    Kinds: `missing`, `forbidden`, `too_large`, `changed`, `unreadable`, `full` (the disk, when
    something is written), `damaged` (a file of a run), and OutageError's.
    """

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind

    def __reduce__(self) -> tuple[type, tuple[str, str]]:
        return type(self), (self.kind, str(self))


class OutageError(StorageError):
    """It is not this object's fault: the store does not answer, or does not know who asks.

    Kinds: `unreachable`, `credentials` (unknown, missing or expired).
    """


class ImageError(DinoiddError):
    """One image cannot be used; `kind` becomes the row's `error_kind`.

    Kinds: `empty`, `not_an_image`, `truncated`, `corrupt`, `unsupported`, `too_large`.
    """

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind

    def __reduce__(self) -> tuple[type, tuple[str, str]]:
        return type(self), (self.kind, str(self))
