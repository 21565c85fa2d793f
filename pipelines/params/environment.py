"""`{env:NAME}` in a value: what a committed file must not tell is taken from the environment.

params.yaml and dvc.lock then hold the variable's name alone. It works in every text of the section
`download`: a proxy's password, a signed mirror, the path of the cookies, options for yt-dlp.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from typing import Any, TypeVar

from pipelines.errors import UserError, conceal
from pipelines.params.model import Model

Section = TypeVar("Section", bound=Model)
_NAMED = re.compile(r"\{env:([^{}]*)\}")


def names(section: Model) -> list[str]:
    """The variables that a section names, each once, in order."""
    return list(dict.fromkeys(_names(section.model_dump())))


def values(section: Model) -> dict[str, str]:
    """What this environment says to each of them. Raises UserError where one is not set."""
    found = {name: os.environ.get(name, "") for name in names(section)}
    if absent := [name for name, value in found.items() if not value]:
        raise UserError(
            f"params name {{env:{absent[0]}}}, but the environment variable {absent[0]} is not "
            f"set: export {absent[0]}=... and run again"
        )
    return found


def filled(section: Section, given: Mapping[str, str] | None = None) -> Section:
    """The section as it is meant; from here on no words of this process tell the values.

    given: as `values` found them, where this is another machine. Raises UserError as it does.
    """
    found = values(section) if given is None else given
    conceal(found.values())
    return type(section).model_validate(_filled(section.model_dump(), found)) if found else section


def _names(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield from _NAMED.findall(value)
    elif isinstance(value, dict):
        for inner in value.values():
            yield from _names(inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _names(inner)


def _filled(value: Any, found: Mapping[str, str]) -> Any:
    if isinstance(value, str):
        return _NAMED.sub(lambda match: found[match[1]], value)
    if isinstance(value, dict):
        return {key: _filled(inner, found) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_filled(inner, found) for inner in value)
    return value
