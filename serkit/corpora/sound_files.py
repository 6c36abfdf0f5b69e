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


def find_folder(root, part, corpus):
    """The folder at or below ``root`` that holds the parts of a corpus.

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
    Path, absolute
        The highest folder with such parts; a copy nested inside of it is passed over.

    Raises
    ------
    CorpusError
        If ``root`` is missing or a file, no such part lies there, or two folders could be meant.
    """
    given, root = root, Path(os.path.abspath(root))
    get_it = f"data/README.md says how to obtain and unpack {corpus}"
    if root.is_file():
        raise CorpusError(f"corpus root {given} is a file, expected the folder it unpacks to; {get_it}")
    if not root.is_dir():
        raise CorpusError(f"corpus root {given}: no such folder, expected the unpacked {corpus}; {get_it}")
    level = [root]
    for _ in range(SEARCH_DEPTH + 1):
        children = {folder: [path for path in visible(folder) if path.is_dir()] for folder in level}
        holders = [f for f in level if any(re.fullmatch(part, child.name) for child in children[f])]
        if len(holders) > 1:
            raise CorpusError(
                f"corpus root {given}: {name_some(holders)} could each be {corpus}, expected one; "
                "give the folder that is meant"
            )
        if holders:
            return holders[0]
        level = [child for folder in level for child in children[folder]]
    if re.fullmatch(part, root.name):
        return root.parent
    raise CorpusError(f"corpus root {given}: holds no folder named {part}, expected {corpus}; {get_it}")


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
        missing = _flac_end_missing(path) if info.format == "FLAC" else _wav_bytes_missing(path)
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
    try:
        last, _ = soundfile.read(path, start=-1)
    except RuntimeError:
        last = []
    return "" if len(last) else "the last samples"


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
