"""Compressed files: members and frames, damage, and resuming in the middle."""

import gzip
import itertools
import random
import re
import sys
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.errors import ConfigError, StageError, StateError
from stages.sources.compressed import Compressed, codec_of
from stages.sources.jsonl import Jsonl
from tests.stages.sources.reading import check_resumes, context_of, read_chunks, read_in_pieces, read_records, write

pytestmark = pytest.mark.anyio

ZSTD = zstandard.ZstdCompressor(level=1)
COMPRESS: dict[str, Callable[[bytes], bytes]] = {"gz": lambda data: gzip.compress(data, 1), "zst": ZSTD.compress}
EACH = pytest.mark.parametrize("suffix", ["gz", "zst"])


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def lines(count: int, width: int = 20) -> bytes:
    chance = random.Random(count)
    return b"".join(b'{"n": %d, "x": "%s"}\n' % (n, chance.randbytes(width).hex().encode()) for n in range(count))


async def read_until_damage(source: Jsonl, cursor: Any = None) -> tuple[list[int], Any, str]:
    """Return the records that came before the error, the last cursor, and the error."""
    numbers: list[int] = []
    with pytest.raises(StageError) as caught:
        reader = await source.open(context_of(cursor))
        try:
            async for chunk in reader.read():
                numbers += [record["n"] for record in chunk.records]
                cursor = chunk.cursor
        finally:
            await reader.close()
    return numbers, cursor, str(caught.value)


@EACH
async def test_members_one_behind_the_other_are_one_file_and_each_cursor_resumes(tmp_path: Path, suffix: str) -> None:
    data = lines(600)
    cut = len(data) // 2 + 7
    path = write(tmp_path, f"in.jsonl.{suffix}", COMPRESS[suffix](data[:cut]) + COMPRESS[suffix](data[cut:]))
    source = Jsonl(path=path)
    seen = await check_resumes(source, 3000, 60)
    assert [record["n"] for record, _ in seen] == list(range(600))
    offset = data.index(b'{"n": 300,')
    assert seen[300][1] == f"{path}:301 (byte {offset})"


@EACH
async def test_an_empty_compressed_file_and_one_of_nothing_give_no_records(tmp_path: Path, suffix: str) -> None:
    assert await read_chunks(Jsonl(path=write(tmp_path, f"a.{suffix}", b""))) == []
    assert await read_chunks(Jsonl(path=write(tmp_path, f"b.{suffix}", COMPRESS[suffix](b"")))) == []


