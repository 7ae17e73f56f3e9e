"""What is shown: as text, in notebooks, inside of models, and on Tab."""

from __future__ import annotations

import inspect
import re
import subprocess
import sys
from html import unescape
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from builders import Gradient, block, tensor

import metatensor_jax as mts
from metatensor_jax import Labels, TensorBlock, TensorMap
from metatensor_jax._types import display
from metatensor_jax._types.display.heat import picture
from metatensor_jax._types.display.style import ROOT, STYLE

NESTED = {"positions": Gradient((3,), gradients={"cell": Gradient((3, 3))})}
TESTS = Path(__file__).parent


def molecule(system: int, n_atoms: int) -> dict[str, TensorMap]:
    atoms = Labels(["system", "atom"], [[system, i] for i in range(n_atoms)])
    values = np.arange(2.0 * n_atoms, dtype="f4").reshape(n_atoms, 2) + 1
    features = TensorBlock(values, atoms, [], Labels.range("p", 2))
    own = Labels("system", [[system]])
    energy = TensorBlock(np.ones((1, 1), "f4"), own, [], Labels.range("energy", 1))
    key = Labels.single()
    return {"features": TensorMap(key, [features]), "energy": TensorMap(key, [energy])}


MOLECULES = [molecule(i, 2 + i) for i in range(4)]
LAYOUT = mts.Layout.fit(MOLECULES, systems=3)
#: 3 + 4 atoms in two systems, with room for 5 + 4 + 3 in three
BATCH = mts.Store.from_maps(MOLECULES).batch([1, 2], LAYOUT)
STACKED = mts.stack_blocks(tensor((4, 4, 4, 9)))
STORE = mts.Store.from_maps(MOLECULES)


# --- text ------------------------------------------------------------------------


def values_line(shown: Any) -> str:
    (line,) = [x for x in repr(shown).splitlines() if x.startswith("    values: ")]
    return line.removeprefix("    values: ")


def test_kinds_of_arrays() -> None:
    seen = []

    def look(made: Any) -> Any:
        seen.append(values_line(made))
        return made

    of_jax = block(arrays="jax")
    look(block(dtype="f8"))
    look(of_jax)
    jax.jit(look)(of_jax)
    batch = jax.tree.map(lambda x: jnp.stack([x] * 5), of_jax)
    jax.vmap(look)(batch)
    look(batch)
    look(jax.tree.map(lambda x: np.zeros((5, 6, *x.shape), "f4"), of_jax))
    look(jax.eval_shape(lambda x: x, of_jax))
    look(jax.tree.map(lambda _: None, of_jax))
    assert seen == [
        "float64, NumPy",
        "float32, JAX",
        "float32, traced",
        "float32, batched by vmap",
        "float32, JAX, a batch of 5",
        "float32, NumPy, a batch of 5 x 6",
        "float32, ShapeDtypeStruct",
        "NoneType",
    ]


def test_kinds_in_one_map() -> None:
    key = Labels.range("key", 3)
    blocks = [block(), block(arrays="jax"), block(3)]
    assert values_line(TensorMap(key, blocks)) == "float32, NumPy; float32, JAX"
    assert "values" not in repr(tensor(()))


def test_deleted_arrays() -> None:
    made = block(arrays="jax", traced=True)
    for leaf in jax.tree.leaves(made):
        leaf.delete()
    assert values_line(made) == "float32, JAX, deleted"
    assert "deleted" in made._repr_html_()


_ON_DEVICES = """
import jax, numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from builders import tensor
mesh = Mesh(np.array(jax.devices()), "x")
for axes in ("x", None):
    made = tensor((4, 8)).to(device=NamedSharding(mesh, PartitionSpec(axes)))
    print(repr(made.block(0)).splitlines()[1].strip())
    assert "<svg" in made._repr_html_()
"""


