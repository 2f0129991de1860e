"""THE interface: what a stage declares, and what it does while it runs.

A stage is written twice: the declaration, a `msgspec.Struct` whose fields are the keys that users write under ``with:``
in YAML or as arguments in Python, and what its ``open`` returns, which reads or writes for one run. A declaration is a
recipe: it never changes and can be opened any number of times.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from enum import Enum
from functools import cache
from os import PathLike, fspath
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Protocol

import msgspec
from msgspec import Meta, Struct, field

from pipeline.batch import Batch, Failed, Many, Origin
from pipeline.chain import Chain
from pipeline.clock import Clock
from pipeline.control.law import Law
from pipeline.control.policy import full_name
from pipeline.errors import ConfigError, RecordError, RecordErrors, StateError, StorageError, Unavailable
from pipeline.keywords import ByKeyword
from pipeline.projection import Access, Projection
from pipeline.units import parse_backoff, parse_duration, parse_rate, parse_size
from pipeline.widening import Widened

__all__ = (
    "Acknowledge",
    "Backoff",
    "Batcher",
    "ChannelBounds",
    "Chunk",
    "CircuitBreaker",
    "Declared",
    "Duration",
    "Each",
    "EachAsync",
    "Failed",
    "Feed",
    "FilePath",
    "FilePaths",
    "FunctionContext",
    "KeyedState",
    "Many",
    "NamedFile",
    "OnFailure",
    "Parting",
    "Partition",
    "Place",
    "Position",
    "PositionWriter",
    "Processor",
    "Progress",
    "Rate",
    "RateLimit",
    "Reader",
    "RecordError",
    "RecordErrors",
    "Restart",
    "Resume",
    "Retry",
    "Sink",
    "SinkContext",
    "Size",
    "Source",
    "SourceContext",
    "Stage",
    "StageContext",
    "StateError",
    "StorageError",
    "Streamed",
    "TransactionWriter",
    "Unavailable",
    "Whole",
    "Work",
    "Writer",
    "fields_of",
    "file_keys",
    "key",
    "made",
)

# --- keys -------------------------------------------------------------------------------------------------------------


def key(description: str, **extra: Any) -> Meta:
    """Describe a key of a stage, for ``Annotated``: one sentence that check, docs and the editors' schema all show.

    ``expression=True`` says that its texts are expressions (``parameters=("n",)``: over these names, not fields),
    ``function=True`` that it is a function named ``module:name``; both are checked when a config is loaded.
    ``secret=True`` says that its value is shown nowhere.
    ``file=True`` says that its text, or each of its texts, is a path: `pathlib.Path` is welcome too and becomes text.
    """
    return Meta(description=description, extra=extra or None)


Duration = Annotated[float | str, Meta(extra={"unit": "duration"})]
"""Seconds; in YAML a text with a unit, like ``250ms``."""
Size = Annotated[int | str, Meta(extra={"unit": "size"})]
"""Bytes; in YAML a text with a unit, like ``64KiB``."""
Rate = Annotated[float | str, Meta(extra={"unit": "rate"})]
"""A number a second; in YAML a text with a unit, like ``100/s``."""
Backoff = Annotated[tuple[float, float] | float | str, Meta(extra={"unit": "backoff"})]
"""The first and the longest wait, in seconds; in YAML ``100ms..10s``."""

_UNITS: dict[str, Callable[[str], Any]] = {
    "duration": parse_duration,
    "size": parse_size,
    "rate": parse_rate,
    "backoff": parse_backoff,
}

OnFailure = Literal["stop", "dead_letter", "collect", "skip"]
Acknowledge = Literal["each", "all_or_nothing", "last_successful"]


if TYPE_CHECKING:
    FilePath = str | PathLike[str]
    FilePaths = str | PathLike[str] | Sequence[str | PathLike[str]]
else:
    # What a config holds; `Declared` makes texts of the rest.
    FilePath = str
    FilePaths = str | list[str]


class Declared(msgspec.Struct, kw_only=True, eq=False, metaclass=ByKeyword):
    """Keys and their values.

    When it is made, texts with units become numbers, paths become texts, and mappings what they declare.

    :raises ConfigError: for a key that is unknown or missing, also in a mapping, or given by its place; for a text
        whose unit can't be read.
    """

    def __post_init__(self) -> None:
        for name, unit in unit_keys(type(self)).items():
            value = getattr(self, name)
            if isinstance(value, str):
                try:
                    msgspec.structs.force_setattr(self, name, _UNITS[unit](value))
                except ValueError as error:
                    raise ConfigError(f"{type(self).__name__}({name}={value!r}): {error}") from None
        for name in file_keys(type(self)):
            msgspec.structs.force_setattr(self, name, _path_text(getattr(self, name)))
        for name, declared in _mapping_keys(type(self)).items():
            value = getattr(self, name)
            if isinstance(value, Mapping):
                try:
                    msgspec.structs.force_setattr(self, name, declared(**value))
                except ConfigError as error:
                    raise ConfigError(f"{type(self).__name__}({name}={value!r}): {error}") from None


@cache
def fields_of(declared: type[msgspec.Struct]) -> Sequence[msgspec.structs.FieldInfo]:
    """Return the keys of a declaration with their types, which take long to read and are asked for again and again."""
    return msgspec.structs.fields(declared)


def unit_keys(declared: type[msgspec.Struct]) -> Mapping[str, str]:
    """Return the keys of a declaration that hold a quantity, each with the name of its unit."""
    found = _unit_keys.get(declared)
    if found is None:
        found = {}
        for info in fields_of(declared):
            unit = _said_of(info.type, "unit")
            if unit is not None:
                found[info.name] = str(unit)
        _unit_keys[declared] = found
    return found


_unit_keys: dict[type[msgspec.Struct], dict[str, str]] = {}


def file_keys(declared: type[msgspec.Struct]) -> Sequence[str]:
    """Return the keys of a declaration that hold the path of a file, or a list of paths."""
    found = _file_keys.get(declared)
    if found is None:
        fields = fields_of(declared)
        found = _file_keys[declared] = tuple(info.name for info in fields if _said_of(info.type, "file"))
    return found


_file_keys: dict[type[msgspec.Struct], tuple[str, ...]] = {}


def _path_text(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return [_path_text(each) for each in value]  # pyright: ignore[reportUnknownVariableType]
    return fspath(value) if isinstance(value, PathLike) else value  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]


def _said_of(annotation: Any, word: str) -> Any:
    for meta in getattr(annotation, "__metadata__", ()):
        if isinstance(meta, Meta) and meta.extra and word in meta.extra:
            return meta.extra[word]
    inner = getattr(annotation, "__args__", ())
    return next((said for each in inner if (said := _said_of(each, word)) is not None), None)


def _mapping_keys(declared: type[msgspec.Struct]) -> Mapping[str, type[Declared]]:
    found = _declared_keys.get(declared)
    if found is None:
        pairs = ((info.name, _declared_in(info.type)) for info in fields_of(declared))
        found = _declared_keys[declared] = {name: kind for name, kind in pairs if kind is not None}
    return found


_declared_keys: dict[type[msgspec.Struct], dict[str, type[Declared]]] = {}


def _declared_in(annotation: Any) -> type[Declared] | None:
    inner: tuple[Any, ...] = getattr(annotation, "__args__", ())
    if isinstance(annotation, type) and issubclass(annotation, Declared):
        return annotation
    return next((kind for kind in map(_declared_in, inner) if kind is not None), None)


class Retry(Declared):
    """How often a failed attempt is made again."""

    attempts: Annotated[int, Meta(ge=1), key("Executions in all, the first one included.")] = 1
    backoff: Annotated[Backoff, key("First and longest wait between attempts; exponential with full jitter.")] = (
        0.1,
        10.0,
    )
    deadline: Annotated[Duration | None, key("No further attempt after this long since the first.")] = None
    on: Annotated[
        dict[str | type[Exception], Literal["unavailable", "record"]],
        key("What other exceptions mean, by name (`KeyError`, `module.Name`), subclasses included."),
    ] = msgspec.field(default_factory=dict[str | type[Exception], Literal["unavailable", "record"]])

    def __post_init__(self) -> None:
        super().__post_init__()
        if isinstance(self.on, Mapping) and any(isinstance(each, type) for each in self.on):
            named = {full_name(each) if isinstance(each, type) else each: kind for each, kind in self.on.items()}
            msgspec.structs.force_setattr(self, "on", named)


class RateLimit(Declared):
    """How often a stage calls its function, or its sink writes: one bucket for the stage, whatever its concurrency."""

    rate: Annotated[Rate, Meta(gt=0), key("Calls a second in the long run.")]
    burst: Annotated[int, Meta(ge=1), key("Calls that may be made at once after a pause.")] = 1
    per: Annotated[
        Literal["record", "call"] | None,
        key("What is counted; record for functions that take one, else call."),
    ] = None


class CircuitBreaker(Declared):
    """When a stage stops calling what it depends on, holds its batches, and looks now and then whether it is back."""

    failures: Annotated[int, Meta(ge=1), key("Unavailable answers in a row that open it.")] = 5
    reset: Annotated[Duration, Meta(gt=0), key("How long it is open before one call is tried.")] = 30.0


class Restart(Declared):
    """How often a stage that broke is opened again, for bugs; never for storage."""

    attempts: Annotated[int, Meta(ge=1), key("Restarts allowed within the interval.")]
    within: Annotated[Duration, key("The interval.")] = 60.0


class ChannelBounds(Declared):
    """The bounds of a stage's inbox."""

    records: Annotated[int | None, Meta(ge=1), key("Records held at most; two batches when left out.")] = None
    bytes: Annotated[Size, key("Bytes held at most.")] = 16 * 2**20


