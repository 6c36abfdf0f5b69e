"""``serkit predict``: which model, which files, and the result as a table, JSON, CSV or picture.

The result alone goes to stdout; everything else that is said goes to stderr.
"""

import json
import math
import sys
from pathlib import Path

import pandas as pd

from serkit import runs
from serkit.constants import LABELS
from serkit.errors import ParameterError, RunError
from serkit.evaluation.predictions import PROBABILITIES

PICTURES = (".png", ".pdf", ".svg")
TIMELINE_IN = 2.6  # inch, height of the picture


def predict_files(files, *, model="", run="demo", form="table", segments=False, output="", timeline="",
                  device="auto", precision="auto"):  # fmt: skip
    """Recognise the emotions in sound files and print or write the result.

    Parameters
    ----------
    files : sequence of path
    model : path, optional
        Model folder; default: that of the newest finished fold of ``run``.
    run : str, optional
    form : {"table", "json", "csv"}, optional
    segments : bool, optional
        One row for each segment, not for each file.
    output : path, optional
        File for the result; default stdout.
    timeline : path, optional
        Picture of the emotions over time, of one recording.
    device, precision : str, optional
        As in `serkit.predict.Predictor`.

    Returns
    -------
    int
        Exit code: 0 when all files could be used, 1 when some could not.

    Raises
    ------
    SerkitError
        If the arguments, the model or the file to write can't be used.
    """
    if not files:
        raise ParameterError("no FILE given, expected one or more sound files: serkit predict talk.wav")
    _check_targets(files, output, timeline)
    folder = Path(model) if model else newest_model(run)
    runs.quiet_libraries()
    from serkit.predict.predictor import Predictor  # torch is slow to import; mistakes come first

    predictor = Predictor(folder, device=device, precision=precision)
    _say(f"model {runs.show_path(folder)}, trained on {describe_training(predictor.experiment)}")
    predictions, failed = predictor.predict_many(files, progress=True)
    for prediction in predictions:
        for notice in prediction.notices:
            _say(f"{prediction.path}: {notice.text}")
    for message in failed.values():
        _say(message)
    if form == "json":
        text = _as_json(predictions, failed, segments, folder)
    else:
        text = {"table": _as_table, "csv": _as_csv}[form](predictions, segments)
    if output:
        _write(output, lambda path: path.write_text(text, encoding="utf-8"))
    else:
        print(text, end="")
    if timeline and predictions:
        _write(timeline, lambda path: save_timeline(predictions[0], path))
    return 1 if failed else 0


def newest_model(run):
    """Model folder of the fold of a run that was finished last.

    Raises
    ------
    RunError
        If the run has none, naming the runs that have, or how to train one.
    """
    folders = runs.find_folds(run)
    if folders:
        return max(folders, key=lambda folder: (folder / runs.DONE).stat().st_mtime) / "model"
    cure = "train one with `serkit reproduce` or notebook 05_train_coattention, or give --model FOLDER"
    others = sorted({folder.parents[2].name for folder in runs.find_folds()})
    if others:
        cure = f"choose one of the runs that have: --run {' or --run '.join(others)}"
    folder = runs.show_path(runs.project_home() / "runs" / run)
    raise RunError(f"run {run!r}: no finished fold in {folder}; {cure}")


def save_timeline(prediction, path):
    """Draw the emotions of a recording over time, as wide as a page; the suffix says the format."""
    from matplotlib.figure import Figure

    from serkit import figures

    name = Path(prediction.path).name
    with figures.paper_style(columns=2, height=TIMELINE_IN):
        fig = Figure()
        figures.plot_timeline(prediction.segments, ax=fig.subplots())
        # a name may hold dollars, which are no formula
        fig.suptitle(name if len(name) <= 90 else f"{name[:86]} ...", fontsize=8, parse_math=False)
        fig.savefig(path, dpi=300)


