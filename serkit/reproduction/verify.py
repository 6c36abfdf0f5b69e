"""Whether a run holds together: everything that can be computed again is, and compared with what lies there.

It needs the run folder alone: no corpus, no feature store, no network, and it writes nothing.
"""

import platform
from importlib.metadata import PackageNotFoundError, version

import pandas as pd

from serkit import runs
from serkit.errors import RunError, SerkitError
from serkit.evaluation.predictions import check_predictions, selection_of
from serkit.metrics import REPEAT
from serkit.reproduction.figurechecks import check_figures
from serkit.reproduction.foldchecks import Finding, check_fold, place_of
from serkit.runs import read_record

AREAS = {
    "experiments": "folds: key follows from the parameters, folder and model from them too",
    "files": "folds: every file has the bytes that were recorded when it was finished",
    "predictions": "prediction tables are whole and consistent",
    "scores": "scores in metrics.json follow from predictions and history",
    "completeness": "folds that there should be are finished",
    "figures": "figures and tables are as they were made, from nothing but these predictions",
    "numbers": "CSV files beside them recomputed and equal",
}
SHOWN = 12  # lines of one kind; the rest is counted, so that the verdict fits on a screen
FOLLOWS, DOES_NOT, CANT_TELL = 0, 1, 2


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
    place = runs.show_path(runs.project_home() / "runs" / run)
    print("\n".join([f"verifying {place}", *_lines(findings)]))
    faults = [one for one in findings if one.fault]
    unknown = [one for one in findings if one.unknown]
    if faults:
        things = "thing does" if len(faults) == 1 else "things do"
        print(f"\n{place}: {len(faults)} {things} not follow, see NO above")
        return DOES_NOT
    if unknown:
        things = "thing" if len(unknown) == 1 else "things"
        print(f"\n{place}: nothing contradicts, but {len(unknown)} {things} can't be checked, see ?? above")
        return CANT_TELL
    print(f"\n{place}: everything follows from the predictions")
    return FOLLOWS


def check_run(run, partial=False):
    """Everything that :func:`verify` looks at.

    Parameters
    ----------
    run, partial
        As in :func:`verify`.

    Returns
    -------
    list of serkit.reproduction.foldchecks.Finding

    Raises
    ------
    RunError
        If there is no finished fold.
    """
    folders = runs.finished_folders(run)
    findings, tables = [], []
    for folder in folders:
        found, table = check_fold(folder)
        findings += found
        tables += [] if table is None else [table]
    complete = check_completeness(run, folders, partial)
    findings += [*complete, *check_versions(folders)]
    if len(tables) < len(folders):
        return [*findings, Finding("figures", run, unknown="not compared: a prediction table can't be used")]
    predictions = pd.concat(tables, ignore_index=True)
    folds = {variant: _tested(table) for variant, table in predictions.groupby("variant")}
    # folds of another version can't be judged here, which is said above, and is no fault of theirs
    kind = "unknown" if any(one.unknown for one in findings if one.area == "experiments") else "fault"
    try:
        runs.shared_parameters(run)
        for _, table in predictions.groupby(REPEAT):
            check_predictions(table, _tested(table))
        if not partial and not any(one.fault for one in complete):
            check_predictions(predictions)
    except SerkitError as error:
        return [*findings, Finding("predictions", "all folds together", **{kind: str(error)})]
    return [*findings, *check_figures(run, predictions, folds)]


def check_completeness(run, folders, partial=False):
    """Folds that are missing or not finished, of every variant and seed.

    Parameters
    ----------
    run : str
    folders : list of Path
        The finished ones.
    partial : bool
        Whether that is no fault.

    Returns
    -------
    list of serkit.reproduction.foldchecks.Finding
    """
    kind = "note" if partial else "fault"
    finished = {place_of(folder) for folder in folders}
    base = runs.project_home() / "runs" / run
    begun = {place_of(path) for path in base.glob("*/fold=*/seed=*") if path.is_dir()} - finished
    found = []
    for variant in sorted({place[0] for place in finished | begun}):
        planned = _planned(run, variant, finished)
        own = {place for place in finished | begun if place[0] == variant}
        for seed in sorted({place[2] for place in own}):
            for fold in planned or sorted({place[1] for place in own}):
                place = variant, fold, seed
                text = "" if place in finished else "not finished" if place in begun else "missing"
                cure = f"{text}; `serkit reproduce` or notebook 05_train_coattention makes it"
                found.append(Finding("completeness", _name(place), **({kind: cure} if text else {})))
        if planned is None:
            found += _inferred(run, variant, kind)
    return found


