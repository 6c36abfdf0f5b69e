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
import tomllib
from collections import Counter
from pathlib import Path

import pandas as pd
import soundfile
from tabulate import tabulate

from serkit import folds
from serkit.constants import LABELS
from serkit.corpora.manifest import group_speakers, make_manifest
from serkit.corpora.sound_files import name_some, read_header
from serkit.errors import AudioError, CorpusError, SerkitError
from serkit.experiment import FALSE, TRUE, shown
from serkit.files import replacing

SUFFIXES = (".csv", ".tsv", ".jsonl", ".ndjson", ".parquet")
NEEDED = ("path", "speaker", "emotion")
NUMBERS = ("start_s", "end_s", "valence", "activation", "dominance")
CLASSES = (2, 12)  # how many a task may have
GROUPS = 5  # of speakers, unless the table has sessions or its TOML file another number
PROTOCOLS = (
    ("session", "clean"),
    ("speaker", "clean"),
    ("split", "clean"),
    ("split", "last"),
)  # that are shown
SETTINGS = {"columns": dict, "emotions": dict, "task": dict}  # what such a TOML file may hold
LEAST = 5  # utterances; a class with fewer is doubtful
SPELLINGS = tomllib.loads(Path(__file__).with_name("spellings.toml").read_text(encoding="utf-8"))


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
    if broken and skip_broken:
        print(f"note: left out, as they can't be used ({len(broken)}): {name_some(broken)}")
    faults += [] if skip_broken else broken
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
    rows, columns, notes, faults = understand(path)
    lines = {row["utterance_id"]: row["line"] for row in rows}
    rows, broken = read_sounds(rows, path.parent / "turns")
    faults += broken
    print(f"{path}: {len(lines) + len(faults) - len(broken)} rows; columns understood:")
    print(tabulate(columns.items(), ["here", "in the table"], tablefmt="plain"))
    if rows and not faults:
        manifest = make_manifest(rows)
        counts = manifest.groupby("emotion", dropna=False)["label"].agg(["size", "first"])
        counts = counts.rename(columns={"size": "utterances", "first": "class"}).fillna("(left out)")
        speakers = f"{manifest['speaker'].nunique()} speakers in {manifest['session'].nunique()} sessions"
        print(f"\n{counts.to_string()}\n\n{len(manifest)} utterances of {speakers}")
        for _, twice in manifest[manifest["digest"].duplicated(keep=False)].groupby("digest"):
            where = ", ".join(f"{name} (line {lines[name]})" for name in twice["utterance_id"][:4])
            notes.append(f"perhaps the same sound {len(twice)} times: {where}")
        for by, selection in (
            ("session", "clean"),
            ("speaker", "clean"),
            ("split", "clean"),
            ("split", "last"),
        ):
            try:
                made = folds.make_folds(manifest, by, selection)
                print(
                    f"by={by}, selection={selection}: {len(made)} folds, tested {name_some(fold.name for fold in made)}"
                )
            except SerkitError as error:
                print(f"by={by}, selection={selection}: no folds, {error}")
    for head, items in (("doubtful", notes), ("wrong", faults)):
        if items:
            print("\n" + "\n".join([f"{head} ({len(items)}):", *(f"  {item}" for item in items)]))
    return not faults


def find_table(path):
    """The table itself, where a folder that holds it was given."""
    path = Path(path).expanduser()
    tables = [path]
    if path.is_dir():
        tables = sorted(file for file in path.iterdir() if file.suffix.lower() in SUFFIXES)
    if len(tables) != 1 or not tables[0].is_file() or tables[0].suffix.lower() not in SUFFIXES:
        there = f"{len(tables)} tables there" if path.is_dir() else "no such table"
        raise CorpusError(f"table {path}: {there}, expected one file that ends in {' '.join(SUFFIXES)}")
    return tables[0].absolute()


