"""What the benchmark measures. Each phase runs in a process of its own and returns numbers."""

import os
import shutil
import time
from concurrent.futures import ProcessPoolExecutor

import numpy as np
import pandas as pd

WARM_UP = 3  # utterances or batches that are not timed: first calls compile and allocate
STEP_SEGMENTS, PIECE = 64, 8  # the paper's batch, and what of it is computed at once
PAIRS = 2  # of encoders alone and a step
EXTRACTIONS = 7  # each between two measurements of the transforms alone
EXAMPLES = 40  # utterances whose numbers are compared
ROUNDS = 3  # of the loop: the first one also waits for memory, which virtual machines fetch on demand


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

    def save_all():
        saving = 0.0
        for name, path in zip(manifest["utterance_id"], manifest["path"], strict=True):
            arrays = features(path)
            before = time.perf_counter()
            for kind, array in arrays.items():
                np.save(folder / f"{name}_{kind}.npy", array)
            saving += time.perf_counter() - before
        return saving

    for path in manifest["path"][:WARM_UP]:
        features(path)
    seconds, saving = [], []
    for _ in range(ROUNDS):
        empty(folder)
        started = time.perf_counter()
        saving.append(save_all())
        seconds.append(time.perf_counter() - started)
    size = sum(path.stat().st_size for path in folder.iterdir())
    examples = {
        f"{kind} {name}": np.load(folder / f"{name}_{kind}.npy")
        for name in manifest["utterance_id"][::every]
        for kind in ("level", "mfcc")
    }
    empty(folder)  # the next phase shall not pay for this one's files
    np.savez(work / "librosa.npz", **examples)
    return {"seconds": seconds, "saving": saving, "utterances": len(manifest), "bytes": size}


