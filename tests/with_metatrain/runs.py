"""metatrain's commands, in processes that can not reach any network."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

# Python runs a module of this name before all else.
_OFFLINE = """
import socket

connect = socket.socket.connect

def connect_here(self, address):
    if self.family in (socket.AF_INET, socket.AF_INET6):
        raise RuntimeError(f"a network was asked for {address}")
    return connect(self, address)

def refuse(host, *args, **kwargs):
    raise RuntimeError(f"a network was asked for {host}")

socket.socket.connect = socket.socket.connect_ex = connect_here
socket.getaddrinfo = refuse
"""


def mtt(command: str, folder: Path) -> str:
    """Run a command of metatrain in a folder; what it has printed."""
    guard = folder / "offline"
    guard.mkdir(exist_ok=True)
    (guard / "sitecustomize.py").write_text(_OFFLINE)
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    result = subprocess.run(
        command.split(),
        cwd=folder,
        env={**os.environ, "PATH": path, "PYTHONPATH": str(guard)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stdout[-4000:] + result.stderr[-4000:]
    return result.stdout
