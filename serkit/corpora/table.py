"""Any corpus from one table: CSV, TSV, JSON Lines or Parquet, a row for each utterance.

Columns, emotions, sexes and splits are recognised by their usual spellings (``spellings.toml``). What a table
calls otherwise, which emotions are its classes, and into how many groups its speakers fall, stands in a small TOML
file of the same name beside it::

    [columns]           # ours = the table's
    speaker = "voice"
    [emotions]          # the table's = ours; "" leaves an emotion out
    boredom = "bored"
    [task]
    classes = ["angry", "bored", "neutral"]     # or "all"; the paper's four if not given
    groups = 5                                  # of speakers, where the table has no sessions
"""

import csv
import io
import json
import os
import tomllib
from collections import Counter, defaultdict
from pathlib import Path
from statistics import multimode

import pandas as pd
import soundfile
from tabulate import tabulate

from serkit import folds
from serkit.constants import LABELS
from serkit.corpora.manifest import group_speakers, make_manifest
from serkit.corpora.sound_files import name_some, note_broken, read_header, read_text
from serkit.errors import AudioError, CorpusError, SerkitError, check_choice, check_range, reported_as
from serkit.experiment import FALSE, TRUE, check_names, shown
from serkit.files import read_toml, replacing

SUFFIXES = (".csv", ".tsv", ".jsonl", ".ndjson", ".parquet")
NEEDED = ("path", "speaker", "emotion")
NUMBERS = ("start_s", "end_s", "valence", "activation", "dominance")
CLASSES = (2, 12)  # how many a task may have
GROUPS = 5  # of speakers, unless the TOML file has another number
MOST_GROUPS = 1000
FEW = 5  # utterances; a class with fewer is doubtful
# shown by check
PROTOCOLS = (("session", "clean"), ("speaker", "clean"), ("split", "clean"), ("split", "last"))
SPELLINGS = read_toml(__file__, "spellings.toml")


def load(path, *, name="table", cut_folder=None, skip_broken=False):
    """The manifest of a table.

    Parameters
    ----------
    path : path
        The table, or a folder that holds one and nothing else of its kind.
    name : str, optional
        Of the corpus.
    cut_folder : path, optional
        Where stretches of longer recordings are cut to; default ``turns`` beside the table.
    skip_broken : bool, optional
        Print which sound files can't be used and do without them.

    Returns
    -------
    pd.DataFrame
        As :func:`serkit.corpora.load` gives it, with ``split`` and ``ratings`` where the table has them. Classes
        are those of its TOML file, or the paper's four.

    Raises
    ------
    CorpusError
        If it can't be read; or naming every line that can't be understood: nothing is half read.
    """
    path = find_table(path)
    rows, _, _, faults = understand(path, name)
    rows, broken = read_sounds(rows, Path(cut_folder or path.parent / "turns"))
    if skip_broken:
        note_broken(broken)
    else:
        faults += broken
    if faults:
        raise CorpusError(f"table {path}, {len(faults)} faults: {name_some(faults, 12)}")
    return make_manifest(rows)


def check(path):
    """Print what is understood of a table, what is missing or doubtful, and the folds that follow.

    Parameters
    ----------
    path : path

    Returns
    -------
    bool
        Whether nothing is wrong with it.

    Raises
    ------
    CorpusError
        If it can't be read at all.
    """
    path = find_table(path)
    rows, columns, doubts, faults = understand(path)
    rows, broken = read_sounds(rows, path.parent / "turns")
    faults += broken
    print(tabulate(columns.items(), ["understood", f"in {path.name}"], tablefmt="plain"))
    if rows and not faults:
        manifest = make_manifest(rows)
        counts = manifest.fillna({"label": "(left out)"}).groupby(["label", "emotion"]).size()
        print(f"\n{len(rows)} utterances\n{counts.to_string()}\n\nfolds that follow")
        for by, selection in PROTOCOLS[: None if "split" in columns else 2]:
            try:
                names = [fold.name for fold in folds.make_folds(manifest, by, selection)]
                print(f"by={by}, selection={selection}: {len(names)}, tested {name_some(names)}")
            except SerkitError as error:
                print(f"by={by}, selection={selection}: none, {error}")
        for _, same in pd.DataFrame(rows).sort_values("utterance_id").groupby("digest"):
            if len(same) > 1:
                where = name_some(same["utterance_id"] + same["line"].map(" (line {})".format))
                doubts.append(f"perhaps the same sound {len(same)} times: {where}")
    for head, items in (("doubtful", doubts), ("wrong", faults)):
        if items:
            print(f"\n{head} ({len(items)}):", *items, sep="\n  ")
    return not faults


