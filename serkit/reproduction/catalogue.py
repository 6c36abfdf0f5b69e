"""What lies in ``figures/<run>/``, what should lie there and doesn't, and what is out of date."""

import json
import re
from dataclasses import dataclass, field, replace
from html import escape
from pathlib import Path

from serkit import runs
from serkit.figures.saving import DIGEST, write_file
from serkit.reproduction.runfigures import stem_of

SCORES = "06_confusion_matrix"
# Stems that the notebooks write; a notebook that names its files after a fold is listed with {}.
WRITTEN = {
    "01_prepare_corpus": (
        "corpus_classes",
        "corpus_durations",
        "corpus_segments",
        "corpus_counts",
        "corpus_padding",
    ),
    "02_mfcc": ("mfcc_steps", "mfcc_padding", "mfcc_four_emotions", "mfcc_parameters"),
    "03_spectrogram": ("spectrogram_padding", "spectrogram_scaler", "spectrogram_parameters"),
    "04_wav2vec2": ("wav2vec2_alignment", "wav2vec2_padding", "wav2vec2_frontend", "wav2vec2_parameters"),
    "05_train_coattention": ("curves_{}", "coattention_{}"),
    SCORES: ("confusion_matrix", "recall", "speaker_scores", "scores", "speaker_scores_table"),
}
OF_A_FOLD = re.compile(r"_fold[^_]+_seed\d+$")
THUMBNAIL = 240  # pixels wide


@dataclass(frozen=True)
class Entry:
    """One figure or table."""

    stem: str
    kind: str = ""  # figure or table; empty if that can't be known
    caption: str = ""
    files: tuple[str, ...] = ()  # names of the files that are there
    faults: tuple[str, ...] = ()  # what is wrong with it; empty: nothing
    parameters: dict = field(default_factory=dict)  # what it was made with
    hashed: bool = False  # whether the sidecar says which bytes the files had


def read_catalogue(run, *, digests=(), not_made=None, root=None):
    """Every figure and table of a run, the missing ones included.

    A figure is out of date if its sidecar names predictions that are none of ``digests``, or if it was
    made of another corpus. A file with other bytes than the sidecar says was changed by hand.

    Parameters
    ----------
    run : str
    digests : sequence of str, optional
        Of the predictions that the run holds now, of all variants and of each, from
        :func:`serkit.figures.saving.digest_of`. Without them only the corpus is compared.
    not_made : dict of str to str, optional
        Stems that could not be made now, and why.
    root : path, optional
        Folder that holds one folder for each run; default ``figures`` of the project.

    Returns
    -------
    list of Entry
        Sorted by stem.
    """
    folder = Path(root or runs.project_home() / "figures") / run
    finished = runs.finished_folders(run)
    corpus = runs.shared_parameters(run).get("corpus")
    names = sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []
    entries, expected = {}, _expected(finished)
    for stem in sorted({name.partition(".")[0] for name in names if not name.startswith(".")} - {"README"}):
        own = tuple(name for name in names if name.partition(".")[0] == stem)
        entries[stem] = _entry(folder, stem, own, digests, corpus, expected.get(stem, ""))
    for stem, cure in expected.items():
        entries.setdefault(stem, Entry(stem, faults=(f"missing; {cure}",)))
    for stem, why in (not_made or {}).items():
        old = entries.get(stem, Entry(stem))
        faults = (f"missing: {why}",) if not old.files else (f"left from before, can't be made now: {why}",)
        entries[stem] = replace(old, faults=faults)
    return [entries[stem] for stem in sorted(entries)]


