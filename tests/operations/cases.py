"""The table of all operations: how to call each of them, and what holds for it.

``test_cases.py`` asks every case the same questions. Operations whose result is not
made of blocks are in ``ANSWERS``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from case import (
    Case,
    keep,
    late,
    to_float,
    to_real,
    to_real_float,
    two,
    with_blocks,
    with_components,
    with_two_of_each,
)
from structures import Input, Part, Structure

import metatensor_jax as mts

# --- arguments ---------------------------------------------------------------------

SYSTEM_0 = mts.Labels("system", [[0]])
SYSTEMS = mts.Labels.range("system", 3)
ATOMS = [mts.Labels("atom", [[2], [0]]), mts.Labels("atom", [[1]])]
N_0 = mts.Labels("n", [[0]])
KEY_0 = mts.Labels("a", [[0]])
NESTED = "taking rows with gradients of gradients"
RANDOM_KEY = np.array([0, 7], np.uint32)


def _without_gradients(part: Part) -> Part:
    """Without components and gradients, and with other samples."""
    x = part.smooth
    shape = (slice(None), *[0] * len(part.components))
    lead = (slice(None),)
    x = x._replace(
        values=x.values[shape],
        first=0 * x.first[(*lead, *shape)],
        second=0 * x.second[(*lead, *lead, *shape)],
        tree={},
    )
    return Part(x, part.samples.rename("atom", "other"), (), part.properties)


def _for_dot(structure: Structure) -> list[Input]:
    a, b = two(structure)
    return [a, b.change(_without_gradients)]


def _for_system(structure: Structure) -> list[Input]:
    """Two maps with the same gradient rows; the second one has a single property."""
    rng = np.random.default_rng(1)

    def column(part: Part) -> Part:
        x = part.smooth
        factor = 1 + rng.random((*x.values.shape[:-1], 1))
        x = x._replace(
            values=x.values[..., :1] * factor,
            first=x.first[..., :1] * factor,
            second=x.second[..., :1] * factor,
        )
        labels = part.properties
        return part._replace(
            smooth=x, properties=mts.Labels(labels.names, labels.values[:1])
        )

    a = structure.input()
    return [a, a.change(column)]


def _is_square(structure: Structure) -> bool:
    return structure.name.startswith("square")


def _has_many_rows(structure: Structure) -> bool:
    return structure.name in (
        "no_gradients",
        "dense",
        "one_component",
        "square",
        "groups",
    )


# --- the table ---------------------------------------------------------------------


def _arithmetic() -> list[Case]:
    binary = {"inputs": two}
    return [
        Case("add", ["add"], late("add"), linear=True, **binary),
        Case("add_number", ["add"], lambda x: mts.add(x, 2), linear=True),
        Case("subtract", ["subtract"], late("subtract"), linear=True, **binary),
        Case(
            "subtract_number", ["subtract"], lambda x: mts.subtract(x, 2), linear=True
        ),
        Case(
            "multiply",
            ["multiply"],
            late("multiply"),
            needs_nested_samples=NESTED,
            **binary,
        ),
        Case(
            "multiply_number", ["multiply"], lambda x: mts.multiply(x, -3), linear=True
        ),
        Case(
            "divide",
            ["divide"],
            late("divide"),
            dtype=to_float,
            needs_nested_samples=NESTED,
            **binary,
        ),
        Case(
            "divide_number",
            ["divide"],
            lambda x: mts.divide(x, 4),
            linear=True,
            dtype=to_float,
        ),
        Case(
            "pow_integer", ["pow"], lambda x: mts.pow(x, 3), needs_nested_samples=NESTED
        ),
        Case(
            "pow_float",
            ["pow"],
            lambda x: mts.pow(x, 1.5),
            positive=True,
            not_for="i",
            needs_nested_samples=NESTED,
        ),
        Case("abs", ["abs"], late("abs"), dtype=to_real, needs_nested_samples=NESTED),
        Case(
            "operators",
            ["add"],
            lambda x, y: (x + y) * x / 2 - -y,
            not_for="i",
            needs_nested_samples=NESTED,
            **binary,
        ),
    ]


def _linear_algebra() -> list[Case]:
    systems = {
        "inputs": _for_system,
        "derives": False,
        "solves": True,
        "not_for": "ic",
    }
    return [
        Case("dot", ["dot"], late("dot"), inputs=_for_dot, needs_samples="`tensor_2`"),
        Case(
            "solve",
            ["solve"],
            late("solve"),
            suits=_is_square,
            **systems,
        ),
        Case(
            "lstsq",
            ["lstsq"],
            lambda x, y: mts.lstsq(x, y, rcond=1e-12),
            suits=_has_many_rows,
            **systems,
        ),
    ]


def _over_samples(kind: str, **options: Any) -> list[Case]:
    name = f"{kind}_over_samples"
    of_map, of_block = late(name), late(f"{name}_block")
    operations = [name, f"{name}_block"]
    linear = kind in ("sum", "mean")
    curved = None if linear else "selecting rows with gradients"
    return [
        Case(
            name,
            operations,
            lambda x: of_map(x, "atom"),
            lambda x: of_block(x, "atom"),
            linear=linear,
            needs_samples="without `out_samples=`",
            **options,
        ),
        Case(
            f"{name}_out_samples",
            operations,
            lambda x: of_map(x, ["atom"], out_samples=SYSTEMS),
            lambda x: of_block(x, ["atom"], out_samples=SYSTEMS),
            linear=linear,
            needs_nested_samples=curved,
            **options,
        ),
        Case(
            f"{name}_all",
            operations,
            lambda x: of_map(x, ["atom", "system"]),
            lambda x: of_block(x, ["atom", "system"]),
            linear=linear,
            needs_samples="without `out_samples=`",
            **options,
        ),
    ]


def _over_properties(kind: str, **options: Any) -> list[Case]:
    name = f"{kind}_over_properties"
    of_map, of_block = late(name), late(f"{name}_block")
    return [
        Case(
            f"{name}{suffix}",
            [name, f"{name}_block"],
            lambda x, names=names: of_map(x, names),
            lambda x, names=names: of_block(x, names),
            linear=kind in ("sum", "mean"),
            needs_nested_samples=None if kind in ("sum", "mean") else NESTED,
            **options,
        )
        for suffix, names in [("", "l"), ("_all", ["l", "n"])]
    ]


def _reductions() -> list[Case]:
    dtypes = {"sum": keep, "mean": to_float, "var": to_real_float, "std": to_real_float}
    return [
        case
        for kind, dtype in dtypes.items()
        for case in [
            *_over_samples(kind, moves=kind == "sum", dtype=dtype),
            *_over_properties(kind, dtype=dtype),
        ]
    ]


def _joining() -> list[Case]:
    options = {"inputs": two, "moves": True, "linear": True}

    def blocks(axis: str) -> Callable[..., Any]:
        return lambda x, y: mts.join_blocks([x, y, x], axis, add_dimension="from")

    def maps(axis: str, **how: Any) -> Callable[..., Any]:
        return lambda x, y: mts.join([x, y, x], axis, add_dimension="from", **how)

    def some_keys(how: str) -> Callable[..., Any]:
        def join(x: mts.TensorMap, y: mts.TensorMap) -> mts.TensorMap:
            return maps("samples", different_keys=how)(x, mts.filter_blocks(y, KEY_0))

        return join

    names = ["join", "join_blocks"]
    return [
        Case("join_samples", names, maps("samples"), blocks("samples"), **options),
        Case(
            "join_properties",
            names,
            maps("properties"),
            blocks("properties"),
            needs_gradient_samples="comparing labels",
            **options,
        ),
        Case("join_union", ["join"], some_keys("union"), **options),
        Case("join_intersection", ["join"], some_keys("intersection"), **options),
    ]


def _selection() -> list[Case]:
    moves = {"moves": True, "linear": True}
    by_values = {"needs_samples": "Labels.select", **moves}
    by_search = {"needs_samples": "splitting samples", **moves}
    positions = {"suits": with_two_of_each, **moves}
    slices, splits = ["slice", "slice_block"], ["split", "split_block"]

    def both(name: str, *args: Any) -> tuple[Callable[..., Any], Callable[..., Any]]:
        of_map, of_block = late(name), late(f"{name}_block")
        return lambda x: of_map(x, *args), lambda x: of_block(x, *args)

    return [
        Case("slice_samples", slices, *both("slice", "samples", SYSTEM_0), **by_values),
        Case(
            "slice_samples_at",
            slices,
            *both("slice", "samples", [1, 0]),
            needs_gradient_samples="selecting rows with gradients",
            **positions,
        ),
        Case("slice_properties", slices, *both("slice", "properties", N_0), **moves),
        Case(
            "slice_properties_at",
            slices,
            *both("slice", "properties", np.array([-1, 0])),
            **positions,
        ),
        Case("split_samples", splits, *both("split", "samples", ATOMS), **by_search),
        Case(
            "split_samples_at",
            splits,
            *both("split", "samples", [[1, 0], [], [1]]),
            needs_samples="needs the values",
            **positions,
        ),
        Case(
            "split_properties",
            splits,
            *both("split", "properties", [N_0, N_0, mts.Labels("l", [[1]])]),
            **moves,
        ),
        Case(
            "filter_blocks",
            ["filter_blocks"],
            lambda x: mts.filter_blocks(x, KEY_0),
            **moves,
        ),
        Case(
            "drop_blocks", ["drop_blocks"], lambda x: mts.drop_blocks(x, KEY_0), **moves
        ),
        Case(
            "drop_empty_blocks",
            ["drop_empty_blocks"],
            late("drop_empty_blocks"),
            **moves,
        ),
    ]


def _dimensions() -> list[Case]:
    moves = {"moves": True, "linear": True}
    cases = []
    for axis, old in [("keys", "b"), ("samples", "atom"), ("properties", "l")]:
        calls: Mapping[str, Callable[..., Any]] = {
            "append": lambda x, axis=axis: mts.append_dimension(x, axis, "new", 5),
            "insert": lambda x, axis=axis: mts.insert_dimension(x, axis, 1, "new", 5),
            "permute": lambda x, axis=axis: mts.permute_dimensions(x, axis, [1, 0]),
            "rename": lambda x, axis=axis, old=old: mts.rename_dimension(
                x, axis, old, "new"
            ),
            "replace": lambda x, axis=axis, old=old: mts.replace_dimension(
                x, axis, old, {0: 50, 1: 51}
            ),
            # only a dimension that was added can go without making entries equal
            "remove": lambda x, axis=axis: mts.remove_dimension(
                mts.append_dimension(x, axis, "new", 5), axis, "new"
            ),
        }
        cases += [
            Case(
                f"{verb}_{axis}",
                [_dimension(verb)],
                call,
                needs_samples="replace_dimension"
                if (verb, axis) == ("replace", "samples")
                else None,
                upstream=verb != "replace",
                # the reference knows gradient rows by their old labels
                derives=(verb, axis) != ("replace", "samples"),
                **moves,
            )
            for verb, call in calls.items()
        ]
    return [
        *cases,
        Case(
            "rename_components",
            ["rename_dimension"],
            lambda x: (
                mts.rename_dimension(x, "components", x.component_names[0], "m")
                if x.component_names
                else x
            ),
            upstream=False,
            **moves,
        ),
        Case(
            "split_keys",
            ["split_keys"],
            lambda x: mts.split_keys(x, "b"),
            upstream=False,
            **moves,
        ),
    ]


def _dimension(verb: str) -> str:
    return f"{verb}_dimensions" if verb == "permute" else f"{verb}_dimension"


def _creation() -> list[Case]:
    def case(name: str, **options: Any) -> Case:
        twin = f"{name}_block"
        calls = late(name), late(twin)
        return Case(name, [name, twin], *calls, moves=True, **options)

    return [
        case("zeros_like", constant=True, linear=True),
        case("ones_like", constant=True, linear=True, derives=False),
        case("empty_like", constant=True, undefined=True, linear=True, derives=False),
        case("remove_gradients", linear=True, derives=False),
        case("detach", linear=True, autodiff=False),
        case("make_contiguous", linear=True),
        Case(
            "random_uniform_like",
            ["random_uniform_like", "random_uniform_like_block"],
            lambda x: mts.random_uniform_like(x, key=RANDOM_KEY),
            constant=True,
            linear=True,
            derives=False,
            not_for="ic",
        ),
    ]


def _sorting() -> list[Case]:
    options = {"moves": True, "linear": True}

    def case(name: str, axes: Any, descending: bool = False, **more: Any) -> Case:
        def call(x: mts.TensorMap) -> mts.TensorMap:
            return mts.sort(x, axes, descending)

        return Case(name, ["sort"], call, **options, **more)

    return [
        case("sort_samples", "samples", needs_samples="sorting samples"),
        case("sort_descending", "samples", True, needs_samples="sorting samples"),
        case("sort_keys", "keys"),
        case("sort_components", "components"),
        case("sort_properties", ["properties", "keys"]),
        Case(
            "sort",
            ["sort", "sort_block"],
            lambda x: mts.sort(x, ["samples", "components", "properties"]),
            late("sort_block"),
            needs_samples="sorting samples",
            **options,
        ),
    ]


def _keys() -> list[Case]:
    options = {"moves": True, "linear": True, "suits": with_blocks}

    def case(name: str, method: str, *args: Any, **more: Any) -> Case:
        arguments = {k: more.pop(k) for k in list(more) if k in _KEY_OPTIONS}

        def call(x: mts.TensorMap) -> mts.TensorMap:
            return getattr(x, method)(*args, **arguments)

        return Case(name, [f"TensorMap.{method}"], call, **{**options, **more})

    needs = {"needs_samples": "keys_to_properties"}
    entries = mts.Labels("a", [[1], [7], [0]])
    return [
        case("keys_to_samples", "keys_to_samples", "a"),
        case(
            "keys_to_samples_unsorted",
            "keys_to_samples",
            ["b", "a"],
            sort_samples=False,
        ),
        case(
            "keys_to_samples_fill",
            "keys_to_samples",
            "a",
            sort_samples=False,
            fill_value=3.0,
        ),
        case("keys_to_properties", "keys_to_properties", "a", **needs),
        case(
            "keys_to_properties_unsorted",
            "keys_to_properties",
            ["a", "b"],
            sort_samples=False,
            **needs,
        ),
        case(
            "keys_to_properties_entries",
            "keys_to_properties",
            entries,
            fill_value=3.0,
            needs_samples="needs the values",
        ),
        case(
            "components_to_properties",
            "components_to_properties",
            "component_0",
            suits=with_components,
        ),
    ]


_KEY_OPTIONS = ("sort_samples", "fill_value")

CASES = [
    *_arithmetic(),
    *_linear_algebra(),
    *_reductions(),
    *_joining(),
    *_selection(),
    *_dimensions(),
    *_creation(),
    *_sorting(),
    *_keys(),
]


# --- results that are not made of blocks -------------------------------------------


#: public names, tested by test_answers.py
ANSWERS = [
    *(
        f"{kind}{block}{raising}"
        for kind in ("equal", "allclose", "equal_metadata")
        for block in ("", "_block")
        for raising in ("", "_raise")
    ),
    "is_contiguous",
    "is_contiguous_block",
    "unique_metadata",
    "unique_metadata_block",
    "one_hot",
    "block_from_array",
]