def empty(folder):
    """An empty folder, and nothing left for the disk to do."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    os.sync()


def extraction(work):
    """``build_store``, from sound files to a complete store, and the floor under it, in turn.

    The floor is both Fourier transforms of every frame and nothing else: the same library, precision,
    blocks and number of processes, on noise that is windowed already and lies in the cache. Each
    extraction stands between two measurements of it, because the machine's pace changes by the minute.
    The first one fills an empty folder. The others begin with nothing done either, but fill the files of
    the one before: a virtual machine may have to ask its host for every page of a new file, and then
    writing 2 GB takes anything from 0.3 to 5 s by itself.
    """
    from serkit.features.store import build_store, usable_cores
    from serkit.recipe import CORRECTED

    manifest = pd.read_parquet(work / "manifest.parquet")
    lengths = manifest["num_samples"].tolist()
    seconds, floor = [], [time_transforms(lengths, usable_cores())]
    empty(work / "stores")
    for _ in range(EXTRACTIONS):
        for path in [*(work / "stores").glob("*/store.json"), *(work / "stores").glob("*/done.npy")]:
            path.unlink()
        started = time.perf_counter()
        store = build_store(manifest, CORRECTED, work / "stores")
        seconds.append(time.perf_counter() - started)
        os.sync()  # what the system writes later is not the transforms' business
        floor.append(time_transforms(lengths, usable_cores()))
    return {
        "seconds": seconds,
        "floor": floor,
        "processes": usable_cores(),
        "utterances": len(manifest),
        "segments": len(store),
        "bytes": sum(path.stat().st_size for path in store.folder.iterdir()),
    }


def time_transforms(lengths, workers):
    """Seconds for the two transforms of all frames, in ``workers`` processes that are ready and warm."""
    with ProcessPoolExecutor(workers) as pool:
        list(pool.map(transform_all, [lengths[:50]] * workers))  # every process has imported its libraries
        started = time.perf_counter()
        list(pool.map(transform_all, [lengths[start : start + 8] for start in range(0, len(lengths), 8)]))
        return time.perf_counter() - started


def transform_all(lengths):
    """Transform as many frames as utterances of these lengths have."""
    import torch

    from serkit.constants import HOP_LENGTH, MFCC_N_FFT, N_FFT
    from serkit.features.views import BLOCK

    torch.set_num_threads(1)
    double, single = torch.ones(BLOCK, N_FFT, dtype=torch.float64), torch.ones(BLOCK, MFCC_N_FFT)
    for num_samples in lengths:
        n_frames = 1 + num_samples // HOP_LENGTH
        for block in (double, single):
            for start in range(0, n_frames, BLOCK):
                torch.fft.rfft(block[: n_frames - start])


def first_batch(work):
    """From a complete store to the first batch of a fold: open, scaler, read, picture."""
    import torch

    from serkit.constants import LABELS
    from serkit.experiment import TRAINING
    from serkit.features.store import build_store
    from serkit.folds import make_folds
    from serkit.recipe import CORRECTED
    from serkit.training.batches import SegmentDataset, fit_scaler, load_batches, model_inputs

    started = time.perf_counter()
    manifest = pd.read_parquet(work / "manifest.parquet")
    fold = make_folds(manifest, "session", "clean")[0]
    store = build_store(manifest, CORRECTED, work / "stores")
    opened = time.perf_counter() - started
    label_of = dict(zip(manifest["utterance_id"], manifest["label"].map(LABELS.index), strict=True))
    dataset = SegmentDataset(store, store.rows_of(fold.train), label_of)
    scaler = fit_scaler(store, dataset.rows)
    scaled = time.perf_counter() - started
    batch = next(iter(load_batches(dataset, TRAINING["paper"]["batch_size"], 111)))
    model_inputs(batch, scaler, CORRECTED, torch.device("cpu"))
    return {
        "seconds": time.perf_counter() - started,
        "opened": opened,
        "scaled": scaled,
        "rows": len(dataset),
    }


def data_path(work):
    """An epoch's reading without a model, twice: the first pass may have to wait for the disk."""
    import torch

    from serkit.experiment import TRAINING
    from serkit.features.store import build_store
    from serkit.recipe import CORRECTED
    from serkit.training.batches import SegmentDataset, fit_scaler, load_batches, model_inputs

    manifest = pd.read_parquet(work / "manifest.parquet")
    store = build_store(manifest, CORRECTED, work / "stores")
    dataset = SegmentDataset(store, np.arange(len(store)), dict.fromkeys(manifest["utterance_id"], 0))
    scaler = fit_scaler(store, np.arange(0, len(store), 50))
    rates = {}
    for name in ("first epoch", "later epochs"):
        seen, started = 0, None
        for number, batch in enumerate(load_batches(dataset, TRAINING["paper"]["batch_size"], 111)):
            if number == WARM_UP:
                started, seen = time.perf_counter(), 0
            model_inputs(batch, scaler, CORRECTED, torch.device("cpu"))
            seen += len(batch["label"])
        rates[name] = seen / (time.perf_counter() - started)
    return rates


def model_step(work):
    """One optimiser step of the paper's model (random weights, asked for by name), 8 pieces of 8 segments.

    What surrounds the bare encoders' forward and backward pass is measured piece by piece, in pairs:
    first the encoders alone, then the optimiser alone, then a step on the same segments. The median
    of the pairs' ratios is hardly touched by what else the machine is doing.
    """
    from serkit.experiment import Experiment
    from serkit.training.scoring import resolve_precision

    settings = {"profile": "paper", "speech_encoder": "random", "cnn_weights": "random", "micro_batch": PIECE}
    frozen = settings | {"precision": "float32", "encoder_training": "frozen"}
    cases = {name: _Step(work, Experiment(**settings, precision=name)) for name in ("float32", "bf16")}
    cases["frozen"] = _Step(work, Experiment(**frozen))
    cases["demo"] = _Step(work, Experiment(micro_batch=PIECE, batch_size=STEP_SEGMENTS))
    for case in cases.values():
        case.step(PIECE)  # the first one allocates
    result = {
        "fast_bf16": resolve_precision("auto", "paper") == "bf16",
        "segments": STEP_SEGMENTS,
        "encode": cases["frozen"].encode_s,
    }
    result |= {name: case.step(STEP_SEGMENTS) for name, case in cases.items()}
    pairs = [{name: cases[name].pair() for name in ("float32", "bf16")} for _ in range(PAIRS)]
    pieces = STEP_SEGMENTS // PIECE
    for name in ("float32", "bf16"):
        # of the accumulated step: every piece once, the optimiser once
        ratios = [
            (pieces * (p["step"] - p["optimiser"]) + p["optimiser"]) / (pieces * p["bare"])
            for p in (pair[name] for pair in pairs)
        ]
        result[f"overhead_{name}"] = float(np.median(ratios)) - 1
    result["bf16_ratio"] = float(
        np.median([pair["bf16"]["step"] / pair["float32"]["step"] for pair in pairs])
    )
    return result


