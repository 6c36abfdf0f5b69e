"""IEMOCAP as released: ``Session1`` to ``Session5``, read from the evaluation files and wav headers."""

import math
import re
from typing import NamedTuple

import numpy as np
import pandas as pd

from serkit.constants import IEMOCAP_EMOTIONS, IEMOCAP_SPEAKERS, IEMOCAP_UTTERANCES
from serkit.corpora.manifest import make_manifest
from serkit.corpora.sound_files import (
    find_folder,
    inside,
    list_sounds,
    name_some,
    read_headers,
    read_text,
    visible,
)
from serkit.errors import CorpusError
from serkit.folds import task_rows

SESSIONS = ("1", "2", "3", "4", "5")
LABEL_OF_TAG = {"ang": "angry", "sad": "sad", "neu": "neutral", "hap": "happy", "exc": "happy"}
NO_MAJORITY = "xxx"  # tag of an utterance on which the annotators did not agree
TAGS = {"ang", "sad", "neu", "hap", "exc", "fru", "sur", "fea", "dis", "oth", NO_MAJORITY}

# kinds of problem; the first three must be mended, the others are only worth knowing
BROKEN, TAG, LINE = "broken sound files", "unknown tags", "unreadable evaluation lines"
LEFT_OUT, UNLABELLED, SILENT = "sessions left out", "wavs without a label", "labels without a wav"
FATAL = (BROKEN, TAG, LINE)

SUMMARY = re.compile(r"\[[\d.\s]+-[\d.\s]+\]\s+(\S+)\s+(\S+)(?:\s+\[([^\]]*)\])?\s*")
ANNOTATOR = re.compile(r"^C-E\d+:([^(\n]*)", re.MULTILINE)  # evaluators only: C-F and C-M are the actors' own
TRANSCRIPT = re.compile(r"^[ \t]*(\S+)[ \t]*\[[^\]\n]*\][ \t]*:[ \t]*(.*?)[ \t]*$", re.MULTILINE)
TURN = re.compile(r"Ses0(\d)[FM]_\w+_([FM])\d+")


class Turn(NamedTuple):
    """One summary line of an evaluation file and the annotator lines under it."""

    utterance_id: str
    emotion: str
    ratings: tuple  # valence, activation, dominance
    choices: list  # per annotator the tags chosen, in that order


def load(root, *, check="strict", skip_broken=False):
    """Read the IEMOCAP release.

    Parameters
    ----------
    root : path
        Folder that holds ``Session1`` to ``Session5``; its parent or one session will do.
    check : {"strict", "report"}
        ``strict``: every session, tag and sound file must be right, and the four-class utterances
        per tag and speaker must be those of the full release. ``report``: print what differs and
        go on; broken files are left out, unknown tags get no label.
    skip_broken : bool
        Go on without broken sound files, which are printed, with ``strict`` too.

    Returns
    -------
    pd.DataFrame
        The manifest. ``emotion`` is the released tag; ``label`` is missing for all but ang, sad,
        neu, hap and exc, the last two both being happy. ``agreement`` is the share of annotators
        with the tag among their choices; missing for xxx, where there is no tag to agree with.

    Raises
    ------
    CorpusError
        If there is no session at ``root``; with ``strict`` also on anything named above.
    """
    manifest, problems = _read_sessions(root, "iemocap", partial=check == "report")
    counts = count_table(manifest)
    if check == "report":
        print("\n".join([*_summary(problems), counts.to_string()]))
        return manifest
    head, accept = f"corpus root {root}:", 'to go on with what is there, pass check="report"'
    skipped = skip_broken and problems[BROKEN]
    if fatal := _summary({kind: problems[kind] for kind in FATAL if not (skipped and kind == BROKEN)}):
        raise CorpusError("\n".join([head, *fatal, accept]))
    if counts["difference"].any() and not skipped:
        head += " four-class utterances are not those of the full IEMOCAP release"
        lines = [head, counts.to_string(), *_summary(problems), f"check the archive; {accept}"]
        raise CorpusError("\n".join(lines))
    for note in _summary(problems):
        print(f"note: {note}")
    return manifest


