"""Pictures of a plan."""

from xml.etree import ElementTree

from pipeline.plan.graph import to_mermaid, to_svg, to_text
from pipeline.plan.load import load_text
from pipeline.plan.topology import Topology
from tests.plan.kinds import registry

CONFIG = """\
name: fan
stages:
  - source: csv
    with: {path: flights.csv}
  - processor: filter
    name: late
    when: carrier == "<b>&" and dep_delay > 15
    on_failure: dead_letter
    with: {where: a}
  - processor: map
    name: early
    from: csv
    when: b
    concurrency: 4
  - sink: sqlite
    name: archive
    from: [late, early, csv]
    with: {path: a.db, table: t}
"""


def plan() -> Topology:
    """Return a plan with a fan-out, a fan-in and a long edge."""
    return load_text(CONFIG, "c.yaml", registry=registry(), environ={}).topology


def test_the_text_tells_stages_memory_and_promises() -> None:
    assert (
        to_text(plan())
        == """\
pipeline fan
state: .pipeline/fan.db

  source     csv
  processor  late (filter)     <- csv; when carrier == "<b>&" and dep_delay > 15; on failure dead_letter
  processor  early (map)       <- csv; when b; concurrency 4
  sink       archive (sqlite)  <- late, early, csv

memory: at most 146MiB
       2MiB  reading of source 'csv'
      16MiB  channel into processor 'late'
      16MiB  batches in processor 'late'
      16MiB  channel into processor 'early'
      64MiB  batches in processor 'early'
      16MiB  channel into sink 'archive'
      16MiB  batches in sink 'archive'

guarantees:
  archive: exactly once
    rows and the numbers they settle are in one transaction"""
    )


def test_mermaid_has_an_arrow_for_each_input_and_no_text_that_ends_another() -> None:
    lines = to_mermaid(plan()).splitlines()

    assert [line.strip() for line in lines if "-->" in line] == [
        's0 -->|"carrier #61;#61; #34;#60;b#62;#38;#34; and dep_delay #62; 15"| s1',
        's0 -->|"b"| s2',
        "s1 --> s3",
        "s2 --> s3",
        "s0 --> s3",
    ]
    assert '    s3[("archive<br/>sink sqlite")]' in lines


def test_the_svg_is_well_formed_and_has_every_stage_and_edge_within_its_frame() -> None:
    picture = ElementTree.fromstring(to_svg(plan()))
    space = "{http://www.w3.org/2000/svg}"
    texts = [element.text for element in picture.iter(f"{space}text")]
    boxes = [box for group in picture.iter(f"{space}g") for box in group.iter(f"{space}rect")]
    width, height = float(picture.attrib["width"]), float(picture.attrib["height"])

    assert [name for name in ("csv", "late", "early", "archive") if name not in texts] == []
    assert len([path for path in picture.iter(f"{space}path") if "marker-end" in path.attrib]) == 5
    assert all(float(box.attrib["x"]) + float(box.attrib["width"]) <= width for box in boxes)
    assert all(float(box.attrib["y"]) + float(box.attrib["height"]) <= height for box in boxes)
    assert len({(box.attrib["x"], box.attrib["y"]) for box in boxes}) == 4


def test_the_svg_reaches_for_nothing_outside_itself() -> None:
    assert not any(word in to_svg(plan()) for word in ("href", "<script", "<style", "url(http", "<image"))
