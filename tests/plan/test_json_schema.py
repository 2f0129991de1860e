"""The schema that editors get."""

import json
from typing import Any, cast

from pipeline.plan.json_schema import json_schema
from pipeline.plan.naming import ROLES
from tests.plan.kinds import KINDS, registry

SCHEMA = json_schema(registry())


def definition(name: str) -> dict[str, Any]:
    """Return the schema of a kind."""
    return cast("dict[str, Any]", SCHEMA["$defs"][name])


def test_it_is_json_and_has_every_kind() -> None:
    assert json.loads(json.dumps(SCHEMA)) == SCHEMA
    assert {f"{role}.{kind}" for role in ROLES for kind in KINDS[role]} <= SCHEMA["$defs"].keys()
    assert len(SCHEMA["properties"]["stages"]["items"]["oneOf"]) == len(SCHEMA["$defs"])


def test_keys_stand_where_they_belong() -> None:
    adaptive = definition("batcher.adaptive")

    assert {"batcher", "with", "name", "from", "when", "channel", "on_failure"} == set(adaptive["properties"])
    assert {"target_latency", "by", "max_keys"} <= adaptive["properties"]["with"]["properties"].keys()
    assert adaptive["required"] == ["batcher", "with"]
    assert "from" not in definition("source.csv")["properties"]


def test_units_types_bounds_and_descriptions_are_there() -> None:
    keys = definition("batcher.adaptive")["properties"]["with"]["properties"]

    assert keys["max_size"] == {"type": "integer", "minimum": 1, "description": "Largest batch.", "default": 10_000}
    assert keys["target_latency"]["type"] == "string"
    assert keys["target_latency"]["description"] == "What to aim at."
    assert definition("sink.jsonl")["properties"]["with"]["properties"]["mode"]["enum"] == [
        "create",
        "append",
        "overwrite",
    ]


def test_the_pipeline_needs_a_name_and_stages_and_takes_no_other_keys() -> None:
    assert set(SCHEMA["required"]) == {"name", "stages"}
    assert SCHEMA["additionalProperties"] is False
    assert SCHEMA["properties"]["checkpoint"]["anyOf"][1] == {"enum": ["none"]}
