"""``serkit fetch NAME``: a free corpus from where its owners keep it, checked and unpacked."""

import shutil
from pathlib import Path

import pooch
import requests
from tqdm.auto import tqdm

from serkit.errors import CorpusError, check_choice, reported_as
from serkit.files import filling, read_toml
from serkit.runs import corpus_root, show_path

ARCHIVES = read_toml(__file__, "archives.toml")
LICENCE = "LICENCE.txt"  # kept beside the data, written last: where it is, the corpus is complete
CHUNK = 2**16  # bytes; a transfer that breaks off loses no more
PATIENCE_S = 30  # without a byte


def fetch(name, *, root=None):
    """Download a corpus and unpack it to ``data/<name>``; what is there already isn't fetched again.

    Parameters
    ----------
    name : str
        A heading of ``archives.toml``.
    root : path, optional
        Where to, in place of ``data/<name>``.

    Returns
    -------
    Path
        The folder, as :func:`serkit.corpora.load` reads it.

    Raises
    ------
    CorpusError
        If it has to be fetched by hand, saying how; if the network or the disk fails, or the checksum is wrong.
    """
    check_choice("corpus", name, ARCHIVES)
    about, folder = ARCHIVES[name], Path(root) if root else corpus_root(name)
    text = f"{about['title']}\n{about['page']}\nlicence: {about['licence']}\nplease cite: {about['cite']}\n"
    print(text, end="", flush=True)
    if (folder / LICENCE).is_file():
        print(f"{name} is at {show_path(folder)} already")
        return folder
    by_hand = f"fetch {about.get('by_hand', 'the archive')} from {about['page']} and unpack it in {show_path(folder)}"
    if "url" not in about:
        raise CorpusError(f"corpus {name} can't be fetched without you: {by_hand}")
    archive = folder.with_name(f".{folder.name}.zip")
    cure = f"it takes {3 * about['size_mb']} MB for a while; make room and call again"
    full = reported_as(CorpusError, f"corpus {name}: can't be written to {folder.parent}", cure, OSError)
    with full:
        with filling(folder) as partial:
            try:
                _download(about, archive)
            except requests.RequestException as error:
                reason = f"{about['url']} can't be reached or broke off ({type(error).__name__})"
                raise CorpusError(f"corpus {name}: {reason}; call again to go on, or {by_hand}") from error
            shutil.unpack_archive(archive, partial, "zip")  # leaves out names that point outside
            (partial / LICENCE).write_text(text, encoding="utf-8")
        archive.unlink()
    print(f"{name} is at {show_path(folder)}")
    return folder


def _download(about, archive):
    """Bring the archive to the disk, or the rest of it, and check it."""
    algorithm, _, digest = about["checksum"].partition(":")
    if not (archive.is_file() and pooch.file_hash(archive, algorithm) == digest):
        _append(about["url"], archive)
        if pooch.file_hash(archive, algorithm) != digest:
            archive.unlink()
            reason = f"what came has another checksum than published ({about['checksum']})"
            raise CorpusError(f"{about['url']}: {reason}; call again, or fetch it by hand")


def _append(url, archive):
    """Download what is missing of a file: servers that know ranges send the rest, others all of it."""
    held = archive.stat().st_size if archive.is_file() else 0
    with requests.get(url, headers={"Range": f"bytes={held}-"}, stream=True, timeout=PATIENCE_S) as answer:
        if answer.status_code == requests.codes.requested_range_not_satisfiable:  # all is there
            return
        answer.raise_for_status()
        held *= answer.status_code == requests.codes.partial_content
        total = held + int(answer.headers.get("Content-Length", 0))
        with (
            open(archive, "ab" if held else "wb") as file,
            tqdm.wrapattr(file, "write", total or None, desc=archive.stem[1:], initial=held) as counted,
        ):
            for chunk in answer.iter_content(CHUNK):
                counted.write(chunk)
