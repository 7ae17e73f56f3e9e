"""Programs that run in a process of their own."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
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


def on_devices(n: int, program: str, *args: str) -> str:
    """What this program prints where there are ``n`` devices."""
    return output_of(program, *args, **_with_devices(n))


def on_two_devices(program: str) -> str:
    """What this program prints where there are two devices."""
    return on_devices(2, program)


def in_two_processes(program: str, *args: str) -> list[str]:
    """What this program prints in each of two processes, with two devices each.

    :param args: before the number of the process, and a port for both
    """
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = str(free.getsockname()[1])
    environment = _with_devices(2)
    # half of the time would be that of the compiler, twice
    environment["XLA_FLAGS"] += " --xla_backend_optimization_level=0"
    with ThreadPoolExecutor(2) as threads:
        outputs = threads.map(
            lambda i: output_of(program, *args, str(i), port, **environment), range(2)
        )
        return list(outputs)


def _with_devices(n: int) -> dict[str, str]:
    flags = os.environ.get("XLA_FLAGS", "")
    flags = f"{flags} --xla_force_host_platform_device_count={n}".strip()
    return {"XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"}