# --- declarations -----------------------------------------------------------------------------------------------------


class Stage(Declared, kw_only=True):
    """What every stage declares. The fields here are the engine's keys; those of a subclass belong to the stage."""

    role: ClassVar[str] = ""

    name: Annotated[
        str | None, key("What the stage is called in errors, metrics and ``from:``; the kind if left out.")
    ] = None
    on_failure: Annotated[
        OnFailure | None, key("What happens to a record that fails: stop, dead_letter, collect or skip.")
    ] = None

    def __or__(self, other: Any) -> Chain:
        """Compose with the stage behind; gives a chain that a pipeline or another stage can be joined with."""
        return Chain((self,)).then(other)

    def identity(self) -> Mapping[str, Any]:
        """Return what must be the same when saved state is resumed with this stage: a path, a table, a query."""
        return {}

    def problems(self) -> Iterable[tuple[str, str]]:
        """Return what is wrong with the keys taken together: pairs of a key and a text; asked when a plan is made."""
        return ()


class Source(Stage, kw_only=True):
    """Declares where records come from."""

    role: ClassVar[str] = "source"
    shares: ClassVar[bool] = False
    """Whether its records belong to somebody else too, so that the engine hands on shallow copies."""
    fed: ClassVar[bool] = False
    """Whether its own process hands it the records: whether its reader is a `Feed`."""
    python_only: ClassVar[bool] = False
    """Whether it needs a live object, so that no config can name it."""

    restart: Annotated[Restart | None, key("Open the source again at its last cursor when it breaks.")] = None

    def replays(self) -> bool:
        """Tell whether reading again from a cursor gives the same records; standard input and streams can't."""
        return True

    def endless(self) -> bool:
        """Tell whether the source never ends by itself; then a signal that drains it is its normal end (exit 0)."""
        return False

    def record_type(self) -> Any:
        """Return the type that a schema gives the records; `typing.Any` where they are what they are."""
        return Any

    def nonfinite(self) -> frozenset[str] | None:
        """Return the fields of its records that may hold NaN or infinity somewhere; None when any may."""
        return None

    def projects(self) -> bool:
        """Tell whether its records are JSON text, of which it decodes what `SourceContext.projection` asks for."""
        return False

    def widens(self) -> bool:
        """Tell whether it makes typed records as `SourceContext.widened` asks for, with room for computed fields."""
        return False

    def indivisible(self) -> str | None:
        """Return why the source can't be read in partitions by several workers; None when it can."""
        return "it has no partitions"

    def divide(self, size: int, known: Sequence["Partition"]) -> list["Partition"]:
        """Return what there is to read, behind what the known partitions hold, as partitions in order; blocking.

        Where what is read has a size, each is about so many bytes. A partition comes back in `SourceContext.partition`.

        :raises ConfigError: when what there is to read isn't there.
        """
        raise NotImplementedError

    async def open(self, context: "SourceContext") -> "Reader":
        """Begin to read behind ``context.cursor``, from the start when it is None.

        :raises StateError: when what the cursor belongs to isn't there or isn't the same any more.
        """
        raise NotImplementedError


