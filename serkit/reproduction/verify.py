"""Whether a run holds together: everything that can be computed again is, and compared with what lies there.

It needs the run folder alone: no corpus, no feature store, no network, and it writes nothing.
"""

import io
import json
import platform
import re
import textwrap
from contextlib import suppress
from dataclasses import dataclass
from functools import partial as bind
from importlib.metadata import version
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
from safetensors import SafetensorError, safe_open

from serkit import evaluation, metrics, runs
from serkit.errors import RunError, SerkitError
from serkit.experiment import Experiment, key_of, project_home, show_path
from serkit.figures import DIGEST, digest_of, table_csv
from serkit.reproduction import report
from serkit.reproduction.page import read_catalogue
from serkit.runs import FILES, MODEL, RESULTS, read_experiment, read_record, sha256_of

AREAS = {
    "experiments": "folds: key follows from the parameters, folder and model from them too",
    "files": "folds: every file has the bytes that were recorded when it was finished",
    "predictions": "prediction tables are whole and consistent",
    "scores": "folds: scores in metrics.json follow from predictions and history",
    "completeness": "folds that there should be are finished",
    "figures": "figures and tables are as they were made, from nothing but these predictions",
    "numbers": "CSV files beside them recomputed and equal",
    "versions": "folds made with the packages and the code that are here",
}
OK, WRONG, UNKNOWN, NOTE = "ok", "wrong", "can't tell", "note"
EXIT_CODES = {WRONG: 1, UNKNOWN: 2, NOTE: 0, OK: 0}  # the worst comes first
LONGEST = 400  # characters of a line
SHOWN = 12  # lines of one kind; the rest is counted, so that the verdict fits on a screen
SCORE_TOLERANCE = 1e-9  # of a score; another version of a library may take a sum in another order
CSV_TOLERANCE = 1e-6  # relative; libraries of other versions may round differently
RUN_FOLDER = 3  # levels of a run folder: variant, fold=..., seed=...
CURVES = re.compile(r"curves_.*fold.+_seed\d+")
MADE_FROM = re.compile(rf'<meta name="{DIGEST}" content="([0-9a-f]*)">')
STALE = "out of date: made from other predictions than the run holds now; call `serkit report` again"


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
    place, verdict = show_path(project_home() / "runs" / run), _worst(findings)
    print("\n".join([f"verifying {place}", *_lines(findings)]))
    n = sum(finding.verdict == verdict for finding in findings)
    count = f"{n} thing{'s' * (n > 1)}"
    conclusions = {
        WRONG: f"{count} wrong, see above",
        UNKNOWN: f"nothing is wrong, but {count} can't be checked, see above",
    }
    print(f"\n{place}: {conclusions.get(verdict, 'everything follows from the predictions')}")
    return EXIT_CODES[verdict]


def check_run(run, partial=False):
    """Everything that :func:`verify` looks at.

    Parameters, errors: as :func:`verify`.

    Returns
    -------
    list of Finding
    """
    folders = runs.finished_folders(run)
    findings, tables = [], []
    for folder in folders:
        subject = _name(folder)
        findings += _look("experiments", subject, _experiment_faults, folder)
        findings += _look("files", subject, _file_faults, folder)
        try:
            tables.append(_checked_predictions(folder))
        except SerkitError as error:
            findings.append(Finding("predictions", subject, WRONG, str(error)))
            continue
        findings.append(Finding("predictions", subject))
        findings += _look("scores", subject, _score_faults, folder, tables[-1])
    completeness = _completeness(run, folders, NOTE if partial else WRONG)
    findings += completeness + [_versions(folder) for folder in folders]
    if len(tables) < len(folders):
        return [*findings, Finding("figures", run, UNKNOWN, "not compared: a prediction table can't be used")]
    predictions = pd.concat(tables, ignore_index=True)
    try:
        parameters, _ = report.made_with(run, predictions)
        for _, table in predictions.groupby(metrics.REPEAT):
            evaluation.check_predictions(table, report.tested_folds(table))
        if not partial and _worst(completeness) != WRONG:
            evaluation.check_predictions(predictions)
    except SerkitError as error:
        # folds of another version can't be judged here, which is said above, and is no fault of theirs
        other = any(finding.verdict == UNKNOWN for finding in findings if finding.area == "experiments")
        return [
            *findings,
            Finding("predictions", "all folds together", UNKNOWN if other else WRONG, str(error)),
        ]
    return findings + _figures(run, predictions, parameters)


