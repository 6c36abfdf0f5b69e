"""Features on disk: extracted once, on all cores; opened in an instant; read segment by segment.

A store keeps whole utterances, one after the other, in plain ``.npy`` files: ``spectrogram.npy`` (frames,
200), ``mfcc.npy`` (frames, 40) and ``audio.npy`` (samples,). Which rows belong to whom is in
``utterances.parquet``; ``store.json`` holds a checksum of each file, says ``complete: true`` and is written
last. Nothing is pickled. Cutting, padding and normalising happen when segments are read, so one store serves
all recipes that agree in ``Recipe.extraction``.

Nothing counts as done before it is on the disk: a process may be killed, or the power fail, at any time, and
the next call computes the rest.
"""

import hashlib
import json
import multiprocessing
import os
import signal
import sys
import threading
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import soundfile
import torch
from filelock import FileLock
from tqdm.auto import tqdm

from serkit.constants import HOP_LENGTH, N_BINS, N_MFCC, SAMPLE_RATE, SEGMENT_FRAMES, SEGMENT_SAMPLES
from serkit.errors import AudioError, CorpusError, StoreError
from serkit.features import audio
from serkit.features.rows import Progress, RowFile, checksum, encode_level, level_of_code
from serkit.features.segments import plan_segments
from serkit.features.views import SegmentFeatures, UtteranceFeatures, cut_segments, utterance_features
from serkit.files import allocated_bytes, replacing
from serkit.folds import task_rows
from serkit.recipe import Recipe

FEATURE_VERSION = 5  # raise it whenever the same recipe gives other numbers
SAVED_EVERY = 128  # utterances after which what is done is brought to the disk
PORTION = 8  # utterances handed to a worker at once
HEADERS = 64  # sound files whose headers a worker reads at once


@dataclass(frozen=True, eq=False)
class FeatureStore:
    """An opened, complete store, seen through one recipe."""

    folder: Path
    recipe: Recipe
    segments: pd.DataFrame  # utterance_id, segment, frame_start, n_frames, num_samples, sample_offset
    utterances: pd.DataFrame  # utterance_id, first_frame, n_frames, first_sample, num_samples
    skipped: dict  # utterance without usable sound -> reason
    _checksums: dict = field(repr=False)  # name of a file -> its CRC-32
    _files: dict = field(repr=False)  # view -> RowFile
    _owner: np.ndarray = field(repr=False)  # row of ``utterances`` for each segment

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
            If a file is gone or was cut short.
        """
        rows = np.asarray(rows, dtype=np.int64)
        owner, number = self._owner[rows], self.segments["segment"].to_numpy()[rows]
        result = SegmentFeatures(
            np.empty((len(rows), N_BINS, SEGMENT_FRAMES), np.float32),
            np.empty((len(rows), SEGMENT_FRAMES, N_MFCC), np.float32),
            np.empty((len(rows), SEGMENT_SAMPLES), np.float32),
            *(self.segments[name].to_numpy()[rows] for name in ("n_frames", "num_samples", "sample_offset")),
        )
        for utterance in np.unique(owner):
            here = np.flatnonzero(owner == utterance)
            cut = self._cut(self.utterances.iloc[utterance], number[here])
            for view in ("spectrogram", "mfcc", "waveform"):
                getattr(result, view)[here] = getattr(cut, view)
        return result

    def frame_codes(self, rows):
        """Stream the real spectrogram frames of some segments, in store order.

        Yields
        ------
        np.ndarray, shape (n_frames, 200), uint16
            Of one segment; ``levels`` has the dB of each code.
        """
        rows = np.sort(np.asarray(rows, dtype=np.int64))
        start = (
            self.utterances["first_frame"].to_numpy()[self._owner[rows]]
            + self.segments["frame_start"].to_numpy()[rows]
        )
        for first, n in zip(start, self.segments["n_frames"].to_numpy()[rows], strict=True):
            yield self._read("spectrogram", first, n)

    @property
    def levels(self):
        """Level in dB of every spectrogram code, shape (65536,), float32."""
        return level_of_code(self.recipe.top_db)

    def verify(self):
        """Compare every file with its checksum.

        Raises
        ------
        StoreError
            Naming the first file that is not as it was written.
        """
        for name, expected in self._checksums.items():
            if checksum(self.folder / name) != expected:
                raise StoreError(f"{self.folder / name}: checksum mismatch; {_cure(self.folder)}")

    def _cut(self, utterance, numbers):
        """Some segments of one utterance, given as a row of ``utterances``."""
        samples = self._read("audio", utterance.first_sample, utterance.num_samples)
        whole = UtteranceFeatures(
            spectrogram=self.levels[self._read("spectrogram", utterance.first_frame, utterance.n_frames)],
            mfcc=self._read("mfcc", utterance.first_frame, utterance.n_frames),
            waveform=samples * np.float32(1 / audio.PCM16) if samples.dtype == np.int16 else samples,
        )
        return cut_segments(whole, plan_segments(len(samples), self.recipe).take(numbers), self.recipe)

    def _read(self, name, first, n):
        """``n`` rows of one array."""
        try:
            return self._files[name].read(first, first + n)
        except OSError as error:
            path = self._files[name].path
            raise StoreError(f"{path}: damaged or missing ({error}); {_cure(self.folder)}") from error


def _cure(folder):
    return f"delete the folder {folder} and run notebook 01"


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
        The store becomes ``root/<key>``; an interrupted one is continued.
    workers : int, optional
        Processes that extract; default one for each core. The result does not depend on it.
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
    if not _read_record(folder):
        try:
            folder.mkdir(parents=True, exist_ok=True)
            # a second process waits, then finds it complete
            with FileLock(folder / "lock"), _worker_map(workers or usable_cores()) as run:
                if not _read_record(folder):
                    _build(task_rows(manifest), recipe, folder, run, skip_broken)
        except OSError as error:
            raise StoreError(
                f"store {folder}: can't be written ({error.strerror or error}); make room or choose another "
                "folder, then call again: what is extracted is kept"
            ) from error
        except BrokenProcessPool as error:
            raise StoreError(
                "extraction: the system has ended a worker, probably for want of memory; call again with "
                "workers=1: what is extracted is kept"
            ) from error
    return open_store(folder, recipe)


def store_bytes_left(manifest, recipe, root):
    """Bytes that ``build_store`` still has to write: 0 when the store is complete.

    The arrays are counted to the byte; the table and the record beside them take less than 100 each
    for an utterance. What an interrupted call has written is not counted again.
    """
    folder, rows = Path(root) / store_key(manifest, recipe), task_rows(manifest)
    if _read_record(folder):
        return 0
    totals = _layout(rows)[["n_frames", "num_samples"]].sum()
    files = _part_files(folder, *totals, _audio_type(rows)).values()
    return sum(max(0, file.total_bytes - allocated_bytes(file.path)) for file in files)


def usable_cores():
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _plain_map(function, *columns, chunksize):
    return map(function, *columns)


@contextmanager
def _worker_map(workers):
    """``map`` on so many processes, each with one thread: more would only wait for each other.

    On Linux they are forked, which costs nothing and shares what is loaded.
    """
    if workers == 1:
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            yield _plain_map
        finally:
            torch.set_num_threads(threads)
        return
    context = multiprocessing.get_context("fork" if sys.platform == "linux" else "spawn")
    pool = ProcessPoolExecutor(workers, context, _start_worker)
    try:
        yield pool.map
    finally:
        pool.shutdown(cancel_futures=True)


def _start_worker():
    """A worker leaves interrupts to its parent, and does not outlive it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    torch.set_num_threads(1)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent():
    multiprocessing.parent_process().join()
    os._exit(1)


