"""Typed settings from TOML and dotted overrides; an unknown key names its near miss.

settings = load_settings(SftSettings, Path("sft.toml"), ["train.learning_rate=1e-4"])
"""

import difflib
import tomllib
from copy import deepcopy
from pathlib import Path
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, ConfigDict, ValidationError

from flywright.errors import UserError


class Settings(BaseModel):
    """Base of all settings: immutable, and an unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")


AnySettings = TypeVar("AnySettings", bound=BaseModel)


def read_toml(path: Path) -> dict[str, Any]:
    """A TOML file as nested dicts. Raises UserError naming the file and line."""
    try:
        return tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{path}: cannot read: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: not valid TOML: {error}") from None


def apply_overrides(tree: dict[str, Any], overrides: list[str]) -> dict[str, Any]:
    """`a.b=value` onto nested dicts; values are TOML, or plain strings where they are not TOML."""
    result = deepcopy(tree)
    for override in overrides:
        key, equals, text = override.partition("=")
        if not equals or not key.strip():
            raise UserError(f"--set {override}: expected key.path=value")
        *parents, leaf = key.strip().split(".")
        node = result
        for parent in parents:
            node = node.setdefault(parent, {})
            if not isinstance(node, dict):
                raise UserError(f"--set {override}: {parent!r} is a value, not a table")
        try:
            node[leaf] = tomllib.loads(f"value = {text}")["value"]
        except tomllib.TOMLDecodeError:
            node[leaf] = text
    return result


def parse_settings(kind: type[AnySettings], tree: dict[str, Any], where: str) -> AnySettings:
    """Validate nested dicts. Raises UserError with the dotted key, the reason and the near miss."""
    try:
        return kind.model_validate(tree)
    except ValidationError as error:
        # a misspelt key is also a missing one: tell of the misspelling
        first = min(error.errors(), key=lambda one: one["type"] != "extra_forbidden")
        key = ".".join(str(part) for part in first["loc"])
        if first["type"] == "extra_forbidden":
            near = near_miss(kind, first["loc"])
            raise UserError(f"{where}: unknown key {key!r}{near}") from None
        reason = first["msg"].removeprefix("Value error, ")  # pydantic's word for one of ours
        raise UserError(f"{where}: {key}: {reason}" if key else f"{where}: {reason}") from None


def load_settings(
    kind: type[AnySettings], path: Path, overrides: list[str] | None = None
) -> AnySettings:
    """Settings from a TOML file with overrides on top; raises UserError on any bad key or value."""
    return parse_settings(kind, apply_overrides(read_toml(path), overrides or []), str(path))


def near_miss(kind: type[BaseModel], location: tuple[Any, ...]) -> str:
    """What may have been meant by an unknown key, else what is known there; "" if nothing is."""
    model: Any = kind
    for part in location[:-1]:
        field = getattr(model, "model_fields", {}).get(part)
        if field is None:
            return ""
        options = (field.annotation, *get_args(field.annotation))
        model = next((o for o in options if hasattr(o, "model_fields")), None)
    known = list(getattr(model, "model_fields", {}))
    close = difflib.get_close_matches(str(location[-1]), known, n=1)
    return f"; did you mean {close[0]!r}?" if close else f"; known: {', '.join(known)}"
