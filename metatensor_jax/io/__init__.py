"""Files: loading and saving maps, blocks and labels in metatensor's ``.mts`` format."""

from ._mts import (
    load as load,
    load_block as load_block,
    load_block_buffer as load_block_buffer,
    load_block_mmap as load_block_mmap,
    load_buffer as load_buffer,
    load_labels as load_labels,
    load_labels_buffer as load_labels_buffer,
    load_mmap as load_mmap,
    save as save,
    save_buffer as save_buffer,
)

__all__ = [
    "load",
    "load_block",
    "load_block_buffer",
    "load_block_mmap",
    "load_buffer",
    "load_labels",
    "load_labels_buffer",
    "load_mmap",
    "save",
    "save_buffer",
]


def __dir__() -> list[str]:
    return __all__
