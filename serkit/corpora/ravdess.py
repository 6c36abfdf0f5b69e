"""RAVDESS speech: ``Actor_01`` to ``Actor_24``, everything read from the file names."""

import re

from serkit.corpora.manifest import make_manifest
from serkit.corpora.sound_files import (
    check_speakers,
    find_folders,
    list_sounds,
    name_some,
    read_headers,
    refuse_broken,
    visible,
)
from serkit.errors import CorpusError

ACTORS = tuple(f"{number:02d}" for number in range(1, 25))  # odd men, even women
ACTORS_PER_SESSION = 4  # two men and two women; the release has no sessions, folds want some
AUDIO_ONLY, SPEECH = "03", "01"  # modality and channel kept; the others are video and song
EMOTIONS = {
    "01": "neutral", "02": "calm", "03": "happy", "04": "sad",
    "05": "angry", "06": "fearful", "07": "disgust", "08": "surprised",
}  # fmt: skip
LABELLED = ("neutral", "happy", "sad", "angry")  # their names are the labels
STATEMENTS = {
    "01": ("kids", "Kids are talking by the door"),
    "02": ("dogs", "Dogs are sitting by the door"),
}
# modality-channel-emotion-intensity-statement-repetition-actor
NAME = re.compile(r"(\d\d)-(\d\d)-(\d\d)-(\d\d)-(\d\d)-(\d\d)-(\d\d)")


def load(root):
    """Read the speech part of RAVDESS.

    Parameters
    ----------
    root : path
        Folder that holds ``Actor_01`` and so on; up to two folders above, or an actor's own, will
        do. Files may be WAV as released or FLAC under the same names.

    Returns
    -------
    pd.DataFrame
        The manifest. ``emotion`` is the released code by name; ``label`` is missing for calm,
        fearful, disgust and surprised. ``speaker`` is "01" to "24"; session "1" holds actors 1 to
        4, and so on to "6". ``dialogue`` is the statement, "kids" or "dogs". A file that lies
        there twice, as in archives that nest a copy of themselves, counts once.

    Raises
    ------
    CorpusError
        If nothing is found, a name is not of RAVDESS, a file is broken, or fewer than two actors
        are there. Other missing actors are only printed.
    """
    found = {}  # stem -> path; the highest folder comes first and wins
    for folder in find_folders(root, r"Actor_\d\d", "RAVDESS"):
        for actor in visible(folder):
            if re.fullmatch(r"Actor_\d\d", actor.name):
                for path in list_sounds(actor):
                    found.setdefault(path.stem, path)
    fields = {path: _fields(path) for path in found.values()}
    speech = {path: row for path, row in fields.items() if row is not None}
    check_speakers("RAVDESS", root, [row["speaker"] for row in speech.values()], ACTORS)
    headers, broken = read_headers(speech)
    refuse_broken("ravdess", broken)
    return make_manifest([row | headers[path]._asdict() for path, row in speech.items()])


def _fields(path):
    """Manifest row of a file, from its name, without length and rate; None if it is not speech."""
    match = NAME.fullmatch(path.stem)
    if not match:
        raise CorpusError(
            f"{path}: name is not of RAVDESS, expected seven numbers like 03-01-05-01-01-01-12; "
            "move the file elsewhere"
        )
    modality, channel, emotion, _, statement, _, actor = match.groups()
    if (modality, channel) != (AUDIO_ONLY, SPEECH):
        return None
    fields = {"emotion": (emotion, EMOTIONS), "statement": (statement, STATEMENTS), "actor": (actor, ACTORS)}
    for name, (code, known) in fields.items():
        if code not in known:
            expected = name_some(known, limit=len(known))
            raise CorpusError(f"{path}: {name} {code}, expected one of {expected}; check the name")
    dialogue, transcript = STATEMENTS[statement]
    tag = EMOTIONS[emotion]
    return {
        "utterance_id": path.stem, "path": str(path), "corpus": "ravdess", "speaker": actor,
        "session": str((int(actor) - 1) // ACTORS_PER_SESSION + 1),
        "gender": "M" if int(actor) % 2 else "F", "dialogue": dialogue, "scripted": True,
        "emotion": tag, "label": tag if tag in LABELLED else None, "transcript": transcript,
    }  # fmt: skip
