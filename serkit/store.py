"""Features on disk: extracted once, opened memory-mapped, resumed after a kill.

A store is a folder of plain ``.npy`` arrays whose first axis counts segments, a table that says
which utterance each segment belongs to, and ``store.json``, where ``complete: true`` is written
last. Nothing is pickled.
"""

import hashlib
import json
import os
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from filelock import FileLock
from tqdm.auto import tqdm

from serkit import audio
from serkit.constants import N_BINS, N_MFCC, SEGMENT_FRAMES, SEGMENT_SAMPLES
from serkit.corpora.manifest import task_rows
from serkit.errors import AudioError, CorpusError, StoreError
from serkit.features import segment_features
from serkit.recipe import Recipe
from serkit.segments import count_segments

FEATURE_VERSION = 2  # raise it whenever the same recipe gives other numbers
SHAPES = {
    "spectrogram": (N_BINS, SEGMENT_FRAMES),
    "mfcc": (SEGMENT_FRAMES, N_MFCC),
    "waveform": (SEGMENT_SAMPLES,),
}
COUNTS = ("n_frames", "num_samples", "sample_offset")


@dataclass(frozen=True)
class FeatureStore:
    """An opened, complete store."""

    folder: Path
    recipe: Recipe
    segments: pd.DataFrame  # utterance_id, segment, n_frames, num_samples, sample_offset
    spectrogram: np.ndarray  # (N, 200, 300) float32, dB, memory-mapped
    mfcc: np.ndarray  # (N, 300, 40) float32, memory-mapped
    waveform: np.ndarray  # (N, 48000) float32, memory-mapped

    def __len__(self):
        return len(self.segments)

    def rows_of(self, utterance_ids):
        """Row numbers of all segments of these utterances, in store order.

        Raises
        ------
        StoreError
            If an utterance has no segment here.
        """
        wanted = set(utterance_ids)
        absent = wanted - set(self.segments["utterance_id"])
        if absent:
            raise StoreError(
                f"store {self.folder}: utterance {sorted(absent)[0]} is not in it (and {len(absent) - 1} more); "
                "build the store from the same manifest"
            )
        return np.flatnonzero(self.segments["utterance_id"].isin(wanted))


def store_key(manifest, recipe):
    """Name of the store that belongs to these utterances and this recipe."""
    rows = task_rows(manifest)[["utterance_id", "num_samples", "sample_rate"]]
    content = f"{FEATURE_VERSION} {recipe.key} {rows.to_csv(index=False)}"
    return hashlib.sha256(content.encode()).hexdigest()[:16]


def build_store(manifest, recipe, root):
    """Extract the features of all four-class utterances, or open them where that is done.

    Parameters
    ----------
    manifest : pd.DataFrame
    recipe : Recipe
    root : path
        The store becomes ``root/<key>``; an interrupted one is continued.

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
            with FileLock(folder / "lock"), _one_thread():
                if not _is_complete(folder):
                    _extract(task_rows(manifest), recipe, folder)
        except OSError as error:
            raise StoreError(
                f"store {folder}: can't be written ({error.strerror or error}); make room or choose another "
                "folder, then call again: what is extracted is kept"
            ) from error
    return open_store(folder)


@contextmanager
def _one_thread():
    """An utterance is too small to be shared out: on a busy machine torch's threads wait ten times longer."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _is_complete(folder):
    try:
        return json.loads((folder / "store.json").read_text())["complete"]
    except (OSError, ValueError, KeyError):
        return False


def _extract(rows, recipe, folder):
    """Write every utterance's segments in place; ``done.npy`` remembers which are there."""
    resampled = audio.resampled_length(rows["num_samples"], rows["sample_rate"])
    counts = np.array([count_segments(int(n), recipe) for n in resampled])
    first = np.concatenate([[0], np.cumsum(counts)])
    files = {
        name: _open_array(folder / f"{name}.npy", (first[-1], *shape), "float32")
        for name, shape in SHAPES.items()
    }
    files |= {name: _open_array(folder / f"{name}.npy", (first[-1],), "int64") for name in COUNTS}
    done = _open_array(folder / "done.npy", (len(rows),), "uint8")
    finished = np.load(folder / "done.npy")
    broken = []
    todo = np.flatnonzero(finished == 0)
    for i in tqdm(
        todo, desc=f"features ({recipe.name})", unit="utt", initial=len(rows) - len(todo), total=len(rows)
    ):
        try:
            features = segment_features(audio.read(rows["path"][i]), recipe)
            if len(features) != counts[i]:
                raise AudioError(
                    f"{rows['path'][i]}: length differs from the manifest; prepare the corpus again"
                )
        except AudioError as error:
            broken.append(str(error))
            continue
        for name, file in files.items():
            _write_rows(file, first[i], getattr(features, name))
        _write_rows(done, i, np.ones(1, np.uint8))
    for file in (*files.values(), done):
        file.flush()
        os.fsync(file.fileno())
        file.close()
    if broken:
        raise CorpusError(
            f"{len(broken)} of {len(rows)} sound files can't be used, all others are done: "
            + "; ".join(broken[:10])
        )
    _finish(rows, recipe, folder, counts)