class Batcher(Stage, kw_only=True):
    """Declares how records are gathered into batches. The engine gathers them; a batcher decides when to cut."""

    role: ClassVar[str] = "batcher"

    when: Annotated[
        str | Callable[[Any], Any] | None,
        key("Expression that says which records enter the stage, or `otherwise`.", expression=True),
    ] = None
    channel: Annotated[ChannelBounds | None, key("Bounds of the stage's inbox.")] = None
    # Every batcher has these four, but to the user they are keys of the stage: `owner` puts them under `with:`.
    max_bytes: Annotated[
        Size | None, key("Cut before the records exceed this; a larger one goes alone.", owner="stage")
    ] = None
    by: Annotated[
        str | Callable[[Any], Any] | None,
        key("Expression whose value keeps records of different batches apart.", expression=True, owner="stage"),
    ] = None
    max_keys: Annotated[
        int, Meta(ge=1), key("Batches open at a time with `by`; one more cuts the oldest.", owner="stage")
    ] = 1000
    order_by: Annotated[
        str | Callable[[Any], Any] | None,
        key("Expression that sorts the records within a batch.", expression=True, owner="stage"),
    ] = None

    def law(self) -> Law:
        """Return a new law for one run: what decides how large a batch may get and how long it may wait."""
        raise NotImplementedError