def read_tree(root, corpus="iemocap"):
    """Read any corpus that lies on disk like IEMOCAP, whatever its size.

    Parameters
    ----------
    root : path
        As for `load`.
    corpus : str
        Goes into the manifest's ``corpus`` column.

    Returns
    -------
    manifest : pd.DataFrame
        Utterances with a label line and a whole wav; unknown tags are kept without label.
    problems : list of str
        One line for each broken file, unknown tag, unreadable line, wav without label and label
        without wav; empty for a clean tree.

    Raises
    ------
    CorpusError
        If ``root``, one of the five sessions, or every usable utterance is missing.
    """
    manifest, problems = _read_sessions(root, corpus)
    return manifest, [f"{kind}: {item}" for kind, items in problems.items() for item in items]


def count_table(manifest):
    """Four-class utterances found against those of the full release.

    Parameters
    ----------
    manifest : pd.DataFrame

    Returns
    -------
    pd.DataFrame
        Columns ``found``, ``expected``, ``difference`` (found - expected). Index: ("emotion", tag)
        for the five tags, ("speaker", name) for the ten speakers, then ("all", "utterances").
    """
    task = task_rows(manifest)
    expected = {("emotion", tag): count for tag, count in IEMOCAP_EMOTIONS.items()}
    expected |= {("speaker", name): count for name, count in IEMOCAP_SPEAKERS.items()}
    found = [int((task[column] == value).sum()) for column, value in expected]
    index = pd.MultiIndex.from_tuples([*expected, ("all", "utterances")], names=["counted by", "value"])
    counts = {"found": [*found, len(task)], "expected": [*expected.values(), IEMOCAP_UTTERANCES]}
    table = pd.DataFrame(counts, index)
    return table.assign(difference=table["found"] - table["expected"])


def _session_fault(folder, session):
    """Why a session can't be read; empty if it can."""
    there = inside(folder, f"Session{session}")
    parts = ("sentences/wav", "dialog/EmoEvaluation")
    empty = [part for part in parts if not visible(inside(there, *part.split("/")))]
    if not there.is_dir():
        return f"Session{session} is missing"
    return f"Session{session} has nothing in {' and '.join(empty)}" if empty else ""


def _read_sessions(root, corpus, *, partial=False):
    """Manifest and {kind: problems}; ``partial`` does without sessions that can't be read."""
    folder = find_folder(root, "session[1-5]", corpus, "Session1")
    faults = {session: fault for session in SESSIONS if (fault := _session_fault(folder, session))}
    if faults and not (partial and len(faults) < len(SESSIONS)):
        n, lost = len(SESSIONS), ", ".join(faults.values())
        there = f"found {n - len(faults)} of {n} sessions ({lost})"
        raise CorpusError(f"corpus root {root}: {there}; check that the archive was unpacked fully")
    problems = {LEFT_OUT: list(faults.values()), BROKEN: [], TAG: [], LINE: [], UNLABELLED: [], SILENT: []}
    rows = []
    for session in sorted(set(SESSIONS) - set(faults)):
        sounds = inside(folder, f"Session{session}", "sentences", "wav")
        wavs = {path.stem: path for part in (sounds, *visible(sounds)) for path in list_sounds(part)}
        labelled = {}
        for file in visible(inside(folder, f"Session{session}", "dialog", "EmoEvaluation")):
            if file.suffix.lower() == ".txt" and file.is_file():
                _read_dialogue(file, session, labelled, problems)
        headers, broken = read_headers(wavs[name] for name in labelled if name in wavs)
        problems[BROKEN] += broken
        problems[UNLABELLED] += sorted(wavs.keys() - labelled)
        problems[SILENT] += sorted(labelled.keys() - wavs)
        for name, row in labelled.items():
            if header := headers.get(wavs.get(name)):
                rows.append(row | header._asdict() | {"corpus": corpus, "path": str(wavs[name])})
    if not rows:
        head = f"corpus root {folder}: no utterance has both a label and a whole wav; check the archive"
        raise CorpusError("\n".join([head, *_summary(problems)]))
    return make_manifest(rows), problems


