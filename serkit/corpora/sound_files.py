"""Sound files of an unpacked corpus: where they lie, how long they are, whether they are whole."""

import os
import re
import struct
from pathlib import Path
from typing import NamedTuple

import soundfile

from serkit.errors import AudioError, CorpusError

SOUND_SUFFIXES = (".wav", ".flac")
UNKNOWN_SIZE = 0xFFFFFFFF  # bytes; what streaming writers put where a wav's data size belongs
SEARCH_DEPTH = 2  # levels below the given root; archives unpack into one or two folders of their own


class SoundHeader(NamedTuple):
    """What the header of a sound file says."""

    num_samples: int  # per channel, at the file's own rate
    sample_rate: int  # Hz


def visible(folder):
    """Entries of a folder sorted by name, without those that start with a dot.

    The dot keeps out ``.DS_Store`` and the ``._*`` resource forks that archives made on a Mac hold:
    the latter bear the names of real sound files, and would be counted as such.

    Returns
    -------
    list of Path
        Empty if the folder does not exist or may not be read.
    """
    try:
        names = os.listdir(folder)
    except OSError:
        return []
    return [Path(folder, name) for name in sorted(names) if not name.startswith(".")]


def list_sounds(folder):
    """WAV and FLAC files directly inside a folder, as sorted list of Path; hidden ones left out."""
    return [path for path in visible(folder) if path.suffix.lower() in SOUND_SUFFIXES]


def find_folders(root, part, corpus):
    """Folders at or around ``root`` that hold the parts of a corpus.

    A root given one or two levels too high, or one too low (it is a part itself), is put right.

    Parameters
    ----------
    root : path
        What the user gave.
    part : str
        Regular expression for the name of a part, such as ``Session[1-5]``.
    corpus : str
        Name for the message.

    Returns
    -------
    list of Path, absolute
        At least one; the highest first, those of one level by name.

    Raises
    ------
    CorpusError
        If ``root`` is missing or a file, or no such part lies there.
    """
    given, root = root, Path(os.path.abspath(root))
    get_it = f"data/README.md says how to obtain and unpack {corpus}"
    if root.is_file():
        raise CorpusError(f"corpus root {given} is a file, expected the folder it unpacks to; {get_it}")
    if not root.is_dir():
        raise CorpusError(f"corpus root {given}: no such folder, expected the unpacked {corpus}; {get_it}")
    found, level = [], [root]
    for _ in range(SEARCH_DEPTH + 1):
        children = {folder: [path for path in visible(folder) if path.is_dir()] for folder in level}
        parts = {folder: [c for c in children[folder] if re.fullmatch(part, c.name)] for folder in level}
        found += [folder for folder in level if parts[folder]]
        level = [child for folder in level for child in children[folder] if child not in parts[folder]]
    if not found and re.fullmatch(part, root.name):
        found = [root.parent]
    if not found:
        raise CorpusError(f"corpus root {given}: holds no folder named {part}, expected {corpus}; {get_it}")
    return found


def find_folder(root, part, corpus):
    """Like `find_folders`, for a corpus that lies in one place: refuses to choose between two.

    Returns
    -------
    Path, absolute
        The root itself if it holds the parts, otherwise the only folder that does.

    Raises
    ------
    CorpusError
        As `find_folders`, and if several folders could be meant.
    """
    found = find_folders(root, part, corpus)
    if len(found) > 1 and found[0] != Path(os.path.abspath(root)):
        raise CorpusError(
            f"corpus root {root}: {name_some(found)} could each be {corpus}, expected one; "
            "give the folder that is meant"
        )
    return found[0]


def read_header(path):
    """Length and rate of a sound file, from its header.

    Parameters
    ----------
    path : path
        WAV or FLAC.

    Returns
    -------
    SoundHeader

    Raises
    ------
    AudioError
        If the file can't be opened, holds no samples, or is shorter than its header promises.
        libsndfile silently reports what is left of a truncated WAV: its sizes are compared here.
    """
    path = os.fspath(path)
    try:
        info = soundfile.info(path)
        if info.format == "FLAC":
            missing = _flac_end_missing(path)
        else:
            missing = _wav_bytes_missing(path)
    except (OSError, RuntimeError) as error:  # LibsndfileError is a RuntimeError
        # The path stands in front already.
        reason = str(error).replace(f"Error opening {path!r}: ", "")
        raise AudioError(f"{path}: can't be read ({reason}); fetch the file again") from error
    if missing:
        raise AudioError(f"{path}: truncated, {missing} are missing; fetch the file again")
    if info.frames < 1:
        raise AudioError(f"{path}: holds no samples; fetch the file again")
    return SoundHeader(info.frames, info.samplerate)


def _wav_bytes_missing(path):
    """How much a RIFF file lacks of what its block sizes promise, as text, empty if nothing."""
    with open(path, "rb", buffering=512) as stream:  # the header is 44 bytes in most files
        start = stream.read(12)
        if start[:4] != b"RIFF" or start[8:] != b"WAVE":
            return ""
        held = os.fstat(stream.fileno()).st_size
        while len(block := stream.read(8)) == 8:
            name, size = struct.unpack("<4sI", block)
            end = stream.tell() + size
            if name == b"data":
                whole = size == UNKNOWN_SIZE or end <= held
                return "" if whole else f"{end - held} of {size} bytes of sound"
            stream.seek(end + size % 2)  # blocks start at even positions
    return "its sound data"


def _flac_end_missing(path):
    """What a FLAC file lacks, as text: its last sample is asked for, as the header holds no size."""
    with soundfile.SoundFile(path) as sound:
        try:
            sound.seek(max(sound.frames - 1, 0))
            whole = len(sound.read(1)) == 1
        except RuntimeError:
            whole = False
    return "" if whole else "the last samples"


def read_headers(paths):
    """Headers of many files; broken ones are collected instead of ending the run.

    Parameters
    ----------
    paths : iterable of path

    Returns
    -------
    headers : dict of path -> SoundHeader
        Whole files only.
    broken : list of str
        One message for each other file.
    """
    headers, broken = {}, []
    for path in paths:
        try:
            headers[path] = read_header(path)
        except AudioError as error:
            broken.append(str(error))
    return headers, broken


def name_some(items, limit=5):
    """The first few items and how many more there are, in one line.

    >>> name_some(["a", "b", "c"], limit=2)
    'a, b and 1 more'
    """
    items = [str(item) for item in items]
    more = f" and {len(items) - limit} more" if len(items) > limit else ""
    return ", ".join(items[:limit]) + more


def refuse_broken(corpus, broken):
    """Raise a CorpusError that names the first broken files and says how many there are."""
    if broken:
        count = f"{len(broken)} broken sound file{'s' if len(broken) > 1 else ''}"
        raise CorpusError(f"corpus {corpus}: {count}: {name_some(broken)}")


def check_speakers(corpus, root, found, expected):
    """Accept part of a corpus, but say which speakers are missing.

    Prints a note if any of ``expected`` is not in ``found``.

    Raises
    ------
    CorpusError
        With fewer than two speakers: nothing could be held out for testing.
    """
    missing = [speaker for speaker in expected if speaker not in found]
    if len(set(found)) < 2:
        raise CorpusError(
            f"corpus root {root}: {len(set(found))} of {len(expected)} {corpus} speakers found, "
            "expected at least 2; check that the archive was unpacked fully"
        )
    if missing:
        print(f"note: {corpus} speakers without files: {name_some(missing, limit=len(missing))}")
