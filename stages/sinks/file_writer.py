"""Writing batches to files so that a batch is there whole or not at all, and a cut can be gone back to."""

import os
from collections.abc import Sequence
from typing import Any

import anyio.to_thread
import msgspec

from pipeline.batch import Batch
from pipeline.errors import ConfigError, RecordError, RecordErrors, StorageError
from pipeline.stage import PositionWriter, Sink, SinkContext
from stages.sinks.admission import Admission, Mode
from stages.sinks.append_file import AppendFile, Mark, fault
from stages.sinks.format import Format
from stages.sinks.frames import Frames
from stages.sinks.open_files import OpenFiles
from stages.sinks.points import Closing, FilesPosition, decode_position
from stages.sinks.resumption import Resumption, finish
from stages.sinks.syncs import Syncs
from stages.sinks.target import Target
from stages.sinks.targets import Targets
from stages.sinks.templates import Template

__all__ = ("FileWriter",)


class FileWriter(PositionWriter):
    """Appends batches to one file, to a file for each rendered path, or to parts of them.

    Between the first byte of a batch and its last nothing waits, so no cut ever sees half a batch. ``roll`` is the
    size and the age at which a part is finished.
    """

    def __init__(
        self,
        context: SinkContext,
        template: Template,
        format: Format,
        frames: Frames | None,
        *,
        mode: Mode,
        roll: tuple[Any, Any] | None,
    ) -> None:
        self._context = context
        self._template = template
        self._format = format
        self._roll = roll
        position = decode_position(context.position, context.name)
        self._behind = position.behind or context.fresh
        self._resumption = Resumption(context, position, format, frames)
        self._admission = Admission(context, mode, format, frames, self._behind)
        format.recall(position.memory)
        self._syncs = Syncs()
        self._targets = Targets(context, self._admission, frames, self._syncs, roll is not None)
        self._open = OpenFiles()
        self._closing: list[Closing] = []
        self._saving: list[Closing] = []
        self._cuts = 0
        self._final = False
        self._failed: Exception | None = None

    async def open(self) -> None:
        """Bring what the position knows back to it, and open what is not known, as the mode allows."""
        try:
            await anyio.to_thread.run_sync(self._resume)
            if not (self._template.fields or self._roll or self._context.dry):
                await self._targets.admit([self._template.fixed], self._cuts)
        except OSError as error:
            raise self._refused(error) from error
        except StorageError as error:
            if isinstance(error.__cause__, OSError):
                raise self._refused(error.__cause__) from error
            raise

    async def write(self, batch: Batch) -> None:
        """Append all records of a batch, or none of them."""
        self._check()
        memory = self._format.memory()
        try:
            groups = self._encode(batch.records)
            await self._targets.admit([path for path, _ in groups], self._cuts)
            self._append(groups)
        except BaseException:
            self._format.recall(memory)
            raise

    async def prepare(self, final: bool) -> None:
        """End compressed frames, and parts that are past their size or age; with ``final``, all of them."""
        self._check()
        self._final = final
        for target in self._targets.all():
            if target.file is not None:
                self._end_frame(target.file)
                if self._roll is not None and (final or self._is_due(target, target.file)):
                    self._close_part(target, target.file)

    def position(self) -> Any:
        """Return how far each file counts."""
        self._check()
        self._cuts += 1
        self._saving = list(self._closing)
        position = FilesPosition(
            self._targets.turn,
            self._targets.points(),
            self._saving,
            self._format.memory(),
            self._behind,
        )
        return msgspec.to_builtins(position)

    async def sync(self) -> None:
        """Make every byte and every name durable that is not yet."""
        self._check()
        await self._syncs.run()

    async def committed(self) -> None:
        """Give finished parts their names, now that a checkpoint holds them."""
        for closing in self._saving:
            try:
                finish(closing)
            except OSError as error:
                raise self._broken(error, closing.part.path, "rename") from error
            self._syncs.folder(os.path.dirname(closing.part.path))
            self._closing.remove(closing)
        self._saving = []
        self._targets.forget(self._cuts)
        if self._final:
            await self.sync()

    async def merge(self, partition: Sink) -> None:
        """Append the files of a partition, each to the one of the same name; in the order of names where it matters."""
        self._check()
        path: str = getattr(partition, "path", "")
        for made, target in await anyio.to_thread.run_sync(self._merged, path):
            await self._targets.admit([target], self._cuts)
            try:
                await anyio.to_thread.run_sync(self._take_over, made, target)
            except OSError as error:
                raise self._broken(error, target, "write to") from error

    async def close(self) -> None:
        """Let go of all files. Without a state file nothing will resume, so what was begun is finished here."""
        try:
            if not self._context.saved and not self._context.dry and self._failed is None:
                await self.prepare(True)
                self.position()
                await self.sync()
                await self.committed()
        finally:
            self._open.close()

    # --- opening ------------------------------------------------------------------------------------------------------

    def _resume(self) -> None:
        found = self._resumption
        found.verify(self._template, self._roll is not None)
        if not self._template.fields:
            self._check_fixed(self._template.fixed, found)
        if self._context.dry:
            return
        found.apply()
        self._targets.resume(found)
        self._closing = found.closing
        for file in found.recovered:
            self._syncs.file(file)
        for name in found.folders:
            self._syncs.folder(name)

    def _check_fixed(self, path: str, found: Resumption) -> None:
        if self._roll is None and path not in found.targets:
            self._admission.check(path)
        elif self._roll is not None and path not in found.sequences:
            self._admission.check_parts(path, found.removed)

    def _refused(self, error: OSError) -> Exception:
        path = error.filename or self._template.path
        broken = fault(error, path, "open")
        if isinstance(broken, StorageError) and isinstance(
            error, (PermissionError, NotADirectoryError, FileExistsError)
        ):
            return ConfigError(f"stage '{self._context.name}': can't open {path}: {error.strerror}")
        return broken

    # --- from records to bytes ----------------------------------------------------------------------------------------

    def _encode(self, records: Sequence[Any]) -> list[tuple[str, bytes]]:
        if not records:
            return []
        if not self._template.fields:
            return [(self._template.fixed, self._format.encode(records))]
        errors: dict[int, Exception] = {}
        encoded: list[tuple[str, bytes]] = []
        for path, indexes in self._by_path(records, errors).items():
            try:
                encoded.append((path, self._format.encode([records[index] for index in indexes])))
            except RecordErrors as found:
                errors.update({indexes[at]: error for at, error in found.errors.items()})
        if errors:
            raise RecordErrors(errors)
        return encoded

    def _by_path(self, records: Sequence[Any], errors: dict[int, Exception]) -> dict[str, list[int]]:
        groups: dict[str, list[int]] = {}
        for indexes in self._template.group(records).values():
            try:
                path = self._template.render(records[indexes[0]])
                if path not in groups:
                    self._check_confined(path)
                groups.setdefault(path, []).extend(indexes)
            except RecordError as error:
                errors.update(dict.fromkeys(indexes, error))
        # Different values may make the same path, and its records stay in order.
        return {path: sorted(indexes) for path, indexes in groups.items()}

    def _check_confined(self, path: str) -> None:
        if self._targets.knows(path):
            return
        if not self._template.confined(path):
            raise RecordError(f"makes the file {path}, which lies outside {self._template.folder}")
        if os.path.isdir(path):
            raise RecordError(f"makes the file name {path}, and there is a folder of that name")

    # --- the files of partitions --------------------------------------------------------------------------------------

    def _merged(self, path: str) -> list[tuple[str, str]]:
        """Return the files that a partition made, and which of ours each belongs behind."""
        if not self._template.fields:
            return [(path, self._template.fixed)]
        made, own = Template(path).folder, self._template.folder
        names = sorted(
            os.path.relpath(os.path.join(root, name), made) for root, _, them in os.walk(made) for name in them
        )
        return [(os.path.join(made, name), os.path.join(own, name)) for name in names]

    def _take_over(self, made: str, target: str) -> None:
        with open(made, "rb", buffering=0) as source:
            file = self._targets.touch(target)
            self._open.use(file)
            file.take_over(b"" if file.size else self._format.preamble(), source.fileno())
            self._syncs.file(file)

    # --- bytes into files ---------------------------------------------------------------------------------------------

    def _append(self, groups: Sequence[tuple[str, bytes]]) -> None:
        """Append to each file; nothing waits in here."""
        marks: list[tuple[AppendFile, Mark]] = []
        path = ""
        try:
            for path, data in groups:
                file = self._targets.touch(path)
                self._open.use(file)
                marks.append((file, file.mark()))
                file.add(data if file.size else self._format.preamble() + data)
                self._syncs.file(file)
        except BaseException as error:
            self._cut_back(marks)
            if isinstance(error, OSError):
                raise fault(error, error.filename or path) from error
            raise

    def _cut_back(self, marks: Sequence[tuple[AppendFile, Mark]]) -> None:
        for file, mark in marks:
            try:
                file.back(mark)
            except OSError as error:
                raise self._broken(error, file.path, "cut back") from error

    def _end_frame(self, file: AppendFile) -> None:
        mark = file.mark()
        try:
            if file.is_gathering:
                self._open.use(file)
                file.end_frame()
                self._syncs.file(file)
        except OSError as error:
            self._cut_back([(file, mark)])
            raise self._broken(error, file.path, "write to") from error

    # --- parts --------------------------------------------------------------------------------------------------------

    def _is_due(self, target: Target, file: AppendFile) -> bool:
        if self._roll is None or not file.size:
            return False
        size, age = self._roll
        too_large = size is not None and file.size >= size
        return too_large or (age is not None and self._context.clock.wall() - target.opened >= age)

    def _close_part(self, target: Target, file: AppendFile) -> None:
        final = self._targets.close_part(target)
        self._closing.append(Closing(file.point(), final if file.length else ""))
        self._open.drop(file)

    # --- errors -------------------------------------------------------------------------------------------------------

    def _check(self) -> None:
        if self._failed is not None:
            raise self._failed

    def _broken(self, error: OSError, path: str, doing: str) -> Exception:
        self._failed = StorageError(f"can't {doing} {path}: {error.strerror}; run again to resume")
        return self._failed
