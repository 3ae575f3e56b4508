"""Configuration: one frozen tree per process, from one YAML file plus flags; all problems are reported at once."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError


class ConfigError(Exception):
    """What is wrong with the configuration: every problem, with its key. The program exits with 3."""


class Settings(BaseModel):
    """Base of every configuration: unknown keys are errors, nothing is converted silently, nothing can be changed."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


S = TypeVar("S", bound=Settings)


def load(model: type[S], path: Path | None, overrides: Mapping[str, object]) -> S:
    """Reads the file (none: only flags), lays `overrides` (flags; None means not given) on top, checks all.

    Raises ConfigError.
    """
    values = _read(path) if path else {}
    values |= {key: value for key, value in overrides.items() if value is not None}
    try:
        # Through JSON: strict mode takes a path or an address from text there, and still no number or boolean.
        return model.model_validate_json(json.dumps(values, default=str))
    except ValidationError as error:
        raise ConfigError(_problems(error, path)) from error


def _read(path: Path) -> dict[str, Any]:
    try:
        document = yaml.safe_load(path.read_text())
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror})") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: is not YAML: {error}") from error
    if document is None:
        return {}
    if not isinstance(document, dict):
        raise ConfigError(f"{path}: must be a mapping of settings, is a {type(document).__name__}")
    return document


def _problems(error: ValidationError, path: Path | None) -> str:
    lines = [f"the configuration has {error.error_count()} problem(s){f' ({path} and flags)' if path else ''}:"]
    for problem in error.errors():
        where = "".join(f"{part}: " for part in [".".join(str(part) for part in problem["loc"])] if part)
        given = "" if problem["type"] == "missing" or not where else f" (given: {problem['input']!r})"
        lines.append(f"  {where}{problem['msg'].removeprefix('Value error, ')}{given}")
    return "\n".join(lines)