def find_table(path):
    """The table itself, where a folder that holds it was given."""
    path = Path(os.path.expanduser(path))
    files = path.iterdir() if path.is_dir() else [path]
    tables = [file for file in files if file.suffix.lower() in SUFFIXES and file.is_file()]
    if len(tables) != 1:
        there = f"{len(tables)} tables there" if path.is_dir() else "no such table"
        raise CorpusError(f"table {path}: {there}, expected one file that ends in {' '.join(SUFFIXES)}")
    return tables[0].absolute()


def understand(path, name="table"):
    """Read a table and its TOML file.

    Parameters
    ----------
    path : Path
    name : str, optional
        Of the corpus.

    Returns
    -------
    rows : list of dict
        Of the manifest, without what the sounds say; ``line`` where each stands.
    columns : dict
        Ours -> the table's.
    doubts : list of str
        What a reader should know.
    faults : list of str
        What can't be understood, with its line.

    Raises
    ------
    CorpusError
        If one of the two can't be read, or a needed column is missing.
    """
    names, records = read_records(path)
    settings = _settings(path.with_suffix(".toml"))
    columns, doubts = _match_columns(names, settings["columns"], path)
    words = {_plain(word): ours for ours, words in SPELLINGS["emotions"].items() for word in words}
    words |= {_plain(word): ours for word, ours in settings["emotions"].items()}
    classes = settings["task"]["classes"]
    rows, faults = [], []
    for line, record in records:
        given = dict.fromkeys(SPELLINGS["columns"], "")
        given |= {ours: _text(record.get(theirs)) for ours, theirs in columns.items()}
        try:
            rows.append(_row(given, words, classes, path.parent) | {"corpus": name, "line": line})
        except SerkitError as error:
            faults.append(f"line {line}: {error}")
    times = Counter(row["utterance_id"] for row in rows)
    faults += [
        f"line {row['line']}: utterance {row['utterance_id']} stands there more than once"
        for row in rows if times[row["utterance_id"]] > 1
    ]  # fmt: skip
    if "session" not in columns:
        group_speakers(rows, settings["task"]["groups"])
    return rows, columns, doubts + _doubts(rows, classes), faults


def read_records(path):
    """Names of a table's columns, and each of its rows with the line that it stands in.

    Returns
    -------
    names : list of str
    records : list of (int, dict)

    Raises
    ------
    CorpusError
        If it can't be read, naming the line where there is one.
    """
    unreadable = OSError, ValueError, csv.Error  # pyarrow's own are ValueErrors
    with reported_as(CorpusError, f"table {path}: can't be read", "save it again", unreadable):
        if path.suffix.lower() == ".parquet":
            records = list(enumerate(pd.read_parquet(path).reset_index().to_dict("records"), start=1))
        else:
            lines = _json_lines if path.suffix.lower() in (".jsonl", ".ndjson") else _separated_lines
            records = list(lines(read_text(path)))
    if not records:
        raise CorpusError(f"table {path}: holds no rows, expected one for each utterance")
    return list(dict.fromkeys(name for _, record in records for name in record)), records


def _separated_lines(text):
    """Rows of a CSV or TSV file, whichever of tab, semicolon and comma its head has most of."""
    mark = max("\t;,", key=text.partition("\n")[0].count)
    reader = csv.DictReader(io.StringIO(text), delimiter=mark, strict=True)
    for record in reader:
        if None in record or None in record.values():
            raise ValueError(f"line {reader.line_num} has not as many columns as the first line")
        if any(record.values()):
            yield reader.line_num, record


