"""Features on disk: extracted once, opened in an instant, read segment by segment.

A store keeps whole utterances, one after the other: ``spectrogram.npy`` (frames, 200),
``mfcc.npy`` (frames, 40) and ``audio.npy`` (samples,), see `serkit.features.arrays.part_files`. Which rows
belong to whom, and their checksums, is in ``utterances.parquet``; ``store.json`` says
``complete: true`` and is written last. Nothing is pickled. Cutting, padding and normalising happen
when segments are read, so one store serves all recipes that agree in ``Recipe.extraction``.
"""

import hashlib
import json
import zlib
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
from filelock import FileLock

from serkit.constants import N_BINS, N_MFCC, SEGMENT_FRAMES, SEGMENT_SAMPLES
from serkit.errors import StoreError
from serkit.features.arrays import PARTS, allocated_bytes, checksum, decode_audio, level_of_code, part_files
from serkit.features.extraction import extract, plan_files, spans
from serkit.features.segments import plan_segments
from serkit.features.views import SegmentFeatures, UtteranceFeatures, cut_segments
from serkit.files import replacing
from serkit.folds import task_rows
from serkit.recipe import Recipe

FEATURE_VERSION = 4  # raise it whenever the same recipe gives other numbers
RECORD = ("feature_version", "extraction", "frames", "samples", "audio_type", "table_crc", "skipped")


@dataclass(frozen=True, eq=False)
class FeatureStore:
    """An opened, complete store, seen through one recipe."""

    folder: Path
    recipe: Recipe
    segments: pd.DataFrame  # utterance_id, segment, n_frames, num_samples, sample_offset
    utterances: pd.DataFrame  # utterance_id, place and checksum of each part
    skipped: dict  # utterance without usable sound -> reason
    _files: dict = field(repr=False)  # part -> RowFile
    _owner: np.ndarray = field(repr=False)  # row of ``utterances`` for each segment
    _places: list = field(repr=False)  # rows of ``utterances``
    _unchecked: set = field(repr=False)  # (part, utterance) not read before by this process

    def __len__(self):
        return len(self.segments)

    def rows_of(self, utterance_ids):
        """Row numbers of all segments of these utterances, in store order.

        Utterances that were skipped as broken when the store was built have none; it is printed how
        many they are.

        Raises
        ------
        StoreError
            If any other utterance has no segment here.
        """
        wanted = set(utterance_ids)
        skipped = sorted(wanted & set(self.skipped))
        absent = sorted(wanted - set(self.segments["utterance_id"]) - set(skipped))
        if absent:
            raise StoreError(
                f"store {self.folder}: utterance {absent[0]} is not in it (and {len(absent) - 1} more); "
                "build the store from the same manifest"
            )
        if skipped:
            print(
                f"{len(skipped)} of {len(wanted)} utterances are left out: {skipped[0]} ... has no usable sound"
            )
        return np.flatnonzero(self.segments["utterance_id"].isin(wanted))

    def read(self, rows):
        """The three views of some segments, in the order of ``rows``.

        Parameters
        ----------
        rows : sequence of int
            Segments, as `rows_of` numbers them.

        Returns
        -------
        SegmentFeatures
            As ``serkit.features.views.segment_features`` gives them; levels within 0.0006 dB.

        Raises
        ------
        StoreError
            If what is read for the first time does not agree with its checksum, naming file and
            utterance.
        """
        rows = np.asarray(rows, dtype=np.int64)
        result = SegmentFeatures(
            spectrogram=np.empty((len(rows), N_BINS, SEGMENT_FRAMES), np.float32),
            mfcc=np.empty((len(rows), SEGMENT_FRAMES, N_MFCC), np.float32),
            waveform=np.empty((len(rows), SEGMENT_SAMPLES), np.float32),
            **{
                name: self.segments[name].to_numpy()[rows]
                for name in ("n_frames", "num_samples", "sample_offset")
            },
        )
        owner, number = self._owner[rows], self.segments["segment"].to_numpy()[rows]
        for utterance in np.unique(owner):
            places = np.flatnonzero(owner == utterance)
            cut = self._cut(utterance, number[places])
            for view in ("spectrogram", "mfcc", "waveform"):
                getattr(result, view)[places] = getattr(cut, view)
        return result

    def frame_codes(self, rows):
        """Stream the real spectrogram frames of some segments, utterance by utterance.

        Yields
        ------
        np.ndarray, shape (n_frames, 200), uint16
            Of one segment; ``levels`` has the dB of each code.
        """
        rows = np.sort(np.asarray(rows, dtype=np.int64))
        number = self.segments["segment"].to_numpy()
        for utterance, first in zip(*np.unique(self._owner[rows], return_index=True), strict=True):
            frames = self._part("spectrogram", utterance)
            plan = plan_segments(self._places[utterance].num_samples, self.recipe)
            for row in rows[first:]:
                if self._owner[row] != utterance:
                    break
                start = plan.frame_start[number[row]]
                yield frames[start : start + plan.n_frames[number[row]]]

    @property
    def levels(self):
        """Level in dB of every spectrogram code, shape (65536,), float32."""
        return level_of_code(self.recipe.top_db)

    def verify(self):
        """Read everything once more.

        Raises
        ------
        StoreError
            If a part of an utterance does not agree with its checksum; the first is named.
        """
        for name in PARTS:
            for utterance in range(len(self._places)):
                self._unchecked.add((name, utterance))
                self._part(name, utterance)

    def _cut(self, utterance, numbers):
        """Some segments of one utterance."""
        whole = UtteranceFeatures(
            spectrogram=self.levels[self._part("spectrogram", utterance)],
            mfcc=self._part("mfcc", utterance),
            waveform=decode_audio(self._part("audio", utterance)),
        )
        plan = plan_segments(len(whole.waveform), self.recipe).take(numbers)
        return cut_segments(whole, plan, self.recipe)

    def _part(self, name, utterance):
        """Rows of one utterance in one file; compared with their checksum the first time."""
        place, file = self._places[utterance], self._files[name]
        try:
            part = file.read(*spans(place)[name])
        except OSError as error:
            raise StoreError(f"{file.path}: damaged or missing ({error}); {_cure(self.folder)}") from error
        if (name, utterance) in self._unchecked:
            if checksum(part) != getattr(place, f"crc_{name}"):
                raise StoreError(
                    f"{file.path}: utterance {place.utterance_id} is damaged (its checksum is another); {_cure(self.folder)}"
                )
            self._unchecked.discard((name, utterance))
        return part


