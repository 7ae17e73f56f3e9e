"""Scalars, vectors and matrices of frames as maps, Cartesian or spherical."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
from ase import Atoms
from numpy.typing import DTypeLike

from ..._types.block import TensorBlock
from ..._types.errors import MetatensorError
from ..._types.labels import Labels
from ..._types.tensor import TensorMap
from ._frames import Frames, Per, check_per, joined, real_dtype
from ._known import Missing, Wanted, read
from ._spherical import BASES, Irrep, to_spherical


def tensors(
    frames: Sequence[Atoms],
    name: str,
    rank: int,
    *,
    per: Per = "system",
    basis: Literal["cartesian", "spherical"] = "cartesian",
    symmetric: bool = True,
    property: str | None = None,
    missing: Missing = "raise",
    systems: Sequence[int] | None = None,
    dtype: DTypeLike = "float64",
) -> TensorMap:
    r"""Something that frames know: charges, dipoles, polarizabilities and the like.

    Units are those that the frames have: e·Å for dipoles of ASE, for example. The
    labels are those of metatrain's targets. With ``basis="cartesian"``, there is one
    block with the key ``_``, a property called as it is, and the components

    - none for scalars (``rank=0``),
    - ``xyz`` for vectors (``rank=1``),
    - ``xyz_1`` and ``xyz_2`` for matrices (``rank=2``).

    With ``basis="spherical"``, there is a block for each part that rotations do not
    mix, with the key (``o3_lambda``, ``o3_sigma``), the component ``o3_mu`` and the
    property ``n``:

    - scalars: (0, 1);
    - vectors: (1, 1), where ``o3_mu`` -1, 0, 1 are y, z, x;
    - matrices: (0, 1), the trace over :math:`\sqrt{3}`; (2, 1), the rest of the
      symmetric part, in the order xy, yz, 2zz - xx - yy, xz, xx - yy; and unless they
      are symmetric, (1, -1), the antisymmetric part as a pseudovector.

    The parts are orthonormal, so that a squared error is the same in both. Pseudo-
    tensors (of other behavior under inversion) are for ``basis="cartesian"`` alone.

    :param frames: the structures
    :param name: what the calculators, ``frame.info`` or ``frame.arrays`` call it
    :param rank: how many Cartesian indices it has: 0, 1 or 2
    :param per: ``"system"``: one for each frame, from ``info``; or ``"atom"``: one for
        each atom, from ``arrays``. Matrices may be flat, with nine components.
    :param basis: ``"cartesian"`` or ``"spherical"``
    :param symmetric: are matrices symmetric? If they are not, they have three spherical
        parts.
    :param property: the name of the property; by default ``name``, or in spherical maps
        ``n``
    :param missing: what to do with frames that lack it, and with values that are
        masked: ``"raise"``, or ``"nan"``, which fills in NaN
    :param systems: the numbers of the frames; 0, 1, ... if None
    :param dtype: of the values: one of real floating point numbers
    :raises MetatensorError: values that are missing, not finite, of another shape, or
        not the same in two places; another ``rank``, ``per`` or ``basis``; matrices
        that are not symmetric, but should be
    :raises TypeError: frames that are no list of ``ase.Atoms``; values, or a ``dtype``,
        that are no real numbers

    >>> from ase.build import molecule
    >>> water = molecule("H2O")
    >>> water.info["dipole"] = [0.1, 0.2, 0.3]
    >>> water.info["polarizability"] = np.diag([1.0, 2.0, 3.0])
    >>> tensors([water], "dipole", 1).block().values[0, :, 0].tolist()
    [0.1, 0.2, 0.3]
    >>> spherical = tensors([water], "polarizability", 2, basis="spherical")
    >>> spherical
    TensorMap with 2 blocks
        keys: [o3_lambda, o3_sigma]
        values: float64, NumPy
        blocks:
            0  1 => TensorBlock with shape (1, 1, 1)
            2  1 => TensorBlock with shape (1, 5, 1)
    >>> np.round(spherical.block(o3_lambda=2).values[0, :, 0], 3).tolist()
    [0.0, 0.0, 1.225, 0.0, -0.707]
    """
    numbered, dtype = Frames.of(frames, systems), real_dtype(dtype)
    check_per(per)
    if rank not in BASES:
        raise MetatensorError(f"`rank` must be one of {list(BASES)}, not {rank!r}")
    if basis not in ("cartesian", "spherical"):
        raise MetatensorError(
            f"`basis` must be 'cartesian' or 'spherical', not {basis!r}"
        )
    (column,) = read(numbered.frames, [Wanted(name, per, rank)], missing)
    if per == "atom":
        samples = numbered.atom_labels()
        values = joined(column, (3,) * rank, np.float64)
    else:
        samples = numbered.system_labels()
        values = np.array(column).reshape((-1, *((3,) * rank)))
    if basis == "cartesian":
        properties = Labels.range(property or name, 1)
        return _cartesian(values.astype(dtype), samples, properties)
    if rank == 2 and symmetric:
        _check_symmetric(name, values, samples)
    properties = Labels.range(property or "n", 1)
    irreps = [i for i in BASES[rank] if not (rank == 2 and symmetric and i[1] == -1)]
    return _spherical(values, samples, properties, irreps, dtype)


def _cartesian(values: np.ndarray, samples: Labels, properties: Labels) -> TensorMap:
    rank = values.ndim - 1
    names = ["xyz"] if rank == 1 else [f"xyz_{i + 1}" for i in range(rank)]
    components = [Labels.range(axis, 3) for axis in names]
    block = TensorBlock(values[..., None], samples, components, properties)
    return TensorMap(Labels.single(), [block])


def _spherical(
    values: np.ndarray,
    samples: Labels,
    properties: Labels,
    irreps: Sequence[Irrep],
    dtype: DTypeLike,
) -> TensorMap:
    blocks = []
    for irrep in irreps:
        o3_mu = Labels("o3_mu", np.arange(-irrep[0], irrep[0] + 1)[:, None])
        part = to_spherical(values, irrep).astype(dtype)
        blocks.append(TensorBlock(part[..., None], samples, [o3_mu], properties))
    return TensorMap(Labels(["o3_lambda", "o3_sigma"], irreps), blocks)


def _check_symmetric(name: str, values: np.ndarray, samples: Labels) -> None:
    difference = np.abs(values - values.swapaxes(1, 2)).max(axis=(1, 2), initial=0)
    size = np.abs(values).max(axis=(1, 2), initial=0)
    wrong = np.flatnonzero(difference > 1e-6 * size)
    if len(wrong):
        i = int(wrong[0])
        raise MetatensorError(
            f"'{name}' of {samples.entry(i).print()} is not symmetric: "
            f"{values[i].tolist()}. With symmetric=False, its antisymmetric part is "
            "kept as well, in a block of its own"
        )
