"""Every mistake a user can make ends in one of these, with one message.

A message says what it is about (id, or argument = value with unit), what was expected,
and how to mend it.
"""

import dis
import json
import re
import sys
from collections.abc import Hashable
from contextlib import contextmanager, suppress
from difflib import get_close_matches
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


def shown(value):
    """A value as a message quotes it: numbers bare, texts in quotes, at most 60 characters.

    >>> shown("0.5"), shown("half"), shown(10**5000)
    ('0.5', "'half'", 'a value of type int')
    """
    text = f"a value of type {type(value).__name__}"
    with suppress(TypeError, ValueError, OverflowError, RecursionError):
        text = repr(value)  # fails for thousands of digits or levels
        float(value)
        text = str(value)  # a number, perhaps given as text
    return text if len(text) <= 60 else f"{text[:57]}..."


def meant(given, known, lead="; "):
    """The end of a message: which of the known words may have been meant; empty if none is near."""
    near = get_close_matches(shown(given).strip("'"), list(map(str, known)), n=1)
    return f"{lead}did you mean {near[0]!r}?" if near else ""


@contextmanager
def reported_as(kind, about, cure, causes=Exception):
    """Report an error of a library as one of ours: what it is about, the reason in brackets, and how to mend it.

    Parameters
    ----------
    kind : type
        The error to raise; one that is of this kind already passes as it is.
    about, cure : str
        Beginning and end of its message.
    causes : type or tuple of types
        Which errors are meant.

    Examples
    --------
    >>> with reported_as(ParameterError, "seeds.txt: can't be read", "write one number", ValueError):
    ...     int("one")
    Traceback (most recent call last):
        ...
    serkit.errors.ParameterError: seeds.txt: can't be read (invalid literal for int() with base 10: 'one'); write one number
    """
    try:
        yield
    except kind:
        raise
    except causes as error:
        raise kind(f"{about} ({reason_of(error)}); {cure}") from error


def reason_of(error):
    """What an error says in one line: its first, unless that is only a heading.

    >>> reason_of(KeyError("scaler")), reason_of(RuntimeError("Errors in loading:\\n  size mismatch"))
    ("'scaler' is missing", 'size mismatch')
    """
    if isinstance(error, KeyError):
        return f"{error} is missing"
    # the plain reason of an OSError or of libsndfile, whose texts repeat the path
    text = getattr(error, "strerror", None) or getattr(error, "error_string", None) or str(error)
    lines = [line.strip() for line in text.splitlines() if line.strip()] or [type(error).__name__]
    return next((line for line in lines if not line.endswith(":")), lines[0]).rstrip(".")[:200]


def check_choice(name, value, choices):
    """Refuse an argument that is none of its choices, naming them."""
    if not isinstance(value, Hashable) or value not in list(choices):  # an array can't be looked up
        expected = ", ".join(map(repr if "" in choices else str, choices))
        raise ParameterError(f"{name}={shown(value)}, expected one of {expected}{meant(value, choices)}")


def check_range(name, value, low, high, *, whole=False):
    """Refuse an argument that is no number from ``low`` to ``high``; with ``whole``, no whole number."""
    kind, expected = (Integral, "a whole number") if whole else (Real, "a number")
    if isinstance(value, bool) or not isinstance(value, kind) or not low <= value <= high:
        raise ParameterError(f"{name}={shown(value)}, expected {expected} from {low} to {high}")


class Stopped(KeyboardInterrupt):
    """A training that was asked to stop, and what of it is kept; a notebook shows this sentence alone."""

    def _render_traceback_(self):
        return [str(self)]


_STEPPED = []  # path of the notebook that this kernel runs


def explain_names(notebook):
    """From now on a NameError in a cell of ``notebook`` is followed by which cell makes that name; only in Jupyter."""
    shell = sys.modules["IPython"].get_ipython() if "IPython" in sys.modules else None
    if shell is not None:
        _STEPPED[:] = [notebook]
        if _explain not in shell.events.callbacks["post_run_cell"]:
            shell.events.register("post_run_cell", _explain)


def where_made(name, notebook):
    """Which cell of a notebook has to run before ``name`` can be used, in a sentence."""
    number, heading = 0, "the title"
    try:
        for cell in json.loads(notebook.read_text(encoding="utf-8"))["cells"]:
            source, is_code = "".join(cell["source"]), cell["cell_type"] == "code"
            headings = [] if is_code else re.findall(r"^#+ (.*)", source, re.MULTILINE)
            heading, number = f"'{headings[-1]}'" if headings else heading, number + is_code
            if is_code and _makes(source, name):
                cure = "run that cell first, or all above this one (menu Run, Run All Above Selected Cell)"
                return f"'{name}' is made by code cell {number}, under {heading}: {cure}"
    except (OSError, ValueError, KeyError):
        return f"'{name}' is made by a cell that has not run: run all above this one first"
    return f"'{name}' is made by no cell of this notebook: check how it is written"


def _makes(source, name):
    with suppress(SyntaxError):  # a line for the shell
        return ("STORE_NAME", name) in ((step.opname, step.argval) for step in dis.get_instructions(source))
    return False


def _explain(result):
    if isinstance(result.error_in_exec, NameError) and result.error_in_exec.name:
        print(where_made(result.error_in_exec.name, *_STEPPED))