def _json_lines(text):
    for line, content in enumerate(text.splitlines(), start=1):
        try:
            if content.strip():
                yield line, dict(json.loads(content))
        except (ValueError, TypeError, RecursionError):
            raise ValueError(f"line {line} is no JSON object: {shown(content)}") from None


def _settings(file):
    """The TOML file beside a table, checked; empty where there is none."""
    settings = {"columns": {}, "emotions": {}, "task": {"classes": list(LABELS), "groups": GROUPS}}
    try:
        given = tomllib.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
        check_names(given, settings)
        check_names(given.get("columns", ()), SPELLINGS["columns"])
        check_names(given.get("task", ()), settings["task"])
        settings = {name: table | given.get(name, {}) for name, table in settings.items()}
        classes = settings["task"]["classes"]
        if classes != "all" and not (isinstance(classes, list) and CLASSES[0] <= len(classes) <= CLASSES[1]):
            raise ValueError(f"classes={shown(classes)}, expected a list of 2 to 12 emotions, or 'all'")
        check_range("groups", settings["task"]["groups"], 2, MOST_GROUPS, whole=True)
    except (ValueError, TypeError, SerkitError) as error:
        raise CorpusError(f"{file}: {error}") from error
    return settings


def _match_columns(names, given, path):
    """{ours: the table's} of the columns that are understood, and where several could be meant."""
    by_spelling, columns, doubts = {_plain(name): name for name in names}, dict(given), []
    for ours, spellings in SPELLINGS["columns"].items():
        matches = [by_spelling[_plain(word)] for word in spellings if _plain(word) in by_spelling]
        if matches and ours not in given:
            columns[ours] = matches[0]
            others = ", ".join(map(repr, matches[1:]))
            doubts += [f"column {matches[0]!r} is taken for {ours}, not {others}"] if others else []
    columns.setdefault("emotion", columns.get("ratings"))
    among = f"among the columns {', '.join(map(str, names))}"
    for ours in (*NEEDED, *columns):
        if columns.get(ours) not in names:
            called = f"column {columns[ours]!r}" if columns.get(ours) else f"column for {ours}"
            cure = f'say in {path.with_suffix(".toml").name} what it is called: [columns] {ours} = "..."'
            raise CorpusError(f"table {path}: no {called} {among}; {cure}")
    return columns, doubts


def _plain(word):
    return str(word).strip().lower().replace(" ", "_").replace("-", "_")


def _text(value):
    """A cell as text; empty where nothing stands."""
    if isinstance(value, dict):  # a sound as Hugging Face exports it
        value = value.get("path")
    if getattr(value, "ndim", 0) or isinstance(value, list | tuple):
        return ";".join(map(str, value))
    if pd.isna(value):
        return ""
    if isinstance(value, float) and value.is_integer():  # a whole number in a column with gaps
        value = int(value)
    return str(value).strip()


def _row(given, words, classes, folder):
    """Manifest row of a line, without what its sound says; a SerkitError says what is wrong with it."""
    if missing := [name for name in NEEDED if not given[name]]:
        raise CorpusError(f"{missing[0]} is empty, expected a value in every line")
    row = {name: _number(name, given[name]) for name in NUMBERS}
    row |= {name: _one_of(name, given[name]) for name in ("gender", "split")}
    start, end = row["start_s"], row["end_s"]
    if (start or 0) < 0 or (end is not None and end <= (start or 0)):
        raise CorpusError(f"start_s={start} and end_s={end}, expected 0 <= start_s < end_s")
    ratings = [_plain(word) for word in given["ratings"].replace("|", ";").split(";") if word.strip()]
    ratings = [words.get(word, word) for word in ratings]
    emotion, commonest = given["emotion"], multimode(ratings)
    if emotion == given["ratings"]:  # there is no other column for it
        emotion = commonest[0] if len(commonest) == 1 else ""
    if emotion and _plain(emotion) not in words:
        cure = f'[emotions] "{emotion[:40]}" = "angry", or "" to leave it out'
        raise CorpusError(f"emotion {shown(emotion)} is not known; say in the TOML file what it is: {cure}")
    label, path = words.get(_plain(emotion), ""), folder / os.path.expanduser(given["path"])
    stretch = "" if start is None and end is None else f"_{round(1000 * (start or 0))}"
    scripted = given["scripted"].lower()
    return row | {
        "path": str(path), "utterance_id": given["utterance_id"] or path.stem + stretch, "speaker": given["speaker"],
        "session": given["session"] or None, "dialogue": given["dialogue"], "transcript": given["transcript"] or None,
        "scripted": scripted in TRUE if scripted in (*TRUE, *FALSE) else None,
        "emotion": emotion or "no majority",
        "label": label if label and (classes == "all" or label in classes) else None,
        "ratings": ";".join(ratings) or None,
        "agreement": ratings.count(label) / len(ratings) if ratings and label else None,
    }  # fmt: skip


