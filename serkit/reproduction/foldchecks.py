"""Whether what one run folder says of itself agrees: parameters, files, predictions, scores."""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from safetensors import SafetensorError, safe_open

from serkit import runs
from serkit.errors import RunError, SerkitError
from serkit.evaluation.predictions import check_predictions
from serkit.experiment import key_of
from serkit.metrics import pooled_and_fold_mean
from serkit.runs import FILES, MODEL, RESULTS, read_experiment, read_record, sha256_of, show_path

TOLERANCE = 1e-9  # of a score; sums may be taken in another order by another version of a library
RUN_FOLDER = 3  # levels of a run folder: variant, fold=..., seed=...


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at."""

    area: str  # what it belongs to: experiments, files, predictions, scores, ...
    subject: str  # which fold, file or figure
    fault: str = ""  # what does not follow
    unknown: str = ""  # why it can't be told
    note: str = ""  # what a reader may want to know


def check_fold(folder):
    """Look at everything in one finished run folder.

    Parameters
    ----------
    folder : path

    Returns
    -------
    findings : list of Finding
    predictions : pd.DataFrame or None
        Its prediction table, if that can be averaged.
    """
    folder = Path(folder)
    subject = "/".join(folder.parts[-RUN_FOLDER:])
    findings = [*_check_experiment(folder, subject), *_check_files(folder, subject)]
    try:
        predictions = _checked_predictions(folder)
        findings.append(Finding("predictions", subject))
    except SerkitError as error:
        return [*findings, Finding("predictions", subject, fault=str(error))], None
    return [*findings, *_check_scores(folder, subject, predictions)], predictions


def _check_experiment(folder, subject):
    """The key follows from the parameters, the folder's name and the model's record from them too."""
    try:
        record = read_record(folder)
    except RunError as error:
        return [Finding("experiments", subject, fault=str(error))]
    parameters, done = record["parameters"], _text(folder / runs.DONE)
    faults = []
    if record.get("key") != key_of(parameters):
        faults.append(
            f"experiment.json: key {record.get('key')}, its parameters give {key_of(parameters)}; one of them was edited"
        )
    elif done != record["key"]:
        faults.append(f"{runs.DONE} was written for key {done}, experiment.json has key {record['key']}")
    trained = _json(folder / "model" / "features.json").get("experiment")
    if trained != parameters:
        given = trained or {}
        name = next(
            (name for name in [*parameters, *given] if given.get(name) != parameters.get(name)), "nothing"
        )
        faults.append(
            f"model/features.json: {name}={given.get(name)!r}, experiment.json {parameters.get(name)!r}: another model"
        )
    try:
        experiment = read_experiment(folder)
        expected = experiment.folder("run").parts[-RUN_FOLDER:]
        if folder.parts[-RUN_FOLDER:] != expected:
            faults.append(f"experiment.json belongs into a folder {'/'.join(expected)}")
    except RunError as error:
        return [*_faults("experiments", subject, faults), Finding("experiments", subject, unknown=str(error))]
    return _faults("experiments", subject, faults) or [Finding("experiments", subject)]


def _check_files(folder, subject):
    """Every file has the bytes that were recorded; weights are whole even where nothing was recorded."""
    weights = folder / "model" / "model.safetensors"
    faults, found = {}, [Finding("files", subject)]
    if not (folder / FILES).exists():
        unknown = f"no {FILES}: made by a version that didn't record the SHA-256 of its files"
        found = [Finding("files", subject, unknown=unknown)]
    else:
        try:
            faults = {name: fault for name, fault in check_inventory(folder).items() if fault}
        except RunError as error:
            return [Finding("files", subject, fault=str(error))]
    if "model/model.safetensors" not in faults:
        try:
            with safe_open(weights, framework="np"):  # reads the header, compares it with the file's length
                pass
        except (OSError, SafetensorError) as error:
            faults["model/model.safetensors"] = f"can't be opened ({error})"
    sources = _json(folder / "model" / "config.json").get("sources")
    if sources != _json(folder / "metrics.json").get("weights"):
        faults["metrics.json"] = faults.get(
            "metrics.json", "names other pretrained weights than model/config.json"
        )
    texts = [f"{name}: {fault}" for name, fault in sorted(faults.items())]
    return _faults("files", subject, texts) or found


def _checked_predictions(folder):
    """The prediction table of a run folder, which must be of that folder and fit to be averaged."""
    table = runs.read_predictions(folder)
    variant, fold, seed = place_of(folder)
    for column, value in (("variant", variant), ("fold", fold), ("seed", seed)):
        others = [each for each in table.get(column, pd.Series(dtype=str)).map(str).unique() if each != value]
        if others:
            raise RunError(
                f"predictions.parquet: rows with {column}={others[0]}, expected {value}; copied from elsewhere?"
            )
    return check_predictions(table, [fold])


def _check_scores(folder, subject, predictions):
    """Every number of ``metrics.json``, computed again."""
    from serkit.training.checkpoints import best_epoch  # here: torch is slow to import

    given = _json(folder / "metrics.json")
    scores = pooled_and_fold_mean(predictions)
    sources = dict.fromkeys(scores, "the predictions give")
    try:
        history = pd.read_csv(folder / "history.csv").to_dict("records")
        scores |= {"best_epoch": best_epoch(history), "epochs": len(history)}
    except (OSError, ValueError, KeyError, IndexError) as error:
        return [Finding("scores", subject, fault=f"history.csv can't be read ({error})")]
    found = []
    for name, value in scores.items():
        was = given.get(name)
        same = isinstance(was, int | float) and np.isclose(was, value, rtol=0, atol=TOLERANCE)
        fault = f"metrics.json: {name}={was}, {sources.get(name, 'history.csv gives')} {value:.10g}"
        found.append(Finding("scores", f"{subject} {name}", fault="" if same else fault))
    return found


def place_of(folder):
    """Variant, fold and seed that a run folder is named after, as text.

    >>> place_of(Path("runs/demo/corrected_clean_session_demo/fold=2/seed=111"))
    ('corrected_clean_session_demo', '2', '111')
    """
    return tuple(part.rpartition("=")[2] for part in folder.parts[-RUN_FOLDER:])


def _faults(area, subject, texts):
    return [Finding(area, subject, fault=text) for text in texts]


def _text(path):
    try:
        return path.read_text().strip()
    except (OSError, ValueError):
        return ""


def _json(path):
    """A record that may be damaged; its bytes are checked elsewhere."""
    try:
        return dict(json.loads(path.read_text()))
    except (OSError, ValueError, TypeError):
        return {}


def check_inventory(folder):
    """Compare the files of a run folder with what ``files.json`` says of them.

    Parameters
    ----------
    folder : path

    Returns
    -------
    dict of str to str
        For each file that a fold must have or that is recorded: what is wrong with it; empty if nothing.

    Raises
    ------
    RunError
        If there is no record, or it can't be read.
    """
    folder = Path(folder)
    path = folder / FILES
    try:
        recorded = {
            name: (one["bytes"], one["sha256"]) for name, one in json.loads(path.read_text())["files"].items()
        }
    except FileNotFoundError:
        raise RunError(
            f"{show_path(path)} is missing: which bytes the fold had when it was finished is unknown"
        ) from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise RunError(f"{show_path(path)} can't be read ({error}); copy the folder again") from error
    return {
        name: _fault(folder / name, *recorded.get(name, (0, ""))) for name in {*RESULTS, *MODEL, *recorded}
    }


def _fault(path, n_bytes, sha256):
    try:
        size = path.stat().st_size
        if not sha256:
            return f"not listed in {FILES}"
        if size != n_bytes:
            return f"{size:,} bytes, {n_bytes:,} when the fold was finished: cut short or edited"
        return "" if sha256_of(path) == sha256 else "edited after the fold was finished (other SHA-256)"
    except FileNotFoundError:
        return "missing"
    except OSError as error:
        return f"can't be read ({error.strerror or error})"
