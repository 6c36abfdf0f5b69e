"""Acted corpora whose file names say everything: RAVDESS (``Actor_01/…``), EmoDB (``wav/03a01Fa.wav``), CREMA-D
(``AudioWAV/1001_DFA_ANG_XX.wav``), TESS (``OAF_angry/OAF_back_angry.wav``) and SAVEE (``DC/a01.wav``).
"""

import csv
import re
from collections import defaultdict

from serkit.constants import LABELS
from serkit.corpora.manifest import group_speakers, make_manifest
from serkit.corpora.sound_files import find_folder, inside, list_sounds, name_some, read_headers, visible
from serkit.errors import CorpusError

# RAVDESS
ACTORS = tuple(f"{number:02d}" for number in range(1, 25))  # odd men, even women
ACTORS_PER_SESSION = 4  # two men and two women; the release has no sessions, folds want some
AUDIO_ONLY, SPEECH = "03", "01"  # modality and channel kept; the others are video and song
RAVDESS_EMOTIONS = {
    "01": "neutral", "02": "calm", "03": "happy", "04": "sad",
    "05": "angry", "06": "fearful", "07": "disgust", "08": "surprised",
}  # fmt: skip
RAVDESS_LABELLED = ("neutral", "happy", "sad", "angry")  # their names are the labels
STATEMENTS = {"01": ("kids", "Kids are talking by the door"), "02": ("dogs", "Dogs are sitting by the door")}
ACTOR = r"actor[_ -]?\d{1,2}"  # a folder of the release, as unpacked or renamed
# modality-channel-emotion-intensity-statement-repetition-actor
RAVDESS_NAME = re.compile(r"(\d\d)-(\d\d)-(0[1-8])-\d\d-(0[12])-\d\d-(0[1-9]|1\d|2[0-4])")

# EmoDB
EMODB_MEN = ("03", "10", "11", "12", "15")
# The release has no sessions. One man and one woman make one, each in the order of their numbers,
# as in IEMOCAP with its five pairs.
EMODB_SESSIONS = {
    "03": "1", "08": "1", "10": "2", "09": "2", "11": "3", "13": "3", "12": "4", "14": "4", "15": "5", "16": "5",
}  # fmt: skip
EMODB_EMOTIONS = {  # letter of the German word -> name, label
    "W": ("anger", "angry"), "T": ("sadness", "sad"), "F": ("happiness", "happy"), "N": ("neutral", "neutral"),
    "L": ("boredom", None), "E": ("disgust", None), "A": ("fear", None),
}  # fmt: skip
EMODB_NAME = re.compile(r"(\d\d)([a-z]\d\d)([A-Z])([a-z])")  # speaker, text, emotion, version

# CREMA-D
CREMAD_NAME = re.compile(r"(1\d{3})_([A-Z]{3})_(ANG|DIS|FEA|HAP|NEU|SAD)_(LO|MD|HI|XX?)")  # actor, sentence
CREMAD_GROUPS = 5  # of its 91 actors, to be sessions
VOICE_ONLY = "1"  # queryType of those who heard a clip and did not see it
LETTERS = {"A": "angry", "D": "disgusted", "F": "fearful", "H": "happy", "N": "neutral", "S": "sad"}

# TESS and SAVEE
TESS_NAME = re.compile(r"(OAF?|YAF)_(\w+)_(angry|disgust|fear|happy|neutral|ps|sad)", re.IGNORECASE)
TESS_SPEAKERS = ("OAF", "YAF")  # the older and the younger actress; one file is called OA_...
SAVEE_NAME = re.compile(r"(a|d|f|h|n|sa|su)(\d\d)")
SAVEE_SPEAKERS = ("DC", "JE", "JK", "KL")
EMOTIONS = {  # of both, by what stands in the name
    "angry": "angry", "a": "angry", "disgust": "disgusted", "d": "disgusted", "fear": "fearful", "f": "fearful",
    "happy": "happy", "h": "happy", "neutral": "neutral", "n": "neutral", "sad": "sad", "sa": "sad",
    "ps": "surprised", "su": "surprised",
}  # fmt: skip


def load_ravdess(root, *, skip_broken=False):
    """Read the speech part of RAVDESS.

    Parameters
    ----------
    root : path
        Folder that holds ``Actor_01`` and so on, or all files; up to two folders above, or an actor's own,
        will do. Files may be WAV as released or FLAC under the same names.
    skip_broken : bool
        Print which sound files can't be used, and do without them.

    Returns
    -------
    pd.DataFrame
        The manifest. ``emotion`` is the released code by name; ``label`` is missing for calm,
        fearful, disgust and surprised. ``speaker`` is "01" to "24"; session "1" holds actors 1 to
        4, and so on to "6". ``dialogue`` is the statement, "kids" or "dogs".

    Raises
    ------
    CorpusError
        If nothing is found, a name is not of RAVDESS, a file is broken, or fewer than two actors
        are there. Other missing actors are only printed.
    """
    folder = find_folder(root, rf"{ACTOR}|{RAVDESS_NAME.pattern}\.(wav|flac)", "RAVDESS", "Actor_01")
    actors = [actor for actor in visible(folder) if re.fullmatch(ACTOR, actor.name, re.IGNORECASE)]
    sounds = [path for path in list_sounds(folder) if RAVDESS_NAME.fullmatch(path.stem)]  # all in one folder
    sounds += [path for actor in actors for path in list_sounds(actor)]
    fields = {path: _ravdess_fields(path) for path in sounds}
    speech = {path: row for path, row in fields.items() if row is not None}
    return _manifest_of("RAVDESS", root, speech, ACTORS, skip_broken)


