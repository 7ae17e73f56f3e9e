"""The pages of the docs: their code runs, each page from its beginning to its end."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import jax
import pytest

ROOT = Path(__file__).parent.parent
#: those whose first line says what they need; others are not meant to run
PAGES = sorted(
    page
    for page in (ROOT / "docs").rglob("*.md")
    if page.read_text().startswith("<!-- needs:")
)
_NEEDS = re.compile(r"<!-- needs:([\w. ]*)-->\n")
_CODE = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def test_there_are_pages():
    assert PAGES


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_pages_run(page: Path, monkeypatch: pytest.MonkeyPatch):
    text = page.read_text()
    needs = _NEEDS.match(text)
    for package in needs[1].split() if needs else []:
        pytest.importorskip(package)
    monkeypatch.chdir(ROOT)
    names: dict[str, Any] = {}
    found = list(_CODE.finditer(text))
    assert found
    # as users have it
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        for code in found:
            # tracebacks name the line of the page
            before = "\n" * text.count("\n", 0, code.start(1))
            exec(compile(before + code[1], str(page), "exec"), names)
