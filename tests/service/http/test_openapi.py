"""The OpenAPI document says what the server does: schemathesis tries to find where it does not."""

import shutil
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from pipeline.service.http.shapes import ReplayRequest
from tests.service.http.process import Process, serving
from tests.service.http.served import COPY, served

ANY = """\
name: any
checkpoint: {path: any.state}
stages:
  - source: inlet
  - batcher: adaptive
    with: {target_latency: 200ms}
  - sink: jsonl
    with: {path: any.jsonl}
    on_failure: dead_letter
"""
LASTING = "/(pause|resume|drain|start)$"
"""What is submitted to a paused pipeline waits, so these are tried by themselves."""


@pytest.mark.anyio
async def test_the_document_names_every_path_and_only_those(tmp_path: Path) -> None:
    tmp_path.joinpath("in.jsonl").write_text('{"a": 1}\n')
    async with served(tmp_path, COPY) as server:
        document = (await server.get("/openapi.json")).json
        for path, methods in document["paths"].items():
            real = path.replace("{pipeline}", "copy").replace("{letter}", "1")
            for method in ("get", "post"):
                reply = await (server.get(real) if method == "get" else server.post(real))
                assert (reply.status == 405) == (method not in methods), (method, path)


@pytest.mark.long
@pytest.mark.timeout(240)
@pytest.mark.parametrize("which", [("--exclude-path-regex", LASTING), ("--include-path-regex", LASTING)])
def test_schemathesis_finds_nothing(tmp_path: Path, which: tuple[str, str]) -> None:
    if shutil.which("st", path=Path(sys.executable).parent) is None:
        pytest.skip("schemathesis is not installed")
    with serving(tmp_path, configs=[ANY]) as server:
        code, said = _try(server, tmp_path, which)
        assert code == 0, said
        assert server.ask("/healthz")[0] == 200
        assert server.end()[0] == 0


def _try(server: Process, folder: Path, which: tuple[str, str]) -> tuple[int, str]:
    # What a server says that can't do it in the caller's time, or not now, is no failure of its own.
    expected = '[checks.not_a_server_error]\nexpected-statuses = ["2xx", "3xx", "4xx", 503, 504]\n'
    folder.joinpath("schemathesis.toml").write_text(expected)
    command = [str(Path(sys.executable).parent / "st"), "run", f"{server.url}/openapi.json", *which]
    command += ["--max-examples", "30", "--max-time", "60", "--request-timeout", "10", "--seed", "1", "--no-color"]
    ran = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=200)
    return ran.returncode, ran.stdout[-6000:]


def test_a_letter_s_id_may_be_written_as_any_number_of_json_that_is_whole() -> None:
    assert msgspec.json.decode(b'{"ids": [3.0, 4]}', type=ReplayRequest).ids == [3, 4]
    with pytest.raises(msgspec.ValidationError):
        msgspec.json.decode(b'{"ids": [3.5]}', type=ReplayRequest)