def _read_dialogue(file, session, rows, problems):
    """Add {utterance id: manifest row without the sound's part} of an evaluation file to ``rows``."""
    dialogue = file.stem
    turns, unread = parse_evaluation(read_text(file))
    problems[LINE] += [f"{file}: {line!r}" for line in unread]
    said = inside(file.parents[1], "transcriptions", file.name)
    transcripts = dict(TRANSCRIPT.findall(read_text(said))) if said.is_file() else {}
    for turn in turns:
        match = TURN.fullmatch(turn.utterance_id)
        if not match or match[1] != session or turn.utterance_id in rows:
            expected = f"expected each turn once, named like Ses0{session}F_impro01_M003 in Session{session}"
            problems[LINE].append(f"{file}: utterance {turn.utterance_id}, {expected}")
            continue
        if turn.emotion not in TAGS:
            tag = f"has tag {turn.emotion!r}, expected one of {' '.join(sorted(TAGS))}"
            problems[TAG].append(f"{file}: utterance {turn.utterance_id} {tag}")
        valence, activation, dominance = turn.ratings
        agreed = [turn.emotion in tags for tags in turn.choices if turn.emotion != NO_MAJORITY]
        heard = [LABEL_OF_TAG.get(tags[0], tags[0]) for tags in turn.choices if tags]  # first choices only
        rows[turn.utterance_id] = {
            "utterance_id": turn.utterance_id, "speaker": match[1] + match[2], "session": session,
            "gender": match[2], "dialogue": dialogue, "scripted": "script" in dialogue,
            "emotion": turn.emotion, "label": LABEL_OF_TAG.get(turn.emotion), "valence": valence,
            "activation": activation, "dominance": dominance, "agreement": np.mean(agreed) if agreed else math.nan,
            "transcript": transcripts.get(turn.utterance_id), "ratings": ";".join(heard) or None,
        }  # fmt: skip


def parse_evaluation(text):
    """Turns of an evaluation file.

    Parameters
    ----------
    text : str
        ``[start - end] <tab> id <tab> tag <tab> [V, A, D]``, each followed by annotator lines.

    Returns
    -------
    turns : list of Turn
        Ratings that are missing or no numbers are NaN.
    unread : list of str
        Lines that start like a summary but are none.

    Examples
    --------
    >>> turns, unread = parse_evaluation("[6.3 - 8.2]\\tSes01F_impro01_F000\\tneu\\t[2.5, 3, 2]")
    >>> turns[0].emotion, turns[0].ratings, unread
    ('neu', (2.5, 3.0, 2.0), [])
    """
    turns, unread = [], []
    for block in re.split(r"^(?=\[)", text, flags=re.MULTILINE)[1:]:
        line, _, below = block.partition("\n")
        if match := SUMMARY.fullmatch(line):
            # Neutral, in places "Neutral state", is neu: the first three letters tell
            choices = [re.findall(r"(\w{1,3})[^;]*", chosen.lower()) for chosen in ANNOTATOR.findall(below)]
            turns.append(Turn(match[1], match[2], _ratings(match[3]), choices))
        else:
            unread.append(line)
    return turns, unread


def _ratings(text):
    """Valence, activation and dominance; NaN unless there are three, each from 1 to 5.5, which occurs in the release."""
    values = tuple(float(number) for number in re.findall(r"\d+\.?\d*", text or ""))
    return values if len(values) == 3 and min(values) >= 1 and max(values) <= 5.5 else (math.nan,) * 3


def _summary(problems):
    """One line for each kind of problem that occurs: how many, and the first few."""
    return [f"{kind} ({len(items)}): {name_some(items)}" for kind, items in problems.items() if items]