def _build(rows, recipe, folder, run, skip_broken):
    """Extract what is missing, then write the table of what is there, and the record in one step."""
    table, audio_type = _layout(rows), _audio_type(rows, run)
    n_frames, num_samples = table["n_frames"].sum(), table["num_samples"].sum()
    files = _part_files(folder, n_frames, num_samples, audio_type)
    broken = _extract_missing(rows["path"].to_numpy(), table, recipe, folder, files, run)
    if broken and not skip_broken:
        raise CorpusError(
            f"{len(broken)} of {len(rows)} sound files can't be used, all others are done: "
            f"{'; '.join(list(broken.values())[:10])}. Mend them and call again, or do without them: skip_broken=True (--skip-broken)"
        )
    with replacing(folder / "utterances.parquet") as partial_table:
        table.drop(index=list(broken)).to_parquet(partial_table, index=False)
    names = [*(file.path.name for file in files.values()), "utterances.parquet"]
    record = {
        "feature_version": FEATURE_VERSION,
        "extraction": recipe.extraction,
        "utterances": len(rows) - len(broken),
        "frames": int(n_frames),
        "samples": int(num_samples),
        "audio_type": audio_type,
        "skipped": {table["utterance_id"][row]: fault for row, fault in broken.items()},
        "checksums": dict(zip(names, run(checksum, [folder / n for n in names], chunksize=1), strict=True)),
        "complete": True,
    }
    with replacing(folder / "store.json") as partial_record:
        partial_record.write_text(json.dumps(record, indent=2) + "\n")


def _layout(rows):
    """Where each utterance lies in the arrays; known from the manifest, before any file is read."""
    num_samples = audio.resampled_length(rows["num_samples"], rows["sample_rate"]).to_numpy(np.int64)
    n_frames = 1 + num_samples // HOP_LENGTH
    return pd.DataFrame({
        "utterance_id": rows["utterance_id"],
        "first_frame": np.cumsum(n_frames) - n_frames,
        "n_frames": n_frames,
        "first_sample": np.cumsum(num_samples) - num_samples,
        "num_samples": num_samples,
    })  # fmt: skip


def _audio_type(rows, run=_plain_map):
    """Sound is kept in its own 16 bits where all of it comes so, else as float32."""
    return "int16" if all(run(_is_pcm16, rows["path"], chunksize=HEADERS)) else "float32"


