"""Processes that save a file again and again, and are killed at any time.

Run by ``test_io_kills.py``, in a process of its own: it starts its children by a fork,
as importing JAX for each would take longer than all else.

    python tests/kill_saves.py FOLDER KILLS new|replaced named|unnamed

prints a JSON object: how many children were killed (``killed``), how often the old and
the new content was there then (``old``, ``new``, ``none``), how many temporary files
were left by all of them before the next save (``left``), and what is in the folder at
the end (``files``).
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import time
from collections import Counter
from pathlib import Path

import numpy as np

import metatensor_jax as mts

OLD, NEW = (mts.block_from_array(np.full((1000, 250), x)) for x in (1.0, 2.0))


def child(path: Path, is_new: bool) -> None:
    """Save until somebody ends this; a new file is removed before each save."""
    while True:
        if is_new:
            path.unlink(missing_ok=True)
        mts.save(path, NEW)
        if not is_new:
            mts.save(path, OLD)


def content(path: Path) -> str:
    """Which one is there; raises if it is neither."""
    if not path.exists():
        return "none"
    loaded = mts.load_block(path)
    if loaded == OLD:
        return "old"
    assert loaded == NEW
    return "new"


def main() -> None:
    folder, kills = Path(sys.argv[1]), int(sys.argv[2])
    is_new, has_name = sys.argv[3] == "new", sys.argv[4] == "named"
    if has_name and hasattr(os, "O_TMPFILE"):
        del os.O_TMPFILE
    path, chance = folder / "x.mts", random.Random(0)
    counts: Counter[str] = Counter()
    for _ in range(kills):
        if not is_new:
            mts.save(path, OLD)
        process = os.fork()
        if process == 0:
            try:
                child(path, is_new)
            finally:
                os._exit(1)
        time.sleep(chance.uniform(0.001, 0.05))
        os.kill(process, signal.SIGKILL)
        _, status = os.waitpid(process, 0)
        counts["killed"] += os.WIFSIGNALED(status)
        counts[content(path)] += 1
        counts["left"] += len([x for x in folder.iterdir() if x != path])
    mts.save(path, NEW)
    print(json.dumps({**counts, "files": [x.name for x in folder.iterdir()]}))


if __name__ == "__main__":
    main()
