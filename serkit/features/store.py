"""Features on disk: extracted once, on all cores; opened in an instant; read segment by segment.

A store keeps whole utterances, one after the other, in plain ``.npy`` files: ``spectrogram.npy`` (frames,
200), ``mfcc.npy`` (frames, 40) and ``audio.npy`` (samples,). Which rows belong to whom is in
``utterances.parquet``; ``store.json`` holds a checksum of each file and is written last: where it is, the
store is complete. Nothing is pickled. Cutting, padding and normalising happen when segments are read, so one store serves
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
from concurrent.futures import BrokenExecutor, ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import fields
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import soundfile
import torch
from tqdm.auto import tqdm

from serkit.constants import HOP_LENGTH, N_BINS, N_MFCC, SAMPLE_RATE, SEGMENT_FRAMES, SEGMENT_SAMPLES
from serkit.errors import AudioError, CorpusError, StoreError, check_choice, reported_as
from serkit.experiment import key_of
from serkit.features import audio
from serkit.features.rows import Progress, RowFile, checksum, encode_level, level_of_code
from serkit.features.segments import SegmentPlan, plan_segments
from serkit.features.views import SegmentFeatures, UtteranceFeatures, cut_segments, utterance_features
from serkit.files import locked, replacing
from serkit.folds import task_rows
from serkit.runs import write_json

FEATURE_VERSION = 6  # raise it whenever the same recipe gives other numbers
SAVED_EVERY = 512  # utterances after which what is done is brought to the disk
PORTION = 8  # utterances handed to a worker at once
PLAN = [field.name for field in fields(SegmentPlan)]
SHAPES = {  # of a segment's views
    "spectrogram": (N_BINS, SEGMENT_FRAMES), "mfcc": (SEGMENT_FRAMES, N_MFCC), "waveform": (SEGMENT_SAMPLES,),
}  # fmt: skip


class FeatureStore:
    """A complete store, seen through one recipe; its arrays stay on disk.

    Parameters
    ----------
    folder : path
    recipe : Recipe
        Decides how utterances are cut; must agree with the store in ``Recipe.extraction``.

    Attributes
    ----------
    segments : pd.DataFrame
        ``utterance_id``, ``segment`` (its number there) and the fields of a `SegmentPlan`.
    utterances : pd.DataFrame
        ``utterance_id``, ``first_frame``, ``n_frames``, ``first_sample``, ``num_samples``.
    skipped : dict
        Utterance without usable sound -> reason.

    Raises
    ------
    StoreError
        If it is incomplete, damaged, of another feature version, or analysed in another way. Only
        `check_store` reads the arrays to compare them with their checksums.
    """

    def __init__(self, folder, recipe):
        self.folder, self.recipe = Path(folder), recipe
        record = _read_record(self.folder)
        if not record:
            raise StoreError(f"store {folder} is missing or incomplete; notebook 01 builds it")
        wanted = {"feature_version": FEATURE_VERSION, "extraction": recipe.extraction}
        given = {name: record[name] for name in wanted}
        if given != wanted:
            about = f"store {folder}: made with {given}, but recipe {recipe.name} has {wanted}"
            raise StoreError(f"{about}; notebook 01 builds one for this recipe")
        self.skipped = record["skipped"]
        self._files = _part_files(self.folder, record["frames"], record["samples"], record["audio_type"])
        for file in self._files.values():
            file.check()
        table = self.folder / "utterances.parquet"
        _compare(table, record["checksums"].get(table.name))
        self.utterances = pd.read_parquet(table)
        self._row_of = self.utterances.set_index("utterance_id").to_dict("index")
        self.segments = _plan_all(self.utterances, recipe)

    def through(self, recipe):
        """The same store, seen through another recipe."""
        return self if recipe == self.recipe else FeatureStore(self.folder, recipe)

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
        if absent := sorted(wanted - set(self._row_of) - set(self.skipped)):
            missing = f"utterance {absent[0]} is not in it (and {len(absent) - 1} more)"
            raise StoreError(f"store {self.folder}: {missing}; build the store from the same manifest")
        if skipped := sorted(wanted & set(self.skipped)):
            print(f"{len(skipped)} of {len(wanted)} utterances are left out as unusable: {skipped[0]} ...")
        return np.flatnonzero(self.segments["utterance_id"].isin(wanted))

    def read(self, rows, views=tuple(SHAPES)):
        """The three views of some segments, in the order of ``rows``.

        Parameters
        ----------
        rows : sequence of int
            Segments, as `rows_of` numbers them.
        views : sequence of str, optional
            Those of ``spectrogram``, ``mfcc`` and ``waveform`` that are wanted; nothing else is read.

        Returns
        -------
        SegmentFeatures
            As ``serkit.features.views.segment_features`` gives them; levels within 0.0006 dB.

        Raises
        ------
        StoreError
            If a file is gone or was cut short.
        """
        chosen = self.segments.iloc[np.asarray(rows, dtype=np.int64)]
        read = {view: np.empty((len(chosen), *SHAPES[view]), np.float32) for view in views}
        real = {n: chosen[n].to_numpy(copy=True) for n in ("n_frames", "num_samples", "sample_offset")}
        result = SegmentFeatures(**dict.fromkeys(SHAPES) | read | real)
        for utterance, here in chosen.groupby("utterance_id").indices.items() if views else ():
            plan = SegmentPlan(*(chosen[name].to_numpy()[here] for name in PLAN))
            cut = cut_segments(self._utterance(utterance, views), plan, self.recipe)
            for view in views:
                read[view][here] = getattr(cut, view)
        return result

    def frame_codes(self, rows):
        """Stream the real spectrogram frames of some segments, in store order.

        Yields
        ------
        np.ndarray, shape (n_frames, 200), uint16
            Of one segment; `level_of_code` has the dB of each code.
        """
        for segment in self.segments.iloc[np.sort(rows)].itertuples():
            first = self._row_of[segment.utterance_id]["first_frame"] + segment.frame_start
            yield self._files["spectrogram"].read(first, first + segment.n_frames)

    def _utterance(self, name, views):
        """What was extracted of one utterance, as far as it is wanted."""
        row = self._row_of[name]
        first, last = row["first_frame"], row["first_frame"] + row["n_frames"]
        spectrogram = mfcc = samples = None
        if "spectrogram" in views:
            spectrogram = level_of_code(self.recipe.top_db)[self._files["spectrogram"].read(first, last)]
        if "mfcc" in views:
            mfcc = self._files["mfcc"].read(first, last)
        if "waveform" in views:
            first = row["first_sample"]
            samples = self._files["audio"].read(first, first + row["num_samples"])
            if samples.dtype == np.int16:
                samples = samples * np.float32(1 / audio.PCM16)
        return UtteranceFeatures(spectrogram, mfcc, samples)


def check_store(folder):
    """Compare every file of a complete store with the checksum it was written with.

    Raises
    ------
    StoreError
        Naming the first file that is not as it was written.
    """
    if not (record := _read_record(folder)):
        about = f"{folder / 'store.json'}: damaged or missing (no record of a complete store)"
        raise StoreError(f"{about}; {RowFile.cure}")
    for name, expected in record["checksums"].items():
        _compare(folder / name, expected)


def store_key(manifest, recipe):
    """Name of the store that belongs to these utterances and the recipe's analysis of them.

    Raises
    ------
    StoreError
        If the manifest does not say which recordings its files are.

    >>> from serkit.recipe import CORRECTED, PUBLISHED
    >>> table = pd.DataFrame({"utterance_id": ["a"], "label": "sad", "num_samples": 16000, "sample_rate": 16000,
    ...                       "digest": "32044-0badcafe"})
    >>> store_key(table, PUBLISHED) == store_key(table, CORRECTED)  # they differ in cutting only
    True
    """
    if "digest" not in manifest:
        raise StoreError("the manifest is of an older version of serkit; run notebook 01_prepare_corpus")
    rows = task_rows(manifest)[["utterance_id", "num_samples", "sample_rate", "digest"]]
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
    check_choice("skip_broken", skip_broken, (True, False))
    folder = Path(root) / store_key(manifest, recipe)
    again, ended = "call again: what is extracted is kept", "a worker was ended, perhaps for want of memory"
    full = reported_as(StoreError, f"store {folder}: can't be written", f"make room and {again}", OSError)
    killed = reported_as(StoreError, f"extraction: {ended}", f"set workers=1 and {again}", BrokenExecutor)
    with full, killed:
        if not _read_record(folder):
            folder.mkdir(parents=True, exist_ok=True)
            with locked(folder / "lock"):  # a second process waits, then finds it complete
                if not _read_record(folder):
                    _build(task_rows(manifest), recipe, folder, workers or usable_cores(), skip_broken)
    return FeatureStore(folder, recipe)


def _compare(path, expected):
    if not path.is_file() or checksum(path) != expected:
        raise StoreError(f"{path}: damaged or missing (checksum mismatch); {RowFile.cure}")


def usable_cores():
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _build(rows, recipe, folder, workers, skip_broken):
    """Extract what is missing, then write the table of what is there, and the record in one step."""
    table, audio_type = _layout(rows), _audio_type(rows)
    n_frames, num_samples = int(table["n_frames"].sum()), int(table["num_samples"].sum())
    files = _part_files(folder, n_frames, num_samples, audio_type)
    broken = _extract_missing(rows["path"].to_numpy(), table, recipe, folder, files, workers)
    if broken and not skip_broken:
        some = "; ".join(list(broken.values())[:10])
        about = f"{len(broken)} of {len(rows)} sound files can't be used, all others are done: {some}"
        raise CorpusError(f"{about}. Mend them, or do without them: skip_broken=True (--skip-broken)")
    with replacing(folder / "utterances.parquet") as partial_table:
        table.drop(index=list(broken)).to_parquet(partial_table, index=False)
    names = [*(file.path.name for file in files.values()), "utterances.parquet"]
    with ThreadPoolExecutor() as pool:
        checksums = dict(zip(names, pool.map(lambda name: checksum(folder / name), names), strict=True))
    record = {
        "feature_version": FEATURE_VERSION,
        "extraction": recipe.extraction,
        "frames": n_frames,
        "samples": num_samples,
        "audio_type": audio_type,
        "skipped": {table["utterance_id"][row]: fault for row, fault in broken.items()},
        "complete": True,
        "checksums": checksums,
    }
    write_json(folder / "store.json", record | {"key": key_of(record)})


def _layout(rows):
    """Where each utterance lies in the arrays; known from the manifest, before any file is read."""
    num_samples = audio.resampled_length(rows["num_samples"], rows["sample_rate"]).to_numpy(np.int64)
    n_frames = 1 + num_samples // HOP_LENGTH
    return rows[["utterance_id"]].assign(
        first_frame=np.cumsum(n_frames) - n_frames,
        n_frames=n_frames,
        first_sample=np.cumsum(num_samples) - num_samples,
        num_samples=num_samples,
    )


def _audio_type(rows):
    """Sound is kept in its own 16 bits where all of it comes so, else as float32."""
    for path in rows["path"]:
        with suppress(OSError, RuntimeError):  # a broken file does not object
            info = soundfile.info(path)
            if (info.samplerate, info.channels, info.subtype) != (SAMPLE_RATE, 1, "PCM_16"):
                return "float32"
    return "int16"


def _part_files(folder, n_frames, num_samples, audio_type):
    """The arrays of a store. MFCC reach -1131 and must be right to 0.002, which takes float32."""
    return {
        "spectrogram": RowFile(folder / "spectrogram.npy", "uint16", (int(n_frames), N_BINS)),
        "mfcc": RowFile(folder / "mfcc.npy", "float32", (int(n_frames), N_MFCC)),
        "audio": RowFile(folder / "audio.npy", audio_type, (int(num_samples),)),
    }


def _extract_missing(paths, table, recipe, folder, files, workers):
    """Fill the arrays; returns {row: why its sound can't be used}."""
    progress = Progress(folder, files.values(), len(table))
    todo, broken = np.flatnonzero(~progress.done), {}
    columns = (table[name].to_numpy()[todo] for name in ("first_frame", "first_sample", "num_samples"))
    # a fork costs nothing and shares what is loaded
    context = multiprocessing.get_context("fork" if sys.platform == "linux" else "spawn")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with ProcessPoolExecutor(workers, context, _start_worker) as pool:
        run = partial(pool.map, chunksize=PORTION) if workers > 1 else map
        faults = run(partial(_extract, recipe, files), paths[todo], *columns)
        bar = tqdm(faults, "features", len(table), initial=len(table) - len(todo), unit="utt", mininterval=2)
        try:
            for count, (row, fault) in enumerate(zip(todo.tolist(), bar, strict=True), start=1):
                if fault:
                    broken[row] = fault
                progress.done[row] = not fault
                if count % SAVED_EVERY == 0:
                    progress.save()
        finally:
            pool.shutdown(cancel_futures=True)
            progress.save()
            torch.set_num_threads(threads)
    return broken


def _start_worker():
    """A worker has one thread, leaves interrupts to its parent, and does not outlive it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    torch.set_num_threads(1)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent():
    multiprocessing.parent_process().join()
    os._exit(1)


def _extract(recipe, files, path, first_frame, first_sample, num_samples):
    """Compute one utterance and write it where it belongs; returns what is wrong with its sound, if anything."""
    try:
        waveform = audio.read(path)
    except AudioError as error:
        return str(error)
    if len(waveform) != num_samples:
        return f"{path}: {len(waveform)} samples at 16 kHz, {num_samples} by the manifest; prepare the corpus again"
    features = utterance_features(waveform, recipe)
    if files["audio"].dtype == "int16":  # without loss: it came so
        waveform = (waveform * np.float32(audio.PCM16)).astype(np.int16)
    files["spectrogram"].write(first_frame, encode_level(features.spectrogram, recipe.top_db))
    files["mfcc"].write(first_frame, features.mfcc)
    files["audio"].write(first_sample, waveform)
    return ""


def _read_record(folder):
    """What ``store.json`` says; None unless the store is complete, and the record as it was written."""
    with suppress(OSError, ValueError, AttributeError, TypeError, RecursionError):
        record = json.loads((folder / "store.json").read_text())
        whole = record.pop("key", None) in (None, key_of(record))  # one of an older version has no key
        return record if whole else None


def _plan_all(utterances, recipe):
    """Table of all segments, each with its number in the utterance and where it lies there."""
    rows = [
        (name, number, *where)
        for name, num_samples in zip(utterances["utterance_id"], utterances["num_samples"], strict=True)
        for number, where in enumerate(zip(*vars(plan_segments(num_samples, recipe)).values(), strict=True))
    ]
    return pd.DataFrame(rows, columns=["utterance_id", "segment", *PLAN])
