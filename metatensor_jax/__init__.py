"""Labelled, block-sparse tensors with stored gradients, for JAX.

    import metatensor_jax as mts

The types, all of them immutable pytrees:

- ``Labels``: rows of integers with named columns, the metadata of an axis
- ``TensorBlock``: a dense array with labels for each axis, and stored gradients
- ``TensorMap``: blocks by key

What to do with them:

- operations, by metatensor's names: ``mts.add``, ``mts.sum_over_samples``,
  ``mts.join``, ``mts.slice``, and the others of ``mts.operations``;
  ``tensor.keys_to_properties`` and the like; ``mts.map_rows`` and ``mts.move_rows`` for
  one's own
- gradients: ``mts.connect_gradients`` lets ``jax.grad`` go through stored ones,
  ``mts.compute_gradients`` stores those of a function, ``mts.check_gradients`` checks
- batches that share one compiled program: ``mts.Layout``, ``mts.Store``,
  ``mts.stack_blocks``
- files: ``mts.load``, ``mts.save``, and what else there is in ``mts.io``
- exchange with metatensor, ASE, pandas and others: ``mts.interop``
- rotations: ``mts.o3``
- machine learning with Equinox: ``import metatensor_jax.learn``
- when a function is compiled again: ``mts.explain_retrace``

>>> import metatensor_jax as mts
>>> samples = mts.Labels(["system", "atom"], [[0, 0], [0, 1], [1, 0]])
>>> values = np.array([[1.0], [2.0], [5.0]], np.float32)
>>> block = mts.TensorBlock(values, samples, [], mts.Labels.range("energy", 1))
>>> energies = mts.TensorMap(mts.Labels.single(), [block])
>>> mts.sum_over_samples(energies, "atom").block().values[:, 0].tolist()
[3.0, 5.0]
"""

from . import (
    autodiff as autodiff,
    interop as interop,
    io as io,
    layout as layout,
    o3 as o3,
    operations as operations,
    sharding as sharding,
)
from ._evaluate import clear_caches as clear_caches
from ._types import pytrees as _pytrees  # noqa: F401 - registers the types
from ._types.block import (
    TensorBlock as TensorBlock,
)
from ._types.entry import (
    LabelsEntry as LabelsEntry,
)
from ._types.errors import (
    MetatensorError as MetatensorError,
    NotEqualError as NotEqualError,
    TracedLabelsError as TracedLabelsError,
)
from ._types.labels import (
    Labels as Labels,
)
from ._types.tensor import (
    TensorMap as TensorMap,
)
from ._version import __version__ as __version__
from ._versions import warn_of_wrong_results as _warn_of_wrong_results
from .autodiff import (
    GradientCheck as GradientCheck,
    GradientReport as GradientReport,
    check_gradients as check_gradients,
    compute_gradients as compute_gradients,
    connect_gradients as connect_gradients,
)
from .debug import explain_retrace as explain_retrace
from .io import (
    load as load,
    load_block as load_block,
    load_block_mmap as load_block_mmap,
    load_labels as load_labels,
    load_mmap as load_mmap,
    save as save,
)
from .layout import (
    Folded as Folded,
    Layout as Layout,
    PaddedBatch as PaddedBatch,
    StackedMap as StackedMap,
    Store as Store,
    StoreOnDevice as StoreOnDevice,
    StoreWriter as StoreWriter,
    stack_blocks as stack_blocks,
)
from .operations import (
    Move as Move,
    abs as abs,
    add as add,
    allclose as allclose,
    allclose_block as allclose_block,
    allclose_block_raise as allclose_block_raise,
    allclose_raise as allclose_raise,
    append_dimension as append_dimension,
    block_from_array as block_from_array,
    cut_rows as cut_rows,
    detach as detach,
    detach_block as detach_block,
    divide as divide,
    dot as dot,
    drop_blocks as drop_blocks,
    drop_empty_blocks as drop_empty_blocks,
    empty_like as empty_like,
    empty_like_block as empty_like_block,
    equal as equal,
    equal_block as equal_block,
    equal_block_raise as equal_block_raise,
    equal_metadata as equal_metadata,
    equal_metadata_block as equal_metadata_block,
    equal_metadata_block_raise as equal_metadata_block_raise,
    equal_metadata_raise as equal_metadata_raise,
    equal_raise as equal_raise,
    filter_blocks as filter_blocks,
    insert_dimension as insert_dimension,
    is_contiguous as is_contiguous,
    is_contiguous_block as is_contiguous_block,
    join as join,
    join_blocks as join_blocks,
    lstsq as lstsq,
    make_contiguous as make_contiguous,
    make_contiguous_block as make_contiguous_block,
    map_rows as map_rows,
    mean_over_properties as mean_over_properties,
    mean_over_properties_block as mean_over_properties_block,
    mean_over_samples as mean_over_samples,
    mean_over_samples_block as mean_over_samples_block,
    move_rows as move_rows,
    multiply as multiply,
    one_hot as one_hot,
    ones_like as ones_like,
    ones_like_block as ones_like_block,
    permute_dimensions as permute_dimensions,
    pow as pow,
    random_uniform_like as random_uniform_like,
    random_uniform_like_block as random_uniform_like_block,
    remove_dimension as remove_dimension,
    remove_gradients as remove_gradients,
    remove_gradients_block as remove_gradients_block,
    rename_dimension as rename_dimension,
    replace_dimension as replace_dimension,
    slice as slice,
    slice_block as slice_block,
    solve as solve,
    sort as sort,
    sort_block as sort_block,
    split as split,
    split_block as split_block,
    split_keys as split_keys,
    std_over_properties as std_over_properties,
    std_over_properties_block as std_over_properties_block,
    std_over_samples as std_over_samples,
    std_over_samples_block as std_over_samples_block,
    subtract as subtract,
    sum_over_properties as sum_over_properties,
    sum_over_properties_block as sum_over_properties_block,
    sum_over_samples as sum_over_samples,
    sum_over_samples_block as sum_over_samples_block,
    unique_metadata as unique_metadata,
    unique_metadata_block as unique_metadata_block,
    var_over_properties as var_over_properties,
    var_over_properties_block as var_over_properties_block,
    var_over_samples as var_over_samples,
    var_over_samples_block as var_over_samples_block,
    zeros_like as zeros_like,
    zeros_like_block as zeros_like_block,
)

