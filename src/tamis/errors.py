"""What can go wrong, and with which exit code a program should end.

TamisError                  1  a check failed
├── UsageError              2  an argument that cannot be meant
│   ├── RecipeError         2  a setting out of range, unknown or missing
│   └── MissingExtra        2  an optional package is needed for what was asked
├── DataError               3  the input was refused
├── TrainingError           1  a run gave no numbers or left for good
├── ArtefactError           1  a folder of ours is damaged, unfinished or of another format
├── ResourceError           4  disk, memory, permission: free some and run again
│   └── LockedError         4  another process is writing the same folder
└── Interrupted           130  stopped on request; the same command continues

Every message says where, what was got, what would do, and what to try.
"""


class TamisError(Exception):
    """Base of all errors that tamis raises on purpose."""

    exit_code = 1


class UsageError(TamisError):
    """An argument cannot be meant as it was given."""

    exit_code = 2


class RecipeError(UsageError):
    """A recipe or a method's settings are not valid."""


class MissingExtra(UsageError):
    """A package outside the core install is needed for what was asked."""


class DataError(TamisError):
    """Input was refused: unreadable, inconsistent, or too much of it rejected."""

    exit_code = 3


class TrainingError(TamisError):
    """A training run gave no finite loss, or its loss diverges."""


class ArtefactError(TamisError):
    """A folder made by tamis is damaged, unfinished, or of a format this version does not read."""


class ResourceError(TamisError):
    """The machine refused: no space, no permission, an I/O error."""

    exit_code = 4


class LockedError(ResourceError):
    """Another process holds the folder for writing."""


class Interrupted(TamisError):
    """Stopped on request at a safe point; run the same command again to continue."""

    exit_code = 130
