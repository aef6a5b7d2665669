"""Texts that are safe in a spreadsheet: no cell of a CSV file can start a formula. Pure.

Excel, LibreOffice and Google Sheets execute a cell that begins with ``=``, ``+``, ``-``, ``@``, a tab or a carriage
return, quoted or not. As OWASP (CSV Injection) and CWE-1236 advise, such a *text* gets an apostrophe before it. Figures
are no texts: a negative number stays a number. Source: https://owasp.org/www-community/attacks/CSV_Injection
"""

from __future__ import annotations

import re
from functools import lru_cache

from mnist_bench import figures

# Also after a semicolon: where the decimal sign is a comma, Excel takes semicolons for the ends of cells, whatever the
# quotes say. The signs of full width are those of East Asian keyboards, and count as well.
_FORMULA = re.compile(r'(^|;)(?=[\s"]*[=+\-@＝＋－＠])')  # noqa: RUF001


@lru_cache(maxsize=1024)  # names and reasons come again in every line
def harmless(text: str) -> str:
    """``=1+1`` is ``'=1+1``; ``a;=1`` is ``a;'=1``; anything else stays, on one line."""
    return _FORMULA.sub(r"\1'", figures.plain(text))