def _cure(folder):
    return f"delete {Path(folder) / 'store.json'} and run notebook 01: only what is damaged is computed again"


def store_key(manifest, recipe):
    """Name of the store that belongs to these utterances and the recipe's analysis of them.

    >>> from serkit.recipe import CORRECTED, PUBLISHED
    >>> table = pd.DataFrame({"utterance_id": ["a"], "label": "sad", "num_samples": 16000, "sample_rate": 16000})
    >>> store_key(table, PUBLISHED) == store_key(table, CORRECTED)  # they differ in cutting only
    True
    """
    rows = task_rows(manifest)[["utterance_id", "num_samples", "sample_rate"]]
    content = f"{FEATURE_VERSION} {json.dumps(recipe.extraction)} {rows.to_csv(index=False)}"
    return hashlib.sha256(content.encode()).hexdigest()[:16]


def build_store(manifest, recipe, root, *, workers=0, skip_broken=False):
    """Extract the features of all four-class utterances, or open them where that is done.

    Parameters
    ----------
    manifest : pd.DataFrame
    recipe : Recipe
    root : path
        The store becomes ``root/<key>``; an interrupted one is continued, after a check of what
        is there.
    workers : int, optional
        Threads that extract; default one for each core. The result does not depend on it.
    skip_broken : bool, optional
        Do without sound files that can't be read: they are recorded in the store, and left out by
        whoever opens it.

    Returns
    -------
    FeatureStore

    Raises
    ------
    CorpusError
        If sound files can't be read. All are named, after everything else is done.
    StoreError
        If the disk is full or the folder can't be written.
    """
    folder = Path(root) / store_key(manifest, recipe)
    if not _is_complete(folder):
        try:
            folder.mkdir(parents=True, exist_ok=True)
            # a second process waits, then finds it complete
            with FileLock(folder / "lock"):
                if not _is_complete(folder):
                    rows = task_rows(manifest)
                    outcome = extract(rows, recipe, folder, workers=workers, skip_broken=skip_broken)
                    _finish(folder, recipe, *outcome)
        except OSError as error:
            raise StoreError(
                f"store {folder}: can't be written ({error.strerror or error}); make room or choose another "
                "folder, then call again: what is extracted is kept"
            ) from error
    return open_store(folder, recipe)