def check_inventory(folder):
    """Compare the files of a run folder with what ``files.json`` says of them.

    Parameters
    ----------
    folder : path

    Returns
    -------
    dict of str to str
        What is wrong with a file that a fold must have or that is recorded, by its name.

    Raises
    ------
    RunError
        If there is no record, or it can't be read.
    """
    path = Path(folder) / FILES
    faults = {}
    try:
        recorded = json.loads(path.read_text())["files"]
        for name in sorted({*RESULTS, *MODEL, *recorded}):
            file = path.parent / name
            size, digest = (
                (recorded[name][key] for key in ("bytes", "sha256")) if name in recorded else (0, "")
            )
            if not file.is_file():
                faults[name] = "missing"
            elif not digest:
                faults[name] = f"not listed in {FILES}"
            elif file.stat().st_size != size:
                now = file.stat().st_size
                faults[name] = f"{now:,} bytes, {size:,} when the fold was finished: cut short or edited"
            elif sha256_of(file) != digest:
                faults[name] = "edited after the fold was finished (other SHA-256)"
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RunError(
            f"{show_path(path)} is missing or can't be read ({error}); copy the folder again"
        ) from error
    return faults


def _look(area, subject, check, *given):
    """Findings from a check that yields what is wrong, or raises an error."""
    findings = []
    try:
        for fault in check(*given):
            findings.append(Finding(area, subject, WRONG, fault))
    except _Undecided as reason:
        findings.append(Finding(area, subject, *reason.args))
    except (SerkitError, OSError, ValueError, KeyError, IndexError, SafetensorError, AssertionError) as error:
        findings.append(Finding(area, subject, WRONG, textwrap.shorten(str(error), LONGEST)))
    return findings or [Finding(area, subject)]


class _Undecided(Exception):
    """Something can't be checked: how bad that is, and why."""


def _experiment_faults(folder):
    """The key follows from the parameters, the folder's name and the model's record from them too."""
    record = read_record(folder)
    key = key_of(record["parameters"])
    given = {
        "experiment.json": record.get("key"),
        runs.DONE: (folder / runs.DONE).read_text(errors="replace").strip(),
        "model/features.json": key_of(_json(folder / "model" / "features.json").get("experiment")),
    }
    for name, was in given.items():
        if was != key:
            yield f"{name}: key {was}, the parameters in experiment.json give {key}"
    try:
        expected = "/".join(read_experiment(folder).folder("run").parts[-RUN_FOLDER:])
    except RunError as error:
        raise _Undecided(UNKNOWN, str(error)) from None
    if expected != _name(folder):
        yield f"experiment.json belongs into a folder {expected}"


def _file_faults(folder):
    """Every file has the bytes that were recorded, and the weights can be opened."""
    for name, fault in check_inventory(folder).items():
        yield f"{name}: {fault}"
    sources = _json(folder / "model" / "config.json").get("sources")
    if sources != _json(folder / "metrics.json").get("weights"):
        yield "metrics.json: names other pretrained weights than model/config.json"
    with safe_open(folder / "model" / "model.safetensors", framework="np"):  # compares header and length
        pass


def _checked_predictions(folder):
    """The prediction table of a run folder, which must be of that folder and fit to be averaged."""
    table = runs.read_predictions(folder)
    variant, fold, seed = (part.rpartition("=")[2] for part in folder.parts[-RUN_FOLDER:])
    for column, value in {"variant": variant, "fold": fold, "seed": seed}.items():
        others = set(table.get(column, pd.Series(dtype=str)).map(str)) - {value}
        if others:
            raise RunError(
                f"predictions.parquet: rows with {column}={min(others)}, expected {value}; copied from elsewhere?"
            )
    return evaluation.check_predictions(table, [fold])


