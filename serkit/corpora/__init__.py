"""Corpora behind one call: ``load(name, root)`` gives the manifest of any of them, one row for each utterance."""

from functools import partial
from pathlib import Path

import pandas as pd

from serkit.corpora import acted, demo, iemocap, table
from serkit.corpora.manifest import make_manifest
from serkit.errors import CorpusError, ParameterError, check_choice, meant
from serkit.experiment import ACROSS, convert
from serkit.runs import corpus_root, processed_folder

REGISTRY = {"demo": demo.load, "iemocap": iemocap.load} | {
    name: partial(acted.load, name) for name in acted.CORPORA
}


def load(name, root=None, *, check="strict", skip_broken=False):
    """Read a corpus from disk.

    Parameters
    ----------
    name : str
        One of ``CORPORA``; any other name is that of a table, see
        :mod:`serkit.corpora.table`. ``ravdess+emodb-to-demo`` trains on the first two and tests on the third.
    root : path, optional
        Folder of the unpacked corpus, or the table; default ``data/<name>`` of the project. Across corpora
        ``ravdess=/its/folder,demo=/another``, where they are not there.
    check : {"strict", "report"}, optional
        What to do where a corpus whose full release has been counted, IEMOCAP, differs from it:
        refuse it, or print the difference and go on. The other corpora take no notice.
    skip_broken : bool, optional
        Print which sound files can't be used and do without them, in place of refusing the corpus.

    Returns
    -------
    pd.DataFrame
        The manifest, columns as in ``serkit.corpora.manifest.COLUMNS``, sorted by utterance id.

    Raises
    ------
    ParameterError
        If there is no such corpus, or ``check`` is neither.
    CorpusError
        If what lies at ``root`` is missing, incomplete or broken.
    """
    name = convert("corpus", name)
    check_choice("check", check, ("strict", "report"))
    if ACROSS in name:
        return _across(name, str(root or ""), check=check, skip_broken=skip_broken)
    options = {"skip_broken": skip_broken} | ({"check": check} if name == "iemocap" else {})
    root = Path(root) if root else corpus_root(name)
    if name in REGISTRY:
        return REGISTRY[name](root, **options)
    try:
        path = table.find_table(root)
    except CorpusError as error:
        hint = meant(name, REGISTRY, "") or f"expected one of {', '.join(REGISTRY)}, or the name of a table"
        raise ParameterError(f"corpus={name!r}: {hint} ({error})") from error
    return table.load(path, name=name, cut_folder=processed_folder(name) / "turns", **options)


def _across(name, roots, **options):
    """Several corpora as one that says itself who is trained on: all but the last, which is tested.

    The last session of each corpus that is trained on is for validation.
    """
    trained, _, tested = name.partition(ACROSS)
    names = [*trained.split("+"), tested]
    if len(set(names)) < len(names):
        raise ParameterError(f"corpus={name!r}, expected different corpora for training and test")
    root_of = dict(part.partition("=")[::2] for part in roots.split(",") if "=" in part)
    if unknown := root_of.keys() - set(names):
        expected = f"NAME=FOLDER of {', '.join(names)}, separated by commas"
        raise ParameterError(f"root={roots!r}, expected {expected}; not {min(unknown)!r}")
    parts = []
    for corpus in names:
        part = load(corpus, root_of.get(corpus), **options)
        held_out = part["session"] == part["session"].max()
        part["split"] = "test" if corpus == tested else held_out.map({True: "validation", False: "train"})
        for column in ("utterance_id", "speaker", "session"):
            part[column] = corpus + "_" + part[column]
        parts.append(part)
    return make_manifest(pd.concat(parts).to_dict("records"))
