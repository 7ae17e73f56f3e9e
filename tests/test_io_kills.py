"""A save that is killed leaves the old file or the new one, and nothing beside it."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

SCRIPT = Path(__file__).parent / "kill_saves.py"
KILLS = 100

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no kill -9")
needs_linux = pytest.mark.skipif(not hasattr(os, "O_TMPFILE"), reason="not on Linux")


def outcome(folder: Path, *kind: str) -> dict[str, Any]:
    command = [sys.executable, "-W", "ignore", str(SCRIPT), str(folder), str(KILLS)]
    done = subprocess.run(
        [*command, *kind], capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr
    counts = json.loads(done.stdout)
    assert counts["killed"] == KILLS
    # the next save has cleared what was left
    assert counts["files"] == ["x.mts"]
    return {"old": 0, "new": 0, "none": 0, **counts}


@needs_linux
def test_kills_while_a_new_file_is_saved(tmp_path: Path):
    counts = outcome(tmp_path, "new", "unnamed")
    assert counts["left"] == 0
    assert counts["new"] + counts["none"] == KILLS


@needs_linux
def test_kills_while_a_file_is_replaced(tmp_path: Path):
    counts = outcome(tmp_path, "replaced", "unnamed")
    # the file has a name for some microseconds of a save, which takes milliseconds
    assert counts["left"] <= 3
    assert counts["old"] + counts["new"] == KILLS


@pytest.mark.parametrize("kind", ["new", "replaced"])
def test_kills_where_files_have_names(tmp_path: Path, kind: str):
    counts = outcome(tmp_path, kind, "named")
    assert counts["old"] + counts["new"] + counts["none"] == KILLS
    assert kind == "new" or counts["none"] == 0