def store_bytes_left(manifest, recipe, root):
    """Bytes that ``build_store`` still has to write: 0 when the store is complete.

    The arrays are counted to the byte; the table and the record beside them take less than 100 each
    for an utterance. What an interrupted call has written is not counted again.

    Parameters
    ----------
    manifest, recipe, root
        As for ``build_store``.

    Returns
    -------
    int
    """
    folder = Path(root) / store_key(manifest, recipe)
    if _is_complete(folder):
        return 0
    _, parts, progress = plan_files(task_rows(manifest), folder)
    return sum(max(0, file.total_bytes - allocated_bytes(file.path)) for file in (*parts.values(), progress))


def _is_complete(folder):
    try:
        return json.loads((folder / "store.json").read_text())["complete"]
    except (OSError, ValueError, KeyError):
        return False


def _finish(folder, recipe, table, audio_type, skipped):
    """The table of what is there, and the record in one step."""
    here = table[~table["utterance_id"].isin(skipped)]
    with replacing(folder / "utterances.parquet") as partial:
        here.to_parquet(partial, index=False)
    record = {
        "feature_version": FEATURE_VERSION,
        "extraction": recipe.extraction,
        "utterances": len(here),
        "frames": int(table["n_frames"].sum()),
        "samples": int(table["num_samples"].sum()),
        "audio_type": audio_type,
        "table_crc": zlib.crc32((folder / "utterances.parquet").read_bytes()),
        "skipped": skipped,
        "complete": True,
    }
    with replacing(folder / "store.json") as partial:
        partial.write_text(json.dumps(record, indent=2) + "\n")


def open_store(folder, recipe):
    """Open a complete store; its arrays stay on disk.

    Parameters
    ----------
    folder : path
    recipe : Recipe
        Decides how utterances are cut; must agree with the store in ``Recipe.extraction``.

    Returns
    -------
    FeatureStore

    Raises
    ------
    StoreError
        If it is incomplete, damaged, of another feature version, or analysed in another way.
    """
    folder = Path(folder)
    if not _is_complete(folder):
        raise StoreError(
            f"store {folder} is missing or incomplete; run notebook 01 (or `serkit reproduce`) to build it"
        )
    record = _read_record(folder, recipe)
    utterances = _read_table(folder, record)
    files = part_files(folder, record["frames"], record["samples"], record["audio_type"])
    for file in files.values():
        file.check(_cure(folder))
    segments, owner = _plan_all(utterances, recipe)
    unchecked = {(name, utterance) for name in PARTS for utterance in range(len(utterances))}
    places = list(utterances.itertuples(index=False))
    return FeatureStore(
        folder, recipe, segments, utterances, record["skipped"], files, owner, places, unchecked
    )


def _read_record(folder, recipe):
    record = json.loads((folder / "store.json").read_text())
    missing = sorted(set(RECORD) - set(record))
    if missing:
        raise StoreError(f"{folder / 'store.json'}: damaged ({missing[0]} is not in it); {_cure(folder)}")
    if record["feature_version"] != FEATURE_VERSION:
        raise StoreError(
            f"store {folder}: feature version {record['feature_version']}, expected {FEATURE_VERSION}; "
            "delete the folder and run notebook 01"
        )
    if record["extraction"] != recipe.extraction:
        raise StoreError(
            f"store {folder}: made with {record['extraction']}, but recipe {recipe.name} has {recipe.extraction}; "
            "build one for this recipe with notebook 01"
        )
    return record


def _read_table(folder, record):
    path = folder / "utterances.parquet"
    try:
        if zlib.crc32(path.read_bytes()) != record["table_crc"]:
            raise ValueError("its checksum is another")
        return pd.read_parquet(path)
    except (OSError, ValueError) as error:  # pyarrow's own error is a ValueError
        raise StoreError(f"{path}: damaged or missing ({error}); {_cure(folder)}") from error


def _plan_all(utterances, recipe):
    """Table of all segments, and the utterance (row of the table) that each belongs to."""
    plans = [plan_segments(num_samples, recipe) for num_samples in utterances["num_samples"].tolist()]
    counts = [len(plan) for plan in plans]
    owner = np.repeat(np.arange(len(plans)), counts)
    columns = ("n_frames", "num_samples", "sample_offset")
    none = [np.zeros(0, np.int64)]
    table = pd.DataFrame({
        "utterance_id": utterances["utterance_id"].to_numpy()[owner],
        "segment": np.concatenate(none + [np.arange(n) for n in counts]),
        **{name: np.concatenate(none + [getattr(plan, name) for plan in plans]) for name in columns},
    })  # fmt: skip
    return table, owner
