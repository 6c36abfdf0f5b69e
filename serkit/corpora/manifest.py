"""The manifest: one row per utterance, the same columns for every corpus; ``columns.toml`` says what they are."""

from collections import Counter

import pandas as pd

from serkit.constants import CORPORA, LABELS
from serkit.errors import CorpusError, reported_as
from serkit.files import read_toml, replacing

COLUMNS = read_toml(__file__, "columns.toml")  # to pandas dtypes


def make_manifest(rows):
    """Build a checked manifest from rows.

    Parameters
    ----------
    rows : list of dict
        One per utterance; keys from ``COLUMNS``, optional ones may be left out.

    Returns
    -------
    pd.DataFrame
        All ``COLUMNS`` in order, sorted by ``utterance_id``, index 0, 1, ...

    Raises
    ------
    CorpusError
        If there are no rows, or ``check_manifest`` refuses them.
    """
    if not rows:
        raise CorpusError("no utterance found; check that root points at the unpacked corpus")
    table = pd.DataFrame(rows).reindex(columns=list(COLUMNS)).astype(COLUMNS)
    table = table.sort_values("utterance_id", ignore_index=True)
    check_manifest(table)
    return table


def group_speakers(rows, groups):
    """Give speakers sessions, for a corpus without: groups of much the same size, women and men in each where there are.

    Parameters
    ----------
    rows : list of dict
        With ``speaker`` and ``gender``; ``session`` is added, "1" and so on.
    groups : int
        At most; no more than speakers.
    """
    sizes = Counter((row["speaker"], row["gender"]) for row in rows)
    filled = {str(number): Counter() for number in range(1, min(groups, len(sizes)) + 1)}
    session = {}
    for (speaker, gender), size in sorted(sizes.items(), key=lambda item: (-item[1], item[0][0])):
        name = min(filled, key=lambda group: (filled[group][gender], filled[group]["utterances"], int(group)))
        filled[name].update({gender: 1, "utterances": size})
        session[speaker] = name
    for row in rows:
        row["session"] = session[row["speaker"]]


def check_manifest(manifest):
    """Refuse a manifest that breaks the schema; the first fault is named.

    Raises
    ------
    CorpusError
        On a missing column, a repeated or missing utterance id, an unknown label, a missing
        speaker or session, or a length that is not positive.
    """
    if missing := [name for name in COLUMNS if name not in manifest.columns]:
        raise CorpusError(f"manifest lacks the columns {missing}; build it with serkit.corpora.load")
    for name in ("utterance_id", "path", "speaker", "session", "emotion"):
        for row in manifest.index[manifest[name].isna()]:
            raise CorpusError(f"manifest row {row}: {name} is missing, expected a value in every row")
    for name in manifest["utterance_id"][manifest["utterance_id"].duplicated()]:
        raise CorpusError(f"utterance {name} stands in the manifest more than once")
    released = manifest["corpus"].isin(CORPORA)  # a table has classes of its own
    for label in sorted(set(manifest["label"][released].dropna()) - set(LABELS)):
        raise CorpusError(f"unknown label {label!r}, expected one of {', '.join(LABELS)}")
    for name in manifest["utterance_id"][manifest["num_samples"] <= 0]:
        raise CorpusError(f"utterance {name} has no samples; its file is broken")


def save_manifest(manifest, path):
    """Write a manifest as parquet, in one step, and return the path.

    Raises
    ------
    CorpusError
        If it can't be written; one that was there stays.
    """
    check_manifest(manifest)
    full = reported_as(CorpusError, f"{path}: can't be written", "make room", OSError)
    with full, replacing(path) as partial:
        manifest.to_parquet(partial, index=False, write_page_checksum=True)
    return path
