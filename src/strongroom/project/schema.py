"""The JSON Schema of `x-strongroom`, by which editors complete a Compose file and mark what is wrong in it.

It says nothing of Compose's own keys: those have a schema of their own, and editors take several.
"""

from __future__ import annotations

from typing import Any

from strongroom.project import extension

DIALECT = "https://json-schema.org/draft/2020-12/schema"


def schema() -> dict[str, Any]:
    """The whole document."""
    return {
        "$schema": DIALECT,
        "title": "Strongroom in a Compose file",
        "type": "object",
        "required": ["services"],
        "properties": {
            extension.EXTENSION: {
                "description": "What the rooms of this file share.",
                **extension.PROJECT.schema(),
            },
            "services": {
                "type": "object",
                "minProperties": 1,
                "additionalProperties": {
                    "type": "object",
                    "properties": {
                        extension.EXTENSION: {
                            "description": "What this room is given, and what leaves it.",
                            **extension.SERVICE.schema(),
                        }
                    },
                },
            },
        },
    }
