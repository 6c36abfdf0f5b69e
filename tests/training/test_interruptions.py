"""Whatever happens to a training, its numbers are those of an undisturbed one."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import tones as tones_program
from tones import QUIET, make_tones, train

from serkit import runs
from serkit.errors import RunError
from serkit.model import coattention, storage
from serkit.training import checkpoints, loop

# one view with its dropout: what is kept and drawn again is the same for all, in a fraction of the time
FIVE = {"epochs": 5, "patience": 5, "min_epochs": 5, "batch_size": 8, "views": "spectrogram"}
RESULTS = (
    "history.csv",
    "predictions.parquet",
    "embedding.parquet",
    "epochs.parquet",
    "model/model.safetensors",
)


class Killed(BaseException):
    pass


@pytest.fixture(scope="module")
def tones(tmp_path_factory):
    return make_tones(tmp_path_factory.mktemp("tones"))


@pytest.fixture(scope="module")
def undisturbed(tones, tmp_path_factory):
    """A run of five epochs, and the bytes of its model after each epoch that was the best so far."""
    weights = []
    with pytest.MonkeyPatch.context() as patch:
        real = storage.save_model

        def keep(network, folder):
            real(network, folder)
            weights.append((folder / "model.safetensors").read_bytes())

        patch.setattr(storage, "save_model", keep)
        whole = train(tones, tmp_path_factory.mktemp("whole"), **FIVE)
    sums = (whole.history["validation_wa"] + whole.history["validation_ua"]).round(9)
    better = [epoch for epoch in range(1, 6) if sums[epoch - 1] > max([-1, *sums[: epoch - 1]])]
    assert len(better) == len(weights) >= 2  # or there is nothing to mix up
    return whole, dict(zip(better, weights, strict=True))


@pytest.fixture
def whole(undisturbed):
    return undisturbed[0]


def same(folder, whole):
    for name in RESULTS:
        assert (Path(folder) / name).read_bytes() == (whole.folder / name).read_bytes(), name


def at_call(number, act, before=True):
    """A function that acts just before, or after, its call of that number."""

    def wrap(real):
        calls = []

        def function(*arguments, **named):
            calls.append(arguments)
            if before and len(calls) == number:
                act()
            result = real(*arguments, **named)
            if not before and len(calls) == number:
                act()
            return result

        return function

    return wrap


def die():
    raise Killed


def wrapped(monkeypatch, module, name, wrap):
    monkeypatch.setattr(module, name, wrap(getattr(module, name)))


@pytest.mark.parametrize(
    ("module", "name", "call", "before", "finished"),
    [
        (loop, "seed_of_step", 2, True, 0),  # in the first epoch
        (loop, "seed_of_step", 6, True, 2),  # in the third; an epoch has two steps
        (checkpoints, "keep_predictions", 3, False, 2),
        (checkpoints, "save_checkpoint", 3, True, 2),
        (checkpoints, "save_checkpoint", 3, False, 3),
        (checkpoints, "save_checkpoint", 5, False, 5),
        (checkpoints, "join_predictions", 1, False, 5),
        (storage, "describe_model", 1, False, 5),
    ],
)
def test_killed_anywhere(tones, whole, tmp_path, monkeypatch, module, name, call, before, finished):
    with monkeypatch.context() as patch, pytest.raises(Killed):
        wrapped(patch, module, name, at_call(call, die, before))
        train(tones, tmp_path, **FIVE)
    assert not (tmp_path / runs.DONE).exists()
    lines = []
    train(tones, tmp_path, lines, **FIVE)
    assert sum(line.startswith(f"resumed after epoch {finished}:") for line in lines) == (finished > 0)
    assert sum(line.startswith("epoch ") for line in lines) == 5 - finished
    same(tmp_path, whole)


@pytest.mark.parametrize(("module", "name"), [(checkpoints, "save_checkpoint"), (storage, "save_model")])
def test_the_model_kept_is_of_an_epoch_that_counts(tones, undisturbed, tmp_path, monkeypatch, module, name):
    """Killed while the last better epoch is saved: on a GPU it may not be better when it is trained again."""
    whole, weights = undisturbed
    call = max(weights) if name == "save_checkpoint" else len(weights)
    with monkeypatch.context() as patch, pytest.raises(Killed):
        wrapped(patch, module, name, at_call(call, die))
        train(tones, tmp_path, **FIVE)
    assert (tmp_path / "model" / "model.safetensors").read_bytes() == weights[sorted(weights)[-2]]
    train(tones, tmp_path, **FIVE)
    same(tmp_path, whole)


def test_killed_right_after_done(tones, whole, tmp_path, monkeypatch):
    """It is done, and what was left is taken away by whoever comes next."""
    with monkeypatch.context() as patch, pytest.raises(Killed):
        wrapped(patch, checkpoints, "remove_leftovers", at_call(1, die))
        train(tones, tmp_path, **FIVE)
    assert (tmp_path / runs.DONE).exists() and (tmp_path / runs.CHECKPOINT).exists()
    lines = []
    train(tones, tmp_path, lines, **FIVE)
    assert lines[0].startswith("already done")
    assert not (tmp_path / runs.CHECKPOINT).exists() and not (tmp_path / "epochs").exists()
    same(tmp_path, whole)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_asked_to_stop(tones, whole, tmp_path, monkeypatch, number):
    """Ctrl-C, and a cluster's time limit: at once, with what is kept."""
    before = signal.getsignal(number)
    for call, kept in (
        (1, "no epoch was finished"),
        (4, r"epoch 1 is kept in .*"),
        (4, r"epochs 1 to 2 are kept in .*"),
    ):
        with monkeypatch.context() as patch:
            wrapped(patch, loop, "seed_of_step", at_call(call, lambda: os.kill(os.getpid(), number)))
            with pytest.raises(KeyboardInterrupt, match=rf"^stopped; {kept}: run again to go on$"):
                train(tones, tmp_path, **FIVE)
        assert signal.getsignal(number) == before
    train(tones, tmp_path, **FIVE)
    same(tmp_path, whole)