def check_versions(folders):
    """Packages and code that are not those that the folds were made with: worth knowing, no fault.

    Parameters
    ----------
    folders : list of Path

    Returns
    -------
    list of serkit.reproduction.foldchecks.Finding
    """
    found, here = [], runs.current_commit()
    for folder in folders:
        try:
            record = read_record(folder)
        except RunError:
            continue  # said where its parameters are checked
        subject = _name(place_of(folder))
        for name, was in dict(record.get("versions") or {}).items():
            now = _installed(name)
            if now != was:
                found.append(Finding("versions", subject, note=f"made with {name} {was}, installed is {now}"))
        commit = record.get("commit")
        if commit and commit != here:
            found.append(
                Finding(
                    "versions", subject, note=f"made by commit {commit[:7]}, here is {(here or 'none')[:7]}"
                )
            )
    return found


def _planned(run, variant, finished):
    """Names of all folds of a variant, or None if nothing says."""
    if not any(place[0] == variant for place in finished):
        return None
    try:
        return runs.planned_folds(run, variant)
    except SerkitError:  # said where its parameters are checked
        return None


def _inferred(run, variant, kind):
    """Older records don't name the folds; who chooses checkpoints must be tested somewhere, though."""
    try:
        table = runs.load_predictions(run, variant)
        check_predictions(table)
    except SerkitError as error:
        return [Finding("completeness", variant, **{kind: str(error)})]
    if selection_of(variant) == "clean" and (table["split"] == "validation").any():
        return []
    return [Finding("completeness", variant, unknown="which folds there should be is not recorded")]


def _tested(table):
    return sorted(table.loc[table["split"] == "test", "fold"].astype(str).unique())


def _installed(name):
    if name == "python":
        return platform.python_version()
    try:
        return version(name)
    except PackageNotFoundError:
        return "none"


def _name(place):
    return f"{place[0]}/fold={place[1]}/seed={place[2]}"


def _lines(findings):
    """One line for each area, and one for each thing that is not as it should be."""
    lines = []
    for area, text in AREAS.items():
        own = [one for one in findings if one.area == area]
        # subjects and not findings are counted: one may have several faults
        judged = {one.subject for one in own if not one.note}
        good = judged - {one.subject for one in own if one.fault or one.unknown}
        if own:
            mark = (
                "NO" if any(one.fault for one in own) else "??" if any(one.unknown for one in own) else "ok"
            )
            lines.append(f" {mark}  {len(good)} of {len(judged)} {text}")
            lines += [line for kind in ("fault", "unknown", "note") for line in _named(own, kind)]
    return lines + (
        _named([one for one in findings if one.area == "versions"], "note") or [" ok  versions as installed"]
    )


def _named(findings, kind):
    """A line for each finding of one kind; what can't be told for the same reason shares one."""
    texts = {}
    for number, one in enumerate(findings):
        text = getattr(one, kind)
        if text:
            # every fault is named; a version that differs in fifty folds is one thing to know
            texts.setdefault((text, number if kind == "fault" else 0), []).append(one.subject)
    mark = {"fault": "NO", "unknown": "??", "note": "--"}[kind]
    lines = []
    for (text, _), subjects in texts.items():
        more = f" and {len(subjects) - 1} more" if len(subjects) > 1 else ""
        lines.append(f"     {mark}  {subjects[0]}{more}: {text}")
    left = len(lines) - SHOWN
    return lines[:SHOWN] + ([f"     {mark}  … and {left} more such lines"] if left > 0 else [])