__all__ = [
    # types
    "Labels",
    "LabelsEntry",
    "TensorBlock",
    "TensorMap",
    # errors
    "MetatensorError",
    "NotEqualError",
    "TracedLabelsError",
    # operations
    "Move",
    "abs",
    "add",
    "allclose",
    "allclose_block",
    "allclose_block_raise",
    "allclose_raise",
    "append_dimension",
    "block_from_array",
    "cut_rows",
    "detach",
    "detach_block",
    "divide",
    "dot",
    "drop_blocks",
    "drop_empty_blocks",
    "empty_like",
    "empty_like_block",
    "equal",
    "equal_block",
    "equal_block_raise",
    "equal_metadata",
    "equal_metadata_block",
    "equal_metadata_block_raise",
    "equal_metadata_raise",
    "equal_raise",
    "filter_blocks",
    "insert_dimension",
    "is_contiguous",
    "is_contiguous_block",
    "join",
    "join_blocks",
    "lstsq",
    "make_contiguous",
    "make_contiguous_block",
    "map_rows",
    "mean_over_properties",
    "mean_over_properties_block",
    "mean_over_samples",
    "mean_over_samples_block",
    "move_rows",
    "multiply",
    "one_hot",
    "ones_like",
    "ones_like_block",
    "permute_dimensions",
    "pow",
    "random_uniform_like",
    "random_uniform_like_block",
    "remove_dimension",
    "remove_gradients",
    "remove_gradients_block",
    "rename_dimension",
    "replace_dimension",
    "slice",
    "slice_block",
    "solve",
    "sort",
    "sort_block",
    "split",
    "split_block",
    "split_keys",
    "std_over_properties",
    "std_over_properties_block",
    "std_over_samples",
    "std_over_samples_block",
    "subtract",
    "sum_over_properties",
    "sum_over_properties_block",
    "sum_over_samples",
    "sum_over_samples_block",
    "unique_metadata",
    "unique_metadata_block",
    "var_over_properties",
    "var_over_properties_block",
    "var_over_samples",
    "var_over_samples_block",
    "zeros_like",
    "zeros_like_block",
    # gradients
    "GradientCheck",
    "GradientReport",
    "check_gradients",
    "compute_gradients",
    "connect_gradients",
    # batches
    "Folded",
    "Layout",
    "PaddedBatch",
    "StackedMap",
    "Store",
    "StoreOnDevice",
    "StoreWriter",
    "stack_blocks",
    # files
    "load",
    "load_block",
    "load_block_mmap",
    "load_labels",
    "load_mmap",
    "save",
    # what goes on
    "clear_caches",
    "explain_retrace",
    # modules; `learn` is imported by its name, as it needs Equinox
    "autodiff",
    "interop",
    "io",
    "layout",
    "o3",
    "operations",
    "sharding",
]

# reprs, tracebacks and pickles name the place where users find the classes
for _name in __all__:
    if isinstance(globals()[_name], type):
        globals()[_name].__module__ = __name__


_warn_of_wrong_results()


def __dir__() -> list[str]:
    # `learn` is there once it is imported
    learn = ["learn"] if "learn" in globals() else []
    return [*__all__, *learn, "__version__"]
