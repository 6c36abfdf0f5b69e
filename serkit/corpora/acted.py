"""Acted corpora whose file names say everything: RAVDESS (``Actor_01`` ... ``Actor_24``) and EmoDB (``wav/03a01Fa.wav``)."""

import re

from serkit.corpora.manifest import make_manifest
from serkit.corpora.sound_files import find_folder, list_sounds, name_some, read_headers, visible
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


def load_ravdess(root, *, skip_broken=False):
    """Read the speech part of RAVDESS.

    Parameters
    ----------
    root : path
        Folder that holds ``Actor_01`` and so on; up to two folders above, or an actor's own, will
        do. Files may be WAV as released or FLAC under the same names.
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
    folder = find_folder(root, r"Actor_\d\d", "RAVDESS")
    actors = [actor for actor in visible(folder) if re.fullmatch(r"Actor_\d\d", actor.name)]
    fields = {path: _ravdess_fields(path) for actor in actors for path in list_sounds(actor)}
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
    folder = find_folder(root, "wav", "EmoDB") / "wav"
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


def _manifest_of(corpus, root, rows, speakers, skip_broken):
    """The manifest of ``rows`` ({path: row without what its header says}), once speakers and files are in order."""
    speakers_there = {row["speaker"] for row in rows.values()}
    if len(speakers_there) < 2:  # nobody could be held out for testing
        few = f"{len(speakers_there)} of {len(speakers)} {corpus} speakers found"
        raise CorpusError(f"corpus root {root}: {few}, expected at least 2; unpack all of it")
    if missing := [speaker for speaker in speakers if speaker not in speakers_there]:
        print(f"note: {corpus} speakers without files: {', '.join(missing)}")
    headers, broken = read_headers(rows)
    if broken and not skip_broken:
        raise CorpusError(
            f"corpus {corpus.lower()}: broken sound files ({len(broken)}): {name_some(broken)}; mend them, or do "
            "without them: skip_broken=True (--skip-broken)"
        )
    if broken:
        print(f"note: left out, as they can't be used ({len(broken)}): {name_some(broken)}")
    return make_manifest([rows[path] | header._asdict() for path, header in headers.items()])