def _finish(rows, recipe, folder, counts):
    table = pd.DataFrame({
        "utterance_id": rows["utterance_id"].repeat(counts).to_numpy(),
        "segment": np.concatenate([np.arange(n) for n in counts]),
        **{name: np.load(folder / f"{name}.npy") for name in COUNTS},
    })  # fmt: skip
    table.to_parquet(folder / "segments.parquet", index=False)
    record = {
        "recipe": asdict(recipe),
        "feature_version": FEATURE_VERSION,
        "utterances": len(rows),
        "segments": len(table),
        "complete": True,
    }
    partial = folder / "store.json.partial"
    partial.write_text(json.dumps(record, indent=2) + "\n")
    os.replace(partial, folder / "store.json")


def _open_array(path, shape, dtype):
    """Open an ``.npy`` file for writing rows in place, making it (sparse, zeros) when it is new.

    Written through the file and not through a memory map, where a full disk kills the process.
    """
    dtype = np.dtype(dtype)
    shape = tuple(int(n) for n in shape)
    if path.exists():
        try:
            existing = np.load(path, mmap_mode="r")
        except (ValueError, EOFError) as error:
            raise StoreError(f"{path}: damaged ({error}); delete the folder {path.parent}") from error
        if existing.shape != shape or existing.dtype != dtype:
            raise StoreError(
                f"{path}: shape {existing.shape}, expected {shape}; delete the folder {path.parent}"
            )
    else:
        partial = path.with_suffix(".partial")
        with open(partial, "wb") as file:
            header = {"descr": dtype.str, "fortran_order": False, "shape": shape}
            np.lib.format.write_array_header_1_0(file, header)
            file.truncate(file.tell() + int(np.prod(shape)) * dtype.itemsize)
        os.replace(partial, path)
    return open(path, "r+b")


def _write_rows(file, row, values):
    """Write ``values`` at row ``row`` of an open ``.npy`` file."""
    file.seek(0)
    np.lib.format.read_magic(file)
    np.lib.format.read_array_header_1_0(file)
    file.seek(int(row) * values[0].nbytes, os.SEEK_CUR)
    file.write(np.ascontiguousarray(values).data)
    file.flush()  # a killed process loses what its buffers hold: ``done`` would never reach the disk


def open_store(folder):
    """Open a complete store, memory-mapped.

    Raises
    ------
    StoreError
        If it is incomplete, damaged, or of another feature version.
    """
    folder = Path(folder)
    if not _is_complete(folder):
        raise StoreError(
            f"store {folder} is missing or incomplete; run notebook 01 (or `serkit reproduce`) to build it"
        )
    record = json.loads((folder / "store.json").read_text())
    if record["feature_version"] != FEATURE_VERSION:
        raise StoreError(
            f"store {folder}: feature version {record['feature_version']}, expected {FEATURE_VERSION}; "
            "delete the folder and run notebook 01"
        )
    arrays = {}
    for name, shape in SHAPES.items():
        try:
            arrays[name] = np.load(folder / f"{name}.npy", mmap_mode="r")
        except (OSError, ValueError, EOFError) as error:
            raise StoreError(
                f"{folder / name}.npy: damaged or missing ({error}); delete the folder {folder}"
            ) from error
        if arrays[name].shape != (record["segments"], *shape):
            raise StoreError(f"{folder / name}.npy: shape {arrays[name].shape}; delete the folder {folder}")
    try:
        table = pd.read_parquet(folder / "segments.parquet")
    except (OSError, ValueError) as error:  # pyarrow's own error is a ValueError
        raise StoreError(
            f"{folder / 'segments.parquet'}: damaged or missing ({error}); delete the folder {folder}"
        ) from error
    return FeatureStore(folder, Recipe(**record["recipe"]), table, **arrays)
