"""JSON schema of a config, used by editors for completion and checks; generated from the models and registries."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel

from cmer.config.datasets import published_names
from cmer.config.experiment import Config
from cmer.config.training import Training
from cmer.registry import BACKBONE_OPTIONS, CAPTIONER_OPTIONS, FIGURES, METHOD_OPTIONS, RERANKERS, TABLES

Schema = dict[str, Any]
KINDS = {
    "BackboneOptions": BACKBONE_OPTIONS,
    "CaptionerOptions": CAPTIONER_OPTIONS,
    "RerankerOptions": RERANKERS,
}
"""Registries of the models of which an entry's `kind` selects one."""


def config_schema() -> Schema:
    """The schema, with the settings of all installed methods, backbone kinds, captioner kinds and rerankers."""
    schema = Config.model_json_schema()
    definitions: Schema = schema["$defs"]
    methods = {name: _define(definitions, METHOD_OPTIONS.get(name)) for name in METHOD_OPTIONS.names()}
    of_kinds = {
        name: {kind: _define(definitions, registry.get(kind)) for kind in registry.names()}
        for name, registry in KINDS.items()
    }
    for entry in (definitions["RunDefaults"], definitions["RunEntry"]):
        fields = entry["properties"]
        fields["method"] = {"enum": list(methods), "description": fields["method"]["description"]}
        fields["training"] = {"$ref": _define(definitions, Training), "description": fields["training"]["description"]}
        entry["allOf"] = [
            _if("method", name, {"properties": {"options": {"$ref": ref}}}) for name, ref in methods.items()
        ]
    for name, kinds in of_kinds.items():
        definitions[name] = {
            "type": "object",
            "required": ["kind"],
            "properties": {"kind": {"enum": list(kinds)}},
            "allOf": [_if("kind", kind, {"$ref": ref}) for kind, ref in kinds.items()],
        }
    definitions["PublishedDataset"]["properties"]["source"] |= {"enum": published_names()}
    definitions["Table"]["properties"]["kind"] |= {"enum": TABLES.names()}
    definitions["Figure"]["properties"]["kind"] |= {"enum": FIGURES.names()}
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}


def _define(definitions: Schema, model: type[BaseModel]) -> str:
    """Add the model's schema to the definitions and return a reference to it."""
    schema = model.model_json_schema()
    definitions.update(schema.pop("$defs", {}))
    definitions[model.__name__] = schema
    return f"#/$defs/{model.__name__}"


def _if(key: str, value: str, then: Mapping[str, Any]) -> Schema:
    return {"if": {"properties": {key: {"const": value}}, "required": [key]}, "then": then}
