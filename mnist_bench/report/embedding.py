"""Data and programs inside one HTML file: JSON that cannot end its element, a policy that allows scripts by hash."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Sequence
from typing import Any

# Inside <script> only these could end the element or open a comment; the separators end lines in old JavaScript.
_ESCAPED = "<>&\u2028\u2029"


def script_json(value: Any) -> str:
    """JSON for a ``<script type="application/json">``, as compact as it gets.

    Raises:
        ValueError: a number is not finite.
    """
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    for character in _ESCAPED:
        text = text.replace(character, f"\\u{ord(character):04x}")
    # A lone surrogate (bytes that were no UTF-8) cannot be written in UTF-8: as the escape of itself it can.
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def content_security_policy(scripts: Sequence[str], styles: Sequence[str]) -> str:
    """Only these scripts and style sheets, and nothing from anywhere; no ``eval`` (Vega's interpreter needs none)."""
    return "; ".join(
        (
            "default-src 'none'",
            f"script-src {' '.join(map(_source, scripts))}",
            f"style-src {' '.join(map(_source, styles))}",
            "base-uri 'none'",
            "form-action 'none'",
        )
    )


def _source(text: str) -> str:
    digest = hashlib.sha256(text.encode("utf-8")).digest()
    return f"'sha256-{base64.b64encode(digest).decode('ascii')}'"