class _Step:
    """An experiment's model with everything a step needs."""

    def __init__(self, work, experiment):
        import torch

        from serkit.features.store import build_store
        from serkit.model.coattention import create_model
        from serkit.recipe import CORRECTED
        from serkit.training.batches import fit_scaler
        from serkit.training.encoder_states import build_states
        from serkit.training.loop import make_learner, model_config
        from serkit.training.scoring import make_accelerator

        manifest = pd.read_parquet(work / "manifest.parquet").iloc[:STEP_SEGMENTS].reset_index(drop=True)
        self.store = build_store(manifest, CORRECTED, work / "stores")
        self.rows = np.arange(STEP_SEGMENTS)
        self.label_of = dict.fromkeys(manifest["utterance_id"], 0)
        self.scaler = fit_scaler(self.store, self.rows)
        self.accelerator = make_accelerator(experiment.precision)
        torch.manual_seed(1)
        model = create_model(model_config(experiment))
        self.states, self.encode_s = None, 0.0
        if experiment.encoder_training == "frozen":
            started = time.perf_counter()
            self.states = build_states(self.store, model, self.accelerator)
            self.encode_s = (time.perf_counter() - started) / len(self.store)
        self.learner = make_learner(experiment, self.accelerator, model, self.scaler, STEP_SEGMENTS)

    def step(self, n):
        """Seconds of one optimiser step on ``n`` segments, reading them included."""
        from serkit.training.batches import SegmentDataset
        from serkit.training.loop import train_epoch

        dataset = SegmentDataset(self.store, self.rows[:n], self.label_of, self.states)
        started = time.perf_counter()
        train_epoch(self.learner, dataset, 1)
        return time.perf_counter() - started

    def pair(self):
        """Seconds of the bare encoders, of a step, and of the optimiser in it, for one piece."""
        bare = self.bare()
        started = time.perf_counter()
        self.learner.optimizer.step()
        optimiser = time.perf_counter() - started
        self.learner.optimizer.zero_grad()
        step = self.step(PIECE)
        return {"bare": bare, "step": step, "optimiser": optimiser}

    def bare(self):
        """Seconds of the encoders' forward and backward pass, inputs ready."""
        from serkit.training.batches import SegmentDataset, model_inputs

        batch = SegmentDataset(self.store, self.rows, self.label_of)[np.arange(PIECE)]
        inputs = model_inputs(batch, self.scaler, self.store.recipe, self.accelerator.device)
        model = self.learner.model.train()
        started = time.perf_counter()
        with self.accelerator.autocast():
            outputs = (
                model.spectrogram_encoder(inputs["spectrogram"]), model.mfcc_encoder(inputs["mfcc"]),
                model.speech_encoder(inputs["waveform"]).last_hidden_state,
            )  # fmt: skip
        sum(output.float().mean() for output in outputs).backward()
        return time.perf_counter() - started


def agreement(work):
    """Largest difference between librosa's numbers and those read from the store."""
    from serkit.features.store import build_store
    from serkit.recipe import PUBLISHED

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