def understand(path, name="table"):
    """What a table says, before any sound is opened.

    Returns
    -------
    rows : list of dict
        Of the manifest, without what the sounds say; ``line`` where each stands.
    columns : dict of str to str
        Ours to the table's.
    notes : list of str
        What is doubtful.
    faults : list of str
        What can't be understood, with its line.
    """
    names, records = read_records(path)
    settings = _settings(path)
    columns, notes = match_columns(names, settings["columns"], path)
    words = _words(settings["emotions"])
    classes = settings["task"].get("classes", LABELS)
    rows, faults = [], []
    for number, record in records:
        given = {ours: _text(record.get(theirs)) for ours, theirs in columns.items()}
        try:
            rows.append(_row(given, words, classes, path.parent) | {"corpus": name, "line": number})
        except CorpusError as error:
            faults.append(f"line {number}: {error}")
    repeated = Counter(row["utterance_id"] for row in rows)
    for row in rows:
        if repeated[row["utterance_id"]] > 1:
            faults.append(f"line {row['line']}: utterance {row['utterance_id']} stands there more than once")
    if "session" not in columns:
        group_speakers(rows, settings["task"].get("groups", GROUPS))
    return rows, columns, notes + _doubts(rows, classes), faults


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
    kind = path.suffix.lower()
    try:
        if kind == ".parquet":
            records = list(enumerate(pd.read_parquet(path).reset_index().to_dict("records"), start=1))
        elif kind in (".jsonl", ".ndjson"):
            records = list(_json_lines(path))
        else:
            records = list(_separated_lines(path))
    except (OSError, ValueError, csv.Error) as error:  # pyarrow's own are ValueErrors
        raise CorpusError(f"table {path}: can't be read ({str(error).strip()[:200]})") from error
    if not records:
        raise CorpusError(f"table {path}: holds no rows, expected one for each utterance")
    return list(dict.fromkeys(name for _, record in records for name in record)), records


def _decoded(path):
    content = path.read_bytes()
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        return content.decode("cp1252", errors="replace")


def _separated_lines(path):
    """Rows of a CSV or TSV file, whichever of tab, semicolon and comma its head has most of."""
    text = _decoded(path)
    head = text.partition("\n")[0]
    reader = csv.DictReader(io.StringIO(text), delimiter=max("\t;,", key=head.count), strict=True)
    for record in reader:
        if None in record or None in record.values():
            raise ValueError(
                f"line {reader.line_num} has other columns than the first line: {shown(list(record.values()))}"
            )
        if any(record.values()):
            yield reader.line_num, record


def _json_lines(path):
    for number, line in enumerate(_decoded(path).splitlines(), start=1):
        try:
            if line.strip():
                yield number, dict(json.loads(line))
        except (ValueError, TypeError, RecursionError):
            raise ValueError(f"line {number} is no JSON object: {shown(line)}") from None


def _settings(path):
    """The TOML file beside a table, checked; empty where there is none."""
    file = path.with_suffix(".toml")
    settings = {name: {} for name in SETTINGS}
    if not file.is_file():
        return settings
    try:
        settings |= tomllib.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise CorpusError(f"{file}: is not TOML ({error})") from error
    task = settings["task"] if isinstance(settings["task"], dict) else {}
    wrong = [name for name, value in settings.items() if not isinstance(value, SETTINGS.get(name, ()))]
    wrong += [f"[task] {name}" for name in task if name not in ("classes", "groups")]
    if wrong:
        raise CorpusError(
            f"{file}: {wrong[0]} is not known, expected [columns], [emotions] and [task] with classes and groups"
        )
    classes, groups = task.get("classes", "all"), task.get("groups", GROUPS)
    if classes != "all" and not (isinstance(classes, list) and CLASSES[0] <= len(set(classes)) <= CLASSES[1]):
        raise CorpusError(f"{file}: classes={shown(classes)}, expected a list of 2 to 12 emotions, or 'all'")
    if not isinstance(groups, int) or isinstance(groups, bool) or groups < 2:
        raise CorpusError(f"{file}: groups={shown(groups)}, expected a whole number from 2")
    return settings


