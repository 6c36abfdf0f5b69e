"""Whether a run holds together: everything that can be computed again is, and compared with what lies there.

It needs the run folder alone: no corpus, no network, and it writes nothing. Feature stores are checked where
they lie on this machine.
"""

import io
import textwrap
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from serkit import evaluation, features, metrics, runs, training
from serkit.errors import RunError, SerkitError
from serkit.experiment import key_of, project_home, show_path
from serkit.figures import DIGEST, table_csv
from serkit.files import read_toml
from serkit.reproduction import page, report

AREAS = read_toml(__file__, "areas.toml")
OK, WRONG, UNKNOWN, NOTE = "ok", "wrong", "can't tell", "note"
EXIT_CODES = {WRONG: 1, UNKNOWN: 2, NOTE: 0, OK: 0}  # the worst comes first
LONGEST = 400  # characters of a line
SCORE_TOLERANCE = 1e-9  # of a score; another version of a library may take a sum in another order
CSV_TOLERANCE = 1e-6  # relative; libraries of other versions may round differently
RUN_FOLDER = 3  # levels of a run folder: variant, fold=..., seed=...


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at."""

    area: str  # a key of AREAS
    subject: str  # which fold, file or figure
    verdict: str = OK
    text: str = ""  # what does not follow, why it can't be told, or what a reader may want to know


def verify(run, partial=False):
    """Check a run, print what was found, and say whether everything follows from its predictions.

    Parameters
    ----------
    run : str
    partial : bool
        Whether a run without all its folds will do; the missing ones are named all the same.

    Returns
    -------
    int
        Exit code: 0 if everything follows, 1 if something does not, 2 if something can't be checked.

    Raises
    ------
    RunError
        If there is no finished fold.
    """
    findings = check_run(run, partial)
    folder, verdict = show_path(project_home() / "runs" / run), _worst(findings)
    print(f"verifying {folder}")
    for area, text in AREAS.items():
        chosen = [finding for finding in findings if finding.area == area]
        faults = [finding for finding in chosen if finding.verdict != OK]
        judged = {finding.subject for finding in chosen}  # one may have several faults
        good = judged - {finding.subject for finding in faults}
        if chosen:
            print(f"{_worst(chosen):<12}{len(good)} of {len(judged)} {text}")
        for finding in faults:
            print(f"    {finding.verdict:<12}{finding.subject}: {textwrap.shorten(finding.text, LONGEST)}")
    n = sum(finding.verdict == verdict for finding in findings)
    ends = {WRONG: f"{n} wrong, see above", UNKNOWN: f"nothing is wrong, but {n} can't be checked, see above"}
    print(f"\n{folder}: {ends.get(verdict, 'everything follows from the predictions')}")
    return EXIT_CODES[verdict]


def check_run(run, partial=False):
    """Everything that :func:`verify` looks at.

    Parameters, errors: as :func:`verify`.

    Returns
    -------
    list of Finding
    """
    folders = runs.finished_folders(run)
    findings = []
    for folder in folders:
        checks = _experiment_faults, check_inventory, _prediction_faults, _score_faults
        for area, check in zip(AREAS, checks, strict=False):  # of a fold, the first ones
            findings += _look(area, _name(folder), check, folder)
    findings += _look("completeness", run, _missing_folds, run, folders, NOTE if partial else WRONG)
    doubtful = {finding.area for finding in findings if finding.verdict in (WRONG, UNKNOWN)}
    if doubtful & {"experiments", "predictions"}:
        return [*findings, Finding("figures", run, UNKNOWN, "not compared: a fold can't be used, see above")]
    try:
        predictions, folds = report.checked_predictions(run, partial=True)  # missing folds are named above
        parameters, corpus = report.made_with(run, predictions)
    except SerkitError as error:
        return [*findings, Finding("predictions", "all folds together", WRONG, str(error))]
    for path in runs.processed_folder(corpus).glob("*/store.json"):
        findings += _look("stores", show_path(path.parent), features.check_store, path.parent)
    return findings + _figures(run, predictions, folds, parameters)


def check_inventory(folder):
    """Compare the files of a run folder with what ``files.json`` says of them.

    Parameters
    ----------
    folder : path

    Returns
    -------
    list of str
        What is wrong with a file that a fold must have or that is recorded.

    Raises
    ------
    RunError
        If there is no record, or it can't be read.
    """
    recorded = runs.read_table(Path(folder) / runs.FILES, "copy it again").get("files", {})
    unlisted = sorted({*runs.RESULTS, *runs.MODEL} - set(recorded))
    return runs.file_faults(folder) + [f"{name}: not listed in {runs.FILES}" for name in unlisted]


def _look(area, subject, check, *given):
    """Findings from a check that yields what is wrong, as text or as a finding, or raises an error."""
    findings = []
    try:
        for fault in check(*given) or ():
            findings.append(fault if isinstance(fault, Finding) else Finding(area, subject, WRONG, fault))
    except Exception as error:  # a record that anybody may have edited finds a way into each of them
        text = str(error) if isinstance(error, SerkitError | AssertionError) else repr(error)
        findings.append(Finding(area, subject, WRONG, text))
    return findings or [Finding(area, subject)]


def _experiment_faults(folder):
    """The key follows from the parameters, the folder's name and the model's record from them too."""
    record = runs.read_record(folder)
    try:
        expected = _name(runs.read_experiment(folder).folder("run"))
    except RunError as error:  # of another version: neither right nor wrong
        yield Finding("experiments", _name(folder), UNKNOWN, str(error))
        return
    model = runs.read_table(folder / "model" / "features.json", runs.FOLD_CURE)
    given = {"experiment.json": record.get("key"), "model/features.json": key_of(model["experiment"])}
    if (mark := folder / runs.DONE).is_file():
        given[runs.DONE] = mark.read_text(errors="replace").strip()
    else:
        yield f"{runs.DONE}: missing; `serkit reproduce` writes it again"
    key = key_of(record["parameters"])
    for name, was in given.items():
        if was != key:
            yield f"{name}: key {was}, the parameters in experiment.json give {key}"
    if expected != _name(folder):
        yield f"experiment.json belongs into a folder {expected}"


def _prediction_faults(folder):
    """The prediction table is of this folder and fit to be averaged."""
    table = runs.read_predictions(folder)
    variant, fold, seed = (part.rpartition("=")[2] for part in folder.parts[-RUN_FOLDER:])
    for column, value in zip(metrics.UNIT, (variant, seed, fold), strict=True):
        if others := set(table[column].map(str)) - {value}:
            yield f"predictions.parquet: rows with {column}={min(others)}, expected {value}; copied from elsewhere?"
    evaluation.check_predictions(table, [fold])


def _score_faults(folder):
    """Every number of ``metrics.json``, computed again."""
    names = ("history.csv", "metrics.json")
    history, recorded = (runs.read_table(folder / name, runs.FOLD_CURE) for name in names)
    history = history.to_dict("records")
    rule = runs.read_record(folder)["parameters"].get("checkpoint_rule", "wa+ua")  # of another version too
    best = training.best_epoch(history, rule)
    scores = metrics.pooled_and_fold_mean(runs.read_predictions(folder))
    scores |= {"best_epoch": best, "epochs": len(history)}
    for name, value in scores.items():
        was = recorded.get(name)
        if not isinstance(was, int | float) or not np.isclose(was, value, rtol=0, atol=SCORE_TOLERANCE):
            yield f"metrics.json: {name}={was}, recomputed {value:.10g}"


def _missing_folds(run, folders, verdict):
    """Planned folds that are not finished, of every variant and seed; ``verdict`` says how bad that is."""
    parts = [folder.parts[-RUN_FOLDER:] for folder in folders]
    finished = pd.DataFrame(parts, columns=["variant", "fold", "seed"])
    for (variant, seed), rows in finished.groupby(["variant", "seed"]):
        planned, subject = runs.planned_folds(run, variant), f"{variant}/{seed}"
        if planned is None:
            yield Finding("completeness", subject, UNKNOWN, "which folds there should be is not recorded")
        elif lost := sorted({f"fold={name}" for name in planned} - set(rows["fold"])):
            cure = f"not finished: {', '.join(lost)}; `serkit reproduce` or notebook 05_train_coattention makes them"
            yield Finding("completeness", subject, verdict, cure)
        else:
            yield Finding("completeness", subject)


def _figures(run, predictions, folds, parameters):
    """Everything in ``figures/<run>``, and the page of the run."""
    digests, folder = report.digests_of(predictions), project_home() / "figures" / run
    entries = {entry.stem: entry for entry in page.read_catalogue(run, digests=digests)}
    if not entries:
        return [Finding("figures", run, NOTE, f"there are none in {show_path(folder)}")]
    findings = []
    for stem, entry in entries.items():
        findings += _look("figures", stem, lambda faults=entry.faults: faults)
    others = entries["paper_comparison"].parameters.get("others", {}) if "paper_comparison" in entries else {}
    try:
        items = report.run_tables(run, predictions, folds, parameters, others)
    except SerkitError as error:
        return [*findings, Finding("numbers", "paper_comparison.csv", UNKNOWN, str(error))]
    for item in items + report.run_figures(run, predictions, folds, parameters):
        entry = entries.get(item.stem)
        if entry and not entry.faults:
            findings += _look("numbers", f"{item.stem}.csv", _number_faults, folder, item, entry)
    html = project_home() / "runs" / run / runs.REPORT
    if html.is_file() and f'name="{DIGEST}" content="{digests[0]}"' not in html.read_text(encoding="utf-8"):
        stale = "out of date: made from other predictions than the run holds now; call `serkit report` again"
        findings.append(Finding("figures", runs.REPORT, WRONG, stale))
    return findings


def _number_faults(folder, item, entry):
    """Compare a CSV with what the run gives now: ``left`` is what the file holds, ``right`` what is computed."""
    if item.parameters.get("others") != entry.parameters.get("others"):
        yield "out of date: the runs beside this one hold other predictions now"
    path = folder / f"{item.stem}.csv"
    now = pd.read_csv(io.BytesIO(table_csv(item.numbers())))
    tolerance = {"check_dtype": False, "rtol": CSV_TOLERANCE, "atol": 1e-12}
    pd.testing.assert_frame_equal(pd.read_csv(path), now, obj=path.name, **tolerance)


def _name(folder):
    return "/".join(folder.parts[-RUN_FOLDER:])


def _worst(findings):
    verdicts = {finding.verdict for finding in findings}
    return next((verdict for verdict in EXIT_CODES if verdict in verdicts), OK)
