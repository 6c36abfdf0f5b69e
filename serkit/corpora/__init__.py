"""Corpora behind one call: ``load(name, root)`` gives the manifest of any of them, one row for each utterance."""

from pathlib import Path

from serkit.corpora import acted, demo, iemocap
from serkit.errors import check_choice
from serkit.runs import corpus_root

REGISTRY = {
    "demo": demo.load,
    "emodb": acted.load_emodb,
    "iemocap": iemocap.load,
    "ravdess": acted.load_ravdess,
}
CHECKED = ("iemocap",)  # corpora whose full release has been counted


def load(name, root=None, *, check="strict", skip_broken=False):
    """Read a corpus from disk.

    Parameters
    ----------
    name : str
        One of ``demo``, ``emodb``, ``iemocap``, ``ravdess``.
    root : path, optional
        Folder of the unpacked corpus; default ``data/<name>`` of the project.
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
    check_choice("corpus", name, REGISTRY)
    check_choice("check", check, ("strict", "report"))
    options = {"skip_broken": skip_broken} | ({"check": check} if name in CHECKED else {})
    return REGISTRY[name](Path(root) if root else corpus_root(name), **options)
