"""Programs that run in a process of their own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path


def output_of(program: str, *args: str, **environment: str) -> str:
    """What this program prints; it must end well, and within two minutes.

    :param environment: variables to change
    """
    result = subprocess.run(
        [sys.executable, "-c", program, *args],
        env={**os.environ, **environment},
        cwd=Path(__file__).parents[1],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


def on_two_devices(program: str) -> str:
    """What this program prints where there are two devices."""
    flags = os.environ.get("XLA_FLAGS", "")
    flags = f"{flags} --xla_force_host_platform_device_count=2".strip()
    return output_of(program, XLA_FLAGS=flags, JAX_PLATFORMS="cpu")
