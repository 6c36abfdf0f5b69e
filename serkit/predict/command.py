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
        As in `serkit.predict.predictor.Predictor`.

    Returns
    -------
    int
        Exit code: 0 when all files could be used, 1 when some could not.

    Raises
    ------
    SerkitError
        If the arguments, the model or the place to write to can't be used.
    """
    if not files:
        raise ParameterError("no FILE given, expected one or more sound files: serkit predict talk.wav")
    _check_targets(files, output, timeline)
    folder = Path(model) if model else newest_model(run)
    runs.quiet_libraries()
    from serkit.predict.predictor import (
        Predictor,  # torch and transformers are slow to import; mistakes come first
    )

    predictor = Predictor(folder, device=device, precision=precision)
    _say(f"model {runs.show_path(folder)}, trained on {describe_training(predictor.experiment)}")
    predictions, failed = predictor.predict_many(files, progress=True)
    for each in predictions:
        for warning in each.warnings:
            _say(f"{each.path}: {warning}")
    for message in failed.values():
        _say(message)
    text = {"json": _as_json, "csv": _as_csv, "table": _as_table}[form](predictions, failed, segments, folder)
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
    base = runs.project_home() / "runs"
    finished = list((base / run).glob("*/fold=*/seed=*/" + runs.DONE))
    if finished:
        return max(finished, key=lambda path: path.stat().st_mtime).parent / "model"
    others = sorted({path.parents[3].name for path in base.glob("*/*/fold=*/seed=*/" + runs.DONE)})
    cure = (
        f"choose one of the runs that have: --run {' or --run '.join(others)}"
        if others
        else "train one with `serkit reproduce` or notebook 05_train_coattention, or give --model FOLDER"
    )
    raise RunError(f"run {run!r}: no finished fold in {runs.show_path(base / run)}; {cure}")


def save_timeline(prediction, path):
    """Draw the emotions of a recording over time, as wide as a page; the suffix says the format."""
    from matplotlib.figure import Figure

    from serkit.figures import PNG_DPI, UNDATED, paper_style, plot_timeline

    with paper_style(columns=2, height=TIMELINE_IN):
        fig = Figure()
        plot_timeline(prediction.segments, ax=fig.subplots())
        # a name may hold dollars, which are no formula
        fig.suptitle(_shorten(Path(prediction.path).name), fontsize=8, parse_math=False)
        fig.savefig(path, dpi=PNG_DPI, metadata=UNDATED[path.suffix[1:].lower()])


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
        if not target:
            continue
        if Path(target).is_dir() or not Path(target).resolve().parent.is_dir():
            raise ParameterError(f"{name}={target}: expected a file in a folder that exists; make it first")
        if Path(target).resolve() in sources:
            raise ParameterError(f"{name}={target} is one of the recordings; choose another name")


def describe_training(experiment):
    """What a model was trained on, in a line.

    >>> describe_training({"corpus": "demo", "by": "session", "fold": "2", "profile": "demo"})
    'demo without session 2 (profile demo)'
    """
    words = [experiment.get(name, "?") for name in ("corpus", "by", "fold", "profile")]
    return "{} without {} {} (profile {})".format(*words)


def _as_table(predictions, failed, segments, folder):
    if not predictions:
        return ""
    if not segments:
        table = _summary(predictions).drop(columns="warnings")
        return _plain_text(table) + "\n"
    parts = [f"{each.path}: {each.emotion}\n{_plain_text(each.segments)}\n" for each in predictions]
    return "\n".join(parts)


def _as_csv(predictions, failed, segments, folder):
    if not segments:
        return _summary(predictions).to_csv(index=False, lineterminator="\n")
    parts = [each.segments.assign(file=each.path) for each in predictions]
    table = pd.concat(parts) if parts else pd.DataFrame(columns=["file"])
    first = table.pop("file")
    table.insert(0, "file", first)
    return table.to_csv(index=False, lineterminator="\n")


def _as_json(predictions, failed, segments, folder):
    files = []
    for each in predictions:
        record = {
            "file": each.path,
            "duration_s": each.duration_s,
            "sample_rate": each.sample_rate,
            "channels": each.channels,
            "emotion": each.emotion,
            "probabilities": each.utterance,
            "warnings": each.warnings,
        }
        if segments:
            record["segments"] = [_segment_record(row) for row in each.segments.to_dict("records")]
        files.append(record)
    failures = [{"file": path, "error": message} for path, message in failed.items()]
    content = {"model": str(folder), "files": files, "failed": failures}
    return json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def _segment_record(row):
    """One segment with its probabilities together; a level of minus infinity, which JSON lacks, is null."""
    level = row["peak_dbfs"] if math.isfinite(row["peak_dbfs"]) else None
    times = {name: row[name] for name in ("start_s", "end_s", "seconds")}
    probabilities = {label: row[f"p_{label}"] for label in LABELS}
    return times | {"peak_dbfs": level, "emotion": row["emotion"], "probabilities": probabilities}


def _summary(predictions):
    from serkit.predict.predictor import summary_table

    return summary_table(predictions)


def _plain_text(table):
    """Columns for reading; probabilities to a tenth of a percent."""
    return table.to_string(index=False, float_format=lambda value: f"{value:.3f}")


def _shorten(name, longest=90):
    return name if len(name) <= longest else f"{name[: longest - 4]} ..."


def _say(text):
    print(f"serkit: {text}", file=sys.stderr, flush=True)


def _write(target, write):
    try:
        write(Path(target))
    except OSError as error:
        raise RunError(
            f"{target}: can't be written ({error.strerror or error}); choose another place"
        ) from error
    _say(f"written {target}")
