"""What a run folder says of itself: ``experiment.json``, and whether this version of serkit understands it."""

import json
from dataclasses import fields
from importlib.metadata import version
from pathlib import Path

from serkit.errors import ParameterError, RunError
from serkit.experiment import Experiment, show_path


def read_record(folder):
    """What ``experiment.json`` of a run folder says.

    Returns
    -------
    dict
        ``key``, ``parameters``, versions, machine, and the names of all folds of the protocol.

    Raises
    ------
    RunError
        If it is not there or can't be read.
    """
    path = Path(folder) / "experiment.json"
    try:
        record = dict(json.loads(path.read_text()))
        return record | {"parameters": dict(record.get("parameters", {}))}
    except FileNotFoundError:
        raise RunError(
            f"{show_path(path)} is missing; run `serkit reproduce`, or copy the folder again"
        ) from None
    except (OSError, ValueError, TypeError) as error:
        raise RunError(f"{show_path(path)} can't be read ({error}); delete that folder") from error


def read_experiment(folder):
    """The experiment that a run folder holds.

    Returns
    -------
    Experiment

    Raises
    ------
    RunError
        If its record can't be read, or has other parameters than this version of serkit knows.
    """
    record = read_record(folder)
    parameters = record["parameters"]
    other = other_version(record)
    try:
        if not other:
            return Experiment(**parameters)
    except (ParameterError, TypeError) as error:
        other = f": {error}"
    raise RunError(f"{show_path(folder)} was made by another version of serkit{other}; read it with that one")


def other_version(record, lenient=False):
    """In what the parameters of a record are not those of this version.

    Parameters
    ----------
    record : dict
        From :func:`read_record`.
    lenient : bool
        Whether a parameter may be missing: an older version hadn't it, its results can still be reported.

    Returns
    -------
    str
        To be put into a sentence; empty if all parameters are known.
    """
    known, given = [field.name for field in fields(Experiment)], record["parameters"]
    unknown = [name for name in given if name not in known]
    missing = [] if lenient else [name for name in known if name not in given]
    if not unknown + missing:
        return ""
    what = f"parameter {unknown[0]!r} is unknown" if unknown else f"parameter {missing[0]!r} is missing"
    made_by = dict(record.get("versions") or {}).get("serkit", "no version")
    return f" ({made_by} recorded, {version('serkit')} here): {what}"