def write_catalogue(run, entries, root=None):
    """Write ``figures/<run>/README.md``: thumbnail, caption and files of each entry; returns its path."""
    folder = Path(root or runs.project_home() / "figures") / run
    lines = [f"# Figures and tables of the run `{run}`", "", "Made by `serkit report`.", ""]
    faulty = [entry for entry in entries if entry.faults]
    if faulty:
        lines += ["## Missing or out of date", ""]
        lines += [f"- `{entry.stem}`: {'; '.join(entry.faults)}" for entry in faulty] + [""]
    for kind, title in (("figure", "Figures"), ("table", "Tables")):
        chosen = [entry for entry in entries if entry.kind == kind and entry.files]
        if chosen:
            lines += [f"## {title}", "", "| | caption | files |", "| :-- | :-- | :-- |"]
            lines += [_row(group) for group in alike_entries(chosen)] + [""]
    return write_file(folder / "README.md", "\n".join(lines).encode())


def _expected(finished):
    """Stems that the finished notebooks should have written, and what writes them.

    In a run of several variants the names of figures of folds and of their sum hold the variant's.
    """
    variants = sorted({folder.parts[-3] for folder in finished})
    several = len(variants) > 1
    expected = {}
    for notebook, stems in WRITTEN.items():
        cure = f"notebook {notebook} writes it"
        own = notebook.startswith(("05", "06"))
        for stem in stems:
            if "{}" in stem:
                names = [stem.format(_place(folder, several)) for folder in finished]
            elif own and several:
                names = [f"{stem}_{stem_of(variant)}" for variant in variants]
            else:
                names = [stem]
            for name in names:
                expected[name] = cure + (", with name_variant=True" if own and several else "")
    return expected


def _place(folder, several):
    """Fold and seed of a run folder as part of a stem, with the variant where there are several."""
    variant, fold, seed = folder.parts[-3:]
    return f"{stem_of(variant)}_" * several + f"{fold}_{seed}".replace("=", "")


def _entry(folder, stem, names, digests, corpus, cure):
    sidecar = folder / f"{stem}.json"
    try:
        record = json.loads(sidecar.read_text(encoding="utf-8"))
        kind, caption, listed, parameters = (
            record[key] for key in ("kind", "caption", "files", "parameters")
        )
        made_from = parameters.get(DIGEST)
        hashes = dict(record.get("sha256", {}))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return Entry(
            stem, files=names, faults=(f"{stem}.json is missing or can't be read: its origin is unknown",)
        )
    faults = [f"{name} is missing" for name in listed if name not in names]
    faults += [
        f"{name} was changed after it was made"
        for name, digest in hashes.items()
        if name in names and runs.sha256_of(folder / name) != digest
    ]
    if digests and (stem in WRITTEN[SCORES] or SCORES in cure) and not made_from:
        faults.append(f"does not say of which predictions; run notebook {SCORES} again")
    elif digests and made_from and made_from not in digests:
        faults.append("out of date: made from other predictions than the run holds now")
    if parameters.get("corpus", corpus) != corpus:
        faults.append(f"out of date: made of corpus {parameters['corpus']}, the run is of {corpus}")
    return Entry(stem, kind, caption, names, tuple(faults), parameters, bool(hashes))


def alike_entries(entries):
    """Groups of entries that show the same thing, each for another fold and seed."""
    groups = {}
    for entry in entries:
        groups.setdefault(OF_A_FOLD.sub("", entry.stem), []).append(entry)
    return list(groups.values())


def _row(group):
    """One line of the catalogue; of figures of many folds the first is shown, the others are named."""
    entry, *others = group
    picture = f"{entry.stem}.png"
    alt = escape(entry.stem.replace("_", " "))
    first = f"`{entry.stem}`"
    if picture in entry.files:
        first = f'<img src="{picture}" width="{THUMBNAIL}" alt="{alt}"><br>{first}'
    caption = " ".join([entry.caption, *(f"**{fault}**" for fault in entry.faults)]).replace("|", "\\|")
    if others:
        caption += " In the same way: " + ", ".join(f"`{other.stem}`" for other in others) + "."
    links = " ".join(f"[{name.rpartition('.')[2]}]({name})" for name in entry.files)
    return f"| {first} | {caption} | {links} |"
