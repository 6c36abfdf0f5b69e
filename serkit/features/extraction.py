"""From sound files to the arrays of a store: on all cores, utterance by utterance, resumable.

An utterance counts as done when its checksums stand in ``progress.npy``; they are written after its
arrays, so a process may be killed at any time and loses what it had in hand. Each utterance has its
fixed place in the files: neither the number of workers nor an interruption shows in them. Nothing waits
for the disk: should the power fail, the checksums tell what did not get there.
"""

import ctypes
import multiprocessing
import multiprocessing.connection
import os
import signal
import sys
import threading
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, ThreadPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
import pandas as pd
import soundfile
import torch
from threadpoolctl import threadpool_limits
from tqdm.auto import tqdm

from serkit.constants import HOP_LENGTH, SAMPLE_RATE
from serkit.errors import AudioError, CorpusError, StoreError
from serkit.features import audio
from serkit.features.arrays import PARTS, RowFile, checksum, encode_audio, encode_level, part_files
from serkit.features.views import utterance_features
from serkit.recipe import Recipe

BAR = {"unit": "utt", "mininterval": 2.0, "smoothing": 0.1}  # s between lines: logs keep every one
DONE = len(PARTS)  # column of progress.npy: 1 when the checksums before it are valid
PORTION = 16  # utterances handed to a worker at once, at most
HEADERS = 64  # sound files whose headers a worker reads at once
HELD = 2**24  # bytes of results that a worker keeps before it writes them
KEPT = 2**25  # bytes of free memory that a worker does not give back, and the largest that glibc accepts
FORKS = sys.platform == "linux"  # elsewhere a forked process may meet libraries in a state they can't bear
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # glibc's numbers (malloc.h)


def usable_cores():
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def extract(rows, recipe, folder, *, workers=0, skip_broken=False):
    """Fill the store's arrays, or what is missing of them.

    Parameters
    ----------
    rows : pd.DataFrame
        The task's part of a manifest.
    recipe : Recipe
    folder : Path
        Exists. Utterances done before are kept if their checksums are right.
    workers : int
        Threads; 0: one for each core.
    skip_broken : bool
        Whether to do without sound files that can't be read.

    Returns
    -------
    table : pd.DataFrame
        Place and checksums of every utterance, broken ones included.
    audio_type : str
        Of ``audio.npy``.
    skipped : dict of str to str
        Why each broken utterance is not there.

    Raises
    ------
    CorpusError
        If sound files can't be read and ``skip_broken`` is false. Everything else is done.
    OSError
        If writing fails. What is written stays.
    """
    table, parts, progress = plan_files(rows, folder)
    audio_type = parts["audio"].dtype
    for file in (*parts.values(), progress):
        file.prepare()
    todo = _missing(table, parts, progress)
    paths = rows["path"].tolist()
    tasks = [Task(place.Index, paths[place.Index], spans(place)) for place in table.iloc[todo].itertuples()]
    broken = {}
    with (
        closing(_run(tasks, Job(recipe, parts, progress), workers or usable_cores())) as outcomes,
        tqdm(desc="features", total=len(rows), initial=len(rows) - len(todo), **BAR) as bar,
    ):
        for outcome in outcomes:
            broken |= {row: fault for row, fault in outcome.items() if fault}
            bar.update(len(outcome))
    if broken and not skip_broken:
        named = "; ".join(broken[row] for row in sorted(broken)[:10])
        raise CorpusError(
            f"{len(broken)} of {len(rows)} sound files can't be used, all others are done: {named}. "
            "Mend them and call again, or do without them: skip_broken=True (--skip-broken)"
        )
    sums = progress.read(0, len(rows))
    table = table.assign(**{f"crc_{name}": sums[:, column] for column, name in enumerate(PARTS)})
    return table, audio_type, {table["utterance_id"][row]: broken[row] for row in sorted(broken)}


def plan_files(rows, folder):
    """The files that ``extract`` will fill; writes nothing.

    Parameters
    ----------
    rows : pd.DataFrame
        The task's part of a manifest. Headers of the sound files are read.
    folder : Path

    Returns
    -------
    table : pd.DataFrame
        Place of every utterance in the files.
    parts : dict of str to RowFile
    progress : RowFile
    """
    table = _place(rows)
    audio_type = "int16" if _all_pcm16(rows["path"].tolist()) else "float32"
    parts = part_files(folder, table["n_frames"].sum(), table["num_samples"].sum(), audio_type)
    return table, parts, RowFile(Path(folder) / "progress.npy", "uint32", (len(rows), DONE + 1))


def _place(rows):
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


def spans(place):
    """First and last + 1 row of each part of an utterance, from its row of the table."""
    frames = (place.first_frame, place.first_frame + place.n_frames)
    samples = (place.first_sample, place.first_sample + place.num_samples)
    return {"spectrogram": frames, "mfcc": frames, "audio": samples}


def _all_pcm16(paths):
    """`_is_pcm16` of every file; opening thousands takes long enough to share it out."""
    if not FORKS:
        return all(map(_is_pcm16, paths))
    with _make_pool(usable_cores()) as pool:
        return all(pool.map(_is_pcm16, paths, chunksize=HEADERS))


def _is_pcm16(path):
    """Whether 16 bits hold the sound as `audio.read` gives it; a broken file does not object."""
    try:
        with soundfile.SoundFile(path) as sound:
            return (sound.samplerate, sound.channels, sound.subtype) == (SAMPLE_RATE, 1, "PCM_16")
    except (OSError, RuntimeError):
        return True