def test_sigkill_at_random_moments(tones, whole, tmp_path):
    """The program itself, killed by the system twice; then left to finish."""
    corpus, folder = Path(tones[0]["path"][0]).parent, tmp_path / "killed"
    checkpoint = folder / runs.CHECKPOINT
    command = [sys.executable, tones_program.__file__, str(corpus), str(folder), json.dumps(FIVE)]
    for _ in range(2):
        known = checkpoint.stat().st_mtime_ns if checkpoint.exists() else 0
        with subprocess.Popen(command) as child:
            while child.poll() is None and (
                not checkpoint.exists() or checkpoint.stat().st_mtime_ns == known
            ):
                time.sleep(0.001)
            time.sleep(np.random.default_rng().uniform(0, 0.1))
            child.kill()
    train(tones, folder, **FIVE)
    same(folder, whole)


class TestFullDisk:
    @pytest.mark.parametrize(
        ("module", "name", "call", "kept"),
        [
            (checkpoints, "save_file", 2, "epoch 1 is kept in .*"),
            (storage, "save_file", 1, "epoch 1 is kept in .*"),
            (storage, "describe_model", 1, "epochs 1 to 5 are kept in .*"),
        ],
    )
    def test_says_what_is_kept_and_goes_on(
        self, tones, whole, tmp_path, monkeypatch, module, name, call, kept
    ):
        def full():
            raise OSError(28, "No space left on device")

        with monkeypatch.context() as patch:
            wrapped(patch, module, name, at_call(call, full))
            with pytest.raises(RunError, match=rf"can't be written .*No space left.*; {kept}: make room"):
                train(tones, tmp_path, **FIVE)
        train(tones, tmp_path, **FIVE)
        same(tmp_path, whole)

    def test_other_faults_of_the_system_keep_their_name(self, tones, tmp_path, monkeypatch):
        def too_many():
            raise OSError(24, "Too many open files")

        wrapped(monkeypatch, loop, "seed_of_step", at_call(1, too_many))
        with pytest.raises(OSError, match="Too many open files"):
            train(tones, tmp_path, **FIVE)


