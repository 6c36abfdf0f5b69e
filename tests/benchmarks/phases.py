"""What the benchmark measures. Each phase runs in a process of its own and returns numbers."""

import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pandas as pd

WARM_UP = 3  # utterances or batches that are not timed: first calls compile and allocate
EXAMPLES = 40  # utterances whose numbers are compared


def librosa_loop(work):
    """The published recipe utterance by utterance with librosa, as anyone would write it.

    One process, the libraries' own threads. Results are dropped, so that neither memory nor a disk
    slows it down.
    """
    import librosa

    manifest = pd.read_parquet(work / "manifest.parquet")
    every = max(len(manifest) // EXAMPLES, 1)
    examples = {}

    def features(path):
        y, _ = librosa.load(path, sr=16_000)
        y = np.append(y[0], y[1:] - 0.97 * y[:-1])
        stft = librosa.stft(
            y, n_fft=800, hop_length=160, win_length=640, window="hamming", center=True, pad_mode="reflect"
        )
        level = librosa.amplitude_to_db(np.abs(stft), ref=np.max, amin=1e-5, top_db=80.0)[:200]
        mfcc = librosa.feature.mfcc(
            y=y, sr=16_000, n_mfcc=40, n_fft=2048, hop_length=160, htk=True, pad_mode="reflect"
        )
        return level, mfcc

    for path in manifest["path"][:WARM_UP]:
        features(path)
    started = time.perf_counter()
    for number, (name, path) in enumerate(zip(manifest["utterance_id"], manifest["path"], strict=True)):
        level, mfcc = features(path)
        if number % every == 0:
            examples |= {f"level {name}": level, f"mfcc {name}": mfcc}
    seconds = time.perf_counter() - started
    np.savez(work / "librosa.npz", **examples)
    return {"seconds": seconds, "utterances": len(manifest)}


def two_transforms(work):
    """The floor: both Fourier transforms of every frame of the corpus and nothing else.

    The same library, precision, blocks and number of threads as in the extraction, on noise that is
    windowed already and lies in the cache.
    """
    import torch

    from serkit.constants import HOP_LENGTH, MFCC_N_FFT, N_FFT
    from serkit.extraction import usable_cores
    from serkit.features import BLOCK, real_transform

    lengths = pd.read_parquet(work / "manifest.parquet")["num_samples"]
    double, single = torch.randn(BLOCK, N_FFT, dtype=torch.float64), torch.randn(BLOCK, MFCC_N_FFT)

    def transform(num_samples):
        n_frames = 1 + num_samples // HOP_LENGTH
        for start in range(0, n_frames, BLOCK):
            size = min(BLOCK, n_frames - start)
            real_transform(double[:size])
            real_transform(single[:size])

    torch.set_num_threads(1)
    with ThreadPoolExecutor(usable_cores(), initializer=torch.set_num_threads, initargs=(1,)) as pool:
        list(pool.map(transform, lengths[:50]))
        started = time.perf_counter()
        list(pool.map(transform, lengths))
        return {"seconds": time.perf_counter() - started, "threads": usable_cores()}


def extraction(work):
    """``build_store``, from sound files to a complete store."""
    from serkit.recipe import CORRECTED
    from serkit.store import build_store

    manifest = pd.read_parquet(work / "manifest.parquet")
    started = time.perf_counter()
    store = build_store(manifest, CORRECTED, work / "stores")
    seconds = time.perf_counter() - started
    size = sum(path.stat().st_size for path in store.folder.iterdir())
    return {"seconds": seconds, "utterances": len(manifest), "bytes": size, "segments": len(store)}


def first_batch(work):
    """From a complete store to the first batch of a fold: open, scaler, read, picture."""
    import torch

    from serkit.batches import SegmentDataset, fit_scaler, make_loader, model_inputs
    from serkit.constants import BATCH_SIZE, LABELS
    from serkit.folds import make_folds
    from serkit.recipe import CORRECTED
    from serkit.store import build_store

    started = time.perf_counter()
    manifest = pd.read_parquet(work / "manifest.parquet")
    fold = make_folds(manifest, "session", "clean")[0]
    store = build_store(manifest, CORRECTED, work / "stores")
    opened = time.perf_counter() - started
    label_of = dict(zip(manifest["utterance_id"], manifest["label"].map(LABELS.index), strict=True))
    dataset = SegmentDataset(store, store.rows_of(fold.train), label_of)
    scaler = fit_scaler(store, dataset.rows)
    scaled = time.perf_counter() - started
    batch = next(iter(make_loader(dataset, BATCH_SIZE, shuffle_seed=111)))
    model_inputs(batch, scaler, CORRECTED, torch.device("cpu"))
    return {
        "seconds": time.perf_counter() - started,
        "opened": opened,
        "scaled": scaled,
        "rows": len(dataset),
    }


def data_path(work):
    """An epoch's reading without a model: the first pass compares checksums, the second does not."""
    import torch

    from serkit.batches import SegmentDataset, fit_scaler, make_loader, model_inputs
    from serkit.constants import BATCH_SIZE
    from serkit.recipe import CORRECTED
    from serkit.store import build_store

    manifest = pd.read_parquet(work / "manifest.parquet")
    store = build_store(manifest, CORRECTED, work / "stores")
    dataset = SegmentDataset(store, np.arange(len(store)), dict.fromkeys(manifest["utterance_id"], 0))
    scaler = fit_scaler(store, np.arange(0, len(store), 50))
    rates = {}
    for name in ("first epoch", "later epochs"):
        loader, seen, started = make_loader(dataset, BATCH_SIZE, shuffle_seed=111), 0, None
        for number, batch in enumerate(loader):
            if number == WARM_UP:
                started, seen = time.perf_counter(), 0
            model_inputs(batch, scaler, CORRECTED, torch.device("cpu"))
            seen += len(batch["label"])
        rates[name] = seen / (time.perf_counter() - started)
    return rates


def model_step(work):
    """Segments per second of forward and backward pass on this machine, random weights."""
    from serkit.runs import Experiment
    from serkit.training import measure_step

    return {profile: 1 / measure_step(Experiment(profile=profile)) for profile in ("demo", "paper")}


def agreement(work):
    """Largest difference between librosa's numbers and those read from the store."""
    from serkit.recipe import PUBLISHED
    from serkit.store import build_store

    store = build_store(pd.read_parquet(work / "manifest.parquet"), PUBLISHED, work / "stores")
    reference = np.load(work / "librosa.npz")
    worst = {"level": 0.0, "mfcc": 0.0}
    for key in reference.files:
        view, name = key.split(" ")
        rows = store.rows_of([name])
        got, want = store.read(rows), reference[key]
        real = np.concatenate([np.arange(300 * i, 300 * i + n) for i, n in enumerate(got.n_frames)])
        joined = np.concatenate(got.spectrogram if view == "level" else got.mfcc.transpose(0, 2, 1), axis=1)
        worst[view] = max(worst[view], float(np.abs(joined[:, real] - want).max()))
    return worst
