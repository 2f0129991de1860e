"""Runs that go on with other stages than the last one had, because the user accepted the changes."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import pytest

from pipeline.stage import Sink
from stages import batchers, processors, sinks, sources
from stages.sinks.files import Roll
from tests.end_to_end.running import exactly, numbered

pytestmark = pytest.mark.anyio


def contents(folder: Path) -> dict[str, bytes]:
    """Return what the files of sinks hold."""
    return {path.name: path.read_bytes() for path in folder.glob("*.jsonl")}


@pytest.mark.parametrize(
    ("before", "after", "written"),
    [
        (sinks.Jsonl(path="e.jsonl"), sinks.Jsonl(path="e2.jsonl"), "e2.jsonl"),
        (sinks.Jsonl(path="e.jsonl"), sinks.Csv(path="e.csv"), "e.csv"),
        (sinks.Jsonl(path="./{kind}.jsonl"), sinks.Jsonl(path="./{kind}-2.jsonl"), "a-2.jsonl"),
        (sinks.Jsonl(path="e.jsonl", roll=Roll(size=1)), sinks.Jsonl(path="e.jsonl"), "e.jsonl"),
    ],
)
async def test_what_a_sink_wrote_under_another_path_is_left_as_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, before: Sink, after: Sink, written: str
) -> None:
    monkeypatch.chdir(tmp_path)
    said: list[Any] = []

    def hear(event: str, fields: Mapping[str, Any]) -> None:
        said.append((event, fields))

    source = sources.Jsonl(path=numbered(tmp_path / "in", 5), name="read")

    def to(sink: Sink) -> Any:
        return (
            exactly("e", tmp_path / "state")
            | source
            | processors.Map(set={"kind": "'a'"})
            | batchers.Fixed(size=2)
            | msgspec.structs.replace(sink, name="s")
        )

    await to(before).run()
    old = contents(tmp_path)
    assert b"".join(old.values()).count(b"\n") == 5
    numbered(tmp_path / "in", 3, first=5)
    await to(after).run(accept_changes=True, subscribers=[hear])

    assert old.items() <= contents(tmp_path).items()
    assert (tmp_path / written).read_text().count("\n") == 3 + written.endswith(".csv")
    assert "cut back" not in str(said)

    numbered(tmp_path / "in", 1, first=8)
    await to(after).run()
    assert (tmp_path / written).read_text().count("\n") == 4 + written.endswith(".csv")