def test_sharded_arrays() -> None:
    flags = {"XLA_FLAGS": "--xla_force_host_platform_device_count=4"}
    path = {"PYTHONPATH": f"{TESTS}:{TESTS.parent}", "JAX_PLATFORMS": "cpu"}
    result = subprocess.run(
        [sys.executable, "-c", _ON_DEVICES],
        env={**path, **flags},
        capture_output=True,
        text=True,
        check=True,
    )
    assert result.stdout.splitlines() == [
        "values: float32, JAX, sharded over 4 devices",
        "values: float32, JAX, the same on 4 devices",
    ]


def test_gradients_say_by_what() -> None:
    made = block(gradients=NESTED)
    one = made.gradient("positions")
    two = one.gradient("cell")
    title = "TensorBlock gradient for 'positions', with shape (8, 3, 2)"
    assert repr(one).splitlines()[0] == title
    title = "TensorBlock gradient for 'positions/cell', with shape (16, 3, 3, 3, 2)"
    assert repr(two).splitlines()[0] == title
    assert "gradient for &#x27;positions&#x27;, with shape" in one._repr_html_()
    # it is said of what was asked for, and is no part of what it is
    assert jax.tree.structure(one) == jax.tree.structure(one.copy())
    assert repr(made.with_gradient("q", one).gradient("q")).startswith(
        "TensorBlock gradient for 'q'"
    )


def test_traced_samples_are_said_to_be() -> None:
    assert "    samples: [system, atom], traced\n" in repr(block(traced=True))


def test_padding_in_text() -> None:
    samples = BATCH["features"].block().samples
    table = samples.print(-1).splitlines()
    assert [line.split() for line in table[-2:]] == [["padding", "padding"]] * 2
    assert str(Labels.PADDING) not in repr(samples)


def test_what_it_says_of_bytes() -> None:
    assert display.n_bytes(np.zeros((3, 2), "f4")) == 24
    assert display.n_bytes(jax.ShapeDtypeStruct((3, 2), "f4")) == 24
    assert display.n_bytes(jax.random.key(0)) == 0
    assert display.n_bytes("text") == 0


# --- notebooks -------------------------------------------------------------------


class Checker(HTMLParser):
    """Are all elements closed, and is there nothing that could run?"""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.text = ""
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        assert tag in KNOWN, tag
        assert not [name for name, _ in attrs if name.startswith("on")]
        if tag != "path":  # which closes itself
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag == "path"

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] != "style":
            self.text += data


KNOWN = {
    *("div", "span", "strong", "em", "style", "details", "summary", "svg", "title"),
    *("table", "thead", "tbody", "tr", "th", "td"),
}

SHOWN = {
    "labels": Labels(["a", "b"], [[i, -i] for i in range(300)]),
    "no labels": Labels.empty(["a", "b"]),
    "labels without dimensions": Labels([], np.zeros((1, 0), np.int32)),
    "traced labels": block(traced=True).samples,
    "entry": Labels(["a", "b"], [[3, -4]])[0],
    "block": block(gradients=NESTED),
    "block without samples": block(0, (3,)),
    "traced block": block(traced=True, gradients=NESTED, arrays="jax"),
    "map": tensor((3, 1, 4), (3, 5), gradients=NESTED, info={"unit": "eV"}),
    "empty map": tensor(()),
    "large map": tensor([2] * 100, gradients=NESTED),
    "stacked": STACKED,
    "layout": LAYOUT,
    "layout of a map": mts.Layout.fit(MOLECULES[0]["features"], systems=1),
    "batch": BATCH,
    "batch on a device": jax.device_put(BATCH),
    "batch of one map": mts.Layout.fit(MOLECULES[0]["energy"], systems=1).pad(
        MOLECULES[0]["energy"]
    ),
    "folded": BATCH.fold(),
    "store": STORE,
}
NO_PYTREES = {"entry", "layout", "layout of a map", "store"}
every_shown = pytest.mark.parametrize("shown", SHOWN.values(), ids=list(SHOWN))