def _is_pcm16(path):
    """Whether 16 bits hold the sound as `audio.read` gives it; a broken file does not object."""
    try:
        with soundfile.SoundFile(path) as sound:
            return (sound.samplerate, sound.channels, sound.subtype) == (SAMPLE_RATE, 1, "PCM_16")
    except (OSError, RuntimeError):
        return True


def _part_files(folder, n_frames, num_samples, audio_type):
    """The arrays of a store. MFCC reach -1131 and must be right to 0.002, which takes float32."""
    return {
        "spectrogram": RowFile(folder / "spectrogram.npy", "uint16", (int(n_frames), N_BINS)),
        "mfcc": RowFile(folder / "mfcc.npy", "float32", (int(n_frames), N_MFCC)),
        "audio": RowFile(folder / "audio.npy", audio_type, (int(num_samples),)),
    }


def _extract_missing(paths, table, recipe, folder, files, run):
    """Fill the arrays; returns {row: why its sound can't be used}."""
    progress = Progress(folder, files.values(), len(table))
    todo, broken = np.flatnonzero(~progress.done), {}
    columns = (table[name].to_numpy()[todo] for name in ("first_frame", "first_sample", "num_samples"))
    faults = run(partial(_extract, recipe, files), paths[todo], *columns, chunksize=PORTION)
    bar = tqdm(faults, "features", len(table), initial=len(table) - len(todo), unit="utt", mininterval=2)
    try:
        for count, (row, fault) in enumerate(zip(todo.tolist(), bar, strict=True), start=1):
            if fault:
                broken[row] = fault
            progress.done[row] = not fault
            if count % SAVED_EVERY == 0:
                progress.save()
    finally:
        progress.save()
    return broken


def _extract(recipe, files, path, first_frame, first_sample, num_samples):
    """Compute one utterance and write it where it belongs; returns what is wrong with its sound, if anything."""
    try:
        waveform = audio.read(path)
    except AudioError as error:
        return str(error)
    if len(waveform) != num_samples:
        return (
            f"{path}: length differs from the manifest: {len(waveform)} samples at 16 kHz, not {num_samples}; "
            "prepare the corpus again"
        )
    features = utterance_features(waveform, recipe)
    if files["audio"].dtype == "int16":  # without loss: it came so
        waveform = (waveform * np.float32(audio.PCM16)).astype(np.int16)
    files["spectrogram"].write(first_frame, encode_level(features.spectrogram, recipe.top_db))
    files["mfcc"].write(first_frame, features.mfcc)
    files["audio"].write(first_sample, waveform)
    return ""


def _read_record(folder):
    """What ``store.json`` says; None unless the store is complete."""
    try:
        record = json.loads((folder / "store.json").read_text())
    except (OSError, ValueError):
        return None
    return record if record.get("complete") else None


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
        If it is incomplete, damaged, of another feature version, or analysed in another way. Only
        `FeatureStore.verify` reads the arrays to compare them with their checksums.
    """
    folder = Path(folder)
    record = _read_record(folder)
    if not record:
        raise StoreError(
            f"store {folder} is missing or incomplete; run notebook 01 (or `serkit reproduce`) to build it"
        )
    if record["feature_version"] != FEATURE_VERSION:
        raise StoreError(
            f"store {folder}: feature version {record['feature_version']}, expected {FEATURE_VERSION}; {_cure(folder)}"
        )
    if record["extraction"] != recipe.extraction:
        raise StoreError(
            f"store {folder}: made with {record['extraction']}, but recipe {recipe.name} has {recipe.extraction}; "
            "build one for this recipe with notebook 01"
        )
    files = _part_files(folder, record["frames"], record["samples"], record["audio_type"])
    for file in files.values():
        if not file.is_whole():
            raise StoreError(
                f"{file.path}: damaged or missing (expected {file.dtype} {file.shape}); {_cure(folder)}"
            )
    path, checksums = folder / "utterances.parquet", record["checksums"]
    try:
        if checksum(path) != checksums[path.name]:
            raise ValueError("checksum mismatch")
        utterances = pd.read_parquet(path)
    except (OSError, ValueError) as error:  # pyarrow's own error is a ValueError
        raise StoreError(f"{path}: damaged or missing ({error}); {_cure(folder)}") from error
    segments, owner = _plan_all(utterances, recipe)
    return FeatureStore(folder, recipe, segments, utterances, record["skipped"], checksums, files, owner)


def _plan_all(utterances, recipe):
    """Table of all segments, and the utterance (row of the table) that each belongs to."""
    plans = [plan_segments(num_samples, recipe) for num_samples in utterances["num_samples"].tolist()]
    counts = [len(plan) for plan in plans]
    owner = np.repeat(np.arange(len(plans)), counts)
    columns = ("frame_start", "n_frames", "num_samples", "sample_offset")
    none = [np.zeros(0, np.int64)]
    table = pd.DataFrame({
        "utterance_id": utterances["utterance_id"].to_numpy()[owner],
        "segment": np.concatenate(none + [np.arange(n) for n in counts]),
        **{name: np.concatenate(none + [getattr(plan, name) for plan in plans]) for name in columns},
    })  # fmt: skip
    return table, owner
