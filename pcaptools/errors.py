"""The exception tree. Every message says who, where and what, and what to do when that is known.

The command line turns an exception into one line on stderr and an exit status; nothing here prints.
"""


class PcaptoolsError(Exception):
    """Whatever ends a command with a message instead of a traceback."""

    status = 2


class UsageError(PcaptoolsError):
    """The command line asks for something impossible or contradictory."""


class InputError(PcaptoolsError):
    """An input that cannot be opened, or is not what the command reads."""


class NotACaptureError(InputError):
    """An input that is something else, or empty."""


class OutputError(PcaptoolsError):
    """An output that cannot be created or written."""


class DeviceError(PcaptoolsError):
    """A network device that is missing, down, forbidden or unfit."""


class DamagedError(PcaptoolsError):
    """An input that is sound up to a point: everything before it has been delivered.

    offset: where it is damaged, in bytes of the (decompressed) input; None where only the compressed place is known.
    """

    status = 1
    offset: int | None = None
