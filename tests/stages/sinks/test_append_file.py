import errno
import os
from pathlib import Path
from typing import Any

import pytest

from stages.sinks.append_file import AppendFile, digest

LARGE = b"".join(b'{"id":%d}\n' % number for number in range(100_000))


@pytest.mark.parametrize("held", [b'{"id":1}\n', LARGE])
@pytest.mark.parametrize("by", ["kernel", "memory", "both"])
def test_what_another_file_holds_is_appended_whoever_copies_it(
    by: str, held: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copied: list[int] = []
    copy: Any = getattr(os, "copy_file_range", None)

    def refused(*arguments: Any) -> int:
        raise OSError(errno.EXDEV, "two file systems")

    def once(source: int, target: int, size: int, *places: int) -> int:
        if copied:
            return refused()
        copied.append(copy(source, target, max(size // 2, 1), *places))
        return copied[0]

    if by != "memory" and copy is None:
        pytest.skip("the system has no such call")
    if by != "kernel":
        monkeypatch.setattr(os, "copy_file_range", refused if by == "memory" else once, raising=False)
    (tmp_path / "part").write_bytes(held)
    file = AppendFile.create(str(tmp_path / "out"), None)
    file.add(b'{"id":0}\n')

    for lead in (b"", b"lead\n"):
        with (tmp_path / "part").open("rb") as source:
            file.take_over(lead, source.fileno())

    whole = b'{"id":0}\n' + held + b"lead\n" + held
    assert (tmp_path / "out").read_bytes() == whole
    assert (file.point().length, file.point().tail) == (len(whole), digest(whole[-4096:]))
    assert by != "both" or copied
    file.release()


def test_a_file_without_a_byte_adds_nothing_not_even_what_leads(tmp_path: Path) -> None:
    (tmp_path / "part").touch()
    file = AppendFile.create(str(tmp_path / "out"), None)

    with (tmp_path / "part").open("rb") as source:
        file.take_over(b"header\n", source.fileno())

    assert (tmp_path / "out").read_bytes() == b""


def test_a_full_disk_is_told_where_the_kernel_copies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*arguments: Any) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "copy_file_range", full, raising=False)
    (tmp_path / "part").write_bytes(b"1\n")
    file = AppendFile.create(str(tmp_path / "out"), None)

    with (tmp_path / "part").open("rb") as source, pytest.raises(OSError, match="No space left"):
        file.take_over(b"", source.fileno())
    file.release()