def match_columns(names, given, path):
    """Our name of each of a table's columns that is understood.

    Returns
    -------
    columns : dict of str to str
        Ours to the table's.
    notes : list of str
        Where several columns could be meant.

    Raises
    ------
    CorpusError
        If a needed column is missing, or the TOML file names one that is not there.
    """
    by_spelling, columns, notes = {_plain(name): name for name in names}, {}, []
    for ours, spellings in SPELLINGS["columns"].items():
        if ours in given:
            if given[ours] not in names:
                raise CorpusError(
                    f"table {path}: its TOML file has {ours} = {shown(given[ours])}, but the columns are "
                    f"{', '.join(map(str, names))}"
                )
            columns[ours] = given[ours]
        elif matches := [by_spelling[_plain(name)] for name in spellings if _plain(name) in by_spelling]:
            columns[ours] = matches[0]
            if len(matches) > 1:
                notes.append(
                    f"column {matches[0]!r} is taken for {ours}, not {', '.join(map(repr, matches[1:]))}"
                )
    if "emotion" not in columns and "ratings" in columns:
        columns["emotion"] = columns["ratings"]
    if missing := [name for name in NEEDED if name not in columns]:
        raise CorpusError(
            f"table {path}: no column for {', '.join(missing)} among {', '.join(map(str, names))}; name it in "
            f'{path.with_suffix(".toml").name}: [columns] {missing[0]} = "..."'
        )
    return columns, notes


def _plain(word):
    return str(word).strip().lower().replace(" ", "_").replace("-", "_")


def _text(value):
    """A cell as text; empty where nothing stands."""
    if isinstance(value, dict):  # a sound as Hugging Face exports it
        value = value.get("path", "")
    if getattr(value, "ndim", 0) or isinstance(value, list | tuple):
        return ";".join(map(str, value))
    if pd.isna(value):
        return ""
    if isinstance(value, float) and value.is_integer():  # a whole number in a column with gaps
        value = int(value)
    return str(value).strip()


def _words(given):
    """{a table's word for an emotion: ours}."""
    usual = {_plain(word): name for name, words in SPELLINGS["emotions"].items() for word in words}
    return usual | {_plain(word): name for word, name in given.items()}


def _row(given, words, classes, folder):
    """Manifest row of a line, without what its sound says; a CorpusError says what is wrong with it."""
    for name in NEEDED:
        if not given[name]:
            raise CorpusError(f"{name} is empty, expected a value in every line")
    path = Path(given["path"]).expanduser()
    row = {name: _number(name, given.get(name, "")) for name in NUMBERS}
    start, end = row["start_s"], row["end_s"]
    if (start is not None and start < 0) or (end is not None and end <= (start or 0.0)):
        raise CorpusError(f"start_s={start} and end_s={end}, expected 0 <= start_s < end_s")
    ratings = [_plain(word) for word in given.get("ratings", "").replace("|", ";").split(";") if word.strip()]
    ratings = [words.get(word, word) for word in ratings]
    emotion = given["emotion"] if given["emotion"] != given.get("ratings") else _majority(ratings)
    if emotion and _plain(emotion) not in words:
        raise CorpusError(
            f"emotion {shown(emotion)} is not known; say what it is in the TOML file: [emotions] "
            f'"{emotion[:40]}" = "angry", or "" to leave it out'
        )
    label = words[_plain(emotion)] if emotion else ""
    stretch = "" if start is None and end is None else f"_{round(1000 * (start or 0))}"
    return row | {
        "path": str(path if path.is_absolute() else folder / path),
        "utterance_id": given.get("utterance_id") or path.stem + stretch,
        "speaker": given["speaker"], "session": given.get("session") or None,
        "gender": _one_of("gender", given.get("gender", "")), "scripted": _switch(given.get("scripted", "")), "dialogue": given.get("dialogue", ""),
        "emotion": emotion or "no majority", "label": label if label and (classes == "all" or label in classes) else None,
        "transcript": given.get("transcript") or None, "split": _one_of("split", given.get("split", "")),
        "ratings": ";".join(ratings) or None,
        "agreement": ratings.count(words[_plain(emotion)]) / len(ratings) if ratings and emotion else None,
    }  # fmt: skip


