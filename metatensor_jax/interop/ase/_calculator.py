"""An ASE calculator around a function from frames to energies."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from ase import Atoms
from ase.calculators import calculator as _ase

from ..._types.tensor import TensorMap
from ._frames import Frames
from ._results import results


class Calculator(_ase.Calculator):
    r"""Energy, forces and stress of a function that gives maps, for ASE.

    :math:`F = -\nabla_r E` and :math:`\sigma = \nabla_\varepsilon E / V`: forces are
    there if the map stores the gradient ``positions``, the stress (in Voigt's order) if
    it stores ``strain`` and the cell has a volume. ``free_energy`` is the energy, the
    one that these belong to.

    :param predict: takes a list with one frame, and gives its energy as a map, in eV:
        with one row, and stored gradients in eV/Å and eV. A :class:`Potential` and a
        :class:`FeaturePotential` do so, and are compiled once for all steps of
        dynamics.

    >>> import numpy as np
    >>> from ase.build import bulk
    >>> from ase.calculators.emt import EMT
    >>> from metatensor_jax.interop.ase import Calculator, energies
    >>> def predict(frames):  # any function from frames to energies
    ...     for frame in frames:
    ...         frame.calc = EMT()
    ...     return energies(frames, ["positions", "strain"])
    >>> copper = bulk("Cu")
    >>> copper.calc = Calculator(predict)
    >>> bool(np.isclose(copper.get_potential_energy(), -0.0057, atol=1e-4))
    True
    >>> copper.get_forces().shape, copper.get_stress().shape
    ((1, 3), (6,))
    """

    implemented_properties = ["energy", "free_energy", "forces", "stress"]  # noqa: RUF012

    def __init__(self, predict: Callable[[list[Atoms]], TensorMap]) -> None:
        super().__init__()
        self.predict = predict

    def calculate(
        self,
        atoms: Atoms | None = None,
        properties: Sequence[str] = ("energy",),
        system_changes: Sequence[str] = tuple(_ase.all_changes),
    ) -> None:
        """Compute all that the function gives; ASE calls this.

        :raises CalculationFailed: results that are not finite
        """
        super().calculate(atoms, properties, system_changes)
        assert self.atoms is not None, "give the structure, `atoms`"
        frame = self.atoms.copy()
        (found,) = results(Frames.some([frame]), self.predict([frame]))
        for name, value in found.items():
            _check_finite(frame, name, value)
        self.results = found


def _check_finite(frame: Atoms, name: str, value: Any) -> None:
    if not np.isfinite(value).all():
        raise _ase.CalculationFailed(
            f"the {name} of {frame.symbols} is not finite: {value}. Positions may have "
            "left what the function can do, or it may differentiate a gradient that is "
            "not stored"
        )
