"""The exceptions of metatensor_jax: one base class, and each is one of Python's own."""

from __future__ import annotations


class MetatensorError(ValueError):
    """Labels, blocks or maps do not fit together: the base of all errors here.

    :param message: what is wrong, with the values on both sides
    :param status: kept for code that was written for metatensor; unused here
    """

    def __init__(self, message: str, status: int | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.status = status


class TracedLabelsError(MetatensorError, TypeError):
    """Something needs the values of labels that are only known inside a program.

    Traced labels are data: their values may differ at each call of a compiled
    function. What depends on these values belongs before the labels are traced.
    """

    def __init__(self, what: str, names: tuple[str, ...] | list[str]) -> None:
        super().__init__(
            f"{what} needs the values of the labels [{', '.join(names)}], but these "
            "are traced (they are an array inside the program, not host metadata). "
            "Do this step before the labels are traced (before padding, and outside "
            "of `jax.jit`), or make them static with "
            "`Labels(labels.names, numpy.asarray(labels.values))`."
        )


class NotEqualError(MetatensorError):
    """Two objects are not equal; the message says where they first differ."""
