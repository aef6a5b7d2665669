"""Prints mnist_bench/schema.json: the JSON Schema of a matrix file, from the records and their docstrings.

python scripts/matrix_schema.py > mnist_bench/schema.json
"""

from __future__ import annotations

import json
import re
from typing import Any

from pydantic.json_schema import GenerateJsonSchema

from mnist_bench.catalogue import MODELS, PIPELINES
from mnist_bench.config import MATRIX
from mnist_bench.records import BUILTIN_VARIANTS, MAX_SEEDS


def schema() -> dict[str, Any]:
    """The JSON Schema (draft 2020-12) of a matrix file, for editors and the ``schema`` command."""
    found = MATRIX.json_schema(schema_generator=_Schema)
    properties = found["properties"]
    of_models, of_variants, gate = (properties[key]["items"] for key in ("models", "variants", "gate"))
    properties["models"]["items"] = {"anyOf": [{"type": "string", "examples": [*MODELS]}, of_models]}
    properties["variants"]["items"] = {"anyOf": [{"enum": [*BUILTIN_VARIANTS]}, of_variants]}
    for key, short in (("seeds", {"type": "integer", "minimum": 1, "maximum": MAX_SEEDS}), ("gate", gate)):
        about = {word: properties[key][word] for word in ("description", "default")}
        properties[key] = about | {"anyOf": [short, {k: v for k, v in properties[key].items() if k not in about}]}
    found["$defs"]["ModelEntry"]["required"] = ["model"]
    meanings = "; ".join(f"{name}: {entry.meaning}" for name, entry in PIPELINES.items())
    found["$defs"]["Variant"]["properties"]["pipeline"]["description"] += f" {meanings}."
    found["required"] = ["version", *found["required"]]
    found["patternProperties"] = {"^x-": True}
    return {"$schema": GenerateJsonSchema.schema_dialect, **found, "title": "mnist-bench matrix"}


class _Schema(GenerateJsonSchema):
    """Without the null that a record may hold (in a file an empty value is refused), with what docstrings say."""

    def field_title_should_be_set(self, schema: Any) -> bool:
        return False

    def nullable_schema(self, schema: Any) -> dict[str, Any]:
        return self.generate_inner(schema["schema"])

    def default_schema(self, schema: Any) -> dict[str, Any]:
        null = schema.get("default", ...) is None
        return self.generate_inner(schema["schema"]) if null else super().default_schema(schema)

    def dataclass_schema(self, schema: Any) -> dict[str, Any]:
        found = super().dataclass_schema(schema)
        about, _, fields = found["description"].partition("\n\nArgs:\n")
        found["description"] = " ".join(about.split())
        for name, text in re.findall(r"^    (\w+): (.+(?:\n {8}.+)*)", fields, re.MULTILINE):
            found["properties"][name]["description"] = " ".join(text.split())
        return found


if __name__ == "__main__":
    print(json.dumps(schema(), indent=2, allow_nan=False))