class Processor(Stage, kw_only=True):
    """Declares work on records between source and sink."""

    role: ClassVar[str] = "processor"

    when: Annotated[
        str | Callable[[Any], Any] | None,
        key("Expression that says which records enter the stage, or `otherwise`.", expression=True),
    ] = None
    channel: Annotated[ChannelBounds | None, key("Bounds of the stage's inbox.")] = None
    concurrency: Annotated[int, Meta(ge=1), key("Batches in flight; for a per-record async function, records.")] = 1
    ordered: Annotated[bool, key("Emit in the order of arrival; false emits what is ready.")] = True
    retry: Annotated[Retry | None, key("Attempts at what fails.")] = None
    timeout: Annotated[Duration | None, key("Bound on each attempt; refused on an inline synchronous function.")] = None
    rate_limit: Annotated[RateLimit | None, key("Bound on the calls a second, for the stage as a whole.")] = None
    circuit_breaker: Annotated[
        CircuitBreaker | None, key("Hold batches, and the source with them, while the other side is unavailable.")
    ] = None
    acknowledge: Annotated[
        Acknowledge, key("What goes on of a batch in which some fail: each, all_or_nothing or last_successful.")
    ] = "each"
    restart: Annotated[Restart | None, key("Open the stage again when it breaks.")] = None

    def stateful(self) -> bool:
        """Tell whether the stage keeps `KeyedState`; such a stage needs ordered input."""
        return False

    def resumable(self) -> bool:
        """Tell whether the stage promises the same results when records come again; a stream with memory can't."""
        return True

    def nonfinite(self, fields: frozenset[str] | None) -> frozenset[str] | None:
        """Return the fields that may hold NaN or infinity behind this stage, if before it these may; None: any may."""
        return None

    def access(self) -> Access | None:
        """Return which fields it reads and sets, if expressions are all that it consists of; None: it may use any."""
        return None

    def per_record(self) -> bool | None:
        """Tell whether the function takes one record at a time; None when only opening the stage tells."""
        return None

    async def open(self, context: "StageContext") -> "Work":
        """Return the work of one run."""
        raise NotImplementedError


