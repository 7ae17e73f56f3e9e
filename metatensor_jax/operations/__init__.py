"""The operations on maps and blocks. One file per family."""

from .._types.errors import NotEqualError as NotEqualError
from . import keys as _keys  # noqa: F401 - methods of TensorMap
from .arithmetic import (
    abs as abs,
    add as add,
    divide as divide,
    multiply as multiply,
    pow as pow,
    subtract as subtract,
)
from .comparison import (
    allclose as allclose,
    allclose_block as allclose_block,
    allclose_block_raise as allclose_block_raise,
    allclose_raise as allclose_raise,
    equal as equal,
    equal_block as equal_block,
    equal_block_raise as equal_block_raise,
    equal_metadata as equal_metadata,
    equal_metadata_block as equal_metadata_block,
    equal_metadata_block_raise as equal_metadata_block_raise,
    equal_metadata_raise as equal_metadata_raise,
    equal_raise as equal_raise,
)
from .creation import (
    block_from_array as block_from_array,
    detach as detach,
    detach_block as detach_block,
    empty_like as empty_like,
    empty_like_block as empty_like_block,
    is_contiguous as is_contiguous,
    is_contiguous_block as is_contiguous_block,
    make_contiguous as make_contiguous,
    make_contiguous_block as make_contiguous_block,
    one_hot as one_hot,
    ones_like as ones_like,
    ones_like_block as ones_like_block,
    random_uniform_like as random_uniform_like,
    random_uniform_like_block as random_uniform_like_block,
    remove_gradients as remove_gradients,
    remove_gradients_block as remove_gradients_block,
    zeros_like as zeros_like,
    zeros_like_block as zeros_like_block,
)
from .dimensions import (
    append_dimension as append_dimension,
    insert_dimension as insert_dimension,
    permute_dimensions as permute_dimensions,
    remove_dimension as remove_dimension,
    rename_dimension as rename_dimension,
    replace_dimension as replace_dimension,
)
from .joining import join as join, join_blocks as join_blocks
from .linear_algebra import dot as dot, lstsq as lstsq, solve as solve
from .over_properties import (
    mean_over_properties as mean_over_properties,
    mean_over_properties_block as mean_over_properties_block,
    std_over_properties as std_over_properties,
    std_over_properties_block as std_over_properties_block,
    sum_over_properties as sum_over_properties,
    sum_over_properties_block as sum_over_properties_block,
    var_over_properties as var_over_properties,
    var_over_properties_block as var_over_properties_block,
)
from .over_samples import (
    mean_over_samples as mean_over_samples,
    mean_over_samples_block as mean_over_samples_block,
    std_over_samples as std_over_samples,
    std_over_samples_block as std_over_samples_block,
    sum_over_samples as sum_over_samples,
    sum_over_samples_block as sum_over_samples_block,
    var_over_samples as var_over_samples,
    var_over_samples_block as var_over_samples_block,
)
from .rows import (
    Move as Move,
    cut_rows as cut_rows,
    map_rows as map_rows,
    move_rows as move_rows,
)
from .selection import (
    drop_blocks as drop_blocks,
    drop_empty_blocks as drop_empty_blocks,
    filter_blocks as filter_blocks,
    slice as slice,
    slice_block as slice_block,
    split as split,
    split_block as split_block,
    split_keys as split_keys,
)
from .sorting import (
    sort as sort,
    sort_block as sort_block,
    unique_metadata as unique_metadata,
    unique_metadata_block as unique_metadata_block,
)
