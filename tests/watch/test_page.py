import re
from html.parser import HTMLParser
from typing import Any

from pipeline.watch.page import page
from tests.watch.recorded import Told, report_of, stage_status_of

VOID = {"meta", "link", "line", "br"}


class Reader(HTMLParser):
    """Checks that tags nest, and gathers what a page refers to and says."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.links: list[str] = []
        self.ids: list[str] = []
        self.said: dict[str, list[str]] = {}
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        self.links += [str(found[name]) for name in ("href", "src", "xlink:href", "action") if name in found]
        if "id" in found:
            self.ids.append(str(found["id"]))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        pass

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and data.strip():
            self.said.setdefault(self.open[-1], []).append(data)


def stepped() -> Told:
    told = Told()
    told.climb()
    told.slow_down()
    return told


def page_of(told: Told, **more: Any) -> str:
    return page(report_of(told, **more), told.recorder.history())


def test_a_page_nests_and_needs_nothing_from_a_network() -> None:
    text = page_of(stepped())

    reader = Reader(text)
    assert reader.open == []
    assert reader.links == ["data:,"]
    assert not re.search(r"https?://|@import|url\(|<script", text)
    assert len(reader.ids) == len(set(reader.ids))


def test_each_plot_has_a_title_and_a_description_and_dark_paper_is_thought_of() -> None:
    text = page_of(stepped())

    plots = text.count("<svg ")
    assert plots == 7
    assert text.count('role="img" aria-labelledby="plot') == text.count("<desc ") == plots
    assert "prefers-color-scheme: dark" in text


def test_a_step_is_marked_in_every_plot_with_its_reason_and_factor() -> None:
    titles = Reader(page_of(stepped())).said["title"]

    steps = [title for title in titles if "slower, 2.4 times the time in call: 256 to 80" in title]
    assert len(steps) == 7 + 1  # a line in each, and a dot on the limit


def test_batches_over_the_target_are_marked() -> None:
    titles = Reader(page_of(stepped())).said["title"]

    assert sum("over the target, longest 170ms" in title for title in titles) >= 1


def test_words_come_before_plots_and_data_follows_as_tables() -> None:
    reader = Reader(page_of(stepped()))

    assert reader.said["h2"] == [
        *("What held it up", "What to change", "What the batchers did", "Over time", "Account", "Stages"),
    ]
    assert "batch: size" in reader.said["th"]
    assert reader.said["summary"] == ["Changes of limits", "Data of the plots"]


def test_names_are_text_and_never_markup() -> None:
    evil = "<b onload=x>&\"'"
    stages = [stage_status_of(evil, "processor", 0.9)]
    text = page_of(stepped(), pipeline=evil, stages=stages, error=f"{evil} failed", outcome="failed")

    assert "<b " not in text
    assert "&lt;b onload=x&gt;&amp;&quot;&#x27;" in text


def test_a_dollar_in_a_name_is_left_alone() -> None:
    assert "$body costs $5" in page_of(stepped(), pipeline="$body costs $5")


def test_secrets_are_hidden() -> None:
    told = stepped()
    report = report_of(told, error="password hunter2&co refused", outcome="failed")

    text = page(report, told.recorder.history(), lambda text: text.replace("hunter2&co", "***"))

    assert "hunter2" not in text
    assert "password *** refused" in text


def test_a_run_that_was_too_short_for_plots_still_has_a_page() -> None:
    told = Told()
    told.begin()

    text = page_of(told)

    assert "too short for plots" in text
    assert Reader(text).open == []


def test_a_long_run_has_a_page_of_bounded_size() -> None:
    told = stepped()
    for place in range(20_000):
        told.batch(100, 0.04 + 0.0001 * (place % 100))
        told.resize(100 + place % 50, "fit")

    assert len(page_of(told)) < 250_000