def _ravdess_fields(path):
    """Manifest row of a file, from its name, without what its header says; None if it is not speech."""
    match = RAVDESS_NAME.fullmatch(path.stem)
    if not match:
        raise CorpusError(
            f"{path}: name is not of RAVDESS, expected seven numbers like 03-01-05-01-01-01-12: emotion (the "
            "third) 01 to 08, statement (the fifth) 01 or 02, actor (the last) 01 to 24; move the file elsewhere"
        )
    modality, channel, emotion, statement, actor = match.groups()
    if (modality, channel) != (AUDIO_ONLY, SPEECH):
        return None
    dialogue, transcript = STATEMENTS[statement]
    tag = RAVDESS_EMOTIONS[emotion]
    return {
        "utterance_id": path.stem, "path": str(path), "corpus": "ravdess", "speaker": actor,
        "session": str((int(actor) - 1) // ACTORS_PER_SESSION + 1),
        "gender": "M" if int(actor) % 2 else "F", "dialogue": dialogue, "scripted": True,
        "emotion": tag, "label": tag if tag in RAVDESS_LABELLED else None, "transcript": transcript,
    }  # fmt: skip


def load_emodb(root, *, skip_broken=False):
    """Read EmoDB.

    Parameters
    ----------
    root : path
        Folder that holds ``wav``; up to two folders above, or ``wav`` itself, will do.
    skip_broken : bool
        As in `load_ravdess`.

    Returns
    -------
    pd.DataFrame
        The manifest. ``emotion`` is the English name of the released letter; ``label`` is missing
        for boredom, disgust and fear. ``dialogue`` is the text, such as "a01". ``session`` pairs a
        man with a woman: "1" 03 and 08, "2" 10 and 09, "3" 11 and 13, "4" 12 and 14, "5" 15 and 16.

    Raises
    ------
    CorpusError
        If nothing is found, a name is not of EmoDB, a file is broken, or fewer than two speakers
        are there. Other missing speakers are only printed.
    """
    folder = inside(find_folder(root, "wav", "EmoDB", "wav"), "wav")
    rows = {path: _emodb_fields(path) for path in list_sounds(folder)}
    return _manifest_of("EmoDB", root, rows, sorted(EMODB_SESSIONS), skip_broken)


def _emodb_fields(path):
    """Manifest row of a file, from its name, without what its header says."""
    match = EMODB_NAME.fullmatch(path.stem)
    if not match or match[1] not in EMODB_SESSIONS or match[3] not in EMODB_EMOTIONS:
        raise CorpusError(
            f"{path}: name is not of EmoDB, expected speaker ({' '.join(sorted(EMODB_SESSIONS))}), text, emotion "
            f"letter ({' '.join(EMODB_EMOTIONS)}) and version as in 03a01Fa; move the file elsewhere"
        )
    speaker, text, letter, _ = match.groups()
    emotion, label = EMODB_EMOTIONS[letter]
    return {
        "utterance_id": path.stem, "path": str(path), "corpus": "emodb", "speaker": speaker,
        "session": EMODB_SESSIONS[speaker], "gender": "M" if speaker in EMODB_MEN else "F", "dialogue": text,
        "scripted": True, "emotion": emotion, "label": label,
    }  # fmt: skip


def load_cremad(root, *, skip_broken=False):
    """Read CREMA-D, with the choices of those who only heard the clips.

    Parameters
    ----------
    root : path
        Folder that holds ``AudioWAV``; ``VideoDemographics.csv`` and ``finishedResponses.csv`` are read where they lie
        beside it.
    skip_broken : bool
        As in `load_ravdess`.

    Returns
    -------
    pd.DataFrame
        The manifest. ``emotion`` is what was acted; ``ratings`` is what was heard, one emotion for each listener.
        ``session`` is one of five groups of actors. ``dialogue`` is the sentence, such as "DFA".

    Raises
    ------
    CorpusError
        If nothing is found, a name is not of CREMA-D, or a file is broken.
    """
    folder = find_folder(root, "AudioWAV", "CREMA-D", "AudioWAV")
    sex = {row["ActorID"]: row["Sex"][:1] for row in _csv_rows(folder / "VideoDemographics.csv")}
    heard = defaultdict(list)
    for row in _csv_rows(folder / "finishedResponses.csv"):
        if row["queryType"] == VOICE_ONLY:
            heard[row["clipName"]].append(LETTERS[row["respEmo"]])
    rows = {}
    for path in list_sounds(inside(folder, "AudioWAV")):
        speaker, sentence, emotion, _ = _named(CREMAD_NAME, path, "CREMA-D", "1001_DFA_ANG_XX")
        rows[path] = _acted_row(path, "cremad", path.stem, speaker, LETTERS[emotion[0]], dialogue=sentence)
        rows[path] |= {"gender": sex.get(speaker), "ratings": ";".join(heard[path.stem]) or None}
    group_speakers(list(rows.values()), CREMAD_GROUPS)
    return _manifest_of("CREMA-D", root, rows, sorted(sex), skip_broken)


def load_tess(root, *, skip_broken=False):
    """Read TESS: two actresses, each a session of her own.

    Parameters, errors: as :func:`load_emodb`; ``root`` holds folders such as ``OAF_angry``.

    Returns
    -------
    pd.DataFrame
        The manifest. ``dialogue`` is the word that is said.
    """
    folder, rows = find_folder(root, r"[OY]AF_\w+", "TESS", "OAF_angry"), {}
    for path in (sound for part in visible(folder) for sound in list_sounds(part)):
        speaker, word, emotion = _named(TESS_NAME, path, "TESS", "OAF_back_angry")
        speaker = f"{speaker[0]}AF".upper()
        rows[path] = _acted_row(path, "tess", path.stem, speaker, EMOTIONS[emotion.lower()], dialogue=word)
        rows[path] |= {"gender": "F", "session": str(TESS_SPEAKERS.index(speaker) + 1)}
        rows[path]["transcript"] = f"Say the word {word}"
    return _manifest_of("TESS", root, rows, TESS_SPEAKERS, skip_broken)


def load_savee(root, *, skip_broken=False):
    """Read SAVEE: four men, each a session of his own.

    Parameters, errors: as :func:`load_emodb`; ``root`` holds the folders ``DC``, ``JE``, ``JK`` and ``KL``.

    Returns
    -------
    pd.DataFrame
        The manifest.
    """
    folder, rows = find_folder(root, "|".join(SAVEE_SPEAKERS), "SAVEE", "DC"), {}
    for speaker in SAVEE_SPEAKERS:
        for path in list_sounds(inside(folder, speaker)):
            emotion, _ = _named(SAVEE_NAME, path, "SAVEE", "a01")
            rows[path] = _acted_row(path, "savee", f"{speaker}_{path.stem}", speaker, EMOTIONS[emotion])
            rows[path] |= {"gender": "M", "session": str(SAVEE_SPEAKERS.index(speaker) + 1)}
    return _manifest_of("SAVEE", root, rows, SAVEE_SPEAKERS, skip_broken)


def _csv_rows(path):
    """Rows of a CSV file; none where it is missing."""
    if not path.is_file():
        return []
    with open(path, encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def _named(pattern, path, corpus, example):
    """What a file's name says."""
    match = pattern.fullmatch(path.stem)
    if not match:
        raise CorpusError(f"{path}: name is not of {corpus}, expected one like {example}; move it away")
    return match.groups()


def _acted_row(path, corpus, utterance_id, speaker, emotion, dialogue=""):
    """Manifest row without sex, session and what the header says."""
    return {
        "utterance_id": utterance_id, "path": str(path), "corpus": corpus, "speaker": speaker, "dialogue": dialogue,
        "scripted": True, "emotion": emotion, "label": emotion if emotion in LABELS else None,
    }  # fmt: skip


def _manifest_of(corpus, root, rows, speakers, skip_broken):
    """The manifest of ``rows`` ({path: row without what its header says}), once speakers and files are in order."""
    speakers_there = {row["speaker"] for row in rows.values()}
    if len(speakers_there) < 2:  # nobody could be held out for testing
        few = f"{len(speakers_there)} of {len(speakers)} {corpus} speakers found"
        raise CorpusError(f"corpus root {root}: {few}, expected at least 2; unpack all of it")
    if missing := [speaker for speaker in speakers if speaker not in speakers_there]:
        print(f"note: {corpus} speakers without files: {name_some(missing, 24)}")
    headers, broken = read_headers(rows)
    if broken and not skip_broken:
        some = f"broken sound files ({len(broken)}): {name_some(broken)}"
        cure = "mend them, or do without them: skip_broken=True (--skip-broken)"
        raise CorpusError(f"corpus {corpus.lower()}: {some}; {cure}")
    if broken:
        print(f"note: left out, as they can't be used ({len(broken)}): {name_some(broken)}")
    return make_manifest([rows[path] | header._asdict() for path, header in headers.items()])
