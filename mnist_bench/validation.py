"""What pydantic found wrong, in words."""

from __future__ import annotations

from pydantic import ValidationError


def explain(error: Exception) -> str:
    """What is wrong, in one line: the first problem that pydantic found, or the message itself."""
    if isinstance(error, ValidationError):
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        return f"{where}: {first['msg']}" if where else first["msg"]
    return str(error)
