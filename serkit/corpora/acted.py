"""Acted corpora whose file names say everything: RAVDESS (``Actor_01/…``), EmoDB (``wav/03a01Fa.wav``), CREMA-D
(``AudioWAV/1001_DFA_ANG_XX.wav``), TESS (``OAF_angry/OAF_back_angry.wav``) and SAVEE (``DC/a01.wav``).

What tells them apart stands in ``acted.toml``: patterns of names, emotions, speakers and their sessions.
"""

import re

import pandas as pd

from serkit.constants import LABELS
from serkit.corpora.manifest import group_speakers, make_manifest
from serkit.corpora.sound_files import find_folder, list_sounds, name_some, note_broken, read_headers, visible
from serkit.errors import CorpusError
from serkit.files import read_toml

CORPORA = read_toml(__file__, "acted.toml")
CREMAD_GROUPS = 5  # of its 91 actors, to be sessions
VOICE_ONLY = "1"  # queryType of those who heard a clip of CREMA-D and did not see it


def load(name, root, *, skip_broken=False):
    """Read an acted corpus.

    Parameters
    ----------
    name : str
        A heading of ``acted.toml``.
    root : path
        Folder that holds ``Actor_01`` and so on of RAVDESS, or all its files; ``wav`` of EmoDB; ``AudioWAV`` of
        CREMA-D, with ``VideoDemographics.csv`` and ``finishedResponses.csv`` beside it where there are; folders
        such as ``OAF_angry`` of TESS; ``DC``, ``JE``, ``JK`` and ``KL`` of SAVEE. Up to two folders above, or one of
        these folders, will do. Files may be WAV as released or FLAC under the same names.
    skip_broken : bool
        Print which sound files can't be used, and do without them.

    Returns
    -------
    pd.DataFrame
        The manifest. ``emotion`` is what was acted, by name; ``label`` is missing outside the task. ``dialogue`` is
        what is said: "kids" or "dogs" in RAVDESS, the text in EmoDB, such as "a01", and in CREMA-D, such as "DFA",
        the word in TESS. ``session`` is a group of speakers: four actors of RAVDESS, a man and a woman of EmoDB, a
        fifth of CREMA-D, one speaker of TESS and SAVEE. ``ratings`` of CREMA-D is what was heard, one emotion for
        each listener who did not see the clip.

    Raises
    ------
    CorpusError
        If nothing is found, a name is not of this corpus, a file is broken, or fewer than two speakers are there.
        Other missing speakers are only printed.
    """
    about = CORPORA[name]
    title = about["title"]
    folder = find_folder(root, about["part"], title, about["example"])
    parts = [path for path in visible(folder) if re.fullmatch(about["part"], path.name, re.IGNORECASE)]
    sounds = [sound for part in parts for sound in ([part] if part.is_file() else list_sounds(part))]
    rows = {path: row for path in sounds if (row := _row(name, path))}
    speakers, ratings = _speakers(name, folder), _ratings(folder)
    for path, row in rows.items():
        row |= speakers.get(row["speaker"], {"gender": None}) | {"ratings": ratings.get(path.stem)}
    if name == "cremad":
        group_speakers(rows.values(), CREMAD_GROUPS)
    there = {row["speaker"] for row in rows.values()}
    if len(there) < 2:  # nobody could be held out for testing
        few = f"{len(there)} of {len(speakers)} {title} speakers found"
        raise CorpusError(f"corpus root {root}: {few}, expected at least 2; unpack all of it")
    if missing := sorted(speakers.keys() - there):
        print(f"note: {title} speakers without files: {name_some(missing, 24)}")
    headers, broken = read_headers(rows)
    if broken and not skip_broken:
        some = f"broken sound files ({len(broken)}): {name_some(broken)}"
        cure = "mend them, or do without them: skip_broken=True (--skip-broken)"
        raise CorpusError(f"corpus {name}: {some}; {cure}")
    note_broken(broken)
    return make_manifest([rows[path] | header._asdict() for path, header in headers.items()])


def _row(name, path):
    """Manifest row of a sound, as far as its name says it; None for one that is passed over."""
    about, named = CORPORA[name], f"{path.parent.name}/{path.stem}"
    match = re.fullmatch(about["name"], named, re.IGNORECASE)
    if not match:
        if re.fullmatch(about.get("other", ""), named):
            return None
        expected = f"name is not of {about['title']}, expected {about['expected']}"
        raise CorpusError(f"{path}: {expected}; move the file elsewhere")
    said = {"dialogue": ""} | match.groupdict()
    speaker, emotion = said["speaker"].upper(), about["emotions"][said["emotion"].lower()]
    label = about.get("labels", {}).get(emotion, emotion)
    row = {
        "utterance_id": about.get("utterance_id", "{name}").format(speaker=speaker, name=path.stem), "path": str(path),
        "corpus": name, "speaker": speaker, "dialogue": said["dialogue"], "scripted": True, "emotion": emotion,
        "label": label if label in LABELS else None, "transcript": about.get("transcript", "").format(**said) or None,
    }  # fmt: skip
    return row | about.get("dialogues", {}).get(said["dialogue"], {})


def _speakers(name, folder):
    """{speaker: session and sex}; of CREMA-D the sex alone."""
    if name == "cremad":
        table = _csv(folder / "VideoDemographics.csv", "ActorID", "Sex")
        return {actor: {"gender": sex[0]} for actor, sex in table.itertuples(index=False)}
    return {
        speaker: {"session": str(number), "gender": sex}
        for number, session in enumerate(CORPORA[name]["sessions"], start=1)
        for sex, speakers in session.items()
        for speaker in speakers.split()
    }


def _ratings(folder):
    """{clip of CREMA-D: what each of those heard who only heard it}; the other corpora have no such table."""
    table = _csv(folder / "finishedResponses.csv", "clipName", "queryType", "respEmo")
    letters = {code[0].upper(): emotion for code, emotion in CORPORA["cremad"]["emotions"].items()}
    heard = table[table["queryType"] == VOICE_ONLY].replace({"respEmo": letters})
    return heard.groupby("clipName")["respEmo"].agg(";".join)


def _csv(path, *columns):
    """Columns of a CSV file; no rows where it is missing."""
    if not path.is_file():
        return pd.DataFrame(columns=columns)
    return pd.read_csv(path, dtype=str)[list(columns)].dropna()