def html(shown: Any) -> Checker:
    return Checker(shown._repr_html_())


@every_shown
def test_html_is_whole(shown: Any) -> None:
    made = html(shown)
    assert made.tags.count("style") == 1
    name = type(shown).__name__
    assert f"<strong>{name}</strong>" in shown._repr_html_()
    assert made.text.startswith(name)


@pytest.mark.parametrize("name", [name for name in SHOWN if name not in NO_PYTREES])
def test_html_of_any_leaf(name: str) -> None:
    shown = SHOWN[name]
    for replace in (
        lambda _: None,
        lambda _: "<b>",
        lambda _: np.zeros((), "f4"),
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype),
        lambda x: np.stack([x] * 2),
        lambda _: jax.random.key(0),
        lambda x: np.zeros(x.shape, jax.dtypes.float0),
    ):
        other = jax.tree.map(replace, shown)
        assert type(other) is type(shown)
        html(other)
        assert repr(other)


@pytest.mark.parametrize("name", ["map", "traced block", "batch", "stacked"])
def test_html_in_a_program(name: str) -> None:
    seen = []
    jax.jit(lambda x: seen.append((html(x).text, repr(x))))(SHOWN[name])
    ((text, of_repr),) = seen
    assert "traced" in text
    assert "traced" in of_repr


def test_all_rules_are_for_the_display_alone() -> None:
    assert ROOT in LABELS_HTML
    flat = re.sub(r"@media[^{]*\{(.*?\})\}", r"\1", STYLE)
    rules = re.findall(r"([^{}]+)\{[^{}]*\}", flat)
    assert len(rules) > 10
    for rule in rules:
        for selector in re.split(r",(?![^(]*\))", rule):
            assert f".{ROOT}" in selector, selector
    # the themes of the system, of browsers, JupyterLab and VS Code
    for theme in ("prefers-color-scheme:dark", "light-dark(", ".vscode-dark "):
        assert theme in STYLE
    for is_light in ("true", "false"):
        assert f"[data-jp-theme-light={is_light}]" in STYLE


LABELS_HTML = Labels.range("a", 2)._repr_html_()


def test_labels_go_across_and_unfold_downwards() -> None:
    text = Labels(["a", "b"], [[i, i + 300] for i in range(300)])._repr_html_()
    across, unfolding = text.split("<details>")
    assert "<th>a</th><td>0</td><td>1</td>" in across
    assert "<th>b</th><td>300</td><td>301</td>" in across
    assert "<summary>288 more</summary>" in unfolding
    assert "<tr><td>199</td><td>499</td></tr>" in unfolding
    assert "<td>200</td>" not in unfolding
    assert "and 100 more" in unfolding
    # no click for a single one
    assert "<details>" not in Labels.range("a", 13)._repr_html_()
    assert "<summary>2 more</summary>" in Labels.range("a", 14)._repr_html_()


def test_padding_is_shown_as_padding() -> None:
    made = BATCH["features"].block()
    assert made.shape == (12, 2)
    assert int(made.mask.sum()) == 7
    for of in (made, jax.device_put(made)):
        text = of._repr_html_()
        assert '<td class="pad" rowspan="2">5 x padding</td>' in text
        assert "12 entries, 5 of padding" in text
        assert '<path class="pad"' in text
        # values of padding are zero, those of others from 1 to 8
        assert "from 1 to 8" in text
        assert str(Labels.PADDING) not in text
    assert "5 x padding" in BATCH._repr_html_()
    assert "12 entries, 5 of padding" in made.samples._repr_html_()


HOSTILE = "</style><script>alert('&')</script>"


