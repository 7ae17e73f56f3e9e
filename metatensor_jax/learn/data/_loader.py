"""DataLoader: the batches of an epoch, loaded ahead by Grain."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from ..._types.errors import MetatensorError
from ..._types.tensor import TensorMap
from ...layout import Layout, Store
from ._collate import group_and_join
from ._plan import Plan


class DataLoader:
    """The batches of a data set, epoch after epoch. Needs the extra ``data`` (Grain).

    Each ``for batch in loader`` is an epoch, the next one, also if the one before was
    left by ``break``; ``loader(epoch)`` is the one of this number. A batch is loaded as
    a whole, ahead of the step that needs it, by a thread or by other processes. The
    order of systems depends on the seed and the epoch alone, so that a run can go on
    where it was: see :meth:`state`.

    :param dataset: a :class:`~metatensor_jax.Store`, whose batches are gathered and
        padded; or a :class:`Dataset` (or any sequence), whose samples are joined
    :param collate_fn: makes a batch of a list of samples, of data sets that are no
        store
    :param layout: of padded batches. If None, those of a store have room for the
        largest systems; with a budget, for the batches of the first epoch, and
        ``grow`` is on. Other batches are not padded then.
    :param batch_size: how many systems a batch has (at most)
    :param shuffle: in another order in each epoch
    :param seed: of the order
    :param drop_last: leave out a last batch with fewer systems (with a budget: batches
        that are not full at the end)
    :param budget: how much a batch has at most of what ``sizes`` counts
    :param sizes: the size of each system; or the name of a map of the store, whose rows
        are counted: the number of atoms, if it has a row for each
    :param shard: this process, and how many there are: each has its share of the
        batches, ``(jax.process_index(), jax.process_count())``
    :param grow: batches that the layout has no room for get a larger layout, which
        means one more compilation: ``loader.n_grown`` counts them. Otherwise they
        raise.
    :param fold: give :class:`~metatensor_jax.Folded` batches of a store
    :param prefetch: how many batches are loaded ahead
    :param num_workers: so many processes load them, rather than a thread; only data
        that have to be read or computed are worth that
    :raises MetatensorError: options that do not fit together

    >>> import metatensor_jax as mts
    >>> samples = mts.Labels.range("system", 5)
    >>> block = mts.TensorBlock(
    ...     np.arange(5.0).reshape(5, 1), samples, [], mts.Labels.range("energy", 1)
    ... )
    >>> store = Store.from_maps(TensorMap(mts.Labels.single(), [block]))
    >>> loader = DataLoader(store, batch_size=2)
    >>> [batch.systems.tolist() for batch in loader][:2]
    [[0, 1], [2, 3]]
    >>> len(loader), loader.state()["epoch"], loader.state()["step"]
    (3, 1, 0)
    """

    def __init__(
        self,
        dataset: Store | Sequence[Any],
        collate_fn: Callable[[list[Any]], Any] = group_and_join,
        *,
        layout: Layout | None = None,
        batch_size: int = 1,
        shuffle: bool = False,
        seed: int = 0,
        drop_last: bool = False,
        budget: int | None = None,
        sizes: str | Sequence[int] | np.ndarray | None = None,
        shard: tuple[int, int] = (0, 1),
        grow: bool = False,
        fold: bool = False,
        prefetch: int = 2,
        num_workers: int = 0,
    ) -> None:
        _grain()
        is_store = isinstance(dataset, Store)
        if is_store and collate_fn is not group_and_join:
            raise MetatensorError("a store makes batches itself: give no `collate_fn`")
        if not is_store and (grow or fold or isinstance(sizes, str)):
            raise MetatensorError(
                "`grow`, `fold` and `sizes` by the name of a map are for a Store, not "
                f"for a {type(dataset).__name__}"
            )
        if isinstance(dataset, Store) and isinstance(sizes, str):
            sizes = dataset.counts(sizes)
        self._dataset, self._collate = dataset, collate_fn
        self._plan = Plan(
            len(dataset), batch_size, shuffle, seed, drop_last, budget, sizes, shard
        )
        self._grows, self._folds = grow, fold
        self._prefetch, self._workers = prefetch, num_workers
        self._epoch = self._step = self._n_grown = self._grown_until = 0
        self._goes_on = False  # in the middle of an epoch
        if layout is None and isinstance(dataset, Store):
            layout, self._grows = self._own_layout(dataset), grow or budget is not None
        self._layout = layout

    def _own_layout(self, store: Store) -> Layout:
        n = min(self._plan.batch_size, max(len(store), 1))
        if self._plan.budget is None:
            return store.layout(n)
        # other batches are a little larger
        batches = self._plan.all_batches(0)  # so that all processes have the same
        return store.layout(n, batches=batches, headroom=1.1)

    # --- where it is ---------------------------------------------------------------

    @property
    def layout(self) -> Layout | None:
        """Of its batches."""
        return self._layout

    @property
    def n_grown(self) -> int:
        """How often the layout became larger: so many times more, programs compile."""
        return self._n_grown

    def state(self) -> dict[str, int | bool | None]:
        """Which batch comes next: plain values, to be saved with a model.

        It is the one that follows the last batch that was given, by the ``for`` that
        began last.
        """
        return {"epoch": self._epoch, "step": self._step, **self._identity()}

    def _identity(self) -> dict[str, int | bool | None]:
        """What the batches follow from, besides the epoch."""
        plan = self._plan
        return {
            "n_systems": plan.n_systems,
            "batch_size": plan.batch_size,
            "shuffle": plan.shuffle,
            "seed": plan.seed,
            "drop_last": plan.drop_last,
            "budget": plan.budget,
            "n_shards": plan.shard[1],
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on with the batch that comes next by :meth:`state`, in the next ``for``.

        :raises MetatensorError: the state of a loader with other batches
        """
        for name, mine in self._identity().items():
            if name not in state or state[name] != mine:
                raise MetatensorError(
                    f"this is the state of a loader with other batches: its {name} was "
                    f"{state.get(name)}, that of this one is {mine}"
                )
        epoch, step = int(state["epoch"]), int(state["step"])
        n_batches = len(self._plan.batches(epoch))
        if not 0 <= step <= n_batches:
            raise MetatensorError(
                f"the state is at batch {step}, but an epoch has {n_batches}"
            )
        for before in range(self._grown_until, epoch):  # as it would have grown
            self._make_room(before)
        self._epoch, self._step, self._goes_on = epoch, step, True

    def __len__(self) -> int:
        """How many batches the next ``for`` gives."""
        return len(self._plan.batches(self._epoch)) - self._step * self._goes_on

    # --- batches -------------------------------------------------------------------

    def __iter__(self) -> Iterator[Any]:
        """The next epoch; what is left of it after :meth:`restore`."""
        if not self._goes_on:
            self._epoch, self._step = self._epoch + (self._step > 0), 0
        self._goes_on = False
        return self._batches(self._epoch, self._step)

    def __call__(self, epoch: int) -> Iterator[Any]:
        """The batches of an epoch by its number, as ``learn.fit`` asks for them."""
        self._epoch, self._step, self._goes_on = epoch, 0, False
        return self._batches(epoch, 0)

    def _batches(self, epoch: int, step: int) -> Iterator[Any]:
        self._make_room(epoch)
        batches = self._plan.batches(epoch)
        loaded = self._loaded(batches[step:])

        def give() -> Iterator[Any]:
            for number, batch in enumerate(loaded, step + 1):
                # before it is given, so that a state that is saved then fits
                self._epoch, self._step = epoch, number
                yield batch
            self._epoch, self._step = epoch + 1, 0

        return give()

    def _make_room(self, epoch: int) -> None:
        """For the batches of an epoch, those of all processes, if that is asked for."""
        if not (self._grows and isinstance(self._dataset, Store)):
            return
        layout: Any = self._layout
        needed = self._dataset.layout(
            layout.systems,
            buckets=layout.fractions,
            batches=self._plan.all_batches(epoch),
        )
        grown = layout.union(needed.select(list(layout.rooms)))
        self._grown_until = max(self._grown_until, epoch + 1)
        if grown != layout:
            self._layout, self._n_grown = grown, self._n_grown + 1

    def _loaded(self, batches: Sequence[np.ndarray]) -> Iterator[Any]:
        grain = _grain()
        if not batches:
            return iter(())
        load = _Load(self._dataset, self._collate, self._layout, self._folds)
        ahead = max(self._prefetch, 1)
        options = grain.ReadOptions(num_threads=1, prefetch_buffer_size=ahead)
        data = grain.MapDataset.source(list(batches)).map(load)
        data = data.to_iter_dataset(options)
        if self._workers:
            _read_flags()
            processes = grain.MultiprocessingOptions(self._workers, ahead)
            data = data.mp_prefetch(processes)
        return iter(data)

    def overhead(self) -> float:
        """Padded rows over real rows, in the mean over the batches of this epoch.

        :raises MetatensorError: a data set that is no store
        """
        if not isinstance(self._dataset, Store) or self._layout is None:
            raise MetatensorError("padding is known of a Store alone")
        batches = self._plan.batches(self._epoch)
        return self._dataset.overhead(self._layout, batches)

    def __repr__(self) -> str:
        batches = self._plan.batches(self._epoch)
        text = (
            f"DataLoader of {self._plan.n_systems} systems: {len(batches)} batches of "
            f"at most {self._plan.batch_size}, {self._plan.fill(batches):.0%} full"
        )
        if isinstance(self._dataset, Store) and batches:
            text += f", {self.overhead():.2f} padded rows for each real one"
        return text


class _Load:
    """Makes the batch of some systems; it can be sent to other processes."""

    def __init__(
        self, dataset: Any, collate: Any, layout: Layout | None, folds: bool
    ) -> None:
        self._dataset, self._collate = dataset, collate
        self._layout, self._folds = layout, folds

    def __call__(self, indices: np.ndarray) -> Any:
        if isinstance(self._dataset, Store):
            kind = self._dataset.folded if self._folds else self._dataset.batch
            return kind(indices, self._layout)
        batch = self._collate([self._dataset[int(i)] for i in indices])
        return batch if self._layout is None else self._layout.pad(_maps_of(batch))


def _maps_of(batch: Any) -> Any:
    if isinstance(batch, (TensorMap, Mapping)):
        return batch
    return dict(zip(batch._fields, batch, strict=True))


def _read_flags() -> None:
    """Grain reads flags of Abseil, which has to be told that there are none."""
    from absl import flags

    if not flags.FLAGS.is_parsed():
        flags.FLAGS.mark_as_parsed()


def _grain() -> Any:
    try:
        import grain
    except ImportError as error:
        raise ImportError(
            "loading data ahead needs Grain: `pip install metatensor-jax[data]`"
        ) from error
    return grain
