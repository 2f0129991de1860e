"""Broken configs: each with all of its problems, to the column and the word."""

# ruff: noqa: E501  (a problem stands on one line, as it is printed)

from pathlib import Path

import pytest

from pipeline.errors import ConfigError
from pipeline.plan.load import load_text
from pipeline.plan.registry import Registry
from tests.plan.kinds import KINDS

BASE = """\
name: delays
stages:
  - source: csv
    with: {path: flights.csv}
  - batcher: adaptive
    with: {target_latency: 200ms}
  - processor: filter
    with:
      where: dep_delay > 15
  - sink: sqlite
    name: archive
    with: {path: delays.db, table: delays}
"""
FILTER = "processor: filter\n    with:\n      where: dep_delay > 15"


def swap(old: str, new: str) -> str:
    """Return the config with one text in the place of another."""
    assert BASE.count(old) == 1, old
    return BASE.replace(old, new)


def more(text: str) -> str:
    """Return the config with more stages."""
    return BASE + text


def top(text: str) -> str:
    """Return the config with more keys of the pipeline, from line 2 on."""
    return BASE.replace("stages:\n", text + "stages:\n")


# What the case is called, the config, and its problems: line, column and text.
BROKEN: list[tuple[str, str, list[str]]] = [
    (
        "alerts without a rule",
        top("alerts: {window: 1m}\n"),
        ["2:9: key 'alerts': names no rule; give at least one of failure_rate, stalled, backlog and breaker"],
    ),
    (
        "alerts that can't be",
        top("alerts:\n  failure_rate: 10\n  stalled: 5\n  backlog: 200000\n  webhok: http://h\n"),
        [
            "3:17: key 'alerts.failure_rate': expected less than 1",
            "4:12: key 'alerts.stalled': expected a duration with a unit, like 250ms, got a whole number",
            "6:3: key 'alerts': unknown key 'webhok'; did you mean 'webhook'?",
        ],
    ),
    (
        "a backlog that can't come to pass",
        top("alerts: {backlog: 200000}\n"),
        [
            "2:19: key 'alerts.backlog': never more than 100,000 records are unsettled (checkpoint.max_unsettled)",
        ],
    ),
    (
        "an address that can't be posted to",
        top("alerts: {breaker: 1s, webhook: ftp://me:secret@h, command: []}\n"),
        ["2:60: key 'alerts.command': expected something, got nothing"],
    ),
    (
        "a push to nowhere",
        top("metrics: {push: localhost, every: 0s}\nmetadata: {a: [1]}\n"),
        [
            "2:35: key 'metrics.every': expected at least 1s",
            "3:15: key 'metadata.a': expected text or a whole number or a number or true or false, got a list",
        ],
    ),
    (
        "a push to no URL",
        top("metrics: {push: localhost}\n"),
        [
            "2:17: key 'metrics.push': expected a URL that begins with http:// or https:// and a host; a program is a list, like [push-metrics, --quiet]"
        ],
    ),
    ("empty file", "", ["1:1: expected a mapping with 'name' and 'stages', got nothing"]),
    ("only a comment", "# nothing\n", ["1:1: expected a mapping with 'name' and 'stages', got nothing"]),
    ("a list at the top", "- 1\n- 2\n", ["1:1: expected a mapping with 'name' and 'stages', got a list"]),
    ("a text at the top", "hello\n", ["1:1: expected a mapping with 'name' and 'stages', got text"]),
    ("null at the top", "~\n", ["1:1: expected a mapping with 'name' and 'stages', got nothing"]),
    (
        "a flow that never ends",
        "{{{{",
        ["1:5: not valid YAML: did not find expected node content (while parsing a flow node)"],
    ),
    (
        "a tab as indent",
        swap("    with: {path: flights.csv}", "\twith: {path: flights.csv}"),
        ["4:1: a tab can't indent or separate here; use spaces"],
    ),
    (
        "a tab after a dash",
        swap("  - source: csv", "  -\tsource: csv\n\tname: x"),
        ["3:4: a tab can't indent or separate here; use spaces"],
    ),
    ("NUL", "name: \0\n", ["1:7: character U+0000 is not allowed in YAML"]),
    ("an escape character", "name: a\x1bb\n", ["1:8: character U+001B is not allowed in YAML"]),
    ("a line separator", "name: a\u2028b\n", ["1:8: character U+2028 is not allowed in YAML"]),
    (
        "an unclosed quote",
        swap("name: delays", "name: 'delays"),
        ["13:1: not valid YAML: found unexpected end of stream (while scanning a quoted scalar that begins on line 1)"],
    ),
    (
        "a bracket too few",
        swap("{path: flights.csv}", "{path: flights.csv"),
        ["5:12: not valid YAML: did not find expected ',' or '}' (while parsing a flow mapping that begins on line 4)"],
    ),
    (
        "a bad escape",
        swap("flights.csv", '"fl\\ights.csv"'),
        ["4:21: not valid YAML: found unknown escape character (while parsing a quoted scalar)"],
    ),
    (
        "two values on a line",
        swap("name: delays", "name: delays: late"),
        ["1:13: not valid YAML: mapping values are not allowed in this context"],
    ),
    (
        "a reserved character",
        swap("name: delays", "name: @delays"),
        ["1:7: not valid YAML: found character that cannot start any token (while scanning for the next token)"],
    ),
    ("too deep", "name: " + "[" * 60, ["1:56: nested more than 50 deep"]),
    (
        "an unknown alias",
        swap("name: delays", "name: *delays"),
        ["1:7: alias '*delays' has no anchor '&delays' above it"],
    ),
    (
        "an alias within itself",
        swap("{path: flights.csv}", "&a {path: *a}"),
        ["4:21: alias '*a' stands for what it is itself a part of"],
    ),
    (
        "an alias bomb",
        "a: &a [x,x,x,x,x,x,x,x,x]\n"
        + "".join(f"{chr(98 + i)}: &{chr(98 + i)} [{','.join([f'*{chr(97 + i)}'] * 9)}]\n" for i in range(9)),
        ["5:11: more than 20,000 values, aliases expanded"],
    ),
    ("too many aliases", "a: &a x\nb: [" + ",".join(["*a"] * 101) + "]\n", ["2:305: more than 100 aliases"]),
    ("too many values", "a: [" + "x," * 20000 + "]\n", ["1:39999: more than 20,000 values, aliases expanded"]),
    ("two documents", BASE + "---\nname: other\n", ["13:1: a second document begins; a config is one document"]),
    (
        "a directive of another YAML",
        "%YAML 3.0\n---\n" + BASE,
        ["1:1: not valid YAML: found incompatible YAML document"],
    ),
    (
        "a tag",
        swap("name: delays", "name: !!str delays"),
        ["1:7: tags ('!!str') are not supported; write the value without it"],
    ),
    (
        "a tag of a language",
        swap("name: delays", "name: !!python/object:os.system delays"),
        ["1:7: tags ('!!python/object:os.system') are not supported; write the value without it"],
    ),
    (
        "a merge key",
        swap("{path: flights.csv}", "{path: flights.csv, <<: {header: true}}"),
        ["4:31: merge keys ('<<') are not supported; repeat the keys, or give the whole value an alias"],
    ),
    (
        "a duplicate key",
        swap("name: delays", "name: delays\nname: again"),
        ["2:1: duplicate key 'name'; it is on line 1 already"],
    ),
    (
        "a duplicate key below",
        swap("{path: flights.csv}", "{path: flights.csv, path: b.csv}"),
        ["4:31: duplicate key 'path'; it is on line 4 already"],
    ),
    (
        "a number as key",
        swap("{path: flights.csv}", "{path: flights.csv, 1: 2}"),
        ["4:31: a key must be text; quote it: '1'"],
    ),
    ("a list as key", swap("{path: flights.csv}", "{path: flights.csv, [a]: 2}"), ["4:31: a key must be text"]),
    (
        "a number of too many digits",
        swap("{target_latency: 200ms}", "{target_latency: 200ms, max_size: " + "9" * 5000 + "}"),
        ["6:45: a whole number that doesn't fit 64 bits; quote it if it is text"],
    ),
    (
        "a number that is too large",
        swap("{target_latency: 200ms}", "{target_latency: 200ms, margin: 1e999}"),
        ["6:43: a number that is too large; quote it if it is text"],
    ),
    ("no name", swap("name: delays\n", ""), ["1:1: missing key 'name', text"]),
    ("no stages", "name: delays\n", ["1:1: missing key 'stages', a list of stages"]),
    ("a misspelt stages", swap("stages:\n", "stage:\n"), ["2:1: unknown key 'stage'; did you mean 'stages'?"]),
    (
        "stages that are no list",
        "name: delays\nstages: {source: csv}\n",
        ["2:9: expected a list of stages, got a mapping"],
    ),
    (
        "no stage at all",
        "name: delays\nstages: []\n",
        [
            "2:9: no sink; a pipeline needs one, like 'sink: jsonl'",
            "2:9: no source; a pipeline needs one, like 'source: jsonl'",
        ],
    ),
    (
        "an unknown key at the top",
        top("deliveri: exactly_once\n"),
        ["2:1: unknown key 'deliveri'; did you mean 'delivery'?"],
    ),
    ("a key of a later version", top("plugins: 4\n"), ["2:1: unknown key 'plugins'"]),
    (
        "a name that is a number",
        swap("name: delays", "name: 7"),
        ["1:7: key 'name': expected text, got a whole number"],
    ),
    (
        "a name that is a path",
        swap("name: delays", "name: ../delays"),
        ["1:7: key 'name': expected a name of letters, digits, '_' and '-'"],
    ),
    (
        "an unknown delivery",
        top("delivery: exactly-once\n"),
        ["2:11: key 'delivery': expected one of exactly_once, at_least_once; did you mean 'exactly_once'?"],
    ),
    (
        "an unknown policy",
        top("on_failure: deadletter\n"),
        ["2:13: key 'on_failure': expected one of stop, dead_letter, collect, skip; did you mean 'dead_letter'?"],
    ),
    (
        "a bare drain",
        top("drain: 10\n"),
        ["2:8: key 'drain': expected a duration with a unit, like 250ms, got a whole number"],
    ),
    (
        "memory without unit",
        top("memory: 256000000\n"),
        ["2:9: key 'memory': expected a size with a unit, like 64KiB, got a whole number"],
    ),
    (
        "memory with a wrong unit",
        top("memory: 256Mb\n"),
        ["2:9: key 'memory': expected a size with a unit (B, KB, MB, GB, KiB, MiB, GiB), like 64KiB"],
    ),
    (
        "an interval of nothing",
        top("checkpoint: {interval: 0s}\n"),
        ["2:24: key 'checkpoint.interval': expected more than 0s"],
    ),
    (
        "an unknown checkpoint key",
        top("checkpoint:\n  intervall: 1s\n"),
        ["3:3: key 'checkpoint': unknown key 'intervall'; did you mean 'interval'?"],
    ),
    (
        "a checkpoint that is a word",
        top("checkpoint: never\n"),
        ["2:13: key 'checkpoint': expected a mapping of path, interval, max_unsettled or none"],
    ),
    ("a stage that is a text", more("  - hello\n"), ["13:5: expected a stage, like 'source: jsonl', got text"]),
    ("a stage that is nothing", more("  -\n"), ["13:4: expected a stage, like 'source: jsonl', got nothing"]),
    (
        "a stage without role",
        more("  - name: x\n"),
        ["13:5: stage 5: missing its role: one of source, batcher, processor, sink, with its kind"],
    ),
    (
        "a misspelt role",
        swap("processor: filter", "procesor: filter"),
        ["7:5: stage 3: unknown key 'procesor'; did you mean 'processor'?"],
    ),
    (
        "two roles",
        swap("  - source: csv", "  - source: csv\n    sink: csv"),
        ["4:5: stage 'csv' (source csv): a stage has one role, and 'source' is here already"],
    ),
    (
        "an unknown kind",
        swap("sink: sqlite", "sink: sqlit"),
        ["10:11: stage 'archive' (sink sqlit): unknown sink 'sqlit'; did you mean 'sqlite'?"],
    ),
    (
        "a kind of another role",
        swap("sink: sqlite", "sink: generate"),
        ["10:11: stage 'archive' (sink generate): unknown sink 'generate'; 'generate' is a source"],
    ),
    (
        "no kind",
        swap("source: csv", "source:"),
        ["3:12: stage 1: expected a kind, one of csv, generate, iterable, jsonl; got nothing"],
    ),
    (
        "a kind that is a list",
        swap("source: csv", "source: [csv]"),
        ["3:13: stage 1: expected a kind, one of csv, generate, iterable, jsonl; got a list"],
    ),
    (
        "an unknown key",
        swap("table: delays", "tabel: delays"),
        ["12:29: stage 'archive' (sink sqlite): unknown key 'tabel'; did you mean 'table'?"],
    ),
    (
        "a missing key",
        swap("{path: delays.db, table: delays}", "{path: delays.db}"),
        ["12:11: stage 'archive' (sink sqlite): missing key 'table', text"],
    ),
    (
        "no with at all",
        swap("    with: {path: flights.csv}\n", ""),
        ["3:5: stage 'csv' (source csv): missing key 'path', text or a list of text"],
    ),
    (
        "with that is a list",
        swap("with: {path: flights.csv}", "with: [path]"),
        ["4:11: stage 'csv' (source csv): expected a mapping of keys, got a list"],
    ),
    (
        "a key of the stage beside with",
        swap("    name: archive", "    name: archive\n    table: delays"),
        ["12:5: stage 'archive' (sink sqlite): unknown key 'table'; 'table' belongs under 'with:'"],
    ),
    (
        "an engine key under with",
        swap("{path: delays.db, table: delays}", "{path: delays.db, table: delays, retry: {attempts: 3}}"),
        ["12:44: stage 'archive' (sink sqlite): unknown key 'retry'; 'retry' belongs beside 'with:', not under it"],
    ),
    (
        "a number for a text",
        swap("{path: delays.db, table: delays}", "{path: delays.db, table: 7}"),
        ["12:36: stage 'archive' (sink sqlite): key 'table': expected text, got a whole number"],
    ),
    (
        "a text for a number",
        swap("{target_latency: 200ms}", "{target_latency: 200ms, max_size: many}"),
        ["6:45: stage 'adaptive' (batcher adaptive): key 'max_size': expected a whole number, got text"],
    ),
    (
        "yes for true",
        swap("{path: flights.csv}", "{path: flights.csv, follow: yes}"),
        ["4:39: stage 'csv' (source csv): key 'follow': expected true or false, got text"],
    ),
    (
        "a bare duration",
        swap("200ms", "200"),
        [
            "6:28: stage 'adaptive' (batcher adaptive): key 'target_latency': expected a duration with a unit, like 250ms, got a whole number"
        ],
    ),
    (
        "a bad unit",
        swap("200ms", "200sm"),
        [
            "6:28: stage 'adaptive' (batcher adaptive): key 'target_latency': expected a duration with a unit (us, ms, s, m, h, d), like 250ms or 1.5s"
        ],
    ),
    (
        "a duration of nothing",
        swap("200ms", "0ms"),
        ["6:28: stage 'adaptive' (batcher adaptive): key 'target_latency': expected more than 0s"],
    ),
    (
        "a number that is too small",
        swap("{target_latency: 200ms}", "{target_latency: 200ms, max_size: 0}"),
        ["6:45: stage 'adaptive' (batcher adaptive): key 'max_size': expected at least 1"],
    ),
    (
        "a number that is not finite",
        swap("{target_latency: 200ms}", "{target_latency: 200ms, margin: .nan}"),
        ["6:43: stage 'adaptive' (batcher adaptive): key 'margin': expected a finite number"],
    ),
    (
        "a text that is too long",
        swap("{path: flights.csv}", "{path: flights.csv, delimiter: ';;'}"),
        ["4:42: stage 'csv' (source csv): key 'delimiter': expected at most 1 character"],
    ),
    (
        "a word in a list",
        swap("{path: flights.csv}", "{path: [a.csv, 7]}"),
        ["4:26: stage 'csv' (source csv): key 'path[1]': expected text, got a whole number"],
    ),
    (
        "a value in a mapping",
        swap("{path: flights.csv}", "{path: flights.csv, types: {dep_delay: flaot}}"),
        [
            "4:50: stage 'csv' (source csv): key 'types.dep_delay': expected one of int, float, str, bool; did you mean 'float'?"
        ],
    ),
    (
        "keys that contradict",
        swap("{target_latency: 200ms}", "{target_latency: 200ms, min_size: 50, max_size: 5}"),
        ["6:45: stage 'adaptive' (batcher adaptive): key 'min_size': expected at most max_size, 5"],
    ),
    (
        "attempts of nothing",
        swap("    name: archive", "    name: archive\n    retry: {attempts: 0}"),
        ["12:23: stage 'archive' (sink sqlite): key 'retry.attempts': expected at least 1"],
    ),
    (
        "an unknown key in retry",
        swap("    name: archive", "    name: archive\n    retry: {attemps: 3}"),
        ["12:13: stage 'archive' (sink sqlite): key 'retry': unknown key 'attemps'; did you mean 'attempts'?"],
    ),
    (
        "an exception that there isn't",
        swap(
            "    name: archive",
            "    name: archive\n    retry: {on: {KeyEror: record, json.JSONDecodeErro: unavailable}}",
        ),
        [
            "12:18: stage 'archive' (sink sqlite): key 'retry.on': 'KeyEror' is no exception of Python's own; did you mean 'KeyError'?",
            "12:35: stage 'archive' (sink sqlite): key 'retry.on': 'JSONDecodeErro' is no exception of module 'json'; did you mean 'JSONDecodeError'?",
        ],
    ),
    (
        "an exception of a module that may not be imported",
        swap("    name: archive", "    name: archive\n    retry: {on: {nowhere.Error: record}}"),
        [
            "12:18: stage 'archive' (sink sqlite): key 'retry.on': module 'nowhere' may not be imported: there is no nowhere.py beside the config, and no --allow-code names it"
        ],
    ),
    (
        "an exception that means neither",
        swap("    name: archive", "    name: archive\n    retry: {on: {KeyError: recrd}}"),
        [
            "12:28: stage 'archive' (sink sqlite): key 'retry.on.KeyError': expected one of unavailable, record; did you mean 'record'?"
        ],
    ),
    (
        "a rate of records where batches are written",
        swap("    name: archive", "    name: archive\n    rate_limit: {rate: 10/s, per: record}"),
        [
            "12:35: stage 'archive' (sink sqlite): key 'rate_limit.per': this stage is called with batches, not with records; expected call"
        ],
    ),
    (
        "a rate without a unit, and no rate",
        swap("    name: archive", "    name: archive\n    rate_limit: {rate: 10}"),
        [
            "12:24: stage 'archive' (sink sqlite): key 'rate_limit.rate': expected a rate with a unit, like 100/s, got a whole number"
        ],
    ),
    (
        "a breaker that is never closed",
        swap("    name: archive", "    name: archive\n    circuit_breaker: {failures: 0, reset: 0s}"),
        [
            "12:33: stage 'archive' (sink sqlite): key 'circuit_breaker.failures': expected at least 1",
            "12:43: stage 'archive' (sink sqlite): key 'circuit_breaker.reset': expected more than 0s",
        ],
    ),
    (
        "a backoff the wrong way",
        swap("    name: archive", "    name: archive\n    retry: {attempts: 3, backoff: 10s..1s}"),
        ["12:35: stage 'archive' (sink sqlite): key 'retry.backoff': expected the shorter wait first, as in 1s..10s"],
    ),
    (
        "a restart without attempts",
        swap("    name: archive", "    name: archive\n    restart: {within: 1m}"),
        ["12:14: stage 'archive' (sink sqlite): key 'restart': missing key 'attempts', a whole number"],
    ),
    (
        "a sink in parallel",
        swap("    name: archive", "    name: archive\n    concurrency: 4"),
        ["12:18: stage 'archive' (sink sqlite): key 'concurrency': takes one batch at a time; expected 1"],
    ),
    (
        "a batcher in parallel",
        swap("  - batcher: adaptive", "  - batcher: adaptive\n    concurrency: 4"),
        ["6:5: stage 'adaptive' (batcher adaptive): unknown key 'concurrency'"],
    ),
    (
        "a timeout on inline code",
        swap(FILTER, 'processor: call\n    timeout: 1s\n    with: {function: "own:f"}'),
        [
            "8:14: stage 'call' (processor call): key 'timeout': an inline synchronous function can't be stopped; use 'executor: thread'"
        ],
    ),
    (
        "what only Python can give",
        swap("  - source: csv\n    with: {path: flights.csv}", "  - source: iterable\n    with: {records: [1]}"),
        ["4:21: stage 'iterable' (source iterable): key 'records': expected what only Python can give, got a list"],
    ),
    (
        "a broken expression",
        swap("where: dep_delay > 15", "where: dep_delay >"),
        ["9:14: stage 'filter' (processor filter): key 'where': not an expression: invalid syntax"],
    ),
    (
        "a dunder",
        swap("where: dep_delay > 15", "where: a.__class__ == 1"),
        ["9:16: stage 'filter' (processor filter): key 'where': '__' is not allowed"],
    ),
    (
        "a dunder in quotes",
        swap("where: dep_delay > 15", 'where: "a == 1 and b.__class__"'),
        ["9:28: stage 'filter' (processor filter): key 'where': '__' is not allowed"],
    ),
    (
        "an error behind an escape",
        swap("where: dep_delay > 15", r'where: "a == ' + r"'\x41' and __b" + '"'),
        ["9:31: stage 'filter' (processor filter): key 'where': '__' is not allowed"],
    ),
    (
        "an error in a block",
        swap("where: dep_delay > 15", "where: |\n        a == 1\n        and __b"),
        ["11:13: stage 'filter' (processor filter): key 'where': '__' is not allowed"],
    ),
    (
        "an unknown function",
        swap("where: dep_delay > 15", "where: a == 1 and system('ls')"),
        [
            "9:25: stage 'filter' (processor filter): key 'where': unknown function 'system'; known: len, min, max, abs, round, int, float, str, bool, sum, any, all, lower, upper, coalesce"
        ],
    ),
    (
        "a broken when",
        swap("    name: archive", "    name: archive\n    when: a +"),
        ["12:11: stage 'archive' (sink sqlite): key 'when': not an expression: invalid syntax"],
    ),
    (
        "a broken by",
        swap("{target_latency: 200ms}", "{target_latency: 200ms, by: lambda}"),
        ["6:39: stage 'adaptive' (batcher adaptive): key 'by': not an expression: invalid syntax"],
    ),
    (
        "a batch by what is not of the record",
        swap("{target_latency: 200ms}", "{target_latency: 200ms, by: a + _origin.number, order_by: _origin.child}"),
        [
            "6:43: stage 'adaptive' (batcher adaptive): key 'by': _origin is not known here, only the record; compute a field of it with a map before, and use that",
            "6:69: stage 'adaptive' (batcher adaptive): key 'order_by': _origin is not known here, only the record; compute a field of it with a map before, and use that",
        ],
    ),
    (
        "a key by origin and a when by origin are fine",
        swap(FILTER, "processor: dedupe\n    when: _origin.number > 3\n    with: {by: _origin.child}\n    nonsense: 1"),
        ["10:5: stage 'dedupe' (processor dedupe): unknown key 'nonsense'"],
    ),
    (
        "a broken assignment",
        swap(FILTER, "processor: map\n    with:\n      set:\n        good: a + 1\n        bad: a +"),
        ["11:14: stage 'map' (processor map): key 'set.bad': not an expression: invalid syntax"],
    ),
    (
        "a function of Python",
        swap(FILTER, 'processor: call\n    with: {function: "os:system"}'),
        [
            "8:22: stage 'call' (processor call): key 'function': module 'os' may not be imported: there is no os.py beside the config, and no --allow-code names it"
        ],
    ),
    (
        "a function that is a chain",
        swap(FILTER, 'processor: call\n    with: {function: "own:f.g"}'),
        [
            "8:22: stage 'call' (processor call): key 'function': 'own:f.g' is no name of code; expected module:name, like enrich:add_weather"
        ],
    ),
    (
        "a function that is a path",
        swap(FILTER, 'processor: call\n    with: {function: "../own:f"}'),
        [
            "8:22: stage 'call' (processor call): key 'function': '../own:f' is no name of code; expected module:name, like enrich:add_weather"
        ],
    ),
    (
        "a function that there isn't",
        swap(FILTER, 'processor: call\n    with: {function: "own:ff"}'),
        ["8:22: stage 'call' (processor call): key 'function': module 'own' has no 'ff'; did you mean 'f'?"],
    ),
    (
        "a module that can't be imported",
        swap(FILTER, 'processor: call\n    with: {function: "faulty:f"}'),
        [
            "8:22: stage 'call' (processor call): key 'function': module 'faulty' can't be imported: NameError: name 'missing' is not defined (faulty.py, line 3)"
        ],
    ),
    (
        "an unset variable",
        swap("path: delays.db", "path: ${env:NOPE_X}"),
        [
            "12:18: stage 'archive' (sink sqlite): key 'path': environment variable NOPE_X is not set; set it, or write ${env:NOPE_X:-default}"
        ],
    ),
    (
        "a file that there isn't",
        swap("path: delays.db", "path: '${file:nope.txt}'"),
        ["12:18: stage 'archive' (sink sqlite): key 'path': file 'nope.txt' can't be read: No such file or directory"],
    ),
    (
        "a variable of the shell",
        swap("path: delays.db", "path: '${HOME}/delays.db'"),
        [
            "12:18: stage 'archive' (sink sqlite): key 'path': '${HOME}' is not known; write ${env:HOME}, or $${HOME} for the text itself"
        ],
    ),
    (
        "no source",
        swap("  - source: csv\n    with: {path: flights.csv}\n", ""),
        ["3:3: no source; a pipeline needs one, like 'source: jsonl'"],
    ),
    ("no sink", BASE[: BASE.index("  - sink")], ["3:3: no sink; a pipeline needs one, like 'sink: jsonl'"]),
    (
        "an unknown input",
        swap("    name: archive", "    name: archive\n    from: filtr"),
        ["12:11: stage 'archive' (sink sqlite): key 'from': no stage 'filtr'; did you mean 'filter'?"],
    ),
    (
        "an input in a list",
        swap("    name: archive", "    name: archive\n    from: [filter, nowhere]"),
        ["12:20: stage 'archive' (sink sqlite): key 'from[1]': no stage 'nowhere'"],
    ),
    (
        "itself as input",
        swap("    name: archive", "    name: archive\n    from: archive"),
        ["12:11: stage 'archive' (sink sqlite): key 'from': a stage can't read from itself"],
    ),
    (
        "an input of a number",
        swap("    name: archive", "    name: archive\n    from: 3"),
        [
            "12:11: stage 'archive' (sink sqlite): key 'from': expected the name of a stage, or a list of names, got a whole number"
        ],
    ),
    (
        "an input twice",
        swap("    name: archive", "    name: archive\n    from: [filter, filter]"),
        ["12:20: stage 'archive' (sink sqlite): key 'from[1]': 'filter' is named twice"],
    ),
    (
        "a source that reads",
        swap("  - source: csv", "  - source: csv\n    from: archive"),
        ["4:5: stage 'csv' (source csv): a source reads from no other stage"],
    ),
    (
        "a cycle",
        swap("  - batcher: adaptive", "  - batcher: adaptive\n    from: [csv, filter]"),
        ["6:11: stage 'adaptive' (batcher adaptive): key 'from': a cycle: adaptive <- filter <- adaptive"],
    ),
    (
        "below a sink",
        more("  - sink: stdout\n"),
        [
            "13:5: stage 'stdout' (sink stdout): stands below sink 'archive', which gives nothing; add 'from:', like 'from: filter'"
        ],
    ),
    (
        "a sink as input",
        more("  - sink: stdout\n    from: archive\n"),
        ["14:11: stage 'stdout' (sink stdout): key 'from': 'archive' is a sink, which gives nothing"],
    ),
    (
        "a source at the end",
        more("  - source: jsonl\n    with: {path: a}\n"),
        ["13:5: stage 'jsonl' (source jsonl): nothing reads from it; every way must end in a sink"],
    ),
    (
        "a stage that nothing reads",
        swap("    name: archive", "    name: archive\n    from: adaptive"),
        ["7:5: stage 'filter' (processor filter): nothing reads from it; every way must end in a sink"],
    ),
    (
        "a stage before the source",
        swap("stages:\n", "stages:\n  - processor: filter\n    name: early\n    with: {where: a}\n"),
        [
            "3:5: stage 'early' (processor filter): stands first and reads from nothing; put the source above it, or add 'from:'"
        ],
    ),
    (
        "an input that is none, of the second stage of a name",
        more("  - processor: filter\n    name: x\n    with: {where: dep_delay > 1}\n")
        + "  - processor: filter\n    name: x\n    from: archive\n    with: {where: dep_delay > 1}\n",
        [
            "13:5: stage 'x' (processor filter): stands below sink 'archive', which gives nothing; add 'from:', like 'from: filter'",
            "17:11: stage 'x' (processor filter): key 'name': stage 5 has the same name",
            "18:11: stage 'x' (processor filter): key 'from': 'archive' is a sink, which gives nothing",
        ],
    ),
    (
        "a name twice",
        more("  - sink: stdout\n    name: archive\n    from: filter\n"),
        ["14:11: stage 'archive' (sink stdout): key 'name': stage 4 has the same name"],
    ),
    (
        "a name with a dot",
        swap("name: archive", "name: archive.db"),
        ["11:11: stage 'archive.db' (sink sqlite): key 'name': expected a name of letters, digits, '_' and '-'"],
    ),
    (
        "two sinks that must be named",
        more("  - sink: sqlite\n    from: filter\n    with: {path: b.db, table: t}\n"),
        [
            "13:11: stage 'sqlite' (sink sqlite): two sinks of kind 'sqlite' must both be named, because saved state goes by names; add 'name:'"
        ],
    ),
    (
        "otherwise alone",
        swap("    name: archive", "    name: archive\n    when: otherwise"),
        [
            "12:11: stage 'archive' (sink sqlite): key 'when': 'otherwise' takes what no sibling took, and nothing else reads from 'filter'"
        ],
    ),
    (
        "otherwise beside everything",
        more("  - sink: stdout\n    from: filter\n    when: otherwise\n"),
        [
            "15:11: stage 'stdout' (sink stdout): key 'when': 'otherwise' takes what no sibling took, and 'archive' takes everything"
        ],
    ),
    (
        "exactly once to standard output",
        top("delivery: exactly_once\n")
        .replace("sink: sqlite", "sink: stdout")
        .replace("    with: {path: delays.db, table: delays}\n", ""),
        [
            "2:11: key 'delivery': exactly_once can't hold at sink 'archive': sink 'archive' (stdout) has no position to go back to; there is no checkpoint"
        ],
    ),
    (
        "exactly once from standard input",
        top("delivery: exactly_once\n").replace("flights.csv", '"-"'),
        ["2:11: key 'delivery': exactly_once can't hold at sink 'archive': source 'csv' (csv) can't be read again"],
    ),
    (
        "exactly once without checkpoint",
        top("delivery: exactly_once\ncheckpoint: none\n"),
        ["2:11: key 'delivery': exactly_once can't hold at sink 'archive': there is no checkpoint"],
    ),
    (
        "dead letters without checkpoint",
        top("checkpoint: none\non_failure: dead_letter\n"),
        ["3:13: key 'on_failure': dead letters are kept in the state file, and 'checkpoint: none' asks for none"],
    ),
    (
        "state behind keyed batches",
        swap("{target_latency: 200ms}", "{target_latency: 200ms, by: carrier}").replace(
            FILTER, "processor: dedupe\n    with: {by: id}"
        ),
        [
            "7:5: stage 'dedupe' (processor dedupe): keeps state and needs its input in order, but batcher 'adaptive' gathers records with 'by'"
        ],
    ),
    (
        "several at once",
        swap("table: delays", "tabel: delays")
        .replace("200ms", "200")
        .replace("dep_delay >", "dep_delay > >")
        .replace("name: delays\n", "name: delays\ndrian: 1s\n"),
        [
            "2:1: unknown key 'drian'; did you mean 'drain'?",
            "7:28: stage 'adaptive' (batcher adaptive): key 'target_latency': expected a duration with a unit, like 250ms, got a whole number",
            "10:26: stage 'filter' (processor filter): key 'where': not an expression: invalid syntax",
            "13:29: stage 'archive' (sink sqlite): unknown key 'tabel'; did you mean 'table'?",
        ],
    ),
]


