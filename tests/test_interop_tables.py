"""Tidy tables of pandas and polars: there and back."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from builders import Gradient, block, tensor
from files import (
    MANY,
    NESTED,
    assert_identical,
    assert_same_bits,
    every_dtype,
    every_tensor,
)

import metatensor_jax as mts
from metatensor_jax import Labels, MetatensorError, TensorBlock, TensorMap
from metatensor_jax.interop import (
    from_pandas,
    from_polars,
    to_pandas,
    to_polars,
)

pd: Any = pytest.importorskip("pandas")
pl: Any = pytest.importorskip("polars")


class Package(NamedTuple):
    """The functions to and from the tables of a package, and one to make a table."""

    to: Callable[..., Any]
    back: Callable[..., TensorMap]
    table: Callable[..., Any]


PACKAGES = {
    "pandas": Package(to_pandas, from_pandas, pd.DataFrame),
    "polars": Package(to_polars, from_polars, pl.DataFrame),
}
every_package = pytest.mark.parametrize("package", PACKAGES.values(), ids=PACKAGES)
every_layout = pytest.mark.parametrize("layout", ["long", "wide"])

#: some versions of polars have float16
NOT_OF_POLARS = [np.dtype("complex64"), np.dtype("complex128")]
NOT_OF_POLARS += [] if hasattr(pl, "Float16") else [np.dtype("float16")]

#: what the axes of `builders.tensor` are called
NAMES: dict[str, Any] = {
    "keys": ["o3_lambda", "center_type"],
    "samples": ["system", "atom"],
    "properties": "property",
}


def arrays(table: Any) -> dict[str, np.ndarray]:
    """The columns of a table."""
    return {name: table[name].to_numpy() for name in table.columns}


def with_gradients_of(
    package: Package, ours: TensorMap, path: tuple[str, ...] = (), **options: Any
) -> TensorMap:
    """A map made of the tables of its values and of all gradients."""
    part = ours.block_by_id(0) if len(ours) else None
    for parameter in path:
        assert part is not None
        part = part.gradient(parameter)
    return package.back(
        package.to(ours, gradient=path, **options),
        like=ours,
        gradient=path,
        gradients={
            name: with_gradients_of(package, ours, (*path, name), **options)
            for name in (part.gradients_list() if part is not None else [])
        },
        **options,
    )


# === tables ========================================================================


@every_dtype
@every_package
@every_tensor
def test_maps_come_back(
    make: Callable[..., TensorMap], package: Package, dtype: str, x64: bool
):
    ours = make(dtype=dtype)
    if ours.keys.names == MANY:  # names of the keys and of the samples
        with pytest.raises(MetatensorError, match="of the keys and of the samples"):
            package.to(ours)
        return
    if package.to is to_polars and ours.dtype in NOT_OF_POLARS:
        with pytest.raises(MetatensorError, match=f"not have the dtype {dtype} of the"):
            package.to(ours)
        return
    back = with_gradients_of(package, ours)
    assert_identical(back, ours)
    assert all(type(leaf) is np.ndarray for leaf in jax.tree.leaves(back))


@every_package
@every_layout
@pytest.mark.parametrize("components", [(), (3,), (2, 3)])
def test_labels_come_from_the_table(
    package: Package, layout: str, components: tuple[int, ...]
):
    ours = tensor((3, 1, 4), components, 2)
    names = NAMES | {"components": [f"component_{i}" for i in range(len(components))]}
    table = package.to(ours, layout=layout)
    assert_identical(package.back(table, layout=layout, **names), ours)


@every_package
def test_the_rows_of_a_table(package: Package):
    samples = Labels(["system", "atom"], [[7, 0], [7, 2]])
    xyz, n = Labels("xyz", [[2], [0]]), Labels(["n", "l"], [[5, 1]])
    values = np.arange(4.0).reshape(2, 2, 1)
    made = TensorBlock(values, samples, [xyz], n)
    found = arrays(package.to(TensorMap(Labels("key", [[9]]), [made])))
    expected = {
        "key": [9, 9, 9, 9],
        "system": [7, 7, 7, 7],
        "atom": [0, 0, 2, 2],
        "xyz": [2, 0, 2, 0],
        "n": [5, 5, 5, 5],
        "l": [1, 1, 1, 1],
        "value": [0.0, 1.0, 2.0, 3.0],
    }
    assert list(found) == list(expected)
    assert {name: column.tolist() for name, column in found.items()} == expected
    assert {found[name].dtype for name in list(expected)[:-1]} == {np.dtype("int32")}


@every_package
def test_the_rows_of_a_wide_table(package: Package):
    properties = Labels(["n", "l"], [[5, 1], [-3, 0]])
    values = np.array([[1, 2], [3, 4]], np.int16)
    made = TensorBlock(values, Labels.range("system", 2), [], properties)
    table = package.to(made, layout="wide")
    assert {name: column.tolist() for name, column in arrays(table).items()} == {
        "system": [0, 1],
        "n=5,l=1": [1, 3],
        "n=-3,l=0": [2, 4],
    }
    names: dict[str, Any] = {"samples": "system", "properties": ["n", "l"]}
    back = package.back(table, layout="wide", **names)
    assert_identical(back.block(), made)


@every_package
@every_layout
def test_labels_that_say_nothing_have_no_columns(package: Package, layout: str):
    single = Labels.single()
    made = TensorMap(single, [TensorBlock(np.ones((1, 1)), single, [], single)])
    table = package.to(made, layout=layout, value="energy")
    assert list(table.columns) == ["energy"]
    assert_identical(package.back(table, layout=layout, value="energy"), made)


@every_package
def test_a_block_is_a_map_with_one_key(package: Package):
    ours = block(components=(2,))
    table = package.to(ours)
    names: dict[str, Any] = {"samples": ["system", "atom"], "properties": "property"}
    back = package.back(table, components="component_0", **names)
    assert_identical(back, TensorMap(Labels.single(), [ours]))
    assert_identical(package.back(table, like=ours), back)


@every_package
def test_gradients_have_tables_of_their_own(package: Package):
    ours = tensor((3, 1), (2,), gradients=NESTED)
    table = package.to(ours, gradient="positions")
    assert list(table.columns) == [
        *("o3_lambda", "center_type", "sample", "other", "positions_0_0"),
        *("component_0", "property", "value"),
    ]
    assert "cell_1_0" in package.to(ours, gradient=("positions", "cell")).columns
    assert_identical(with_gradients_of(package, ours), ours)


@every_package
def test_gradients_without_another_map(package: Package):
    ours = tensor((3, 1), gradients={"x": Gradient()})
    gradient = package.back(
        package.to(ours, gradient="x"),
        keys=NAMES["keys"],
        samples=["sample", "other"],
        components="x_0_0",
        properties="property",
    )
    back = package.back(package.to(ours), gradients={"x": gradient}, **NAMES)
    assert_identical(back, ours)


@every_package
def test_columns_in_any_order(package: Package):
    """Columns have the names of properties: their place says nothing."""
    ours = tensor((3, 1, 4), (3,), n_properties=3, gradients={"x": Gradient((2,))})
    values = mts.remove_gradients(ours)

    def turned(**options: Any) -> Any:
        columns = arrays(package.to(ours, layout="wide", **options))
        return package.table({name: columns[name] for name in reversed(columns)})

    gradient = package.back(
        turned(gradient="x"), layout="wide", like=ours, gradient="x"
    )
    back = package.back(turned(), layout="wide", like=ours, gradients={"x": gradient})
    assert_identical(back, ours)
    # without `like`, properties have the order of their columns, and their values
    names = {**NAMES, "components": ours.component_names}
    made = package.back(turned(), layout="wide", **names)
    assert made.block(0).properties["property"].tolist() == [2, 1, 0]
    assert_identical(mts.sort(made, "properties"), values)


@every_package
def test_rows_in_any_order(package: Package):
    ours = tensor((3, 1, 4), (3,), gradients={"x": Gradient((2,), [1, 0])})
    order = np.random.default_rng(0).permutation(8 * 3 * 2)
    columns = {name: column[order] for name, column in arrays(package.to(ours)).items()}
    back = package.back(package.table(columns), like=ours)
    assert_identical(back, mts.remove_gradients(ours))


@every_package
def test_what_is_not_a_number_is_kept(package: Package):
    values = np.array([[np.nan, -0.0], [np.inf, 5e-324]])
    made = mts.block_from_array(values)
    back = package.back(package.to(made), like=made)
    assert_same_bits(back.block().values, values)


@every_package
@pytest.mark.parametrize("dtype", ["float32", "int16", "bool"])
def test_what_is_missing_is_filled_if_asked_for(package: Package, dtype: str):
    columns = {
        "system": [3, 3, 5],
        "n": [1, 0, 0],
        "value": np.array([1, 0, 1], dtype),
    }
    names = {"samples": "system", "properties": "n"}
    table = package.table(columns)
    with pytest.raises(
        MetatensorError, match=r"no row for 1 of the 4 .*\(system=5, n=1\): give `fill"
    ):
        package.back(table, **names)
    filled = package.back(table, fill_value=1, **names).block()
    assert_same_bits(filled.values, np.array([[1, 0], [1, 1]], dtype))
    assert filled.properties == Labels("n", [[1], [0]])
    if dtype == "int16":
        with pytest.raises(MetatensorError, match="`fill_value` is nan, which int16"):
            package.back(table, fill_value=np.nan, **names)


@every_package
def test_no_rows(package: Package):
    ours = tensor(())
    assert_identical(package.back(package.to(ours), keys=NAMES["keys"]), ours)
    nothing = package.table({"system": np.zeros(0, int), "value": np.zeros(0)})
    back = package.back(nothing, samples="system")
    assert_identical(back.block().samples, Labels.empty("system"))
    assert back.block().shape == (0, 1)
    # a block without elements is not in a table
    some = package.to(tensor((0, 2)))
    assert len(package.back(some, **NAMES)) == 1
    assert len(package.back(some, like=tensor((0, 2)))) == 2


@every_package
def test_values_of_jax(package: Package):
    ours = tensor(dtype="float32").to("jax")
    assert_identical(package.back(package.to(ours), like=ours), ours.to("numpy"))


@every_package
def test_wide_integers_make_labels(package: Package):
    table = package.table({"system": np.array([2**31 - 1]), "value": [1.0]})
    made = package.back(table, samples="system").block().samples
    assert made.values.dtype == np.int32
    with pytest.raises(MetatensorError, match="2147483648 is out of range"):
        package.back(
            package.table({"system": np.array([2**31]), "value": [1.0]}),
            samples="system",
        )


@every_package
def test_labels_without_dimensions(package: Package):
    none = Labels([], np.zeros((1, 0), np.int32))
    made = TensorMap(none, [TensorBlock(np.ones((1, 1)), none, [], none)])
    table = package.to(made)
    assert_identical(package.back(table, keys=[], samples=[], properties=[]), made)
    assert_identical(package.back(table, like=made), made)


@pytest.mark.parametrize("x64", [True], ids=["x64"], indirect=True)
def test_a_library_computes_with_a_table(x64: bool):
    ours = tensor((3, 1, 4), dtype="float64")
    table = to_pandas(ours)
    means = table.groupby(["o3_lambda", "center_type", "system", "property"])["value"]
    expected = mts.mean_over_samples(ours, "atom")
    back = from_pandas(
        means.mean().reset_index(),
        keys=NAMES["keys"],
        samples="system",
        properties="property",
    )
    mts.allclose_raise(back, expected)


# === what tables can not be ========================================================


def table_of(package: Package, **columns: Any) -> Any:
    return package.table({"system": [0, 1], "value": [1.0, 2.0], **columns})


def renamed(old: str, new: str) -> TensorMap:
    axis = "properties" if old == "property" else "samples"
    return mts.rename_dimension(tensor(), axis, old, new)


REFUSED: dict[str, tuple[Callable[[Package], Any], type[Exception], str]] = {
    "a name twice": (
        lambda p: p.to(renamed("property", "atom")),
        MetatensorError,
        "'atom' is a dimension of the samples and of the properties, but a table has",
    ),
    "the name of the values": (
        lambda p: p.to(renamed("atom", "value")),
        MetatensorError,
        r"'value' is a dimension of the samples, .* another name: `value='...'`",
    ),
    "layout": (
        lambda p: p.to(tensor(), layout="tall"),
        MetatensorError,
        "`layout` must be 'long' or 'wide', not 'tall'",
    ),
    "no such gradient": (
        lambda p: p.to(tensor(), gradient="cell"),
        MetatensorError,
        "can not find gradients with respect to 'cell'",
    ),
    "other properties": (
        lambda p: p.to(tensor((1, 1), n_properties=(2, 3)), layout="wide"),
        MetatensorError,
        r"all blocks must have the same properties, .* there are 2 and 3 entries",
    ),
    "bfloat16": (
        lambda p: p.to(tensor(dtype=jnp.bfloat16)),
        MetatensorError,
        r"does not have the dtype bfloat16: convert the data first, `.to\(",
    ),
    "labels": (
        lambda p: p.to(Labels.single()),
        TypeError,
        "`data` must be a metatensor_jax TensorMap or TensorBlock, not",
    ),
    "padded": (
        lambda p: p.to(mts.Layout.fit([tensor()], systems=2).pad(tensor())),
        TypeError,
        r"PaddedBatch: undo the padding first, `layout.unpad\(batch\)`",
    ),
    "padded map": (
        lambda p: p.to(mts.Layout.fit([tensor()], systems=2).pad(tensor()).tensors),
        mts.TracedLabelsError,
        r"undo the padding first, `layout.unpad\(tensor, batch.systems\)`",
    ),
    "traced": (
        lambda p: jax.jit(lambda x: p.to(x) and x)(tensor().to("jax")),
        TypeError,
        r"needs data, but the values of the block \(o3_lambda=0, center_type=0\) are",
    ),
    "traced gradient": (
        lambda p: jax.jit(lambda x: p.to(x.block_by_id(0)) and x)(
            tensor(gradients={"x": Gradient()}).to("jax")
        ),
        TypeError,
        "needs data, but the values of the block are traced",
    ),
    "no table": (
        lambda p: p.back({"value": [1]}),
        TypeError,
        "`table` must be a p.*.DataFrame, not builtins.dict",
    ),
    "no column": (
        lambda p: p.back(table_of(p), samples=["system", "atom"]),
        MetatensorError,
        r"no column 'atom', its columns are \['system', 'value'\] .*`reset_index\(\)`",
    ),
    "column left over": (
        lambda p: p.back(table_of(p, atom=[0, 0]), samples="system"),
        MetatensorError,
        r"the columns \['atom'\] are neither labels nor values: name them",
    ),
    "element twice": (
        lambda p: p.back(table_of(p, system=[4, 4]), samples="system"),
        MetatensorError,
        r"row 1 of the table is of the same element as one before it: \(system=4",
    ),
    "element twice of a later block": (
        lambda p: p.back(
            p.table({"k": [1, 0, 1, 0], "s": [0, 1, 1, 1], "value": [1.0] * 4}),
            keys="k",
            samples="s",
        ),
        MetatensorError,
        r"(?s)row 3 of the table .*\(s=1, .*for the block \(k=0\)",
    ),
    "floats as labels": (
        lambda p: p.back(table_of(p, system=[0.0, 1.0]), samples="system"),
        TypeError,
        r"(?s)must be integers, not float64.*in the column 'system'",
    ),
    "text as values": (
        lambda p: p.back(table_of(p, value=["a", "b"]), samples="system"),
        TypeError,
        "the column 'value' must be numbers, not",
    ),
    "wide names": (
        lambda p: p.back(
            p.table({"system": [0], "n=0": [1.0], "l=1": [1.0]}),
            samples="system",
            properties="n",
            layout="wide",
        ),
        MetatensorError,
        r"the column 'l=1' is no entry .* \['n'\], which would be called 'n=...'",
    ),
    "wide dtypes": (
        lambda p: p.back(
            p.table({"n=0": [1.0], "n=1": [1]}), properties="n", layout="wide"
        ),
        MetatensorError,
        "one dtype, but 'n=0' has float64 and 'n=1' has int64",
    ),
    "nothing wide": (
        lambda p: p.back(
            p.table({"s": [1]}), samples="s", properties="n", layout="wide"
        ),
        MetatensorError,
        "the table has no columns of values",
    ),
    "unlike": (
        lambda p: p.back(p.to(tensor((3, 2))), like=tensor((3, 1))),
        MetatensorError,
        r"(?s)\(system=0, atom=1\) of the table is not among the samples of `like`",
    ),
    "other keys": (
        lambda p: p.back(p.to(tensor((3, 2))), like=tensor((3,))),
        MetatensorError,
        r"\(o3_lambda=1, center_type=0\) of the table is not among the keys of `like`",
    ),
    "unlike and wide": (
        lambda p: p.back(
            p.to(tensor(n_properties=3), layout="wide"), like=tensor(), layout="wide"
        ),
        MetatensorError,
        "the columns of the table are the properties",
    ),
    "like and names": (
        lambda p: p.back(table_of(p), samples="system", like=tensor()),
        MetatensorError,
        "the names of the axes are those of `like`",
    ),
    "gradient of nothing": (
        lambda p: p.back(table_of(p), samples="system", gradient="x"),
        MetatensorError,
        "`gradient` says which gradient of `like`",
    ),
    "gradients that are tables": (
        lambda p: p.back(table_of(p), samples="system", gradients={"x": table_of(p)}),
        TypeError,
        r"gradients\['x'\] must be a TensorMap",
    ),
    "gradients of other keys": (
        lambda p: p.back(table_of(p), samples="system", gradients={"x": tensor()}),
        mts.NotEqualError,
        "should have the same keys",
    ),
    "name of the values": (
        lambda p: p.back(table_of(p), samples="system", value=""),
        MetatensorError,
        "`value` must be the name of a column, not ''",
    ),
}


@every_package
@pytest.mark.parametrize("name", REFUSED)
def test_refused(name: str, package: Package):
    call, kind, message = REFUSED[name]
    with pytest.raises(kind, match=message) as error:
        call(package)
    assert type(error.value) is kind


def test_columns_of_pandas_that_are_there_twice():
    table = pd.DataFrame([[0, 1, 1.0]], columns=["a", "a", "value"])
    with pytest.raises(MetatensorError, match="several columns called 'a'"):
        from_pandas(table, samples="a")


@pytest.mark.skipif(not hasattr(pl, "Int128"), reason="polars has no Int128")
def test_integers_of_128_bits():
    wide, narrow = pl.Series([3, 4], dtype=pl.Int128), pl.Series([3, 4])
    match = r"'x' is Int128, which NumPy does not have: .* `.cast\(polars.Int64\)`"
    with pytest.raises(TypeError, match=match):
        from_polars(pl.DataFrame({"x": wide, "value": narrow}), samples="x")
    with pytest.raises(TypeError, match=match):
        from_polars(pl.DataFrame({"s": narrow, "x": wide}), samples="s", value="x")


def test_what_is_missing_in_columns():
    with pytest.raises(MetatensorError, match="the column 'value' has 1 nulls"):
        from_polars(pl.DataFrame({"s": [0, 1], "value": [1.0, None]}), samples="s")
    with pytest.raises(MetatensorError, match="the column 's' has 1 nulls"):
        from_polars(pl.DataFrame({"s": [0, None], "value": [1.0, 2.0]}), samples="s")
    missing = pd.DataFrame({"value": pd.array([1.0, None], "Float64"), "s": [0, 1]})
    with pytest.raises(MetatensorError, match="the column 'value' has 1 missing"):
        from_pandas(missing, samples="s")
    missing = pd.DataFrame({"value": [1.0, 2.0], "s": pd.array([0, None], "Int64")})
    with pytest.raises(MetatensorError, match="the column 's' has 1 missing values"):
        from_pandas(missing, samples="s")
    # and nullable dtypes work if nothing is missing
    nullable = {"value": pd.array([1.0, 2.0], "Float64"), "s": pd.array([0, 1], "Int8")}
    made = from_pandas(pd.DataFrame(nullable), samples="s").block()
    assert_same_bits(made.values, np.array([[1.0], [2.0]]))


# === packages ======================================================================


@pytest.mark.parametrize("package", ["pandas", "polars", "xarray"])
def test_without_the_package(package: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, package, None)  # type: ignore[arg-type]
    for name, argument in (("to", tensor()), ("from", None)):
        function = getattr(mts.interop, f"{name}_{package}")
        with pytest.raises(
            ModuleNotFoundError, match=r"`pip install 'metatensor-jax\[interop\]'`"
        ):
            function(argument)


def test_nothing_is_imported_before_it_is_needed():
    code = (
        "import sys, metatensor_jax as mts\n"
        "mts.interop.to_pandas, mts.interop.to_polars, mts.interop.to_xarray\n"
        "import metatensor_jax.interop.orbitals\n"
        "print({'pandas', 'polars', 'xarray', 'sklearn'} & set(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert done.stdout == "set()\n"
