"""The dashboard in a browser: what it shows, what its buttons do, and that it asks nobody but us."""

import json
import shutil
import time
from collections.abc import Generator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from tests.service.http.process import Process, serving

sync_api = pytest.importorskip("playwright.sync_api")

pytestmark = [
    pytest.mark.needs_tool("chromium"),
    pytest.mark.timeout(120),
]

GATE = """\
name: gate
checkpoint: {path: gate.state}
stages:
  - source: inlet
  - batcher: adaptive
    with: {target_latency: 100ms}
  - processor: call
    name: check
    with: {function: "gate:check", batch: true}
    on_failure: dead_letter
  - sink: jsonl
    name: out
    with: {path: out.jsonl}
"""
FLOW = """\
name: flow
checkpoint: none
stages:
  - source: generate
    with: {rate: 500/s, record: {id: n}}
  - batcher: adaptive
    with: {target_latency: 100ms}
  - sink: discard
"""
CODE = """\
import os

from pipeline import Failed


def check(batch):
    if os.path.exists("open"):
        return batch
    return [Failed(record, ValueError("<img src=x onerror=alert(1)> shut")) for record in batch]
"""


@pytest.fixture(scope="module")
def browser() -> Generator[Any, None, None]:
    with sync_api.sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        yield running
        running.close()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Generator[Process, None, None]:
    folder = tmp_path_factory.mktemp("dashboard")
    folder.joinpath("gate.py").write_text(CODE)
    with serving(folder, configs=[GATE, FLOW]) as running:
        yield running


@pytest.fixture
def page(browser: Any, server: Process) -> Generator[Any, None, None]:
    """A page on the dashboard that noted what went wrong in it and whom it asked."""
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    page = context.new_page()
    wrong: list[str] = []
    asked: set[str] = set()
    _note(page, wrong, asked)
    page.goto(server.url)
    page.wait_for_selector("#main:not([hidden])")
    yield page
    assert wrong == []
    assert asked == {urlsplit(server.url).netloc}
    context.close()


def test_it_shows_the_stages_with_live_numbers(page: Any) -> None:
    page.click("#pipelines >> text=flow")
    _until(page, "/[45]\\d\\d\\/s/.test(document.querySelector('#figures dd span').textContent)")
    assert page.title() == "flow: running"
    labels = page.locator("#graph [role=listitem]").evaluate_all(
        "all => all.map(each => each.getAttribute('aria-label'))"
    )
    assert [label.split(",")[0] for label in labels] == ["source generate", "batcher adaptive", "sink discard"]
    _until(page, "document.querySelectorAll('#batches tbody tr').length > 5")
    assert page.locator(".plot polyline").count() >= 3


def test_its_buttons_pause_resume_and_start(page: Any, server: Process) -> None:
    page.click("#pipelines >> text=flow")
    page.click("text=Pause")
    page.wait_for_selector("#state.paused")
    assert _state(server, "flow") == "paused"
    page.click("text=Resume")
    page.wait_for_selector("#state.running")
    page.click("button:has-text('Drain')")
    page.click("#confirm button:has-text('Cancel')")
    assert _state(server, "flow") == "running"
    page.click("button:has-text('Drain')")
    page.click("#confirm button:has-text('Drain')")
    page.wait_for_selector("#state.stopped")
    page.click("button:has-text('Start')")
    page.wait_for_selector("#state.running")
    assert _state(server, "flow") == "running"


def test_dead_letters_are_shown_as_text_and_replayed(page: Any, server: Process) -> None:
    records = [{"id": number, "name": "<script>alert(1)</script>"} for number in range(3)]
    status, answers = server.ask("/api/pipelines/gate/records/many", {"records": records})
    assert (status, answers["failed"]) == (200, 3)
    page.click("#pipelines >> text=gate")
    _until(page, "document.querySelectorAll('#letters tbody tr').length === 3")
    page.click("#letters tbody tr:first-child button")
    page.wait_for_selector("#letter[open]")
    assert json.loads(page.text_content("#letter-record")) == records[0]
    assert "<img src=x onerror=alert(1)> shut" in page.text_content("#letter-facts")
    assert page.locator("#letter img, #letter script, #letters img").count() == 0
    page.keyboard.press("Escape")
    server.folder.joinpath("open").touch()
    page.click("text=Replay these")
    page.click("#confirm button:has-text('Replay')")
    page.wait_for_selector("#said:has-text('3 dead letters replayed: 3 went through')", timeout=20_000)
    _until(page, "document.querySelectorAll('#letters tbody tr').length === 0")
    page.wait_for_selector("#state.running")
    written = [json.loads(line) for line in server.folder.joinpath("out.jsonl").read_text().splitlines()]
    assert written == records
    assert server.ask("/api/pipelines/gate/records", {"record": {"id": 9}})[0] == 200


