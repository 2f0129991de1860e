"""What a coordinator and the processes that it spawns say to each other: lines of JSON."""

from collections.abc import Sequence
from typing import Any

import msgspec
from msgspec import Struct, field

from pipeline.watch.report import Account, Report, Status

__all__ = (
    "Assign",
    "Command",
    "Drain",
    "Ended",
    "Leave",
    "Progress",
    "Rates",
    "Ready",
    "Refused",
    "Said",
    "Setup",
    "Word",
    "decode_command",
    "decode_setup",
    "decode_word",
    "line_of",
)


class Setup(Struct, tag=True, kw_only=True):
    """The first line to a process: the config, and what the writer opens; ``socket`` is empty for a worker.

    ``records`` asks for an event of each record. ``fingerprint`` is that of the coordinator's plan: a config that was
    edited meanwhile is refused. ``frontiers`` are those of sources that have no partitions: of replays.
    """

    config: str
    settings: Sequence[str] = ()
    allow_code: Sequence[str] = ()
    fingerprint: dict[str, Any]
    lineage: str
    run: int
    fresh: bool = False
    repeat: bool = False
    records: bool = False
    socket: str = ""
    positions: dict[str, Any] = field(default_factory=dict[str, Any])
    frontiers: dict[str, int] = field(default_factory=dict[str, int])


class Assign(Struct, tag=True, kw_only=True):
    """Run a partition.

    ``rates`` is the part of every rate that is the worker's, ``memory`` its bytes, ``letters`` how many dead letters
    the partition may hold.
    """

    number: int
    what: Any
    state: str
    rates: float
    memory: int
    letters: int
    socket: str = ""


class Drain(Struct, tag=True, kw_only=True):
    """Finish what is under way within so many seconds."""

    deadline: float


class Rates(Struct, tag=True, kw_only=True):
    """There are fewer workers now: a larger part of every rate is yours."""

    rates: float


class Leave(Struct, tag=True, kw_only=True):
    """There is nothing more to do."""


class Ready(Struct, tag=True, kw_only=True):
    """The process is set up."""


class Refused(Struct, tag=True, kw_only=True):
    """The process can't be set up, and what the command would exit with for that."""

    code: int
    error: str


class Said(Struct, tag=True, kw_only=True):
    """A log event of a partition's run."""

    name: str
    fields: dict[str, Any]


class Progress(Struct, tag=True, kw_only=True):
    """A partition at this moment; ``total`` is the account of all its runs."""

    number: int
    status: Status
    total: Account


class Ended(Struct, tag=True, kw_only=True):
    """A partition's run has ended; ``report`` is None where it could not be started.

    ``lost`` says that it did because the writer had gone.
    """

    number: int
    total: Account
    report: Report | None = None
    code: int = 0
    error: str = ""
    lost: bool = False


Command = Assign | Drain | Rates | Leave
Word = Ready | Refused | Said | Progress | Ended

_encoder = msgspec.json.Encoder(enc_hook=str)
_commands: msgspec.json.Decoder[Command] = msgspec.json.Decoder(Command)
_words: msgspec.json.Decoder[Word] = msgspec.json.Decoder(Word)


def line_of(said: Setup | Command | Word) -> bytes:
    """Return a line; what JSON can't hold becomes its text."""
    return _encoder.encode(said) + b"\n"


def decode_setup(line: bytes) -> Setup:
    """Return the first line that a process hears."""
    return msgspec.json.decode(line, type=Setup)


def decode_command(line: bytes) -> Command:
    """Return what a process hears."""
    return _commands.decode(line)


def decode_word(line: bytes) -> Word:
    """Return what a coordinator hears."""
    return _words.decode(line)