def _score_faults(folder, predictions):
    """Every number of ``metrics.json``, computed again."""
    from serkit.training.checkpoints import best_epoch  # here: torch and TensorBoard are slow to import

    history = pd.read_csv(folder / "history.csv").to_dict("records")
    scores = metrics.pooled_and_fold_mean(predictions)
    for name, value in (scores | {"best_epoch": best_epoch(history), "epochs": len(history)}).items():
        was = _json(folder / "metrics.json").get(name)
        if not isinstance(was, int | float) or not np.isclose(was, value, rtol=0, atol=SCORE_TOLERANCE):
            yield f"metrics.json: {name}={was}, recomputed {value:.10g}"


def _completeness(run, folders, verdict):
    """Folds that are missing or not finished, of every variant and seed; ``verdict`` says how bad that is."""
    home, finished, findings = project_home() / "runs" / run, {_name(folder) for folder in folders}, []
    begun = [path for path in home.glob("*/fold=*/seed=*") if path.is_dir()]
    for variant in sorted({runs.variant_of(path) for path in begun}):
        tried = [path.parts for path in begun if runs.variant_of(path) == variant]
        planned = []
        with suppress(
            SerkitError
        ):  # nothing finished, or a record that can't be read, which is said elsewhere
            planned = [f"fold={name}" for name in runs.planned_folds(run, variant) or ()]
        if not planned:
            reason = "which folds there should be is not recorded"
            findings.append(Finding("completeness", variant, UNKNOWN, reason))
        for seed, fold in product(
            sorted({parts[-1] for parts in tried}), planned or sorted({parts[-2] for parts in tried})
        ):
            name = f"{variant}/{fold}/{seed}"
            state = "not finished" if (home / name).is_dir() else "missing"
            cure = f"{state}; `serkit reproduce` or notebook 05_train_coattention makes it"
            findings.append(Finding("completeness", name, *(() if name in finished else (verdict, cure))))
    return findings


def _versions(folder):
    """Packages and code that are not those that a fold was made with: worth knowing, no fault."""
    record = _json(folder / "experiment.json")
    here = {name: version(name) for name in runs.PACKAGES} | {"python": platform.python_version()}
    here["commit"] = (runs.current_commit() or "none")[:7]
    made = dict(record.get("versions") or {}) | {"commit": (record.get("commit") or "")[:7]}
    others = [name for name, was in made.items() if was and was != here.get(name)]
    text = "made with " + "; ".join(f"{name} {made[name]}, here is {here.get(name)}" for name in others)
    return Finding("versions", _name(folder), *((NOTE, text) if others else ()))


def _figures(run, predictions, parameters):
    """Everything in ``figures/<run>``, and the page of the run."""
    digests = {digest_of(table): variant for variant, table in predictions.groupby("variant")}
    whole, folder = digest_of(predictions), project_home() / "figures" / run
    entries = [entry for entry in read_catalogue(run, digests=[whole, *digests]) if entry.files]
    if not entries:
        return [Finding("figures", run, NOTE, f"there are none in {show_path(folder)}")]
    numbers, findings = _numbers_of_report(run, predictions, parameters), []
    for entry in entries:
        findings += _look("figures", entry.stem, lambda faults=entry.faults: faults)
        compute = numbers.get(entry.stem) or _numbers_of_notebook(run, predictions, entry, digests)
        if compute and not entry.faults:
            path = folder / f"{entry.stem}.csv"
            findings += _look("numbers", path.name, _number_faults, path, compute)
    page = project_home() / "runs" / run / runs.REPORT
    if page.is_file():
        made_from = MADE_FROM.search(page.read_text(encoding="utf-8", errors="replace"))
        stale = made_from is None or made_from[1] != whole
        findings.append(Finding("figures", runs.REPORT, *((WRONG, STALE) if stale else ())))
    return findings