def _majority(ratings):
    """What most annotators chose; empty where two words have as many."""
    counts = Counter(ratings).most_common(2)
    return counts[0][0] if len(counts) == 1 or counts[0][1] > counts[1][1] else ""


def _number(name, text):
    if not text:
        return None
    try:
        return float(text.replace(",", "."))
    except ValueError:
        pass
    try:
        return pd.Timedelta(text).total_seconds()  # as audformat writes times
    except ValueError:
        raise CorpusError(f"{name}={shown(text)}, expected a number") from None


def _switch(text):
    return text.lower() in TRUE if text.lower() in (*TRUE, *FALSE) else None


def _one_of(name, text):
    """Our word for a sex or a split; None where nothing stands."""
    for ours, words in SPELLINGS[f"{name}s"].items():
        if _plain(text) in map(_plain, words):
            return ours
    if text:
        raise CorpusError(f"{name}={shown(text)}, expected one of {', '.join(SPELLINGS[f'{name}s'])}")
    return None


def _doubts(rows, classes):
    """What a reader should know of a table that can be read."""
    doubts, counts = [], Counter(row["label"] for row in rows if row["label"])
    speakers = {row["speaker"] for row in rows}
    if len(speakers) < 2:
        doubts.append(
            f"all lines are of speaker {next(iter(speakers), '')}: nobody can be held out for a test"
        )
    sessions = {}
    for row in rows:
        sessions.setdefault(row["speaker"], set()).add(row["session"])
    doubts += [
        f"speaker {speaker} is in sessions {', '.join(sorted(map(str, names)))}: a session can't be held out"
        for speaker, names in sorted(sessions.items()) if len(names) > 1
    ]  # fmt: skip
    if classes != "all":
        doubts += [f"class {name} has {counts[name]} utterances" for name in classes if counts[name] < LEAST]
    if len(counts) < CLASSES[0]:
        found = ", ".join(sorted({row["emotion"] for row in rows})[:12])
        doubts.append(
            f"fewer than 2 classes; the emotions there are {found}: choose from them in [task] classes"
        )
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
        start, end, line = row.pop("start_s"), row.pop("end_s"), row.pop("line")
        try:
            if not Path(row["path"]).is_file():
                raise AudioError(f"{row['path']}: no such file; a path is read from the table's folder on")
            if start is not None or end is not None:
                row["path"] = str(_cut(row["path"], start or 0.0, end, folder / f"{row['utterance_id']}.wav"))
            usable.append(row | read_header(row["path"])._asdict())
        except SerkitError as error:
            broken.append(f"line {line}: {error}")
    return usable, broken


def _cut(path, start, end, target):
    """Write a stretch of a recording as WAV, unless it is there from an earlier call and not older than it."""
    try:
        if target.is_file() and target.stat().st_mtime >= Path(path).stat().st_mtime:
            return target
        info = soundfile.info(path)
        if start * info.samplerate >= info.frames or (end or 0.0) * info.samplerate > info.frames + 1:
            raise AudioError(f"{path}: {info.duration:.2f} s long, expected at least {end or start} s")
        stop = None if end is None else round(end * info.samplerate)
        sound, rate = soundfile.read(path, start=round(start * info.samplerate), stop=stop, dtype="float64")
        target.parent.mkdir(parents=True, exist_ok=True)
        with replacing(target) as partial:
            subtype = info.subtype if soundfile.check_format("WAV", info.subtype) else "FLOAT"
            soundfile.write(partial, sound, rate, subtype, format="WAV")
    except (OSError, RuntimeError) as error:  # libsndfile's is a RuntimeError
        raise AudioError(f"{path}: can't be cut ({error})") from error
    return target
