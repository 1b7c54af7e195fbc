"""Writes the JSON Schema of the request document of custom backends: `python -m scripts.contract`.

It is made of the models that our own image reads, so that the two cannot differ.
"""

import json
from typing import Annotated, Literal

from pydantic import Field
from pydantic.json_schema import models_json_schema

from migrations import request
from migrations.request import Login, Text
from scripts.project import ROOT

FILES = [
    ROOT / "examples" / folder / "provisioner" / "request.schema.json"
    for folder in ("custom-template", "custom-mariadb/image")
]


class CustomProvider(request.Provider):
    """The provider, as its spec says.

    Attributes:
        endpoint: As in the spec: `host:port` or a URL.
        host: Of the endpoint.
        port: Of the endpoint.
        database: As in the spec; what it means is the image's matter.
    """

    type: Literal["custom"]
    endpoint: Text
    host: Text
    port: Annotated[int, Field(ge=1, le=65535)]
    database: Text


class Provision(request.Provision[CustomProvider, Login]):
    """What `provision` reads."""


class Probe(request.Probe[CustomProvider]):
    """What `probe` reads."""


class Reap(request.Reap[CustomProvider]):
    """What `reap` reads."""


class Maintain(request.Maintain[CustomProvider]):
    """What `maintain` reads."""


COMMANDS = (Provision, Probe, Reap, Maintain)


def text() -> str:
    """Gives the schema; `$defs` holds one for each command."""
    _, whole = models_json_schema([(each, "validation") for each in COMMANDS], by_alias=True)
    schema = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Request document of function-memory for custom backends, version 1",
        "anyOf": [{"$ref": f"#/$defs/{each.__name__}"} for each in COMMANDS],
        "$defs": whole["$defs"],
    }
    return json.dumps(schema, indent=2) + "\n"


def main() -> None:
    """Writes it to where it is needed."""
    for file in FILES:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text())


if __name__ == "__main__":
    main()
