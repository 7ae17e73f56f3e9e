"""How labels, blocks and maps look, as text, in notebooks and in other programs.

These functions need NumPy alone and know no class: they ask for what they show by its
name, so that every class can use them. ``text`` is what ``repr`` gives, ``html`` what
notebooks show (made of ``parts``, with the style sheet in ``style`` and the pictures of
``heat``), ``short`` is one line; ``arrays`` says what a leaf is.
"""

from .arrays import (
    describe as describe,
    describe_all as describe_all,
    kind as kind,
    leaf as leaf,
    n_bytes as n_bytes,
    on_host as on_host,
    shape as shape,
)
from .html import (
    block_html as block_html,
    labels_html as labels_html,
    tensor_body as tensor_body,
    tensor_html as tensor_html,
)
from .parts import folded as folded, note as note, page as page, table as table
from .scope import in_treescope as in_treescope
from .short import (
    short_block as short_block,
    short_labels as short_labels,
    short_tensor as short_tensor,
)
from .text import block as block, entry as entry, labels as labels, tensor as tensor
from .words import count as count, size as size
