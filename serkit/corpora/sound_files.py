"""Files of an unpacked corpus: where they lie; how long sounds are, and whether they are whole."""

import mmap
import os
import re
import zlib
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import soundfile

from serkit.errors import AudioError, CorpusError, reported_as

SOUND_SUFFIXES = (".wav", ".flac")
LEAST_UNKNOWN = 0x7FFFF000  # bytes; streaming writers put this or more where the size of the sound belongs
LOG = 2047  # characters that libsndfile keeps of what it noticed in a header
# how an Ogg recording begins: with its first page; and one in MP3: with a silent frame that holds its length
START = re.compile(rb"OggS\x00\x02|\xff[\xe0-\xff].{2,4}\x00{9,32}(?:Xing|Info)", re.DOTALL)
OGG_PAGE = 2**16  # bytes; none is longer
DIGESTED = 4096  # bytes
UNKNOWN_LENGTH = 2**62  # samples; libsndfile says this or more of a FLAC file without a length
CHUNK = 2**16  # samples decoded at once
RATES = (2000, 768_000)  # Hz
SEARCH_DEPTH = 2  # levels below the given root; archives unpack into one or two folders of their own


class SoundHeader(NamedTuple):
    """What the header of a sound file says."""

    num_samples: int  # per channel, at the file's own rate
    sample_rate: int  # Hz
    digest: str  # which recording it is: its size and the CRC-32 of its middle


def visible(folder):
    """Entries of a folder sorted by name, without those that start with a dot.

    The dot keeps out ``.DS_Store`` and the ``._*`` resource forks that archives made on a Mac hold:
    the latter bear the names of real sound files, and would be counted as such.

    Returns
    -------
    list of Path
        Empty if the folder does not exist or may not be read.
    """
    return sorted(Path(folder).glob("[!.]*"))


def list_sounds(folder):
    """WAV and FLAC files directly inside a folder, as sorted list of Path; hidden ones left out."""
    return [path for path in visible(folder) if path.suffix.lower() in SOUND_SUFFIXES and path.is_file()]


def read_text(path):
    """Text of a file in UTF-8, with or without mark, or else in Windows-1252."""
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        return path.read_text(encoding="cp1252", errors="replace")


def inside(folder, *names):
    """A file or folder below another one, whatever the case of its letters on this disk."""
    for name in names:
        found = (path for path in visible(folder) if path.name.lower() == name.lower())
        folder = next(found, Path(folder, name))
    return folder


