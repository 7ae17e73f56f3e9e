"""Labelled, block-sparse tensors with stored gradients, for JAX."""

from . import io as io, keys as keys
from ._types import pytrees as pytrees
from ._types.block import TensorBlock as TensorBlock
from ._types.entry import LabelsEntry as LabelsEntry
from ._types.errors import (
    MetatensorError as MetatensorError,
    NotEqualError as NotEqualError,
    TracedLabelsError as TracedLabelsError,
)
from ._types.labels import Labels as Labels
from ._types.tensor import TensorMap as TensorMap
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
    load_labels as load_labels,
    save as save,
)
from .layout import Layout as Layout, PaddedBatch as PaddedBatch
from .layout._stacked import StackedMap as StackedMap, stack_blocks as stack_blocks
from .operations import (
    abs as abs,
    add as add,
    allclose as allclose,
    allclose_block as allclose_block,
    allclose_block_raise as allclose_block_raise,
    allclose_raise as allclose_raise,
    append_dimension as append_dimension,
    block_from_array as block_from_array,
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
    mean_over_properties as mean_over_properties,
    mean_over_properties_block as mean_over_properties_block,
    mean_over_samples as mean_over_samples,
    mean_over_samples_block as mean_over_samples_block,
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
    slice as slice,
    slice_block as slice_block,
    solve as solve,
    sort as sort,
    sort_block as sort_block,
    split as split,
    split_block as split_block,
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
from .rows import Move as Move, map_rows as map_rows, move_rows as move_rows

_warn_of_wrong_results()
