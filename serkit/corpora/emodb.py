"""EmoDB, the Berlin database of emotional speech: ``wav/03a01Fa.wav``, all read from the names."""

import re

from serkit.corpora.manifest import make_manifest
from serkit.corpora.sound_files import check_speakers, find_folder, list_sounds, read_headers, refuse_broken
from serkit.errors import CorpusError

MEN = ("03", "10", "11", "12", "15")
WOMEN = ("08", "09", "13", "14", "16")
# The release has no sessions. One man and one woman make one, each in the order of their numbers,
# so that "1" is 03 and 08, "5" is 15 and 16, as in IEMOCAP with its five pairs.
SESSIONS = {
    speaker: str(number)
    for number, pair in enumerate(zip(MEN, WOMEN, strict=True), start=1)
    for speaker in pair
}
EMOTIONS = {  # letter of the German word -> name, label
    "W": ("anger", "angry"), "T": ("sadness", "sad"), "F": ("happiness", "happy"), "N": ("neutral", "neutral"),
    "L": ("boredom", None), "E": ("disgust", None), "A": ("fear", None),
}  # fmt: skip
NAME = re.compile(r"(\d\d)([a-z]\d\d)([A-Z])([a-z])")  # speaker, text, emotion, version


def load(root):
    """Read EmoDB.

    Parameters
    ----------
    root : path
        Folder that holds ``wav``; up to two folders above, or ``wav`` itself, will do.

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
    rows = {path: _fields(path) for path in list_sounds(folder)}
    check_speakers("EmoDB", root, [row["speaker"] for row in rows.values()], sorted(SESSIONS))
    headers, broken = read_headers(rows)
    refuse_broken("emodb", broken)
    return make_manifest([row | headers[path]._asdict() for path, row in rows.items()])


def _fields(path):
    """Manifest row of a file, from its name, without length and rate."""
    match = NAME.fullmatch(path.stem)
    if not match or match[1] not in SESSIONS or match[3] not in EMOTIONS:
        raise CorpusError(
            f"{path}: name is not of EmoDB, expected speaker ({' '.join(sorted(SESSIONS))}), text, emotion "
            f"letter ({' '.join(EMOTIONS)}) and version as in 03a01Fa; move the file elsewhere"
        )
    speaker, text, letter, _ = match.groups()
    emotion, label = EMOTIONS[letter]
    return {
        "utterance_id": path.stem, "path": str(path), "corpus": "emodb", "speaker": speaker,
        "session": SESSIONS[speaker], "gender": "M" if speaker in MEN else "F", "dialogue": text,
        "scripted": True, "emotion": emotion, "label": label,
    }  # fmt: skip
