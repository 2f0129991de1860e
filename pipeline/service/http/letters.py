"""The dead letters of a pipeline of the server, read from its state file, running or not."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated

import msgspec
from anyio import to_thread
from msgspec import Meta, Struct

from pipeline.service.http.hosted import Hosted
from pipeline.service.http.looking import account_view
from pipeline.service.http.refused import RequestRefused
from pipeline.service.http.shapes import LetterList, LetterView, Replayed, ReplayRequest
from pipeline.settle.cut import Letter
from pipeline.settle.letters import Wanted
from pipeline.settle.view import Readings, open_view
from pipeline.watch.log import masked

__all__ = ("LetterQuery", "list_letters", "replay_letters", "show_letter")


class LetterQuery(Struct, forbid_unknown_fields=True):
    """Which letters: of a stage, with a type of error or a part of its text, with ids above one."""

    stage: Annotated[str, Meta(max_length=200)] = ""
    error: Annotated[str, Meta(max_length=1000)] = ""
    after: Annotated[int, Meta(ge=0, le=2**53)] = 0
    limit: Annotated[int, Meta(ge=1, le=1000)] = 100


async def list_letters(hosted: Hosted, wanted: LetterQuery) -> LetterList:
    """Return the letters that are wanted, without their records."""
    chosen = Wanted(stage=wanted.stage or None, error=wanted.error or None)
    async with _readings(hosted) as readings:
        if readings is None:
            return LetterList(0, [])
        total = await readings.count_letters(chosen)
        found = await readings.letters(chosen, wanted.limit, wanted.after)
    return LetterList(total, [_view(hosted, letter, whole=False) for letter in found])


async def show_letter(hosted: Hosted, number: int) -> LetterView:
    """Return one letter whole.

    :raises RequestRefused: when there is none of this id.
    """
    async with _readings(hosted) as readings:
        letter = await readings.letter(number) if readings is not None and number < 2**63 else None
    if letter is None:
        raise RequestRefused("not_found", f"there is no dead letter {number}", 404)
    return _view(hosted, letter, whole=True)


async def replay_letters(hosted: Hosted, wanted: ReplayRequest) -> Replayed:
    """Replay letters and return what became of them.

    :raises RequestRefused: when that can't be done now.
    """
    report = await hosted.replay(wanted)
    mask, account = hosted.loaded.secrets.mask, report.account
    again = f", {account.dead_lettered:,} failed again" if account.dead_lettered else ""
    text = f"{account.read:,} dead letters replayed: {account.settled - account.dead_lettered:,} went through{again}"
    notes = [mask(note) for note in report.notes]
    return Replayed(text, account_view(account), notes, mask(report.error))


@asynccontextmanager
async def _readings(hosted: Hosted) -> AsyncGenerator[Readings | None, None]:
    """Give the running pipeline's own look at its state: a second connection could end the first one's locks."""
    own = hosted.supervisor.readings if hosted.supervisor is not None else None
    path = hosted.loaded.topology.checkpoint_path
    if own is not None:
        yield own
    elif path is None or not await to_thread.run_sync(Path(path).exists):
        yield None
    else:
        async with open_view(path) as view:
            yield view


def _view(hosted: Hosted, letter: Letter, *, whole: bool) -> LetterView:
    found = {name: getattr(letter, name) for name in LetterView.__struct_fields__}
    if not whole:
        found["record"] = None
    shown = masked(msgspec.to_builtins(found, enc_hook=str), hosted.loaded.secrets.mask)
    return LetterView(**shown)
