"""JSON schema of a config, used by editors for completion and checks; generated from the models and registries."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel

from cmer.config.datasets import published_names
from cmer.config.experiment import Config
from cmer.config.training import Training
from cmer.registry import BACKBONE_OPTIONS, FIGURES, METHOD_OPTIONS, RERANKERS, TABLES

Schema = dict[str, Any]


def config_schema() -> Schema:
    """The schema, with the settings of every installed method, and of every kind of backbone and reranker."""
    schema = Config.model_json_schema()
    definitions: Schema = schema["$defs"]
    methods = {name: _define(definitions, METHOD_OPTIONS.get(name)) for name in METHOD_OPTIONS.names()}
    kinds = {name: _define(definitions, BACKBONE_OPTIONS.get(name)) for name in BACKBONE_OPTIONS.names()}
    for entry in (definitions["RunDefaults"], definitions["RunEntry"]):
        fields = entry["properties"]
        fields["method"] = {"enum": list(methods), "description": fields["method"]["description"]}
        fields["training"] = {"$ref": _define(definitions, Training), "description": fields["training"]["description"]}
        entry["allOf"] = [
            _if("method", name, {"properties": {"options": {"$ref": ref}}}) for name, ref in methods.items()
        ]
    definitions["BackboneOptions"] = _of_kind(kinds)
    rerankers = {name: _define(definitions, RERANKERS.get(name)) for name in RERANKERS.names()}
    definitions["RerankerOptions"] = _of_kind(rerankers)
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


def _of_kind(kinds: Mapping[str, str]) -> Schema:
    """The schema of a mapping whose `kind` selects one of several models."""
    return {
        "type": "object",
        "required": ["kind"],
        "properties": {"kind": {"enum": list(kinds)}},
        "allOf": [_if("kind", name, {"$ref": ref}) for name, ref in kinds.items()],
    }


def _if(key: str, value: str, then: Mapping[str, Any]) -> Schema:
    return {"if": {"properties": {key: {"const": value}}, "required": [key]}, "then": then}