class Resume(Enum):
    """How a sink keeps records that come again from being there twice; decides its guarantee."""

    POSITION = "position"
    """Cut back to the position of the last checkpoint: exactly once."""
    TRANSACTION = "transaction"
    """Rows and the numbers they settle in one transaction of the sink's own: exactly once."""
    UPSERT = "upsert"
    """The same key on every repeat: at least once, repeats invisible."""
    NONE = "none"
    """At least once: what came since the last checkpoint may come again."""


class Parting(Enum):
    """How several workers, each with partitions of its own, write to one sink."""

    MERGED = "merged"
    """Each partition has its own output, and a `PositionWriter` of the sink merges them in order."""
    APART = "apart"
    """Each partition has its own output, and that is how they stay."""
    ONE_WRITER = "one writer"
    """All of them through one process that has the sink open: a `TransactionWriter`."""


class Sink(Stage, kw_only=True):
    """Declares where records go."""

    role: ClassVar[str] = "sink"

    when: Annotated[
        str | Callable[[Any], Any] | None,
        key("Expression that says which records enter the stage, or `otherwise`.", expression=True),
    ] = None
    channel: Annotated[ChannelBounds | None, key("Bounds of the stage's inbox.")] = None
    concurrency: Annotated[int, Meta(ge=1), key("Batches in flight; file and SQLite sinks take 1.")] = 1
    retry: Annotated[Retry | None, key("Attempts at what fails.")] = None
    timeout: Annotated[Duration | None, key("Bound on each attempt.")] = None
    rate_limit: Annotated[RateLimit | None, key("Bound on the calls a second, for the stage as a whole.")] = None
    circuit_breaker: Annotated[
        CircuitBreaker | None, key("Hold batches, and the source with them, while the other side is unavailable.")
    ] = None
    acknowledge: Annotated[
        Acknowledge, key("What goes on of a batch in which some fail: each, all_or_nothing or last_successful.")
    ] = "each"
    restart: Annotated[Restart | None, key("Open the stage again when it breaks.")] = None

    def resumes(self) -> Resume:
        """Return how the sink resumes; `check` derives its guarantee from this."""
        return Resume.NONE

    def durable(self) -> bool:
        """Tell whether what is written outlives the run; where no sink does, a pipeline needs no state file."""
        return True

    def takes_text(self) -> bool:
        """Tell whether it looks into no record, and takes JSON objects as text (`msgspec.Raw`) as well."""
        return False

    def parting(self, merge: bool) -> "Parting | str":
        """Return how several workers write to it, or why they can't; ``merge``: to one output where it is possible."""
        return "it does not say how several processes can write to it"

    def for_partition(self, number: int, lineage: str, hidden: bool) -> "Sink":
        """Return the sink of a partition, with an output of its own; ``hidden``: until it is merged and taken away."""
        return self

    def discard_partition(self, number: int, lineage: str) -> None:
        """Take away the hidden output of a partition, if there is any; blocking."""

    def pack(self, records: Sequence[Any]) -> bytes:
        """Return records as bytes of which `unpack`, in the process of the one writer, makes what it writes alike.

        :raises RecordErrors: names the records that can't be handed over.
        """
        raise NotImplementedError

    def unpack(self, packed: bytes) -> list[Any]:
        """Return what `pack` was given, as far as it matters to this sink."""
        raise NotImplementedError

    async def open(self, context: "SinkContext") -> "Writer":
        """Make ready to write; on resume, bring the other side back to ``context.position``.

        :raises StateError: when what is there does not fit the position, or would be overwritten.
        """
        raise NotImplementedError


# --- what a stage is told ---------------------------------------------------------------------------------------------


class KeyedState(Protocol):
    """Saved state of a stage: a value a key, each change tagged with the record number that made it.

    Changes are saved with the settling of their number, and a record that comes again is judged by changes of smaller
    numbers only. Keys and values are JSON-able.
    """

    def get(self, key: Any, source: str, number: int) -> Any:
        """Return the value that records of smaller numbers of the source left for the key; None if they left none."""
        ...

    def put(self, key: Any, source: str, number: int, value: Any) -> None:
        """Let the record of this number leave a value for the key; ``value=None`` takes the key out."""
        ...