def find_folder(root, part, corpus, example):
    """The folder at or below ``root`` that holds the parts of a corpus.

    A root given one or two levels too high, or one too low (it is a part itself), is put right.

    Parameters
    ----------
    root : path
        What the user gave.
    part : str
        Regular expression for the name of a part, a folder or file, such as ``session[1-5]``, in upper or lower case.
    corpus : str
        Name for the message.
    example : str
        Name of a part for the message.

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
    is_part = re.compile(part, re.IGNORECASE).fullmatch
    level = [root]
    for _ in range(SEARCH_DEPTH + 1):
        children = [child for folder in level for child in visible(folder)]
        holders = sorted({child.parent for child in children if is_part(child.name)})
        if len(holders) > 1:
            either = f"{name_some(holders)} could each be {corpus}, expected one"
            raise CorpusError(f"corpus root {given}: {either}; give the folder that is meant")
        if holders:
            return holders[0].parent if is_part(holders[0].name) else holders[0]
        level = [child for child in children if child.is_dir()]
    if is_part(root.name):
        return root.parent
    there = name_some(shown_path(path.name) for path in visible(root)) or "nothing"
    expected = f"expected folders of {corpus} such as {example}"
    raise CorpusError(f"corpus root {given}: holds {there}, {expected}; {get_it}")


def read_header(path):
    """Length, rate and digest of a sound file, without reading all of it.

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
        If the file can't be opened, holds no samples, has a rate that no sound has, or is shorter than its header
        promises. libsndfile silently reports what is left of a truncated WAV: its sizes are compared here.
    """
    name, cure = shown_path(path), "fetch the file again"
    # LibsndfileError is a RuntimeError
    with reported_as(AudioError, f"{name}: can't be read", cure, (OSError, RuntimeError)):
        info = soundfile.info(os.fsencode(path))
        frames, (announced, held) = info.frames, cut_short(info)
        missing = f"{announced - held} of {announced} bytes of sound" if announced else ""
        if info.format == "FLAC":
            frames, missing = _flac_length(path, frames)
        digest = _digest(path)
    check_rate(info.samplerate, path)
    if missing:
        raise AudioError(f"{name}: truncated, {missing} are missing; {cure}")
    if frames < 1:
        raise AudioError(f"{name}: holds no samples; {cure}")
    return SoundHeader(frames, info.samplerate, digest)


def shown_path(path):
    """A path as text that can be printed and stored, also where its name is not UTF-8.

    >>> shown_path(os.fsdecode(b"caf\\xe9.wav"))
    'caf\\\\xe9.wav'
    """
    return os.fsencode(path).decode(errors="backslashreplace")


def check_rate(sample_rate, path):
    """Refuse a sample rate that no recording of speech has: resampling it would take hours or the whole memory."""
    low, high = RATES
    if not low <= sample_rate <= high:
        about = f"{shown_path(path)}: its header says {sample_rate} Hz"
        raise AudioError(f"{about}, expected {low} to {high}; fetch the file again")


def _digest(path):
    """Size of a file and CRC-32 of a few kB in its middle: which recording it is, wherever it lies."""
    with open(path, "rb", buffering=0) as stream:
        size = os.fstat(stream.fileno()).st_size
        stream.seek(max(0, (size - DIGESTED) // 2))
        return f"{size}-{zlib.crc32(stream.read(DIGESTED)):08x}"


def cut_short(sound):
    """Bytes that the header of a WAV, RF64, W64, AIFF or AU file announces, and bytes it holds, where these are fewer.

    Parameters
    ----------
    sound : soundfile.SoundFile, or what soundfile.info returns

    Returns
    -------
    announced, held : int
        0 if all is there, also if the file was written through a pipe, which leaves a placeholder: its sound goes on
        to the end. W64 and RF64 are counted with their header.
    """
    log = sound.extra_info  # behind long texts, the size of the whole file is all that is in it
    part = "data|SSND|Data Size|riff|Riff size" if len(log) < LOG else "RIFF|FORM|riff|Riff size"
    match = re.search(rf"(?:{part}) *: (\d+) \(should be (\d+)\)", log)
    announced, held = map(int, match.groups()) if match else (0, 0)
    return (announced, held) if held < announced < LEAST_UNKNOWN else (0, 0)


def is_joined(path):
    """Whether several Ogg or MP3 recordings stand one behind the other in a file: libsndfile reads the first alone.

    Recorders, streams and ``cat`` make such files.
    """
    with open(path, "rb") as stream:
        if not stream.read(4).startswith((b"OggS", b"ID3", b"\xff")):
            return False
        with mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as content:
            return len(list(islice(START.finditer(content), 2))) > 1


def is_finished(path):
    """Whether an Ogg file's last page is all there, and marked as the last; of other formats, nothing says so: true."""
    with open(path, "rb") as stream:
        if stream.read(4) != b"OggS":
            return True
        stream.seek(max(0, os.path.getsize(path) - OGG_PAGE))
        page = b"OggS" + stream.read().rpartition(b"OggS")[2]
    if len(page) < 27 or not page[5] & 4:  # its flags
        return False
    lengths = page[27 : 27 + page[26]]
    return len(page) >= 27 + page[26] + sum(lengths)


class Stream(soundfile.SoundFile):
    """A sound file that is only read forwards: soundfile's seeking after each read fails where a header lies."""

    def seekable(self):
        """No."""
        return False


def _flac_length(path, announced):
    """Samples of a FLAC file, whose header may hold no length, and what is missing; its last one is asked for."""
    with suppress(RuntimeError):
        if len(soundfile.read(os.fsencode(path), start=-1)[0]):
            return announced, ""
    held = 0
    with suppress(soundfile.LibsndfileError), Stream(os.fsencode(path)) as sound:
        while n := len(sound.read(CHUNK)):
            held += n
    return held, f"{announced - held} of {announced} samples" if held < announced < UNKNOWN_LENGTH else ""


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


def note_broken(broken):
    """Print which sound files are done without, if there are any."""
    if broken:
        print(f"note: left out, as they can't be used ({len(broken)}): {name_some(broken)}")


def name_some(items, limit=5):
    """The first few items and how many more there are, in one line.

    >>> name_some(["a", "b", "c"], limit=2)
    'a, b and 1 more'
    """
    items = [str(item) for item in items]
    more = f" and {len(items) - limit} more" if len(items) > limit else ""
    return ", ".join(items[:limit]) + more
