"""Attacks by text: expressions that reach for more than a record, and fields that would name a file elsewhere."""

import asyncio
import json
import time
from pathlib import Path
from random import Random
from typing import Any

from pipeline import Pipeline
from pipeline.errors import PipelineError
from pipeline.expression import EvaluationError, ExpressionError, compile_expression
from pipeline.watch.report import Report
from stages import batchers, sinks

__all__ = ("attacked_expression", "attacked_name")

_SLOW = 0.05
_LARGE = 2**20

_EXPRESSIONS = (
    "__import__('os')",
    "s.__class__",
    "s.__class__.__mro__",
    "().__class__.__bases__",
    "_record.__dict__",
    "s['__class__']",
    "getattr(s, 'x')",
    "open('/etc/passwd')",
    "eval('1')",
    "exec('1')",
    "lambda: 1",
    "[x for x in s]",
    "(y := 1)",
    "f'{s.__class__}'",
    "'{0.__class__}'.format(s)",
    "s.format(s)",
    "s.format_map(s)",
    "'%1000000000d' % n",
    "'%*d' % (1000000000, n)",
    "9**9**9",
    "n**n**n",
    "2**(2**(2**(2**n)))",
    "1 << 10**9",
    "n << n",
    "s * 10**9",
    "10**9 * s",
    "[0] * 10**9",
    "(s, s) * 10**8",
    "s.replace('', s * 1000)",
    "s.join(s)",
    "s.zfill(10**9)",
    "s.rjust(10**9)",
    "s.center(10**9)",
    "s.expandtabs(10**9)",
    "s.encode('idna')",
    "s.encode('punycode')",
    "re.match('(a+)+$', s)",
    "match(s, '(a+)+$')",
    "s.split('') or s.translate({})",
    "range(10**12)",
    "sum(range(10**9))",
    "max(range(10**9))",
    "list(range(10**9))",
    "10**9 in range(10**10)",
    "str(10**100000)",
    "int(s * 5000)",
    "int('9' * 5000)",
    "float('1' * 10**6)",
    "round(n, -10**9)",
    "round(1.5, 10**9)",
    "globals()",
    "vars()",
    "print(s)",
    "breakpoint()",
    "help()",
    "s.mro()",
    "type(s)",
    "n.to_bytes(10**9)",
    "await s",
    "*s",
    "s if s else yield",
    "import os",
    "os.system('true')",
    "s; s",
    "s\n__import__('os')",
    "\\\n__import__",
    "s.\uff46ormat(s)",
    "\uff45val('1')",
    "(" * 300 + "n" + ")" * 300,
    "-" * 3000 + "n",
    "not " * 3000 + "n",
    "n" + " + n" * 20_000,
    "n" + ".n" * 20_000,
    "s[" * 200 + "0" + "]" * 200,
    "{" * 200 + "}" * 200,
    "n < " * 5_000 + "n",
    "'" + "x" * 2**20 + "'",
    "1_" * 5000 + "1",
    "0x" + "f" * 100_000,
    "1e999999999",
)

_RECORD: dict[str, Any] = {"n": 1_000, "s": "a" * 2_000 + "!"}


def attacked_expression(folder: Path, chance: Random) -> str:
    """Compile and evaluate such a text, alone or within another: refused, or a small value or an error at once."""
    text = chance.choice(_EXPRESSIONS)
    around = chance.choice(["{}", "({})", "n if {} else s", "n + {}", "{} == {}", "len({})", "s[{}]", "{} and {}"])
    whole = around.replace("{}", text)
    began = time.process_time()
    try:
        expression = compile_expression(whole, typed=False)
    except ExpressionError:
        took = time.process_time() - began
        # A text of a megabyte is read as fast as it can be.
        return "" if took < _SLOW + len(whole) / 10**6 else f"refused after {took:.3f} s: {whole[:80]!r}"
    began = time.process_time()
    try:
        value: Any = expression.function(_RECORD)
    except EvaluationError:
        value = None
    took = time.process_time() - began
    if took > _SLOW:
        return f"evaluated in {took:.3f} s: {whole[:80]!r}"
    large = value.bit_length() > 8 * _LARGE if isinstance(value, int) else len(repr(value)) > 4 * _LARGE
    return f"gave a value that is too large: {whole[:80]!r}" if large else ""


_PIECES = (
    "..", "../", "/", "//", "\\", "..\\", "\0", "\n", "\r", ".", " ", "~", "$HOME", "%2e%2e%2f", "\uff052e",
    "\uff0e\uff0e", "\u2024\u2024", "\uff0f", "\u2215", "\u202e", "\ufeff", "\ud800", "a", "b", "CON", "NUL.txt", "A",
    "a.", "-rf", "*", "?", "x" * 300, "\xe9", "e\u0301", "etc", "passwd", ".pipeline", "state.db", "link",
    "state.db-wal", "out", ":", "|", "{n}", "{{", "'", '"',
)  # fmt: skip


def attacked_name(folder: Path, chance: Random) -> str:
    """Write to files that are named by fields: nothing is made outside of their folder, and no record is lost."""
    inside, outside = folder / "run", folder / "outside"
    (inside / "out").mkdir(parents=True)
    outside.mkdir()
    (inside / "out" / "link").symlink_to(outside, target_is_directory=True)
    if linked := chance.random() < 0.2:
        (inside / "out" / "linked.jsonl").symlink_to(outside / "stolen.jsonl")
    names: list[Any] = ["".join(chance.choices(_PIECES, k=chance.randint(1, 4))) for _ in range(20)]
    names += [str(outside / "x"), f"../../{outside.name}/x", "linked", "link", None, 7, True, 1.5, [1], {"a": 1}, b"x"]
    chance.shuffle(names)
    recipe = (
        Pipeline("attacked", checkpoint={"path": str(inside / "state.db")}, on_failure="dead_letter")
        | [{"n": number, "name": name} for number, name in enumerate(names)]
        | batchers.Fixed(size=chance.choice([1, 10, 100]))
        | sinks.Jsonl(path=str(inside / "out" / chance.choice(["{name}.jsonl", "{name}/in.jsonl", "of-{name}.jsonl"])))
    )
    try:
        report: Report = asyncio.run(recipe.run())
    except PipelineError as error:
        if not linked or "is no regular file" not in str(error):
            raise
        return "" if not list(outside.iterdir()) else "a link was followed"
    strays = [str(path) for path in (*outside.rglob("*"), *folder.iterdir()) if path not in (inside, outside)]
    strays += [str(path) for path in inside.iterdir() if not path.name.startswith(("out", "state.db"))]
    found = [json.loads(line)["n"] for path in _files(inside / "out") for line in path.read_text().splitlines()]
    checks = {
        f"made outside: {strays}": not strays,
        f"ended {report.outcome}: {report.error}": report.outcome == "done",
        f"{len(found)} written and {report.account.dead_lettered} letters of {len(names)}": len(set(found))
        == len(found)
        and len(found) + report.account.dead_lettered == len(names),
    }
    return "; ".join(text for text, good in checks.items() if not good)


def _files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file() and not path.is_symlink()]
