"""The pages of the docs: their code runs, each page from its beginning to its end."""

from __future__ import annotations

import contextlib
import importlib.util
import io
import re
from pathlib import Path
from typing import Any

import jax
import pytest
from programs import output_of

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
#: those whose first line says what they need; others are not meant to run
PAGES = sorted(
    page for page in DOCS.rglob("*.md") if page.read_text().startswith("<!-- needs:")
)
#: with code that stands for what is told there, and does not run by itself
NOT_RUN = {"files.md", "how-it-works.md"}
_NEEDS = re.compile(r"<!-- needs:([\w. ]*)-->\n")
#: a block of code, and what it prints if the page says so
_CODE = re.compile(
    r"^```python\n(.*?)^```\n(?:\n```output\n(.*?)^```\n)?", re.MULTILINE | re.DOTALL
)


def _name(page: Path) -> str:
    return page.relative_to(DOCS).as_posix()


def test_there_are_pages():
    assert PAGES


def test_no_page_is_forgotten():
    with_code = {page for page in DOCS.rglob("*.md") if "```python" in page.read_text()}
    assert {_name(page) for page in with_code - set(PAGES)} == NOT_RUN


@pytest.mark.parametrize("page", PAGES, ids=_name)
def test_pages_run(page: Path, monkeypatch: pytest.MonkeyPatch):
    needs = _NEEDS.match(page.read_text())
    packages = needs[1].split() if needs else []
    monkeypatch.chdir(ROOT)
    if any("torch" in package for package in packages):
        # metatensor-torch changes the operators of metatensor-core where it is imported
        for package in packages:
            if importlib.util.find_spec(package) is None:
                pytest.skip(f"there is no {package}")
        output_of(_ALONE, str(page))
        return
    for package in packages:
        pytest.importorskip(package, exc_type=ImportError)
    run(page)


_ALONE = """
import sys
from pathlib import Path
sys.path.insert(0, "tests")
from test_docs_pages import run
run(Path(sys.argv[1]))
"""


def run(page: Path) -> None:
    """All code of a page, one block after the other, as users have it."""
    text = page.read_text()
    names: dict[str, Any] = {}
    found = list(_CODE.finditer(text))
    assert len(found) == text.count("```python\n") > 0
    assert sum(code[2] is not None for code in found) == text.count("```output\n")
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        for code in found:
            # tracebacks name the line of the page
            before = "\n" * text.count("\n", 0, code.start(1))
            with contextlib.redirect_stdout(io.StringIO()) as printed:
                exec(compile(before + code[1], str(page), "exec"), names)
            if code[2] is not None:
                assert printed.getvalue() == code[2]
