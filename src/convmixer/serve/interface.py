"""The interface for programs, as an OpenAPI document."""

from __future__ import annotations

from typing import Any

from convmixer import __version__

_IMAGE = {"type": "string", "format": "binary"}
_CANDIDATE = {
    "type": "object",
    "required": ["name", "index", "probability"],
    "properties": {
        "name": {"type": "string"},
        "index": {"type": "integer", "minimum": 0},
        "probability": {"type": "number", "minimum": 0, "maximum": 1},
    },
}
_PREDICTION = {
    "oneOf": [
        {
            "allOf": [
                {"$ref": "#/components/schemas/Candidate"},
                {
                    "type": "object",
                    "required": ["topk"],
                    "properties": {"topk": {"type": "array", "items": {"$ref": "#/components/schemas/Candidate"}}},
                },
            ]
        },
        {
            "type": "object",
            "required": ["error", "status"],
            "properties": {"error": {"type": "string"}, "status": {"type": "integer"}},
            "description": "An image among others that could not be read.",
        },
    ]
}
_REFUSALS = {
    "400": "A malformed or damaged image, form or parameter.",
    "401": "No token, or a wrong one.",
    "408": "The request came too slowly.",
    "413": "The request has too many bytes, or an image too many pixels.",
    "415": "No image of a format that is read.",
    "503": "Too many images wait, or the server is stopping; the header Retry-After says when to try again.",
}

_IMAGES = {
    "required": True,
    "content": {
        "multipart/form-data": {"schema": {"type": "object", "additionalProperties": _IMAGE}},
        "image/*": {"schema": _IMAGE},
        "application/octet-stream": {"schema": _IMAGE},
    },
}
_PREDICTIONS = {
    "type": "object",
    "properties": {"predictions": {"type": "array", "items": {"$ref": "#/components/schemas/Prediction"}}},
}


def interface(with_token: bool) -> dict[str, Any]:
    """The document. `with_token`: that requests need one."""
    refusals = {
        status: {"description": text, "content": _json({"$ref": "#/components/schemas/Error"})}
        for status, text in _REFUSALS.items()
        if status != "401" or with_token
    }
    components: dict[str, Any] = {
        "schemas": {
            "Candidate": _CANDIDATE,
            "Prediction": _PREDICTION,
            "Error": {"type": "object", "properties": {"error": {"type": "string"}}},
        }
    }
    document: dict[str, Any] = {
        "openapi": "3.1.0",
        "info": {"title": "ConvMixer image classifier", "version": __version__},
        "paths": _paths(refusals),
        "components": components,
    }
    if with_token:
        components["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
        document["security"] = [{"token": []}]
    return document


def _paths(refusals: dict[str, Any]) -> dict[str, Any]:
    paths: dict[str, Any] = {
        "/predict": {
            "post": {
                "summary": "Classify images; the answers are in the order of the images.",
                "parameters": [_parameter("topk", "classes that an answer names", 1)],
                "requestBody": _IMAGES,
                "responses": {"200": {"description": "Answers.", "content": _json(_PREDICTIONS)}, **refusals},
            }
        },
        "/explain": {
            "post": {
                "summary": "What spoke for the answer to an image, laid over what the network saw of it.",
                "parameters": [_parameter("index", "class; left out: the most likely one", 0)],
                "requestBody": _IMAGES,
                "responses": {
                    "200": {"description": "A picture.", "content": {"image/png": {"schema": _IMAGE}}},
                    **refusals,
                    "501": {"description": "A model file that does not show what it looks at."},
                },
            }
        },
    }
    for path, text in {
        "/model": "Architecture, classes, preprocessing and limits.",
        "/health": "200 while the process can answer.",
        "/ready": "200 while requests should come here, else 503.",
        "/metrics": "Counters in Prometheus' format.",
    }.items():
        paths[path] = {"get": {"summary": text, "responses": {"200": {"description": text}}}}
    return paths


def _json(schema: dict[str, Any]) -> dict[str, Any]:
    return {"application/json": {"schema": schema}}


def _parameter(name: str, text: str, least: int) -> dict[str, Any]:
    return {"name": name, "in": "query", "description": text, "schema": {"type": "integer", "minimum": least}}
