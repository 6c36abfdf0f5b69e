"""``serkit predict``: which model, which files, and the result as a table, JSON, CSV or picture.

The result alone goes to stdout; everything else that is said goes to stderr.
"""

import io
import json
import math
import os
import stat
import sys
import warnings
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pandas as pd

from serkit import figures, runs
from serkit.corpora.sound_files import shown_path, visible
from serkit.errors import AudioError, ParameterError, RunError, check_range
from serkit.experiment import key_of
from serkit.features.audio import AV_SUFFIXES
from serkit.metrics import PROBABILITY

PURPOSE = "for research and teaching: it says how acted speech sounds, not what a person feels"
SOUNDS = (".wav", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".aif", ".aiff", ".au", ".w64", ".caf", *AV_SUFFIXES)  # fmt: skip
PICTURES = (".png", ".pdf", ".svg")
TIMELINE_IN = 2.6  # inch, height of the picture


def predict_files(files, *, model="", run="demo", form="table", segments=False, channel=0, output="", timeline="",
                  device="auto", precision="auto", abstain=0.0):  # fmt: skip
    """Recognise the emotions in sound files and print or write the result.

    With ``output``, what an interrupted call has finished is kept beside it, and the same call goes on from there.

    Parameters
    ----------
    files : sequence of path
        A folder means the sound files that lie in it.
    model : path, optional
        Model folder; default: that of the newest finished fold of ``run``.
    run : str, optional
    form : {"table", "json", "csv"}, optional
    segments : bool, optional
        One row for each segment, not for each file.
    channel : int, optional
        As in `serkit.predict.Predictor.predict`.
    output : path, optional
        File for the result; default stdout.
    timeline : path, optional
        Picture of the emotions over time, of one recording.
    device, precision : str, optional
        As in `serkit.predict.Predictor`.
    abstain : float, optional
        Share of the least sure answers, on validation speakers, that are withheld: ``emotion`` is then ``uncertain``.

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
    check_range("channel", channel, 0, 64, whole=True)
    files = [path for name in files for path in _sounds(name)]
    _check_targets(files, output, timeline)
    folder = Path(model) if model else newest_model(run)
    from serkit.predict.predictor import Predictor  # torch is slow to import; mistakes come first

    predictor = Predictor(folder, device=device, precision=precision)
    least = predictor.least_confidence(abstain)
    _say(f"model {runs.show_path(folder)}, trained on {describe_training(predictor.experiment)}")
    _say(PURPOSE)
    predictions, failed = [], []
    at_rest = output and (os.path.isfile(output) or not os.path.lexists(output))  # no pipe, nor /dev/stdout
    journal = Path(output).with_name(f".{Path(output).name[:200]}.finished") if at_rest else None
    kept = _read_kept(journal)
    for path in files:
        try:
            prediction = _predict(predictor, path, channel, kept, journal)
        except AudioError as error:
            failed.append({"file": shown_path(path), "error": str(error)})
            _say(error)
            continue
        predictions.append(replace(prediction, is_sure=max(prediction.utterance.values()) >= least))
        for notice in prediction.notices:
            _say(f"{shown_path(path)}: {notice.text}")
    if form == "json":
        files = [_record(prediction, segments) for prediction in predictions]
        record = {"model": str(folder), "files": files, "failed": failed}
        text = json.dumps(record, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    else:
        text = _as_text(predictions, form, segments)
    _write(text, output)
    if timeline and predictions:
        save_timeline(predictions[0], timeline)
    if journal:
        journal.unlink(missing_ok=True)
    return 1 if failed else 0


def _write(text, output):
    """The result into its file, or to stdout; there too if the file can't be written, so that no work is lost."""
    content = text.encode(errors="backslashreplace")  # names may be in any encoding
    try:
        if not output:
            print(content.decode(), end="", flush=True)
        elif os.path.lexists(output) and not stat.S_ISREG(os.lstat(output).st_mode):
            Path(output).write_bytes(content)  # /dev/stdout, a named pipe, a link: they stay what they are
        else:
            figures.write_file(Path(output), content)
    except BrokenPipeError:
        raise
    except OSError as error:
        raise RunError(f"{output or 'stdout'}: can't be written ({error}); choose another place") from error
    except RunError as error:
        _write(text, "")
        raise RunError(f"{error}; the result was printed instead") from error