class TestPowerCut:
    """Files that were written but not yet sent to the disk are lost, or empty; whatever relies on them comes later."""

    @pytest.fixture
    def disk(self, monkeypatch):
        """What a power cut would leave: contents sent to the disk, and names sent since they were given."""
        sent, named, history = set(), set(), []
        fsync, replace = os.fsync, os.replace

        def send(number):
            path = Path(os.readlink(f"/proc/self/fd/{number}"))
            if path.is_dir():
                named.update(path.iterdir())
            else:
                sent.add(path.read_bytes())
            fsync(number)

        def rename(old, new):
            replace(old, new)
            named.discard(Path(new))
            history.append(Path(new))
            for path in followed(Path(new)):
                assert path.read_bytes() in sent, f"{path.name} is not on the disk before {Path(new).name}"
                assert path in named, f"the name {path.name} is not on the disk before {Path(new).name}"

        def followed(path):
            """What must be there before."""
            folder = path.parent
            if path.name == runs.DONE:
                files = json.loads((folder / "files.json").read_text())["files"]
                return [folder / "files.json", *(folder / name for name in files)]
            if path.name == runs.CHECKPOINT:
                return [*sorted((folder / "epochs").glob("*.parquet")), *(folder / "model").glob("*")]
            return []

        monkeypatch.setattr(os, "fsync", send)
        monkeypatch.setattr(os, "replace", rename)
        return history

    def test_what_done_and_checkpoints_rely_on_is_on_the_disk(self, tones, tmp_path, disk):
        train(tones, tmp_path)
        names = [path.name for path in disk]
        assert names[-1] == runs.DONE and names.count(runs.CHECKPOINT) == 3
        assert {"model.safetensors", "files.json", "0001.parquet"} <= set(names)


class TestOneBatchManyWays:
    """The gradient of a batch does not depend on how it is computed (every dropout off)."""

    SETTINGS = {"epochs": 2, "batch_size": 3, "class_weights": True, "label_smoothing": 0.1}  # noqa: RUF012

    @pytest.fixture(scope="class")
    @staticmethod
    def plain(tones, tmp_path_factory):
        with pytest.MonkeyPatch.context() as patch:
            patch.setitem(coattention.PROFILES, "demo", QUIET)
            settings = TestOneBatchManyWays.SETTINGS
            yield train(tones, tmp_path_factory.mktemp("plain"), **settings).history

    @pytest.mark.parametrize(
        "change", [{"micro_batch": 1}, {"micro_batch": 2}, {"gradient_checkpointing": True}]
    )
    def test_same_losses(self, tones, tmp_path, plain, change):
        other = train(tones, tmp_path, **self.SETTINGS, **change).history
        for name in ("train_loss", "validation_loss"):
            np.testing.assert_allclose(other[name], plain[name], atol=1e-3)


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("[enforce fail at alloc_cpu.cpp:124] DefaultCPUAllocator: can't allocate memory"),
        RuntimeError("CUDA error: out of memory"),
        MemoryError(),
    ],
)
def test_out_of_memory_says_what_to_change(tones, tmp_path, monkeypatch, error):
    def exhausted(*_, **__):
        raise error

    monkeypatch.setattr(loop.F, "cross_entropy", exhausted)
    expected = (
        r"epoch 1, batch 1: out of memory with 8 segments at once; set micro_batch=4 \(the batch stays 8\)"
    )
    with pytest.raises(RunError, match=expected):
        train(tones, tmp_path)


def test_a_damaged_checkpoint_is_named(tones, tmp_path, monkeypatch):
    with monkeypatch.context() as patch, pytest.raises(Killed):
        wrapped(patch, checkpoints, "save_checkpoint", at_call(1, die, before=False))
        train(tones, tmp_path)
    path = tmp_path / runs.CHECKPOINT
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(RunError, match=r"checkpoint.safetensors: damaged, or of another model .*delete it"):
        train(tones, tmp_path)


def test_a_long_epoch_reports_its_batches(tones, tmp_path, monkeypatch):
    monkeypatch.setattr(loop, "LINE_S", 0.0)
    lines = []
    train(tones, tmp_path, lines, epochs=1)
    assert any(line.startswith("epoch 1, batch 1 of ") and line.endswith("min left") for line in lines)


def test_tensorboard_has_every_epoch(whole):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    log = EventAccumulator(str(whole.folder / "tensorboard"))
    log.Reload()
    losses = [event.value for event in log.Scalars("train/loss")]
    np.testing.assert_allclose(losses, whole.history["train_loss"], rtol=1e-6)


def test_timing_beside_the_history(whole):
    assert list(whole.timing["epoch"]) == list(whole.history["epoch"])
    assert (whole.timing["seconds"] > 0).all()
    assert whole.timing["peak_memory_mb"].between(50, 50_000).all()