class StageContext(Struct):
    """What the engine tells a stage when it opens it."""

    name: str
    pipeline: str
    clock: Clock
    lineage: str = ""
    """Identity of the state file's history; new with each ``--fresh``."""
    run: int = 1
    """Counts the runs of the lineage, from 1."""
    state: KeyedState | None = None
    """For a processor that is `stateful`."""
    warn: Callable[[str], None] = field(default=lambda text: None)
    """Says a sentence to whoever watches the run."""


class SourceContext(StageContext):
    """What the engine tells a source when it opens it."""

    cursor: Any = None
    """Where to go on, as it was in a `Chunk`; None at the very start."""
    max_record: int = 2**20
    """Bytes of the largest record; a larger one is a bad record."""
    partition: Any = None
    """What of the source is to be read, as `Partition.what` says it; None for all of it."""
    projection: Projection | None = None
    """What of its records is to be decoded, if the source `projects`; None for all."""
    widened: type[Widened] | None = None
    """What its records are to be decoded as, if the source `widens`; None for the type of its schema."""


class NamedFile(Struct, frozen=True):
    """A file that a sink made, named in the state before its first byte. ``identity`` is up to the sink (JSON-able)."""

    path: str
    identity: Any
    lineage: str = ""


class SinkContext(StageContext):
    """What the engine tells a sink when it opens it."""

    delivery: Literal["exactly_once", "at_least_once"] = "at_least_once"
    """What this sink gives in this run; at least once does not cut back, and needs no syncs of its own."""
    position: Any = None
    """The sink's position in the last checkpoint of this lineage; None when there is none."""
    named: Sequence[NamedFile] = ()
    """Files named in this state by this sink, also by older lineages, and not yet forgotten; newest last."""
    saved: bool = True
    """Whether the run has a state file."""
    fresh: bool = False
    """Whether the user asked for a new lineage (``--fresh``) in this run."""
    repeat: bool = False
    """Whether the user accepts that what older lineages wrote is written again."""
    dry: bool = False
    """Whether the run only tries: open what there is, write nothing, make nothing."""
    held_from: Mapping[str, int] = field(default_factory=dict[str, int])
    """The frontier of each source: records of smaller numbers never come again."""
    announce: Callable[[Sequence[NamedFile]], Awaitable[None]] | None = None
    """Names new files in the state, durably, before their first byte. None without a state file."""
    nonfinite: frozenset[str] | None = None
    """Fields of its records that may hold NaN or infinity, for which JSON has no word; None when any may."""
    partition: str = ""
    """Which partition of the pipeline this is, where one writer serves several of the same lineage."""


class Position(Protocol):
    """Where a record lies in its source, for people."""

    def __call__(self, index: int) -> str:
        """Return the place of the record at an index of the chunk, like ``flights.csv:17 (byte 2048)``."""
        ...


class FunctionContext(Struct):
    """What a user's function is told about a record, when it has a parameter named ``context``."""

    origin: Origin
    position: str
    attempt: int
    metadata: Mapping[str, Any]
    key: str
    """Lineage, source, number and child: the same on every repeat of the record."""


class Partition(msgspec.Struct, kw_only=True):
    """A part of a source that one worker reads: its name for people, what it is (JSON-able), its bytes or records."""

    name: str
    what: Any
    size: int = 0


# --- a source while it runs -------------------------------------------------------------------------------------------


class Chunk:
    """Records that a source read together, and the cursor behind the last of them.

    ``failed`` are the indexes of ``records`` that hold a `Failed` (a line that can't be parsed, for instance): each
    takes a number like any record. ``cursors`` gives the cursor behind the record at an index, for sources whose
    cursor is each record's own key; left out, a resume reads the chunk again and skips what is settled. ``position``
    says where a record lies. ``size`` is the bytes of the records. ``numbered`` is called with the number of the first
    record, in the turn in which the engine gave it. Cursors are JSON-able. Instead of a cursor, a function that makes
    it may be given: it is called when the cursor is needed, which for most chunks is never.
    """

    __slots__ = ("cursors", "failed", "marked", "numbered", "position", "records", "size")

    def __init__(
        self,
        records: list[Any],
        cursor: Any,
        *,
        size: int = 0,
        failed: Sequence[int] = (),
        cursors: Callable[[int], Any] | None = None,
        position: Position | None = None,
        numbered: Callable[[int], None] | None = None,
    ) -> None:
        self.records = records
        self.marked = cursor
        """The cursor, or what makes it; see `made`."""
        self.size = size
        self.failed = failed
        self.cursors = cursors
        self.position = position
        self.numbered = numbered

    @property
    def cursor(self) -> Any:
        """The cursor behind the last record."""
        return made(self.marked)