def _predict(predictor, path, channel, kept, journal):
    """The prediction of a file, unless ``kept`` has it; ``journal`` is where it will be found if this call ends early."""
    from serkit.predict.predictor import Prediction
    from serkit.predict.recording import Notice

    files = filter(os.path.exists, [path, *sorted(predictor.folder.glob("*"))])
    stats = [(os.path.realpath(file), os.path.getsize(file), os.path.getmtime(file)) for file in files]
    key = key_of({"files": stats, "channel": channel, "precision": predictor.precision})
    if key not in kept:
        prediction = predictor.predict(path, channel=channel, progress=True)
        kept[key] = vars(prediction) | {"segments": prediction.segments.to_dict("list")}
        if journal:
            with suppress(OSError), open(journal, "a", encoding="utf-8") as file:
                file.write(f"\n{json.dumps({key: kept[key]})}")
    record = kept[key]
    notices = [Notice(*notice) for notice in record["notices"]]
    return Prediction(**record | {"segments": pd.DataFrame(record["segments"]), "notices": notices})


def _read_kept(journal):
    """What an interrupted call with the same output has finished."""
    kept = {}
    for line in journal.read_text(encoding="utf-8").splitlines() if journal and journal.is_file() else []:
        with suppress(ValueError, TypeError):  # cut short by a kill
            kept |= json.loads(line)
    return kept


def _sounds(name):
    """A file, or the sound files in a folder."""
    if not os.path.isdir(name):
        return [name]
    files = [path for path in visible(name) if path.suffix.lower() in SOUNDS and path.is_file()]
    if not files:
        raise ParameterError(f"{shown_path(name)}: holds no sounds ({' '.join(SOUNDS)}); give another")
    return files


def newest_model(run):
    """Model folder of the fold of a run that was finished last; a RunError if the run has none."""

    def finished_at(folder):  # two marks, of the same second: one that is lost or was touched changes nothing
        marks = folder / runs.FILES, folder / runs.DONE
        return min(mark.stat().st_mtime for mark in marks if mark.exists())

    return max(runs.finished_folders(run), key=finished_at) / "model"


def save_timeline(prediction, path):
    """Draw the emotions of a recording over time, as wide as a page; the suffix says the format."""
    from matplotlib.figure import Figure

    with figures.paper_style(columns=2, height=TIMELINE_IN), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # no font has all characters that a name may have
        fig = Figure()
        figures.plot_timeline(prediction.segments, ax=fig.subplots())
        title = Path(prediction.path).name[:90]
        fig.suptitle(title, fontsize=8, parse_math=False)  # dollars in a name are no formula
        picture = io.BytesIO()
        fig.savefig(picture, dpi=300, format=Path(path).suffix[1:].lower())
        figures.write_file(Path(os.path.realpath(path)), picture.getvalue())


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
    return pd.DataFrame([
        {"file": p.path, "duration_s": round(p.duration_s, 3), "sample_rate": p.sample_rate, "channels": p.channels,
         "emotion": p.emotion} | {PROBABILITY + label: value for label, value in p.utterance.items()}
        | {"warnings": "; ".join(notice.text for notice in p.notices)}
        for p in predictions
    ])  # fmt: skip


def _check_targets(files, output, timeline):
    """Find out before hours of work what would go wrong after them."""
    if timeline and (len(files) > 1 or Path(timeline).suffix.lower() not in PICTURES):
        wanted = f"expected one, and a picture that ends in {', '.join(PICTURES)}"
        raise ParameterError(f"timeline={timeline} of {len(files)} recordings, {wanted}")
    for name, target in {"output": output, "timeline": timeline}.items():
        path = Path(os.path.realpath(target))
        if target and (path.is_dir() or not path.parent.is_dir()):
            raise ParameterError(f"{name}={target}: expected a file in a folder that exists; make it first")
        if path in [Path(os.path.realpath(file)) for file in files]:
            raise ParameterError(f"{name}={target} is one of the recordings; choose another name")
    if output and os.path.realpath(output) == os.path.realpath(timeline):
        raise ParameterError(f"output={output} is the timeline too; choose another name")


def _as_text(predictions, form, segments):
    """The result as CSV, or in columns for reading; nothing if there is no result."""
    if not predictions:
        return ""
    table = summary_table(predictions)
    if segments:
        paths = [p.path for p in predictions]
        table = pd.concat([p.segments for p in predictions], keys=paths, names=["file"]).reset_index("file")
    if form == "csv":
        return table.to_csv(index=False, lineterminator="\n")
    shown = table.drop(columns="warnings", errors="ignore")  # stderr has said them
    return shown.to_string(index=False, float_format="{:.3f}".format) + "\n"


def _record(prediction, segments):
    """A recording for JSON, which has no infinity: the level of a silent segment is null."""
    p = prediction
    record = {
        "file": p.path, "duration_s": p.duration_s, "sample_rate": p.sample_rate, "channels": p.channels,
        "emotion": p.emotion, "probabilities": p.utterance, "warnings": [notice.text for notice in p.notices],
    }  # fmt: skip
    if segments:
        record["segments"] = p.segments.replace(-math.inf, None).to_dict("records")
    return record


def _say(text):
    print(f"serkit: {text}", file=sys.stderr, flush=True)