def describe_training(experiment):
    """What a model was trained on, in a line.

    >>> describe_training({"corpus": "demo", "by": "session", "fold": "2", "profile": "demo"})
    'demo without session 2 (profile demo)'
    """
    words = [experiment.get(name, "?") for name in ("corpus", "by", "fold", "profile")]
    return "{} without {} {} (profile {})".format(*words)


def summary_table(predictions):
    """One row for each recording.

    Parameters
    ----------
    predictions : list of Prediction

    Returns
    -------
    pd.DataFrame
        ``file, duration_s, sample_rate, channels, emotion, p_angry, ..., warnings``.
    """
    columns = ["file", "duration_s", "sample_rate", "channels", "emotion"]
    rows = [
        (p.path, round(p.duration_s, 3), p.sample_rate, p.channels, p.emotion, *p.utterance.values(),
         "; ".join(notice.text for notice in p.notices))
        for p in predictions
    ]  # fmt: skip
    return pd.DataFrame(rows, columns=[*columns, *PROBABILITIES, "warnings"])


def _check_targets(files, output, timeline):
    """Find out before hours of work what would go wrong after them."""
    if timeline and len(files) > 1:
        raise ParameterError(
            f"timeline={timeline}: given {len(files)} files, expected one; call again for each recording"
        )
    if timeline and Path(timeline).suffix.lower() not in PICTURES:
        raise ParameterError(f"timeline={timeline}: expected a file that ends in {', '.join(PICTURES)}")
    sources = {Path(file).resolve() for file in files}
    for name, target in (("output", output), ("timeline", timeline)):
        if target and (Path(target).is_dir() or not Path(target).resolve().parent.is_dir()):
            raise ParameterError(f"{name}={target}: expected a file in a folder that exists; make it first")
        if target and Path(target).resolve() in sources:
            raise ParameterError(f"{name}={target} is one of the recordings; choose another name")


def _as_table(predictions, segments):
    if segments:
        return "\n".join(f"{p.path}: {p.emotion}\n{_plain_text(p.segments)}\n" for p in predictions)
    return f"{_plain_text(summary_table(predictions).drop(columns='warnings'))}\n" if predictions else ""


def _as_csv(predictions, segments):
    table = summary_table(predictions)
    if segments:
        parts = {p.path: p.segments for p in predictions} or {"": pd.DataFrame()}
        table = pd.concat(parts, names=["file"]).reset_index("file")
    return table.to_csv(index=False, lineterminator="\n")


def _as_json(predictions, failed, segments, folder):
    files = [
        {"file": p.path, "duration_s": p.duration_s, "sample_rate": p.sample_rate, "channels": p.channels,
         "emotion": p.emotion, "probabilities": p.utterance, "warnings": [notice.text for notice in p.notices]}
        | ({"segments": [_segment_record(row) for row in p.segments.to_dict("records")]} if segments else {})
        for p in predictions
    ]  # fmt: skip
    failures = [{"file": path, "error": message} for path, message in failed.items()]
    content = {"model": str(folder), "files": files, "failed": failures}
    return json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def _segment_record(row):
    """One segment with its probabilities together; a level of minus infinity, which JSON lacks, is null."""
    record = {name: value for name, value in row.items() if not name.startswith("p_")}
    record["peak_dbfs"] = row["peak_dbfs"] if math.isfinite(row["peak_dbfs"]) else None
    return record | {"probabilities": {label: row[f"p_{label}"] for label in LABELS}}


def _plain_text(table):
    """Columns for reading; probabilities to a tenth of a percent."""
    return table.to_string(index=False, float_format="{:.3f}".format)


def _say(text):
    print(f"serkit: {text}", file=sys.stderr, flush=True)


def _write(target, write):
    try:
        write(Path(target))
    except OSError as error:
        reason = error.strerror or error
        raise RunError(f"{target}: can't be written ({reason}); choose another place") from error
    _say(f"written {target}")
