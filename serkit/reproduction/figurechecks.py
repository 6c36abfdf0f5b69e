"""Whether the figures and tables of a run follow from the predictions that it holds now."""

import io
import re
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd

from serkit import runs
from serkit.errors import SerkitError
from serkit.evaluation.claims import paper_comparison
from serkit.evaluation.comparison import at_shared_seeds, compare_many
from serkit.experiment import Experiment
from serkit.figures.saving import DIGEST, digest_of
from serkit.figures.tables import table_csv
from serkit.metrics import confusion_matrix, recall_per_class, score_table
from serkit.reproduction.catalogue import read_catalogue
from serkit.reproduction.foldchecks import Finding
from serkit.reproduction.report import score_intervals, score_summary
from serkit.reproduction.runfigures import run_numbers

TOLERANCE = 1e-6  # relative; libraries of other versions may round differently
CURVES = re.compile(r"curves_fold.+_seed\d+")
MADE_FROM = re.compile(rf'<meta name="{DIGEST}" content="([0-9a-f]+)">')


def check_figures(run, predictions, folds, root=None):
    """Look at everything in ``figures/<run>`` and at the page of the run.

    Parameters
    ----------
    run : str
    predictions : pd.DataFrame
        Of all variants, checked.
    folds : dict of str to list of str
        Folds of each variant that count.
    root : path, optional
        Folder that holds one folder of figures for each run; default ``figures`` of the project.

    Returns
    -------
    list of Finding
    """
    digests = {digest_of(table): variant for variant, table in predictions.groupby("variant")}
    entries = read_catalogue(run, digests=[*digests, digest_of(predictions)], root=root)
    entries = [entry for entry in entries if entry.files]
    folder = Path(root or runs.project_home() / "figures") / run
    if not entries:
        return [Finding("figures", run, note=f"there are none in {runs.show_path(folder)}")]
    numbers = _recipes(run, predictions, folds, entries, digests)
    found = []
    for entry in entries:
        fault = "; ".join(entry.faults)
        unknown = "" if entry.hashed or fault else "made by a version that didn't record their files' SHA-256"
        found.append(Finding("figures", entry.stem, fault, unknown))
        if entry.stem in numbers and f"{entry.stem}.csv" in entry.files and not fault:
            found.append(_check_numbers(folder / f"{entry.stem}.csv", numbers[entry.stem]))
    return [*found, *_check_page(run, digest_of(predictions))]


def _recipes(run, predictions, folds, entries, digests):
    """Stem -> what gives the numbers of its CSV as bytes; what needs more than this run holds is left out."""
    manifest = runs.find_manifest(str(runs.shared_parameters(run).get("corpus")))
    frames = run_numbers(run, predictions, manifest, folds)
    frames["scores_by_variant"] = partial(score_intervals, predictions, folds)
    frames["variant_differences"] = lambda: compare_many(
        at_shared_seeds(predictions), folds=next(iter(folds.values()))
    )
    for entry in entries:
        others = dict(entry.parameters.get("others") or {})
        if entry.stem == "paper_comparison":
            frames[entry.stem] = partial(_paper_comparison, run, others)
        elif CURVES.fullmatch(entry.stem):
            frames[entry.stem] = partial(_history, run, entry.parameters)
        elif entry.parameters.get(DIGEST) in digests:
            frames |= _of_notebook_06(run, predictions, digests[entry.parameters[DIGEST]], entry.stem)
    return frames


def _of_notebook_06(run, predictions, variant, stem):
    tested = predictions[(predictions["variant"] == variant) & (predictions["split"] == "test")]
    pair = tested["truth"], tested["prediction"]
    made = {
        "confusion_matrix": lambda: confusion_matrix(*pair),
        "recall": lambda: recall_per_class(*pair).to_frame("recall"),
        "speaker_scores": lambda: score_table(tested, "speaker"),
        "speaker_scores_table": lambda: score_table(tested, "speaker"),
        "scores": lambda: _summary(run, variant),
    }
    return {stem: made[stem]} if stem in made else {}


def _summary(run, variant):
    scores = score_summary(run)
    return scores[scores["variant"] == variant].drop(columns="variant").reset_index(drop=True)


def _paper_comparison(run, others):
    for name, digest in others.items():
        if digest_of(runs.load_predictions(name)) != digest:
            raise _Stale(f"out of date: run {name!r} holds other predictions now")
    return paper_comparison(run, *others)


def _history(run, parameters):
    """Training curves of the fold that a sidecar's parameters describe."""
    known = {name: value for name, value in parameters.items() if name in Experiment.__dataclass_fields__}
    folder = Experiment(**known).folder(run)
    try:
        return pd.read_csv(folder / "history.csv")
    except (OSError, ValueError):
        raise _Stale(f"{runs.show_path(folder)} holds no history to compare with") from None


class _Stale(Exception):
    """What a table was made from is not there any more."""


def _check_numbers(path, frame):
    """Compare a CSV with what the predictions give now."""
    try:
        now = pd.read_csv(io.BytesIO(table_csv(frame())))
        return Finding("numbers", path.name, fault=difference(pd.read_csv(path), now))
    except _Stale as error:
        return Finding("numbers", path.name, fault=str(error))
    except SerkitError as error:
        return Finding("numbers", path.name, note=f"can't be recomputed here ({error})")
    except (OSError, ValueError) as error:
        return Finding("numbers", path.name, fault=f"can't be read ({error})")


def difference(was, now):
    """The first number or text in which a table differs from the one computed now; empty if none does.

    Parameters
    ----------
    was, now : pd.DataFrame

    Returns
    -------
    str

    Examples
    --------
    >>> difference(pd.DataFrame({"n": [1, 2]}), pd.DataFrame({"n": [1, 3]}))
    'row 2: n=2, the predictions give 3'
    """
    if list(was.columns) != list(now.columns) or len(was) != len(now):
        return (
            f"{len(was)} rows of {', '.join(was.columns)}; the predictions give {len(now)} rows of "
            f"{', '.join(now.columns)}"
        )
    for column in was:
        old, new = was[column], now[column]
        if pd.api.types.is_numeric_dtype(old) and pd.api.types.is_numeric_dtype(new):
            same = np.isclose(
                old.astype(float), new.astype(float), rtol=TOLERANCE, atol=1e-12, equal_nan=True
            )
        else:
            same = (old.map(str) == new.map(str)).to_numpy()
        if not same.all():
            row = int(np.argmin(same))
            return f"row {row + 1}: {column}={old[row]}, the predictions give {new[row]}"
    return ""


def _check_page(run, digest):
    """Whether ``report.html`` shows these predictions."""
    path = runs.project_home() / "runs" / run / runs.REPORT
    if not path.is_file():
        return []
    found = MADE_FROM.search(path.read_text(encoding="utf-8", errors="replace"))
    if not found:
        return [
            Finding("figures", runs.REPORT, unknown="made by a version that didn't record its predictions")
        ]
    stale = "out of date: made from other predictions than the run holds now; call `serkit report` again"
    return [Finding("figures", runs.REPORT, fault="" if found[1] == digest else stale)]