def test_names_can_be_anything() -> None:
    name = "<script>alert('&')"  # names of gradients have no slash
    gradient = block(gradients={"x": Gradient()}).gradient("x")
    one = block().with_gradient(name, gradient)
    made = TensorMap(Labels.single(), [one], {HOSTILE: HOSTILE})
    named = {HOSTILE: MOLECULES[0]["features"]}
    layout = mts.Layout.fit(named, systems=1)
    store = mts.Store.from_maps(named)
    shown = [one, one.gradient(name), made, layout, layout.pad(named), store]
    for x in shown:
        assert "<script" not in x._repr_html_()
        assert name in html(x).text or HOSTILE in unescape(html(x).text)


def test_a_large_map_is_small() -> None:
    large = {"positions": Gradient((3,)), "cell": Gradient((3, 3))}
    keys = Labels(
        ["o3_lambda", "o3_sigma", "center_type", "neighbor_type"],
        [[i % 7, 1, i % 83, i] for i in range(1000)],
    )
    made = tensor([20] * 1000, (5,), 64, gradients=large, keys=keys)
    for shown in (made, made.to(arrays="jax")):
        text = shown._repr_html_()
        assert len(text.encode()) < 100_000
        Checker(text)
    assert "(o3_lambda=0, o3_sigma=1, center_type=0, neighbor_type=0)" in text
    n_whole = text.count("<summary>(o3_lambda=")
    assert f"<summary>{1000 - n_whole} more blocks, without" in text
    assert 3 <= n_whole <= 20


def test_large_layouts_batches_and_stores_are_small() -> None:
    keys = Labels.range("a_rather_long_name_of_a_dimension", 1000)
    samples = Labels("system", [[0]])
    one = TensorBlock(np.ones((1, 2), "f4"), samples, [], Labels.range("p", 2))
    named = {f"map_{i}": TensorMap(keys, [one] * 1000) for i in range(3)}
    layout = mts.Layout.fit(named, systems=1)
    many = TensorMap(keys, [block(3, (), 1 + i) for i in range(1000)])
    for shown in (
        layout,
        layout.pad(named),
        mts.Store.from_maps(named),
        mts.stack_blocks(many),
    ):
        text = shown._repr_html_()
        Checker(text)
        assert len(text) < 150_000
        assert len(repr(shown)) < 6_000


def test_who_asks_to_see_values_may_copy_them() -> None:
    made = block(arrays="jax", traced=True)
    with jax.transfer_guard("disallow"):
        assert "<svg" in made._repr_html_()


# --- pictures ----------------------------------------------------------------------


def test_pictures_are_means() -> None:
    # 32 rows in 16 cells, two each; columns are components and properties
    values = np.zeros((32, 2, 2), "f4")
    values[0:2, 0, 0] = 1.0, 3.0
    values[2:4, 1, 1] = -1.0
    values[30, 0, 1] = 0.1
    made = picture(values)
    assert made is not None
    assert made.codes.shape == (16, 4)
    expected = np.zeros((16, 4))
    expected[0, 0], expected[1, 3] = 4, -2
    expected[15, 1] = 1  # small, but not zero
    np.testing.assert_array_equal(made.codes, expected)
    assert made.text == "from -1 to 3"


@pytest.mark.parametrize(
    "dtype", ["bool", "int8", "uint64", "float16", "bfloat16", "float64", "complex64"]
)
def test_pictures_of_any_dtype(dtype: str) -> None:
    made = picture(np.array([[1, 0], [0, 1]]).astype(jnp.dtype(dtype)))
    assert made is not None
    assert made.codes.tolist() == [[4, 0], [0, 4]]
    assert made.text == "from 0 to 1"


def test_pictures_of_what_is_odd() -> None:
    inf = np.array([[np.inf, 1.0], [np.nan, 1.0]])
    made = picture(inf)
    assert made is not None
    assert made.codes.tolist() == [[6, 4], [6, 4]]
    assert made.text == "all 1, 2 not finite"
    # what is in the rows of padding does not count
    made = picture(inf, np.array([False, True]))
    assert made is not None
    assert made.codes.tolist() == [[5, 5], [6, 4]]
    assert made.text == "all 1, 1 not finite"
    nothing = picture(inf, np.array([False, False]))
    assert nothing is not None
    assert nothing.text == "all padding"
    assert picture(np.zeros((0, 3))) is None
    assert picture(np.zeros(3)) is None
    assert picture(np.array([["a"]])) is None