def _number(name, text):
    """A number; a time may be written as audformat does, ``0 days 00:00:01.5``."""
    try:
        return float(text.replace(",", ".")) if "days" not in text else pd.Timedelta(text).total_seconds()
    except ValueError:
        if text:
            raise CorpusError(f"{name}={shown(text)}, expected a number") from None
    return None


def _one_of(name, text):
    """Our word for a sex or a split; None where nothing stands."""
    known = SPELLINGS[f"{name}s"]
    ours = next((ours for ours, words in known.items() if _plain(text) in words), text)
    if text:
        check_choice(name, ours, tuple(known))
    return ours or None


def _doubts(rows, classes):
    """What a reader should know of a table that can be read."""
    counts = Counter(row["label"] for row in rows if row["label"])
    sessions = defaultdict(set)
    for row in rows:
        sessions[row["speaker"]].add(str(row["session"]))
    doubts = [
        f"speaker {speaker} is in sessions {name_some(sorted(names))}: no session can be held out"
        for speaker, names in sessions.items() if len(names) > 1
    ]  # fmt: skip
    if len(sessions) < 2:
        doubts.insert(0, f"one speaker, {''.join(sessions)}: nobody can be held out for a test")
    expected = sorted(counts) if classes == "all" else classes
    doubts += [f"class {name} has {counts[name]} utterances" for name in expected if counts[name] < FEW]
    if not CLASSES[0] <= len(counts) <= CLASSES[1]:
        emotions = name_some(sorted({row["emotion"] for row in rows}), CLASSES[1])
        doubts.append(f"{len(counts)} classes, expected 2 to 12: choose in [task] classes from {emotions}")
    return doubts


def read_sounds(rows, folder):
    """Add what the sounds say; stretches of longer recordings are cut out first, each into a file of its own.

    Returns
    -------
    rows : list of dict
        Those whose sound can be used.
    broken : list of str
        The others, with their line.
    """
    usable, broken = [], []
    for row in rows:
        try:
            if not Path(row["path"]).is_file():
                raise AudioError(f"{row['path']}: no such file; a path begins in the table's folder")
            if row["start_s"] is not None or row["end_s"] is not None:
                row["path"] = str(_cut(row, folder))
            usable.append(row | read_header(row["path"])._asdict())
        except AudioError as error:
            broken.append(f"line {row['line']}: {error}")
    return usable, broken


def _cut(row, folder):
    """Write a stretch of a recording as WAV, unless that was done since the recording last changed."""
    path, target = Path(row["path"]), folder / f"{row['utterance_id']}.wav"
    start, end = row["start_s"] or 0, row["end_s"]
    if target.is_file() and target.stat().st_mtime >= path.stat().st_mtime:
        return target
    # libsndfile's is a RuntimeError
    with reported_as(AudioError, f"{path}: can't be cut", "convert it to WAV", (OSError, RuntimeError)):
        info = soundfile.info(path)
        if max(start, end or 0) > info.duration:
            raise AudioError(f"{path}: {info.duration:.2f} s long, expected at least {end or start} s")
        first, last = round(start * info.samplerate), end and round(end * info.samplerate)
        sound, rate = soundfile.read(path, start=first, stop=last)
        with replacing(target) as partial:
            subtype = info.subtype if soundfile.check_format("WAV", info.subtype) else "FLOAT"
            soundfile.write(partial, sound, rate, subtype, format="WAV")
    return target
