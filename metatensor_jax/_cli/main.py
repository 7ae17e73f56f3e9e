"""The arguments of the commands, and how each of them ends."""

from __future__ import annotations

import argparse
import io
import os
import sys
from collections.abc import Sequence

from . import check, diff, show
from .text import plain

#: exit codes: all is well; files differ, or answers are wrong; it could not be done
GOOD, DIFFERENT, ERROR = 0, 1, 2


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; returns its exit code.

    0 says that all is well, 1 that files differ or answers are wrong, 2 that a file
    could not be read, of which there is one line on the standard error.

    :param argv: the arguments; those of the process if there are none

    >>> main(["diff", "not/there.mts", "nor/there.mts"])
    2
    """
    options = _parser().parse_args(argv)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # which may not know all letters
            stream.reconfigure(errors="backslashreplace")
    try:
        return options.run(options)
    except BrokenPipeError:  # who reads it has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return ERROR
    except (OSError, ValueError, MemoryError) as error:
        message = " ".join(str(error).split()) or type(error).__name__
        print(f"error: {plain(message)}", file=sys.stderr)
        return ERROR


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m metatensor_jax",
        description="Look at .mts files, compare them, or check this installation.",
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    one = commands.add_parser("show", help="what is in a file, without reading values")
    one.add_argument("file", help="a file of a map, a block or labels")
    text = "show so many of the blocks (default: 20)"
    one.add_argument("--max-blocks", type=int, default=20, help=text)
    one.set_defaults(run=_show)
    two = commands.add_parser("diff", help="what differs between two files, and where")
    two.add_argument("a", help="a file")
    two.add_argument("b", help="another file")
    for name, what in (("--rtol", "relative"), ("--atol", "absolute")):
        text = f"{what} tolerance of values (default: 0)"
        two.add_argument(name, type=float, default=0.0, help=text)
    two.set_defaults(run=_diff)
    text = "which JAX and devices there are, and whether they compute what they should"
    commands.add_parser("check", help=text).set_defaults(run=_check)
    return parser


def _show(options: argparse.Namespace) -> int:
    for line in show.lines(options.file, options.max_blocks):
        print(line)
    return GOOD


def _diff(options: argparse.Namespace) -> int:
    result = GOOD
    for line in diff.of_files(options.a, options.b, options.rtol, options.atol):
        print(line)
        result = DIFFERENT
    if result == GOOD:
        print("no differences")
    return result


def _check(_: argparse.Namespace) -> int:
    result = GOOD
    for is_good, line in check.report():
        print(line, flush=True)
        result = result if is_good else DIFFERENT
    return result