def test_pictures_of_much() -> None:
    values = np.zeros((20_000, 1_000), "f4")
    values[:10_000] = 2.0
    made = picture(values)
    assert made is not None
    assert made.codes.shape == (16, 16)
    assert (made.codes[:8] == 4).all()
    assert (made.codes[8:] == 0).all()
    assert made.text == "from 0 to 2 (of a part of the values)"


def test_paths_cover_their_cells() -> None:
    rng = np.random.default_rng(0)
    values = rng.normal(size=(16, 16))
    made = picture(values)
    assert made is not None
    drawn = np.full((16, 16), 99)
    codes = {**{f"p{i}": i for i in range(1, 5)}, "z": 0}
    codes |= {f"n{i}": -i for i in range(1, 5)}
    for name, path in re.findall(r'<path class="(\w+)" d="([^"]*)"/>', made.svg()):
        for x, y, n in re.findall(r"M(\d+) (\d+)h(\d+)", path):
            assert (drawn[int(y), int(x) : int(x) + int(n)] == 99).all()
            drawn[int(y), int(x) : int(x) + int(n)] = codes[name]
    np.testing.assert_array_equal(drawn, made.codes)


# --- other classes -----------------------------------------------------------------


def test_text_of_layouts() -> None:
    assert repr(LAYOUT) == str(LAYOUT)
    assert repr(LAYOUT).splitlines()[0] == "Layout for 3 systems, 1 bucket"
    keys = Labels.range("key", 200)
    one = MOLECULES[0]["energy"].block()
    large = mts.Layout.fit(TensorMap(keys, [one] * 200), systems=1)
    lines = repr(large).splitlines()
    assert len(str(large).splitlines()) == 2 + 200
    assert len(lines) == 2 + 40 + 1
    assert lines[22] == "  ... 160 more"
    assert lines[-1].split()[:2] == ["block", "(key=199)"]


def test_text_of_batches() -> None:
    assert repr(BATCH) == (
        "PaddedBatch of 2 systems, with room for 3\n"
        "    energy: TensorMap(_: 1 block), 2 of 3 rows\n"
        "    features: TensorMap(_: 1 block), 7 of 12 rows"
    )
    assert repr(jax.device_put(BATCH)).splitlines()[0] == repr(BATCH).splitlines()[0]
    seen = []
    jax.jit(lambda batch: seen.append(repr(batch)))(BATCH)
    assert seen[0].startswith("PaddedBatch with room for 3 systems, traced\n")


def test_text_of_stacked_maps_and_stores() -> None:
    assert repr(STACKED) == (
        "StackedMap with 4 blocks in 2 arrays of shape (3, 4, 2), (1, 9, 2) "
        "(float32, NumPy)"
    )
    # features: 14 atoms, with 2 numbers, 2 labels, and 5 offsets of 8 bytes; energies
    n_bytes = 14 * (8 + 8) + 5 * 8 + 4 * (4 + 4) + 5 * 8
    assert repr(STORE) == (
        "Store of 4 systems with the maps ['features', 'energy']\n"
        f"    2 blocks, 18 rows, {n_bytes} B"
    )


LINES = {
    "TensorMap(o3_lambda, center_type: 2 blocks)": tensor((2, 3)),
    "TensorMap(o3_lambda, center_type: 1 block)": tensor((2,)),
    "TensorBlock([4,2], positions)": block(gradients=NESTED),
    "Labels(a: 3 entries)": Labels.range("a", 3),
    "Labels(a=0)": Labels.range("a", 1),
    "Labels(system, atom: 4 traced entries)": block(traced=True).samples,
    "StackedMap(o3_lambda, center_type: 4 blocks in 2 arrays)": STACKED,
    "Layout(3 systems, 1 bucket: energy, features)": LAYOUT,
    "PaddedBatch(2 systems, with room for 3: energy, features)": BATCH,
    "Store(4 systems: energy, features)": STORE,
}