def _numbers_of_report(run, predictions, parameters):
    """What gives the numbers of each figure and table of the report; ``{stem: () -> table}``."""
    folds = {variant: report.tested_folds(table) for variant, table in predictions.groupby("variant")}
    manifest = runs.find_manifest(str(next(iter(parameters.values())).get("corpus")))
    figures = report.run_figures(run, predictions, manifest, parameters, folds)
    return {figure.stem: figure.numbers for figure in figures} | {
        "scores_by_variant": bind(report.score_intervals, predictions, folds),
        "variant_differences": bind(report.variant_differences, predictions, folds),
    }


def _numbers_of_notebook(run, predictions, entry, digests):
    """What gives the numbers of a figure or table that a notebook wrote; None if that takes more than this run."""
    given, variant = entry.parameters, digests.get(entry.parameters.get(DIGEST))
    if entry.stem == "paper_comparison":
        return bind(_paper_comparison, run, dict(given.get("others") or {}))
    if CURVES.fullmatch(entry.stem):
        known = {name: given[name] for name in given.keys() & Experiment.__dataclass_fields__.keys()}
        return bind(pd.read_csv, Experiment(**known).folder(run) / "history.csv")
    if variant is None:
        return None
    tested = predictions[(predictions["variant"] == variant) & (predictions["split"] == "test")]
    pair = tested["truth"], tested["prediction"]
    return {
        "confusion_matrix": lambda: metrics.confusion_matrix(*pair),
        "recall": lambda: metrics.recall_per_class(*pair).to_frame("recall"),
        "speaker_scores": lambda: metrics.score_table(tested, "speaker"),
        "speaker_scores_table": lambda: metrics.score_table(tested, "speaker"),
        "scores": lambda: report.score_summary(run, variant).drop(columns="variant"),
    }.get(entry.stem.removesuffix(f"_{runs.stem_of(variant)}"))


def _paper_comparison(run, others):
    for name, digest in others.items():
        if digest_of(runs.load_predictions(name)) != digest:
            raise ValueError(f"out of date: run {name!r} holds other predictions now")
    return evaluation.paper_comparison(run, *others)


def _number_faults(path, compute):
    """Compare a CSV with what the run gives now: ``left`` is what the file holds, ``right`` what is computed."""
    try:
        now = pd.read_csv(io.BytesIO(table_csv(compute())))
    except SerkitError as error:
        raise _Undecided(NOTE, f"can't be recomputed here ({error})") from None
    pd.testing.assert_frame_equal(
        pd.read_csv(path), now, check_dtype=False, rtol=CSV_TOLERANCE, atol=1e-12, obj=path.name
    )
    return ()


def _json(path):
    """A record that may be damaged; its bytes are checked elsewhere."""
    try:
        return dict(json.loads(path.read_text()))
    except (OSError, ValueError, TypeError):
        return {}


def _name(folder):
    return "/".join(folder.parts[-RUN_FOLDER:])


def _worst(findings):
    verdicts = {finding.verdict for finding in findings}
    return next((verdict for verdict in EXIT_CODES if verdict in verdicts), OK)


def _lines(findings):
    """One line for each area, and one for each thing that is not as it should be."""
    lines = []
    for area, text in AREAS.items():
        chosen = [finding for finding in findings if finding.area == area]
        judged = {finding.subject for finding in chosen}  # one may have several faults
        good = judged - {finding.subject for finding in chosen if finding.verdict != OK}
        if chosen:
            lines.append(f"{_worst(chosen):<12}{len(good)} of {len(judged)} {text}")
        for verdict in (WRONG, UNKNOWN, NOTE):
            lines += _named([finding for finding in chosen if finding.verdict == verdict], verdict)
    return lines


def _named(findings, verdict):
    """A line for each finding; but for faults, what holds for several in the same words shares one."""
    subjects = {}
    for number, finding in enumerate(findings):
        subjects.setdefault((finding.text, number if verdict == WRONG else 0), []).append(finding.subject)
    lines = []
    for (text, _), (first, *others) in subjects.items():
        more = f" and {len(others)} more" if others else ""
        lines.append(f"    {verdict:<12}{first}{more}: {text}")
    left = len(lines) - SHOWN
    return lines[:SHOWN] + ([f"    {verdict:<12}… and {left} more such lines"] if left > 0 else [])