def _missing(table, parts, progress):
    """Utterances to compute: not done, or no longer what their checksums say."""
    sums = progress.read(0, len(table))
    done = np.flatnonzero(sums[:, DONE] == 1)
    damaged = []
    for place in tqdm(
        table.iloc[done].itertuples(), "checking", total=len(done), disable=not len(done), **BAR
    ):
        found = [checksum(parts[name].read(*span)) for name, span in spans(place).items()]
        if found != sums[place.Index, :DONE].tolist():
            damaged.append(place.Index)
    if damaged:
        print(f"{len(damaged)} utterances are damaged in the store and computed again")
    return np.union1d(np.flatnonzero(sums[:, DONE] != 1), damaged).astype(int)


@dataclass(frozen=True)
class Task:
    """One utterance to compute."""

    row: int  # of progress.npy
    path: str
    spans: dict  # part -> (first row, last row + 1)


@dataclass(frozen=True)
class Job:
    """What all tasks have in common."""

    recipe: Recipe
    parts: dict  # part -> RowFile
    progress: RowFile


def _run(tasks, job, workers):
    """Dicts of row to fault (None: done), as they come."""
    if workers == 1:
        with _one_thread():
            for task in tasks:
                yield _extract_some([task], job)
        return
    size = max(1, min(PORTION, len(tasks) // (4 * workers)))  # of few utterances each worker gets some
    waiting = (tasks[start : start + size] for start in range(0, len(tasks), size))
    with _one_thread(), _make_pool(workers) as pool:
        running = set()
        while True:
            # a portion in reserve for each worker, and no more
            for portion in islice(waiting, 2 * workers - len(running)):
                _fetch(portion)
                running.add(pool.submit(_extract_some, portion, job))
            if not running:
                return
            finished, running = wait(running, return_when=FIRST_COMPLETED)
            try:
                yield from (work.result() for work in finished)
            except BrokenProcessPool as error:
                raise StoreError(
                    "extraction: the system has ended a worker, probably for want of memory; call again with "
                    "workers=1: what is extracted is kept"
                ) from error


def _fetch(tasks):
    """Ask the system to read these files meanwhile: whoever opens them does not wait for the disk then."""
    if not hasattr(os, "posix_fadvise"):  # not on macOS
        return
    for task in tasks:
        with suppress(OSError), open(task.path, "rb", buffering=0) as file:  # a worker will say what is wrong
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_WILLNEED)


def _make_pool(workers):
    """Processes, because threads would queue for the interpreter between their many short steps.

    A fork costs nothing and shares what is loaded; where forking is unsafe, threads must do.
    """
    if FORKS:
        fork = multiprocessing.get_context("fork")
        return ProcessPoolExecutor(workers, mp_context=fork, initializer=_start_worker)
    return ThreadPoolExecutor(workers, initializer=torch.set_num_threads, initargs=(1,))


def _start_worker():
    """A worker leaves interrupts to its parent, and does not outlive it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    torch.set_num_threads(1)
    _keep_memory()
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _keep_memory():
    """Let the process keep what it frees: asking the system anew for each block takes longer than using it."""
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt"):  # glibc has it
        libc.mallopt(M_MMAP_THRESHOLD, KEPT)
        libc.mallopt(M_TRIM_THRESHOLD, KEPT)


def _end_with_parent():
    multiprocessing.connection.wait([multiprocessing.parent_process().sentinel])
    os._exit(1)


def _extract_some(tasks, job):
    """Compute and write some utterances; {row: why its sound can't be used, or None}."""
    outcome, ready, held = {}, [], 0
    for task in tasks:
        try:
            arrays = _analyse(task, job)
        except AudioError as error:
            outcome[task.row] = str(error)
            continue
        outcome[task.row] = None
        ready.append((task, arrays))
        held += sum(array.nbytes for array in arrays.values())
        if held > HELD:
            _write(ready, job)
            ready, held = [], 0
    _write(ready, job)
    return outcome


def _write(ready, job):
    """Write utterances; their checksums come last, and say that the rest is there."""
    for name, file in job.parts.items():
        _write_rows(file, [(task.spans[name][0], arrays[name]) for task, arrays in ready])
    sums = [[*(checksum(arrays[name]) for name in PARTS), 1] for _, arrays in ready]
    _write_rows(
        job.progress,
        [(task.row, np.array([row], "uint32")) for (task, _), row in zip(ready, sums, strict=True)],
    )


def _write_rows(file, places):
    """Write arrays, each from its row on; neighbours in one piece, because large ones cost the system less."""
    pieces, end = {}, None  # first row -> arrays that follow each other in the file
    for start, array in places:
        if start != end:
            piece = pieces[start] = []
        piece.append(array)
        end = start + len(array)
    for start, piece in pieces.items():
        file.write(start, np.concatenate(piece))


def _analyse(task, job):
    """Arrays of one utterance, as they are stored."""
    waveform = audio.read(task.path)
    first, end = task.spans["audio"]
    if len(waveform) != end - first:
        raise AudioError(
            f"{task.path}: length differs from the manifest: {len(waveform)} samples at 16 kHz, not {end - first}; "
            "prepare the corpus again"
        )
    features = utterance_features(waveform, job.recipe)
    return {
        "spectrogram": encode_level(features.spectrogram, job.recipe.top_db),
        "mfcc": features.mfcc,
        "audio": encode_audio(waveform, job.parts["audio"].dtype),
    }


@contextmanager
def _one_thread():
    """Workers share out utterances; inside of one, further threads would only wait for each other."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with threadpool_limits(1, user_api="blas"):
            yield
    finally:
        torch.set_num_threads(threads)
