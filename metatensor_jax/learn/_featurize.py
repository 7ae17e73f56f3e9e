"""Features of many structures, computed in parts by whatever runs functions."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import (
    FIRST_COMPLETED,
    BrokenExecutor,
    Executor,
    Future,
    wait,
)
from itertools import islice
from typing import Any, Protocol

import numpy as np

from .._types.errors import MetatensorError
from .._types.foreign import metatensor_kind, type_of
from .._types.tensor import TensorMap
from ..io._atomic import AnyPath
from ..layout._capacity import ALONE
from ..operations.dimensions import replace_dimension
from ._parts import Manifest, Parts, begin

Features = Callable[[list[Any]], TensorMap | Mapping[str, TensorMap]]


class Frames(Protocol):
    """What has a length and an item for each index: a list, or a file that is open."""

    def __len__(self) -> int: ...
    def __getitem__(self, index: int, /) -> Any: ...


def featurize(
    frames: Frames,
    function: Features,
    path: AnyPath,
    executor: Executor | None = None,
    *,
    chunk: int = 64,
    parts: slice | Iterable[int] | None = None,
    settings: Any = None,
    system: str = "system",
    in_flight: int = 128,
    progress: bool = True,
) -> Parts:
    """Compute features of many structures in parts, each a file in a folder.

    Parts that are there are not computed again. So a call that was interrupted is
    simply repeated, several calls can share the work, and nothing is lost or there
    twice. Files appear whole or not at all.

    The systems that ``function`` numbers from 0 on are numbered as the frames are, in
    samples and in those of gradients.

    The folder keeps the number of frames, the chunk size and ``settings``: a call with
    others raises. It does not know the frames and the function themselves. If these
    change, choose another folder, or let ``settings`` tell them apart.

    :param frames: structures of any kind; each is read when its part is due, and sent
        to the worker that computes it
    :param function: from a list of frames to a map, or to a dict of maps by name, with
        the samples of frame ``i`` of the list in system ``i``. For workers that are
        processes, one that can be imported there: defined in a module.
    :param path: of the folder, which is made if need be. All workers write there.
    :param executor: any with the interface of ``concurrent.futures``: of processes,
        Dask, MPI; None: here, one part after the other
    :param chunk: so many frames are a part
    :param parts: compute these only, if they are not there: numbers, or a slice, such
        as ``slice(i, None, n)`` for worker ``i`` of ``n``; all of them if None
    :param settings: that the features depend on, such as hyperparameters, as JSON has
        them
    :param system: the sample dimension that tells structures apart
    :param in_flight: at most so many parts are handed to the executor at a time, which
        bounds the memory for their frames
    :param progress: show a bar
    :return: the parts, to be read
    :raises MetatensorError: no frames, other settings than those in the folder, or
        systems that are not those of the frames
    :raises TypeError: frames without a length, or a function that gives no maps
    :raises BrokenExecutor: a worker that died
    :raises Exception: whatever ``function`` raises, with a note that names the part
        and its frames. Parts that are computed then are finished, others not begun.

    >>> import tempfile
    >>> import metatensor_jax as mts
    >>> def size(frames):
    ...     samples = mts.Labels.range("system", len(frames))
    ...     values = np.array([[float(len(frame))] for frame in frames])
    ...     block = mts.TensorBlock(values, samples, [], mts.Labels.range("size", 1))
    ...     return mts.TensorMap(mts.Labels.single(), [block])
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     parts = featurize(
    ...         ["H2", "H2O", "CH4"], size, folder, chunk=2, progress=False
    ...     )
    ...     features = parts.load()
    >>> len(parts), features.block().samples.values[:, 0].tolist()
    (2, [0, 1, 2])
    """
    manifest = _checked(frames, chunk, system, settings, in_flight)
    chosen = _chosen(parts, manifest)
    folder = begin(path, manifest)
    todo = [number for number in chosen if folder._names(number) is None]

    def submit(number: int) -> Future[None]:
        own = [frames[i] for i in manifest.frames_of(number)]
        return runner.submit(_compute, function, own, number, folder)

    runner = _Here() if executor is None else executor
    at_once = 1 if executor is None else in_flight
    bar = _bar(len(chosen), len(chosen) - len(todo), progress)
    with bar:
        for _ in _completed(todo, submit, at_once, folder):
            bar.update()
    return folder


def _compute(function: Features, frames: list[Any], number: int, parts: Parts) -> None:
    """One part, by a worker."""
    manifest = parts._manifest
    result = function(frames)
    maps = {ALONE: result} if isinstance(result, TensorMap) else result
    if (
        not isinstance(maps, Mapping)
        or len(maps) == 0
        or not all(isinstance(x, TensorMap) for x in maps.values())
    ):
        given = list(maps.values()) if isinstance(maps, Mapping) else [maps]
        wrong = [x for x in given if metatensor_kind(x)] or [result]
        raise TypeError(
            "the function must give a TensorMap, or a dict of TensorMaps by name, not "
            f"{type_of(wrong[0])}"
        )
    if ALONE in maps and len(maps) > 1:
        raise MetatensorError(
            f"maps by name have names that are not empty, got {sorted(maps)}"
        )
    own = manifest.frames_of(number)
    numbered = {k: _numbered(x, manifest.system, own) for k, x in maps.items()}
    parts._write(number, numbered)


def _numbered(tensor: TensorMap, system: str, frames: range) -> TensorMap:
    """Systems 0 to n - 1 become those of the frames."""
    for block in tensor:
        if system not in block.samples.names:
            raise MetatensorError(
                f"the function gave samples with the dimensions {block.samples.names}, "
                f"without {system!r}: see `system=`"
            )
        for _, part in block._walk():
            if system not in part.samples.names:
                continue
            found = np.unique(part.samples.column(system))
            if len(found) and not 0 <= found[0] <= found[-1] < len(frames):
                raise MetatensorError(
                    f"the function was given {len(frames)} frames, and its samples "
                    f"have the systems {found[0]} to {found[-1]}: number them from 0 "
                    f"to {len(frames) - 1}"
                )
    return replace_dimension(tensor, "samples", system, dict(enumerate(frames)))


# --- the loop ------------------------------------------------------------------------


def _completed(
    todo: Sequence[int],
    submit: Callable[[int], Future[None]],
    at_once: int,
    parts: Parts,
) -> Iterator[int]:
    """The numbers of parts, as they are completed; never too many are running."""
    waiting, running = iter(todo), dict[Future[None], int]()
    number = -1
    try:
        while True:
            for number in islice(waiting, at_once - len(running)):
                running[submit(number)] = number
            if not running:
                return
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                number = running[future]
                future.result()
                del running[future]
                yield number
    except BrokenExecutor as error:
        raise _broken(sorted({number, *running.values()}), parts) from error
    except Exception as error:
        error.add_note(f"in {parts._manifest.in_words(number)} of {str(parts.path)!r}")
        raise
    finally:
        for future in running:
            future.cancel()


def _broken(numbers: Sequence[int], parts: Parts) -> BrokenExecutor:
    # it may have died when its part was complete
    left = [i for i in numbers if parts._names(i) is None] or list(numbers)
    which = f"one of the parts {', '.join(map(str, left[:6]))}" + (
        ", ..." if len(left) > 6 else ""
    )
    if len(left) == 1:
        which = parts._manifest.in_words(left[0])
    there = len(parts) - len(parts.missing)
    return BrokenExecutor(
        f"a worker died while it computed {which}; was it killed, for want of memory? "
        f"{there} of {len(parts)} parts are in {str(parts.path)!r}. The same call with "
        "a new executor goes on from there; with `in_flight=1`, it tells which part "
        "it is"
    )


class _Here(Executor):
    """Runs each function at once."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future:
        future: Future = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except Exception as error:
            future.set_exception(error)
        return future