def made(cursor: Any) -> Any:
    """Return a cursor that was given as itself or as what makes it; no cursor is callable itself."""
    return cursor() if callable(cursor) else cursor


class Progress(Struct, frozen=True):
    """How far a source has come, in ``unit`` ("bytes", "records"); ``total`` is None when nobody knows."""

    done: int
    total: int | None
    unit: str = "records"


class Reader:
    """A source that is open. Read by one task; `forget` may be called while a read waits."""

    prompt: ClassVar[bool] = False
    """Whether the next chunk is always there, or as good as: a file, but nothing that waits for somebody else.

    Then stages that only compute may work on each chunk in the source's task, while it is in the cache.
    """

    def read(self) -> AsyncIterator[Chunk]:
        """Yield chunks of records in order, a few hundred at a time, until there are no more.

        Asked for the next chunk only when the engine has room. May be cancelled at any await.
        """
        raise NotImplementedError

    async def forget(self, cursor: Any) -> None:
        """Take note that everything up to this cursor is settled and saved."""

    def progress(self) -> Progress | None:
        """Tell how far it has come."""
        return None

    async def close(self) -> None:
        """Let go of everything; called once, also after a failed read."""


class Place:
    """A record in the line of a `Feed`; make a subclass to remember who put it there.

    ``priority``: the highest is read first. ``since`` is when it was put, in seconds of the engine's clock. ``waits``
    turns False when it is read or withdrawn.
    """

    __slots__ = ("priority", "record", "since", "waits")

    def __init__(self, record: Any, priority: int = 0) -> None:
        self.record = record
        self.priority = priority
        self.since = 0.0
        self.waits = False


class Feed(Reader):
    """A source that its own process feeds, as a service does with what is submitted. For one event loop."""

    wanted: Callable[[], int] | None = None
    """Set by the engine: returns how many records the stages behind can use at a time, for the next chunk."""
    numbered: Callable[[int, Sequence[Place]], None] | None = None
    """Set by whoever feeds it: told of places whose records were read, and the number of the first of them."""

    @property
    def capacity(self) -> int:
        """Places that may wait at a time."""
        raise NotImplementedError

    @property
    def waiting(self) -> int:
        """Places that wait now."""
        raise NotImplementedError

    def put_nowait(self, place: Place) -> None:
        """Let a place wait to be read.

        :raises anyio.WouldBlock: when there is no room.
        :raises anyio.ClosedResourceError: when the input is closed.
        """
        raise NotImplementedError

    async def put(self, place: Place) -> None:
        """Wait for room, in the order of those who do, and let a place wait to be read.

        :raises anyio.ClosedResourceError: when the input is closed.
        """
        raise NotImplementedError

    def withdraw(self, place: Place) -> bool:
        """Take a place out of the line; tell whether it still was in it."""
        raise NotImplementedError

    def withdraw_all(self) -> list[Place]:
        """Take all places out of the line and return them."""
        raise NotImplementedError

    def hold(self) -> None:
        """Give no records to the engine until `go_on`; places may be put meanwhile."""
        raise NotImplementedError

    def go_on(self) -> None:
        """Give records again."""
        raise NotImplementedError

    def close_input(self) -> None:
        """Take no more places; those that wait are still read, also after `hold`, and then the source ends."""
        raise NotImplementedError


# --- a processor while it runs ----------------------------------------------------------------------------------------


class Work(Struct, kw_only=True):
    """The work of a processor for one run: one of `Each`, `EachAsync`, `Whole`, `Streamed`."""

    close: Callable[[], Awaitable[None]] | None = None
    """Lets go of everything; called once."""
    resize: Callable[[int], None] | None = None
    """Takes note of another ``concurrency``, where the work has places of its own."""