@pytest.fixture(scope="module")
def code(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with the modules that the configs name."""
    folder = tmp_path_factory.mktemp("code")
    (folder / "own.py").write_text("def f(record):\n    return record\n")
    (folder / "faulty.py").write_text("import math\n\nx = missing\n")
    return folder


@pytest.mark.parametrize(("text", "problems"), [case[1:] for case in BROKEN], ids=[case[0] for case in BROKEN])
def test_a_broken_config_tells_each_of_its_problems_with_its_place(code: Path, text: str, problems: list[str]) -> None:
    with pytest.raises(ConfigError) as raised:
        load_text(text, "c.yaml", registry=Registry(code, kinds=KINDS), environ={})

    assert [str(problem) for problem in raised.value.problems] == [f"c.yaml:{problem}" for problem in problems]
    assert raised.value.exit_code == 2


def test_the_config_that_the_broken_ones_are_made_of_is_right(code: Path) -> None:
    loaded = load_text(BASE, "c.yaml", registry=Registry(code, kinds=KINDS), environ={})

    assert list(loaded.topology.stages) == ["csv", "adaptive", "filter", "archive"]


def test_there_are_at_least_eighty_broken_configs_and_no_two_are_the_same() -> None:
    assert len({text for _, text, _ in BROKEN}) == len(BROKEN) >= 80