@EACH
async def test_a_truncated_file_gives_its_whole_lines_and_then_an_error_with_the_offset(
    tmp_path: Path, suffix: str
) -> None:
    packed = COMPRESS[suffix](lines(30_000))
    path = write(tmp_path, f"in.jsonl.{suffix}", packed[: len(packed) // 2])
    numbers, cursor, text = await read_until_damage(Jsonl(path=path))
    assert numbers == list(range(len(numbers))) and 5_000 < len(numbers) < 25_000
    assert f"damaged at byte {len(packed) // 2:,} of the file" in text and text.startswith(f"stage 'in': '{path}'")
    assert (await read_until_damage(Jsonl(path=path), cursor))[0] == []
    write(tmp_path, f"in.jsonl.{suffix}", packed)
    rest = await read_records(Jsonl(path=path), cursor)
    assert [record["n"] for record in rest] == list(range(len(numbers), 30_000))


@EACH
async def test_garbage_behind_the_data_comes_as_an_error_after_all_records(tmp_path: Path, suffix: str) -> None:
    packed = COMPRESS[suffix](lines(10))
    path = write(tmp_path, f"in.jsonl.{suffix}", packed + b"garbage, more of it")
    numbers, _, text = await read_until_damage(Jsonl(path=path))
    assert numbers == list(range(10))
    place = re.search(r"at byte ([\d,]+) of the file", text)
    assert place is not None
    assert len(packed) <= int(place[1].replace(",", "")) <= len(packed) + 8
    assert "what follows the end of the data is something else" in text


async def test_damage_in_the_middle_costs_no_record_before_it(tmp_path: Path) -> None:
    deflate = zlib.compressobj(wbits=31)
    second = deflate.compress(lines(5000)) + deflate.flush(zlib.Z_FULL_FLUSH)
    path = write(tmp_path, "in.jsonl.gz", gzip.compress(lines(100)) + second + b"\x07 no block begins like this")
    numbers, _, text = await read_until_damage(Jsonl(path=path))
    assert numbers == [*range(100), *range(5000)]
    assert "gzip data is damaged at byte" in text and "invalid block type" in text


async def test_zeros_that_fill_up_the_last_block_of_a_gzip_file_are_no_data(tmp_path: Path) -> None:
    path = write(tmp_path, "in.jsonl.gz", gzip.compress(lines(3)) + b"\0" * 40_000)
    assert len(await read_records(Jsonl(path=path))) == 3


async def test_what_is_no_compressed_data_at_all_is_an_error(tmp_path: Path) -> None:
    for suffix in COMPRESS:
        path = write(tmp_path, f"in.{suffix}", b"plain text, whatever its name says\n")
        assert (await read_until_damage(Jsonl(path=path)))[0] == []
        assert len(await read_chunks(Jsonl(path=path, compression="none"))) == 1


@EACH
async def test_another_content_under_the_same_name_is_refused(tmp_path: Path, suffix: str) -> None:
    path = write(tmp_path, f"in.jsonl.{suffix}", COMPRESS[suffix](lines(500)))
    cursor = (await read_in_pieces(Jsonl(path=path), 1000, 50))[3].cursor
    write(tmp_path, f"in.jsonl.{suffix}", COMPRESS[suffix](lines(499)))
    with pytest.raises(StateError, match="differ"):
        await read_chunks(Jsonl(path=path), cursor)


@EACH
def test_a_bomb_is_decompressed_in_bounded_steps(tmp_path: Path, suffix: str) -> None:
    path = write(tmp_path, f"in.{suffix}", COMPRESS[suffix](bytes(200 * 2**20)))
    codec = codec_of("auto", path)
    assert codec is not None
    stream = Compressed(path, codec)
    most = total = 0
    while data := stream.read(2**20):
        assert len(data) <= 2**20
        total += len(data)
        most = max(most, stream.ahead())
    stream.close()
    assert total == 200 * 2**20
    assert most == 0 if codec.bounded else most < 33 * 2**20


@settings(deadline=None)
@given(
    text=st.lists(st.tuples(st.sampled_from([b"a", b"ab\n", b"0123456789"]), st.integers(1, 5_000)), min_size=1),
    sizes=st.lists(st.integers(1, 20_000), min_size=1),
    flip=st.none() | st.integers(0, 10**6),
    bit=st.integers(0, 7),
)
def test_any_sizes_of_reads_give_the_bytes_before_the_damage(
    tmp_path_factory: pytest.TempPathFactory,
    text: list[tuple[bytes, int]],
    sizes: list[int],
    flip: int | None,
    bit: int,
) -> None:
    data = bytearray(gzip.compress(b"".join(part * count for part, count in text)))
    if flip is not None:
        data[flip % len(data)] ^= 1 << bit
    expected, healthy = byte_by_byte(bytes(data))
    path = write(tmp_path_factory.mktemp("damaged"), "in.gz", bytes(data))
    codec = codec_of("gzip", path)
    assert codec is not None
    stream, found, turns = Compressed(path, codec), b"", itertools.cycle(sizes)
    try:
        while block := stream.read(next(turns)):
            found += block
        assert healthy
    except StageError:
        assert not healthy
    finally:
        stream.close()
    assert found == expected


def byte_by_byte(data: bytes) -> tuple[bytes, bool]:
    """Return what a gzip file holds before its first damage, and whether it has none."""
    found, frame = b"", zlib.decompressobj(wbits=31)
    for at in range(len(data)):
        if frame.eof:
            frame = zlib.decompressobj(wbits=31)
        try:
            found += frame.decompress(data[at : at + 1])
        except zlib.error:
            return found, False
    return found, frame.eof


async def test_a_missing_package_is_named_with_the_way_to_get_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "zstandard", None)
    with pytest.raises(ConfigError, match=r"stage 'in': .*pip install 'pipeline\[zstd\]'"):
        await read_chunks(Jsonl(path=write(tmp_path, "in.zst", b"")))


async def test_compression_can_be_named_where_the_suffix_does_not(tmp_path: Path) -> None:
    path = write(tmp_path, "in.data", gzip.compress(b"1\n"))
    assert await read_records(Jsonl(path=path, compression="gzip")) == [1]
