"""``pipeline serve`` as a process of its own, and requests to it."""

import json
import re
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

__all__ = ("Process", "TASKS", "WORK", "serving")

TASKS = """\
name: tasks
checkpoint: {path: tasks.state}
stages:
  - source: inlet
  - processor: validate
    with: {schema: {id: int, kind: str}}
    on_failure: dead_letter
  - batcher: adaptive
    with: {target_latency: 200ms}
  - processor: call
    name: work
    with: {function: "work:tasks", batch: true}
    concurrency: 4
  - sink: sqlite
    name: done
    with: {path: tasks.db, table: tasks}
"""
WORK = """\
import asyncio


async def tasks(batch):
    await asyncio.sleep(0.005 + 0.0001 * len(batch))
    return [{**task, "done": True} for task in batch]


async def slow(batch):
    await asyncio.sleep(0.3)
    return [{**task, "done": True} for task in batch]
"""


class Process:
    """A server that runs."""

    def __init__(self, process: "subprocess.Popen[str]", url: str, folder: Path) -> None:
        self.process = process
        self.url = url
        self.folder = folder

    def ask(self, path: str, body: Any = None, token: str = "") -> tuple[int, Any]:
        """Return status and answer, which is JSON where it can be."""
        data = None if body is None else json.dumps(body).encode()
        headers = {"content-type": "application/json"} | ({"authorization": f"Bearer {token}"} if token else {})
        request = urllib.request.Request(self.url + path, data, headers)
        try:
            with urllib.request.urlopen(request, timeout=20) as answer:
                return answer.status, _decoded(answer.read())
        except urllib.error.HTTPError as error:
            with error:
                return error.code, _decoded(error.read())

    def wait_until_ready(self) -> None:
        """Wait until every pipeline has started."""
        deadline = time.monotonic() + 20
        while self.ask("/readyz")[0] != 200:
            assert time.monotonic() < deadline, self.ask("/readyz")
            time.sleep(0.02)

    def end(self, patience: float = 20.0) -> tuple[int, str]:
        """Send SIGTERM, and return the exit code and what was said."""
        self.process.terminate()
        _, said = self.process.communicate(timeout=patience)
        assert "Traceback" not in said, said
        return self.process.returncode, said


@contextmanager
def serving(
    folder: Path, *arguments: str, configs: Sequence[str] = (TASKS,), ready: bool = True
) -> Generator[Process, None, None]:
    """Serve configs in a folder on a free port."""
    folder.joinpath("work.py").write_text(WORK)
    names = [f"{index}.yaml" for index, _ in enumerate(configs)]
    for name, text in zip(names, configs, strict=True):
        folder.joinpath(name).write_text(text)
    process = subprocess.Popen(
        [sys.executable, "-m", "pipeline", "serve", *names, "--port", "0", *arguments],
        cwd=folder,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stderr is not None
        for line in process.stderr:
            found = re.search(r"http://[\w.\[\]:]+", line)
            if found:
                server = Process(process, found[0], folder)
                if ready:
                    server.wait_until_ready()
                yield server
                break
        else:
            raise AssertionError("it ended before it served")
    finally:
        process.kill()
        process.communicate()


def _decoded(body: bytes) -> Any:
    try:
        return json.loads(body)
    except ValueError:
        return body.decode()