def _bar(total: int, initial: int, progress: bool) -> Any:
    from tqdm.auto import tqdm

    return tqdm(total=total, initial=initial, unit="part", disable=not progress)


# --- checks --------------------------------------------------------------------------


def _checked(
    frames: Any, chunk: int, system: str, settings: Any, in_flight: int
) -> Manifest:
    if not hasattr(frames, "__len__") or not hasattr(frames, "__getitem__"):
        raise TypeError(
            f"`frames` must have a length and an item for each index, as lists do, "
            f"not be {type_of(frames)}"
        )
    if len(frames) == 0:
        raise MetatensorError("there are no frames to compute features of")
    for name, value in (("chunk", chunk), ("in_flight", in_flight)):
        if value < 1:
            raise MetatensorError(f"`{name}` must be at least 1, not {value}")
    return Manifest(len(frames), chunk, system, settings)


def _chosen(parts: slice | Iterable[int] | None, manifest: Manifest) -> Sequence[int]:
    numbers = range(manifest.n_parts)
    if parts is None:
        return numbers
    if isinstance(parts, slice):
        return numbers[parts]
    chosen = sorted(set(parts))
    if wrong := [i for i in chosen if i not in numbers]:
        raise MetatensorError(
            f"there are parts 0 to {len(numbers) - 1} of {manifest.frames} frames, "
            f"{manifest.chunk} in each; no part {wrong[0]}"
        )
    return chosen
