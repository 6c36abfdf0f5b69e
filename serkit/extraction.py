"""From sound files to the arrays of a store: on all cores, utterance by utterance, resumable.

Threads compute (numpy and torch let go of the interpreter while they do), the main thread writes.
An utterance counts as done when its checksums stand in ``progress.npy``; that is written after its
arrays, so a process may be killed at any time and loses what it had in hand. Each utterance has its
fixed place in the arrays: neither the number of threads nor an interruption shows in the files.
"""

import os
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from contextlib import ExitStack, closing, contextmanager
from itertools import islice

import numpy as np
import pandas as pd
import soundfile
import torch
from threadpoolctl import threadpool_limits
from tqdm.auto import tqdm

from serkit import audio
from serkit.arrays import PARTS, RowFile, checksum, encode_audio, encode_level, part_files
from serkit.constants import HOP_LENGTH, SAMPLE_RATE
from serkit.errors import AudioError, CorpusError
from serkit.features import utterance_features

BAR = {"unit": "utt", "mininterval": 2.0, "smoothing": 0.1}  # s between lines: logs keep every one
DONE = len(PARTS)  # column of progress.npy: 1 when the checksums before it are valid


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
    table = _place(rows)
    audio_type = "int16" if all(map(_is_pcm16, rows["path"])) else "float32"
    parts = part_files(folder, table["n_frames"].sum(), table["num_samples"].sum(), audio_type)
    progress = RowFile(folder / "progress.npy", "uint32", (len(rows), DONE + 1))
    with ExitStack() as stack:
        open_parts = {name: stack.enter_context(file.open_for_writing()) for name, file in parts.items()}
        open_progress = stack.enter_context(progress.open_for_writing())
        todo = _missing(table, parts, progress)
        outcomes = _outcomes(rows["path"], table["num_samples"], recipe, audio_type, todo, workers)
        outcomes = stack.enter_context(closing(outcomes))
        places, broken = list(table.itertuples()), {}
        for i, work in tqdm(outcomes, "features", total=len(rows), initial=len(rows) - len(todo), **BAR):
            try:
                arrays, sums = work.result()
            except AudioError as error:
                broken[i] = str(error)
                continue
            for name, (start, _) in spans(places[i]).items():
                parts[name].write(open_parts[name], start, arrays[name])
            progress.write(open_progress, i, np.array([*sums, 1], "uint32"))
        for file in (*open_parts.values(), open_progress):
            os.fsync(file.fileno())
    if broken and not skip_broken:
        named = "; ".join(broken[i] for i in sorted(broken)[:10])
        raise CorpusError(
            f"{len(broken)} of {len(rows)} sound files can't be used, all others are done: {named}. "
            "Mend them and call again, or do without them: skip_broken=True (--skip-broken)"
        )
    sums = progress.read(0, len(rows))
    table = table.assign(**{f"crc_{name}": sums[:, column] for column, name in enumerate(PARTS)})
    return table, audio_type, {table["utterance_id"][i]: broken[i] for i in sorted(broken)}


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


def _is_pcm16(path):
    """Whether 16 bits hold the sound as `audio.read` gives it; a broken file does not object."""
    try:
        info = soundfile.info(path)
    except (OSError, RuntimeError):
        return True
    return (info.samplerate, info.channels, info.subtype) == (SAMPLE_RATE, 1, "PCM_16")


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


def _outcomes(paths, lengths, recipe, audio_type, todo, workers):
    """(utterance, future) as they come; never more than two utterances a thread in memory."""
    workers = workers or usable_cores()
    waiting, running = iter(todo), {}
    pool = ThreadPoolExecutor(workers, "extract", initializer=torch.set_num_threads, initargs=(1,))
    with _one_thread_each(), pool:
        while True:
            for i in islice(waiting, 2 * workers - len(running)):
                running[pool.submit(_analyse, paths[i], lengths[i], recipe, audio_type)] = i
            if not running:
                return
            finished = wait(running, return_when=FIRST_COMPLETED).done
            for work in sorted(finished, key=running.get):
                yield running.pop(work), work


def _analyse(path, num_samples, recipe, audio_type):
    """Arrays of one utterance, as they are stored, and their checksums."""
    waveform = audio.read(path)
    if len(waveform) != num_samples:
        raise AudioError(
            f"{path}: length differs from the manifest: {len(waveform)} samples at 16 kHz, not {num_samples}; "
            "prepare the corpus again"
        )
    features = utterance_features(waveform, recipe)
    arrays = {
        "spectrogram": encode_level(features.spectrogram, recipe.top_db),
        "mfcc": features.mfcc,
        "audio": encode_audio(waveform, audio_type),
    }
    return arrays, [checksum(arrays[name]) for name in PARTS]


@contextmanager
def _one_thread_each():
    """The threads share out utterances; inside of one, further threads would only wait for each other."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with threadpool_limits(1, user_api="blas"):
            yield
    finally:
        torch.set_num_threads(threads)
