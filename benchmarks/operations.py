"""Operations against metatensor's, and against the same work written by hand.

Prints milliseconds for metatensor_jax, for metatensor with NumPy, and for bare arrays;
how many times faster than metatensor we are, what we add to the work by hand, and
whether the requirements hold. Eager operations get new maps for each call where a
cached look-up could help; maps of many blocks are called again and again. All data is
float64, on one process and the CPU.

    python benchmarks/operations.py [split sums join order_and_choice ...]
"""

from __future__ import annotations

import argparse

import arithmetic
import expansion
import jax
import moving

PARTS = {
    function.__name__: function
    for function in (
        moving.split,
        moving.sums,
        moving.join,
        moving.order_and_choice,
        expansion.keys,
        arithmetic.binary,
        arithmetic.lookup,
    )
}


def main() -> None:
    """Measure and print everything, or some parts."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("parts", nargs="*", metavar="part", help=", ".join(PARTS))
    names = parser.parse_args().parts or list(PARTS)
    if unknown := [name for name in names if name not in PARTS]:
        parser.error(f"no such part: {unknown}, there are {list(PARTS)}")
    jax.config.update("jax_enable_x64", True)
    print("milliseconds; the best of several rounds")
    for name in names:
        PARTS[name]()


if __name__ == "__main__":
    main()