class Each(Work):
    """A synchronous function that takes one record, at about the cost of a call.

    ``gives`` says what it returns: ``keep``, whether to keep the record; ``record``, exactly one record, never None;
    ``many``, a sequence of records; ``any``, what a user's function may return: a record, None, `Many` or `Failed`.
    With ``origins`` the function takes the `Origin` as its second argument. A record that it changes in place is its
    own; an exception means that this record failed and was left as it was, unless ``changes`` says that it may be half
    changed, so that the engine keeps a copy. ``loop`` does the same for many records: it takes them and what is to be
    called with each result, and raises at the first record that fails.
    """

    function: Callable[..., Any]
    gives: Literal["keep", "record", "many", "any"] = "any"
    origins: bool = False
    context: bool = False
    changes: bool = False
    loop: Callable[[Iterable[Any], Callable[[Any], None]], None] | None = None


class EachAsync(Work):
    """An asynchronous function that takes one record and returns a record, None, `Many` or `Failed`."""

    function: Callable[..., Awaitable[Any]]
    context: bool = False


class Whole(Work):
    """A function that takes the list of a batch's records and returns a list of as many results, in order.

    A result is a record, None, `Many` or `Failed`; with ``aggregate`` it returns any list of records, which stands for
    the whole batch. May be asynchronous. ``context`` hands it a `FunctionContext` of the first record, ``keys`` the
    keys of all of them.
    """

    function: Callable[..., Any]
    aggregate: bool = False
    context: bool = False
    keys: bool = False


class Streamed(Work):
    """A function from an async iterator of records to an async iterator of results, pulled in lock-step.

    ``groups`` says that one result stands for several inputs (a list of them, and what is left comes at the end);
    otherwise each result belongs to the input pulled last.
    """

    function: Callable[[AsyncIterator[Any]], AsyncIterator[Any]]
    groups: bool = False


# --- a sink while it runs ---------------------------------------------------------------------------------------------


class Writer:
    """A sink that is open."""

    async def write(self, batch: Batch) -> None:
        """Write all records of a batch or none: when it raises, or is cancelled, nothing of the batch stays behind.

        Called again with the same batch for another attempt; with ``concurrency`` above 1 several calls run at a time.

        :raises RecordErrors: names the records that are at fault.
        :raises Unavailable: when it is worth another attempt.
        :raises StorageError: when the storage under it failed; ends the run.
        """
        raise NotImplementedError

    async def close(self) -> None:
        """Let go of everything; called once, without a promise that the last checkpoint covers all."""


class PositionWriter(Writer):
    """A sink whose position says how much of it counts, and that can be cut back to it (`Resume.POSITION`).

    For a cut the engine calls, with no write under way: `prepare`, then `position`; then, with writes going on again,
    `sync`; and when the cut is saved, `committed`.
    """

    async def prepare(self, final: bool) -> None:
        """Bring the sink to a point that can be cut back to: end a compressed frame; ``final``: no write follows."""

    def position(self) -> Any:
        """Return the position, JSON-able: what all finished writes amount to. Does not wait."""
        raise NotImplementedError

    async def sync(self) -> None:
        """Make the position that was returned last durable, and the directory of what is new.

        :raises StorageError: when that fails; it is never tried again.
        """
        raise NotImplementedError

    async def committed(self) -> None:
        """Take note that the position that was returned last is saved: rename what it closed."""

    async def merge(self, partition: Sink) -> None:
        """Append all that a sink of `Sink.for_partition` has written; when it raises, the position holds none of it.

        :raises StorageError: when the storage fails.
        """
        raise NotImplementedError


class TransactionWriter(Writer):
    """A sink whose transactions hold rows and the numbers that they settle (`Resume.TRANSACTION`)."""

    def held(self) -> Any:
        """Return, just after open, which records of this lineage the sink holds, as a `pipeline.spans.Held`."""
        raise NotImplementedError

    async def seal(self) -> None:
        """Make everything committed so far durable; called before each checkpoint is saved."""
        raise NotImplementedError

    async def prune(self, frontiers: Mapping[str, int]) -> None:
        """Forget the numbers below each source's frontier: the checkpoint that covers them is saved."""
        raise NotImplementedError
