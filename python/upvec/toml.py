"""Schemas as TOML, which people write and the command line reads.

::

    order_by = "seen_at"

    [fields.id]
    type = "string"
    primary = true

    [fields.logins]
    type = "int64"
    default = 0
    merge = "sum_"

    [fields.seen_at]
    type = "timestamp"

    [fields.emb]
    type = "vector"
    dim = 768
    metric = "cosine"

    [[unique]]
    fields = ["tenant", "username"]
    name = "handle"

    [groups]
    price_ts = ["price"]

A field has the arguments of :class:`Field`, or, of the type ``vector``, of :class:`Vector`; a merge
rule is its name, or a table such as ``{rule = "union", limit = 64}``.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterable, Mapping
from typing import Any

from .errors import SchemaError

__all__ = ["described", "from_described", "read_toml", "toml_text"]

_WHOLE = ("order_by", "ttl", "extra")


def read_toml(text: str) -> dict[str, Any]:
    """Return what a TOML text says.

    Raises
    ------
    SchemaError
        It is none.
    """
    if sys.version_info >= (3, 11):
        import tomllib  # noqa: PLC0415
    else:
        try:
            import tomli as tomllib  # noqa: PLC0415
        except ImportError:
            message = "TOML in Python 3.10 needs a package: pip install 'upvec[toml]'"
            raise ImportError(message) from None
    try:
        read: dict[str, Any] = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise SchemaError(f"not TOML: {error}") from None
    except RecursionError:
        raise SchemaError("not TOML that can be read: nested too deeply") from None
    return read


def from_described(read: Mapping[str, Any]) -> dict[str, Any]:
    """Return what TOML said in the form of :meth:`Schema.to_dict`."""
    known = {"fields", "unique", "groups", *_WHOLE}
    for name in read:
        if name not in known:
            raise SchemaError(f"TOML: unknown {name!r}; known: {', '.join(sorted(known))}")
    fields = read.get("fields")
    if not isinstance(fields, Mapping) or not fields:
        raise SchemaError("TOML: a schema has fields: [fields.NAME] with a type")
    whole: dict[str, Any] = {"fields": [_field(n, f) for n, f in fields.items()]}
    unique = read.get("unique", [])
    if not isinstance(unique, list):
        raise SchemaError(f"TOML: unique is written as [[unique]], got {unique!r}")
    whole["unique"] = [_unique(one) for one in unique]
    whole["extra"] = read.get("extra", "reject")
    whole |= {name: read[name] for name in ("order_by", "ttl", "groups") if name in read}
    return whole


def _field(name: str, told: Any) -> dict[str, Any]:
    if not isinstance(told, Mapping) or "type" not in told:
        raise SchemaError(f"TOML: [fields.{name}] has no type")
    if "name" in told:
        raise SchemaError(f"TOML: [fields.{name}] has a name already, got {told['name']!r}")
    for flag in ("primary", "nullable", "index"):
        if not isinstance(told.get(flag, False), bool):
            raise SchemaError(
                f"TOML: [fields.{name}] {flag}: got {told[flag]!r}, wanted true or false"
            )
    described = {"name": name, **told}
    if isinstance(described.get("merge"), str):
        described["merge"] = {"rule": described["merge"]}
    if told["type"] != "vector":
        return {"field": described}
    del described["type"]
    return {"vector": described}


def _unique(told: Any) -> dict[str, Any]:
    if not isinstance(told, Mapping) or not isinstance(told.get("fields"), list):
        raise SchemaError(f"TOML: [[unique]] has fields = [...], got {told!r}")
    return {"name": "_".join(map(str, told["fields"])), **told}


def described(whole: Mapping[str, Any]) -> dict[str, Any]:
    """Return what :meth:`Schema.to_dict` gave in the form of a TOML text."""
    fields = {}
    for item in whole["fields"]:
        told = dict(item.get("field") or {"type": "vector", **item["vector"]})
        name = told.pop("name")
        merge = told.get("merge")
        if merge is not None:
            given = {key: value for key, value in merge.items() if value is not None}
            told["merge"] = given["rule"] if len(given) == 1 else given
        fields[name] = {"type": told.pop("type"), **told}
    read: dict[str, Any] = {name: whole[name] for name in _WHOLE if name in whole}
    return {**read, "fields": fields, "unique": whole["unique"], "groups": whole.get("groups", {})}


def toml_text(told: Mapping[str, Any]) -> str:
    """Return the TOML text of a schema."""
    lines = [f"{name} = {_value(told[name])}" for name in _WHOLE if name in told]
    for name, field in told["fields"].items():
        lines += ["", f"[fields.{_key(name)}]", *_pairs(field.items())]
    for unique in told["unique"]:
        lines += ["", "[[unique]]", *_pairs(unique.items())]
    if told["groups"]:
        lines += ["", "[groups]", *_pairs(told["groups"].items())]
    return "\n".join(lines) + "\n"


def _pairs(items: Iterable[tuple[str, Any]]) -> list[str]:
    return [f"{_key(name)} = {_value(value)}" for name, value in items]


def _key(name: str) -> str:
    return name if re.fullmatch(r"[A-Za-z0-9_-]+", name) else _value(name)


def _value(value: Any) -> str:
    if isinstance(value, Mapping):
        return "{" + ", ".join(_pairs(value.items())) + "}"
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(map(_value, value)) + "]"
    if isinstance(value, float):
        # TOML writes inf and nan as Python does, and wants a point or an exponent.
        return repr(value)
    if value is None:
        raise SchemaError("TOML has no null, which a default of this schema has in it")
    # TOML's texts have the escapes of JSON, but for the surrogates that it never writes here.
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
