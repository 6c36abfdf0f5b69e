"""What the benchmark measures. Each phase runs in a process of its own and returns numbers."""

import shutil
import time
from concurrent.futures import ProcessPoolExecutor

import numpy as np
import pandas as pd

WARM_UP = 3  # utterances or batches that are not timed: first calls compile and allocate
STEP_SEGMENTS, PIECE = 64, 8  # the paper's batch, and what of it is computed at once
EXAMPLES = 40  # utterances whose numbers are compared


def librosa_loop(work):
    """The published recipe utterance by utterance with librosa, as anyone would write it.

    One process, the libraries' own threads. It does what the extraction does: from sound files to
    the three arrays of every utterance on the disk, here in files of their own. How much of its
    time goes into saving them is measured too.
    """
    import librosa

    manifest = pd.read_parquet(work / "manifest.parquet")
    every = max(len(manifest) // EXAMPLES, 1)
    folder = work / "librosa"
    folder.mkdir()
    saving = 0.0

    def features(path):
        wav, _ = librosa.load(path, sr=16_000)
        y = np.append(wav[0], wav[1:] - 0.97 * wav[:-1])
        stft = librosa.stft(
            y, n_fft=800, hop_length=160, win_length=640, window="hamming", center=True, pad_mode="reflect"
        )
        level = librosa.amplitude_to_db(np.abs(stft), ref=np.max, amin=1e-5, top_db=80.0)[:200]
        mfcc = librosa.feature.mfcc(
            y=y, sr=16_000, n_mfcc=40, n_fft=2048, hop_length=160, htk=True, pad_mode="reflect"
        )
        return {"level": level, "mfcc": mfcc, "wav": wav}

    for path in manifest["path"][:WARM_UP]:
        features(path)
    started = time.perf_counter()
    for name, path in zip(manifest["utterance_id"], manifest["path"], strict=True):
        arrays = features(path)
        before = time.perf_counter()
        for kind, array in arrays.items():
            np.save(folder / f"{name}_{kind}.npy", array)
        saving += time.perf_counter() - before
    seconds = time.perf_counter() - started
    size = sum(path.stat().st_size for path in folder.iterdir())
    examples = {
        f"{kind} {name}": np.load(folder / f"{name}_{kind}.npy")
        for name in manifest["utterance_id"][::every]
        for kind in ("level", "mfcc")
    }
    shutil.rmtree(folder)
    np.savez(work / "librosa.npz", **examples)
    return {"seconds": seconds, "saving": saving, "utterances": len(manifest), "bytes": size}


def two_transforms(work):
    """The floor: both Fourier transforms of every frame of the corpus and nothing else.

    The same library, precision, blocks and number of processes as in the extraction, on noise that
    is windowed already and lies in the cache.
    """
    from serkit.extraction import usable_cores

    lengths = pd.read_parquet(work / "manifest.parquet")["num_samples"].tolist()
    workers = usable_cores()
    with ProcessPoolExecutor(workers) as pool:
        list(pool.map(transform_all, [lengths[:50]] * workers))  # every process has imported its libraries
        started = time.perf_counter()
        list(pool.map(transform_all, [lengths[start : start + 8] for start in range(0, len(lengths), 8)]))
        return {"seconds": time.perf_counter() - started, "processes": workers}


def transform_all(lengths):
    """Transform as many frames as utterances of these lengths have."""
    import torch

    from serkit.constants import HOP_LENGTH, MFCC_N_FFT, N_FFT
    from serkit.features import BLOCK

    torch.set_num_threads(1)
    double, single = torch.ones(BLOCK, N_FFT, dtype=torch.float64), torch.ones(BLOCK, MFCC_N_FFT)
    for num_samples in lengths:
        n_frames = 1 + num_samples // HOP_LENGTH
        for block in (double, single):
            for start in range(0, n_frames, BLOCK):
                torch.fft.rfft(block[: n_frames - start])


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
    """One optimiser step of the paper's model (random weights, asked for by name), 8 pieces of 8 segments.

    Beside it the bare encoders' forward and backward pass on the same inputs, half of them before the
    step and half after, and a step with a frozen encoder whose output is read from disk.
    """
    import torch

    from serkit.devices import cpu_is_fast_at_bf16
    from serkit.runs import Experiment

    settings = {"profile": "paper", "speech_encoder": "random", "cnn_weights": "random", "micro_batch": PIECE}
    result = {
        "fast_bf16": cpu_is_fast_at_bf16(),
        "segments": STEP_SEGMENTS,
        "threads": torch.get_num_threads(),
    }
    for precision in ("float32", "bf16"):
        step, bare, _ = _time_step(work, Experiment(**settings, precision=precision))
        result |= {f"step_{precision}": step, f"bare_{precision}": bare}
    frozen = Experiment(**settings, precision="float32", encoder_training="frozen")
    result["step_frozen"], _, result["encode"] = _time_step(work, frozen)
    result["step_demo"], _, _ = _time_step(work, Experiment(micro_batch=PIECE, batch_size=STEP_SEGMENTS))
    return result


def _time_step(work, experiment):
    """Seconds of a step, of the bare encoders for as many segments, and of encoding them once."""
    import torch

    from serkit.batches import SegmentDataset, fit_scaler, model_inputs
    from serkit.devices import make_accelerator
    from serkit.encoded import build_states
    from serkit.model import create_model
    from serkit.optimisation import make_optimizer
    from serkit.progress import new_progress
    from serkit.recipe import CORRECTED
    from serkit.store import build_store
    from serkit.training import model_config, train_steps

    manifest = pd.read_parquet(work / "manifest.parquet").iloc[:STEP_SEGMENTS].reset_index(drop=True)
    store = build_store(manifest, CORRECTED, work / "stores")
    rows = np.arange(STEP_SEGMENTS)
    scaler = fit_scaler(store, rows)
    accelerator = make_accelerator(experiment.precision)
    torch.manual_seed(1)
    model = create_model(model_config(experiment))
    encode, states = 0.0, None
    if experiment.encoder_training == "frozen":
        started = time.perf_counter()
        states = build_states(store, model, accelerator.device, accelerator.autocast)
        encode = (time.perf_counter() - started) / len(store)
    optimizer, scheduler = make_optimizer(model, experiment, 1)
    model, optimizer = accelerator.prepare(model, optimizer)
    label_of = dict.fromkeys(manifest["utterance_id"], 0)

    def run(n):
        dataset = SegmentDataset(store, rows[:n], label_of, states)
        started = time.perf_counter()
        progress = new_progress(dataset, experiment)
        for _ in train_steps(
            accelerator, model, optimizer, scheduler, dataset, scaler, experiment, progress, work
        ):
            pass
        return time.perf_counter() - started

    def bare(pieces):
        seconds = 0.0
        plain = accelerator.unwrap_model(model)
        for piece in range(pieces):
            batch = SegmentDataset(store, rows, label_of).__getitems__(
                rows[piece * PIECE : (piece + 1) * PIECE]
            )
            inputs = model_inputs(batch, scaler, CORRECTED, accelerator.device)
            started = time.perf_counter()
            with accelerator.autocast():
                outputs = (
                    plain.spectrogram_encoder(inputs["spectrogram"]), plain.mfcc_encoder(inputs["mfcc"]),
                    plain.speech_encoder(inputs["waveform"]).last_hidden_state,
                )  # fmt: skip
            sum(output.float().mean() for output in outputs).backward()
            seconds += time.perf_counter() - started
        model.zero_grad()
        return seconds

    run(PIECE)  # the first step allocates
    if states is not None or experiment.profile == "demo":
        return run(STEP_SEGMENTS), None, encode
    pieces = STEP_SEGMENTS // PIECE
    around = bare(pieces // 2)
    step = run(STEP_SEGMENTS)
    return step, around + bare(pieces // 2), encode


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