def test_it_can_be_used_from_the_keyboard(page: Any) -> None:
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    seen: list[str] = []
    for _ in range(30):
        page.keyboard.press("Tab")
        seen.append(page.evaluate("document.activeElement.textContent.trim().split('\\n')[0]"))
        if seen[-1] == "Pause":
            break
    assert "Pause" in seen
    page.keyboard.press("Enter")
    page.wait_for_selector("#state.paused")
    _until(page, "document.activeElement.id === 'main'")
    page.click("text=Resume")
    page.wait_for_selector("#state.running")


def test_everything_that_can_be_done_has_a_name(page: Any) -> None:
    nameless = page.evaluate(
        """() => [...document.querySelectorAll('button, input, select, a, summary, [role=region], [role=img]')]
        .filter(each => each.getClientRects().length)
        .filter(each => !(each.textContent || each.ariaLabel || each.getAttribute('aria-labelledby')
            || (each.labels && each.labels.length)))
        .map(each => each.outerHTML)"""
    )
    assert nameless == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_on_a_phone_nothing_is_wider_than_the_screen(browser: Any, server: Process, scheme: str) -> None:
    context = browser.new_context(
        viewport={"width": 360, "height": 780}, is_mobile=True, has_touch=True, color_scheme=scheme
    )
    page = context.new_page()
    page.goto(server.url)
    page.wait_for_selector("#graph svg")
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    small = (
        "[...document.querySelectorAll('.actions button')].filter(e => e.offsetParent && e.offsetHeight < 44).length"
    )
    assert page.evaluate(small) == 0
    background = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert background == {"light": "rgb(244, 245, 247)", "dark": "rgb(18, 21, 26)"}[scheme]
    context.close()


def test_the_theme_can_be_chosen_and_stays(page: Any) -> None:
    page.click("#theme")
    page.click("#theme")
    assert page.text_content("#theme") == "Theme: dark"
    page.reload()
    page.wait_for_selector("#graph svg")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(18, 21, 26)"


def test_with_a_token_it_asks_for_it_once(browser: Any, tmp_path: Path) -> None:
    token = "xk29-QmZ7_tokEN-of-the-test-0123456789"
    tmp_path.joinpath("token").write_text(token)
    with serving(tmp_path, "--token-file", "token", configs=[FLOW]) as server:
        page = browser.new_page()
        page.goto(server.url)
        page.fill("#token", "wrong")
        page.click("text=Go on")
        page.wait_for_selector("#sign-in-wrong:has-text('not the token')")
        page.fill("#token", token)
        page.click("text=Go on")
        page.wait_for_selector("#state.running")
        assert token not in page.url
        page.reload()
        page.wait_for_selector("#state.running")
        page.close()


def test_it_says_when_the_server_is_gone(browser: Any, tmp_path: Path) -> None:
    with serving(tmp_path, configs=[FLOW]) as server:
        page = browser.new_page()
        page.goto(server.url)
        page.wait_for_selector("#state.running")
        server.end()
        page.wait_for_selector("#connection.lost")
        page.close()


def _note(page: Any, wrong: list[str], asked: set[str]) -> None:
    def said(line: Any) -> None:
        if line.type in ("error", "warning"):
            wrong.append(line.text)

    def raised(error: Any) -> None:
        wrong.append(str(error))

    def opened(dialog: Any) -> None:
        wrong.append(f"a dialog: {dialog.message}")

    def requested(request: Any) -> None:
        asked.add(urlsplit(str(request.url)).netloc)

    page.on("console", said)
    page.on("pageerror", raised)
    page.on("dialog", opened)
    page.on("request", requested)


def _until(page: Any, expression: str) -> None:
    """Wait for something in the page; the page's own policy forbids it to wait for a text of ours."""
    deadline = time.monotonic() + 15
    while not page.evaluate(expression):
        assert time.monotonic() < deadline, expression
        page.wait_for_timeout(50)


def _state(server: Process, name: str) -> str:
    return str(server.ask(f"/api/pipelines/{name}")[1]["state"])