@pytest.mark.parametrize(("line", "shown"), LINES.items(), ids=list(LINES))
def test_models_show_a_line(line: str, shown: Any) -> None:
    eqx = pytest.importorskip("equinox")
    import metatensor_jax.learn  # noqa: F401 - teaches Equinox

    model: Any = type("Model", (eqx.Module,), {"__annotations__": {"part": Any}})
    assert repr(model(shown)) == f"Model(part={line})"
    assert eqx.tree_pformat({"a": [shown]}) == f"{{'a': [{line}]}}"


# treescope (0.1.10) asks what NumPy (2.5) has deprecated
@pytest.mark.filterwarnings("ignore:The chararray class is deprecated")
@pytest.mark.parametrize(("line", "shown"), LINES.items(), ids=list(LINES))
def test_treescope_shows_a_line(line: str, shown: Any) -> None:
    treescope = pytest.importorskip("treescope")
    # if there is more than a line, it is a box, to unfold what notebooks show
    assert f"'part': {line}" in treescope.render_to_text({"part": shown})


# --- Tab -----------------------------------------------------------------------------

_MODULES = ["", "io", "o3", "interop", "layout", "operations", "autodiff"]
_OF_LEARN = ["learn", "learn.nn", "learn.data"]


def completions(code: str, **names: Any) -> set[str]:
    """What IPython offers on Tab."""
    ipython = pytest.importorskip("IPython.core.completer")
    completer = ipython.Completer(namespace=names, global_namespace=names)
    # names with underscores come after one only
    found = (name.rpartition(".")[2] for name in completer.attr_matches(code))
    return {name for name in found if not name.startswith("_")}


@pytest.mark.parametrize("name", [*_MODULES, *_OF_LEARN])
def test_modules_offer_what_is_meant(name: str) -> None:
    if name in _OF_LEARN:
        pytest.importorskip("equinox")
        import metatensor_jax.learn  # noqa: F401
    module: Any = mts
    for part in filter(None, name.split(".")):
        module = getattr(module, part)
    by_name = {"__version__", "learn"} if not name else set()
    if name == "interop":
        by_name = {"ase", "metatrain", "orbitals", "sklearn"}
    assert set(dir(module)) - by_name == set(module.__all__)
    assert all(hasattr(module, each) for each in module.__all__)
    # no name that is public and was forgotten
    public = {
        each
        for each, value in vars(module).items()
        if not each.startswith("_")
        and getattr(value, "__module__", "").startswith("metatensor_jax")
    }
    assert public <= {*module.__all__, *by_name}
    assert completions("m.", m=module) == {
        each for each in dir(module) if not each.startswith("_")
    }


def test_help_begins_with_what_there_is() -> None:
    text = mts.__doc__ or ""
    for name in re.findall(r"``mts\.([\w.]+)``", text):
        value: Any = mts
        for part in name.split("."):
            value = getattr(value, part)
    for name in ("Labels", "TensorBlock", "TensorMap", "mts.operations", ".learn"):
        assert name in text


@every_shown
def test_what_objects_offer_has_a_docstring(shown: Any) -> None:
    names = {name for name in dir(shown) if not name.startswith("_")}
    # IPython also looks at the class
    assert completions("x.", x=shown) == names
    fields = getattr(type(shown), "__dataclass_fields__", {})
    for name in names - set(fields) - {"PADDING"}:
        assert inspect.getdoc(getattr(type(shown), name)), name
        assert not name.startswith("tree_")  # what JAX calls is not for users
