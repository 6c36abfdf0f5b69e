"""Every mistake a user can make ends in one of these, with one message.

A message says what it is about (id, or argument = value with unit), what was expected,
and how to mend it.
"""

from numbers import Integral, Real


class SerkitError(Exception):
    """Base of all errors that serkit raises on purpose."""

    def _render_traceback_(self):
        # IPython and Jupyter call this instead of printing a traceback: in a notebook the
        # message is what helps, the stack of library frames is what hides it.
        return [f"{type(self).__name__}: {self}"]


class ParameterError(SerkitError):
    """An argument is outside what the function or notebook can work with."""


class CorpusError(SerkitError):
    """A corpus is missing, incomplete, or not what it claims to be."""


class AudioError(SerkitError):
    """A sound file or waveform can't be used."""


class StoreError(SerkitError):
    """A feature store is incomplete, damaged, or belongs to other data."""


class FoldError(SerkitError):
    """Folds that can't be built, or that leak speakers from train to test."""


class WeightsError(SerkitError):
    """Pretrained or saved weights are missing or do not fit."""


class RunError(SerkitError):
    """A run folder, experiment or notebook run that can't be used or continued."""


def check_choice(name, value, choices):
    """Refuse an argument that is none of its choices, naming them."""
    if value not in choices:
        expected = ", ".join(map(repr if "" in choices else str, choices))
        raise ParameterError(f"{name}={value!r}, expected one of {expected}")


def check_range(name, value, low, high, *, whole=False):
    """Refuse an argument that is no number from ``low`` to ``high``; with ``whole``, no whole number."""
    kind, expected = (Integral, "a whole number") if whole else (Real, "a number")
    if isinstance(value, bool) or not isinstance(value, kind) or not low <= value <= high:
        raise ParameterError(f"{name}={value!r}, expected {expected} from {low} to {high}")
