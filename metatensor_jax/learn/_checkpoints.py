"""Checkpoints: a folder with the last states of a training run, and the best one."""

from __future__ import annotations

import operator
import re
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal, NamedTuple

from .._types.errors import MetatensorError
from ..io._atomic import AnyPath, as_path
from ._saving import load, save

_NAME = re.compile(r"step-(\d{8,})(?:-metric-(\S+))?\.mjm")


class Restored(NamedTuple):
    """A checkpoint that was read.

    :param step: the number that it was saved with
    :param tree: what was saved
    :param metric: how good it is, if that was said
    """

    step: int
    tree: Any
    metric: float | None


class Checkpoints:
    """The last states of a training run in a folder, and the best one.

    Each is a file of :func:`save`, so it is there as a whole or not at all, and says
    which labels it belongs to. Its name says the step and the metric: the folder alone
    is what is known.

    :param folder: made by the first :meth:`save`
    :param keep: so many of the last ones stay, older ones are removed
    :param best: whether the ``"min"`` or the ``"max"`` of the metric is best; the best
        one stays as well. None: no metric is looked at.
    :raises MetatensorError: ``keep`` less than 1, or another ``best``

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     checkpoints = Checkpoints(folder, keep=2, best="min")
    ...     for step, loss in enumerate([3.0, 1.0, 2.0, 4.0, 5.0]):
    ...         checkpoints.save(step, {"weight": np.full(2, loss)}, metric=loss)
    ...     like = {"weight": np.zeros(2)}
    ...     steps = checkpoints.steps
    ...     last, best = checkpoints.latest(like), checkpoints.best(like)
    >>> steps, last.step, best.step, best.tree
    ([1, 3, 4], 4, 1, {'weight': array([1., 1.])})
    """

    def __init__(
        self,
        folder: AnyPath,
        *,
        keep: int = 3,
        best: Literal["min", "max"] | None = None,
    ) -> None:
        if keep < 1:
            raise MetatensorError(f"`keep` must be at least 1, not {keep}")
        if best not in ("min", "max", None):
            raise MetatensorError(f"`best` must be 'min', 'max' or None, not {best!r}")
        self.folder: Path = as_path(folder).absolute()
        self._keep, self._best = keep, best
        self._damaged: set[Path] = set()

    @property
    def steps(self) -> list[int]:
        """The steps that are there, in ascending order."""
        return [file.step for file in self._files()]

    def save(self, step: int, tree: Any, metric: float | None = None) -> None:
        """Save a state, and remove those that are not kept.

        The new file is complete, and on the disk, before others are removed.

        :param step: its number, after those that are there; the same one is replaced
        :param tree: what to go on from: model, state of the optimizer, position in the
            data; see :func:`save`
        :param metric: how good it is; without one, or with NaN, it is never the best
        :raises MetatensorError: a step before the last one, or a tree that can not be
            saved
        """
        step = operator.index(step)
        if step < 0:
            raise MetatensorError(f"`step` must not be negative, got {step}")
        files = self._readable()
        if files and files[-1].step > step:
            raise MetatensorError(
                f"step {step} comes before step {files[-1].step}, which is in "
                f"{str(self.folder)!r}: to go on from an earlier one, remove the files "
                "after it, or take another folder"
            )
        shown = "" if metric is None else f"-metric-{float(metric)!r}"
        path = self.folder / f"step-{step:08d}{shown}.mjm"
        self.folder.mkdir(parents=True, exist_ok=True)
        save(path, tree)
        self._damaged.discard(path)
        self._remove_others(path, step)

    def latest(self, like: Any) -> Restored | None:
        """The last one that can be read; None if there are none at all.

        Of one that is damaged, a warning says so, and the one before is taken.

        :param like: a tree of the same structure, see :func:`load`
        :raises MetatensorError: labels, names, shapes, dtypes that are others
        :raises ValueError: all are damaged
        """
        return self._first_readable(reversed(self._files()), like)

    def best(self, like: Any) -> Restored | None:
        """The best one that can be read; None if there is none with a metric.

        :param like: a tree of the same structure, see :func:`load`
        :raises MetatensorError: ``best`` was not given, or labels, names, shapes,
            dtypes that are others
        :raises ValueError: all are damaged
        """
        if self._best is None:
            raise MetatensorError(
                "these checkpoints do not know what is best: see `best=`"
            )
        return self._first_readable(self._from_best(self._files()), like)

    def restore(self, step: int, like: Any) -> Restored:
        """One of them.

        :param step: its number
        :param like: a tree of the same structure, see :func:`load`
        :raises MetatensorError: no such step, or labels, names, shapes, dtypes that are
            others
        :raises ValueError: it is damaged
        """
        for file in self._files():
            if file.step == step:
                return Restored(step, load(file.path, like), file.metric)
        raise MetatensorError(
            f"there is no step {step} in {str(self.folder)!r}, only {self.steps}"
        )

    # --- files ---------------------------------------------------------------------

    def _files(self) -> list[_File]:
        """In ascending order of steps."""
        if not self.folder.exists():
            return []
        return sorted(filter(None, map(_parsed, self.folder.iterdir())))

    def _readable(self) -> list[_File]:
        """All but those that were found to be damaged."""
        return [file for file in self._files() if file.path not in self._damaged]

    def _from_best(self, files: Iterable[_File]) -> list[_File]:
        """Those that have a metric, the best one first; the earlier one of two."""
        sign = -1 if self._best == "max" else 1
        rated = [(file, file.metric) for file in files]
        ranks = [(sign * x, file) for file, x in rated if x is not None and x == x]
        return [file for _, file in sorted(ranks)]

    def _first_readable(self, files: Iterable[_File], like: Any) -> Restored | None:
        damaged: list[ValueError] = []
        for file in files:
            try:
                return Restored(file.step, load(file.path, like), file.metric)
            except MetatensorError:
                raise
            except ValueError as error:
                warnings.warn(f"a checkpoint is damaged: {error}", stacklevel=3)
                self._damaged.add(file.path)
                damaged.append(error)
        if damaged:
            raise ValueError(
                f"no checkpoint in {str(self.folder)!r} can be read: to begin anew, "
                "take another folder, or remove them"
            ) from damaged[0]
        return None

    def _remove_others(self, new: Path, step: int) -> None:
        for file in self._files():
            if file.step == step and file.path != new:  # with another metric
                file.path.unlink(missing_ok=True)
        files = self._readable()
        best = [] if self._best is None else self._from_best(files)[:1]
        for file in files[: -self._keep]:
            if file not in best:
                file.path.unlink(missing_ok=True)


class _File(NamedTuple):
    step: int
    path: Path
    metric: float | None


def _parsed(path: Path) -> _File | None:
    """What a name says; None for other files."""
    found = _NAME.fullmatch(path.name)
    if found is None:
        return None
    try:
        metric = None if found[2] is None else float(found[2])
    except ValueError:
        return None
    return _File(int(found[1]), path, metric)
