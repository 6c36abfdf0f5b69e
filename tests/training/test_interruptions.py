"""Whatever happens to a training, its numbers are those of an undisturbed one."""

import functools
import json
import os
import re
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

THREE = {"epochs": 3, "patience": 3, "min_epochs": 3, "batch_size": 8}
CHEAP = {"epochs": 1, "views": "mfcc"}
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
    """A run of three epochs, and the bytes of its model after each epoch that was the best so far."""
    weights = []
    with pytest.MonkeyPatch.context() as patch:
        real = storage.save_model

        def keep(network, folder):
            real(network, folder)
            weights.append((folder / "model.safetensors").read_bytes())

        patch.setattr(storage, "save_model", keep)
        whole = train(tones, tmp_path_factory.mktemp("whole"), **THREE)
    sums = (whole.history["validation_wa"] + whole.history["validation_ua"]).round(9)
    better = [epoch for epoch in range(1, 4) if sums[epoch - 1] > max([-1, *sums[: epoch - 1]])]
    assert len(better) == len(weights) >= 2  # or there is nothing to mix up
    return whole, dict(zip(better, weights, strict=True))


@pytest.fixture
def whole(undisturbed):
    return undisturbed[0]


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


def killed(tones, folder, module, name, call, before=True, act=die, error=Killed, match=None):
    """Train until something happens at a call; what was reported until then."""
    lines = []
    with pytest.MonkeyPatch.context() as patch, pytest.raises(error, match=match):
        patch.setattr(module, name, at_call(call, act, before)(getattr(module, name)))
        train(tones, folder, lines, **THREE)
    assert not (folder / runs.DONE).exists()
    return lines


def finish(tones, folder, whole):
    train(tones, folder, **THREE)
    for name in RESULTS:
        assert (Path(folder) / name).read_bytes() == (whole.folder / name).read_bytes(), name


def test_killed_again_and_again(tones, whole, tmp_path):
    """In the order of a training; an epoch has two steps. Each time it goes on after the last finished epoch."""
    for module, name, call, before, resumed_after in [
        (loop, "seed_of_step", 2, True, 0),  # in the first epoch
        (checkpoints, "keep_predictions", 1, False, 0),
        (checkpoints, "save_checkpoint", 1, True, 0),
        (checkpoints, "save_checkpoint", 1, False, 0),
        (loop, "seed_of_step", 4, True, 1),  # in the third
        (checkpoints, "keep_predictions", 1, False, 2),
        (checkpoints, "save_checkpoint", 1, False, 2),
        (storage, "describe_model", 1, False, 3),
    ]:
        lines = killed(tones, tmp_path, module, name, call, before)
        assert sum(line.startswith(f"resumed after epoch {resumed_after}:") for line in lines) == (
            resumed_after > 0
        )
    finish(tones, tmp_path, whole)
    (tmp_path / runs.CHECKPOINT).touch()  # killed right after DONE: taken away by whoever comes next
    lines = []
    train(tones, tmp_path, lines, **THREE)
    assert lines[0].startswith("already done") and not (tmp_path / runs.CHECKPOINT).exists()
    mark = tmp_path / runs.DONE
    content = mark.read_bytes()
    mark.unlink()  # lost: what is finished is not trained again
    train(tones, tmp_path, lines, **THREE)
    assert lines[1].startswith("already done") and mark.read_bytes() == content
    mark.unlink()
    mark.mkdir()
    with pytest.raises(RunError, match=r"results can't be written \(.*Is a directory.*DONE"):
        train(tones, tmp_path, **THREE)


def test_the_model_kept_is_of_an_epoch_that_counts(tones, undisturbed, tmp_path):
    """Killed while a better epoch is saved: on a GPU it may not be better when it is trained again."""
    whole, weights = undisturbed
    before, last = sorted(weights)[-2:]
    kept = tmp_path / "model" / "model.safetensors"
    killed(tones, tmp_path, checkpoints, "save_checkpoint", last)
    assert kept.read_bytes() == weights[before]
    again = before == last - 1  # then the model of that epoch is saved anew first
    killed(tones, tmp_path, storage, "save_model", 2 if again else 1)
    assert kept.read_bytes() == weights[before]
    finish(tones, tmp_path, whole)


@pytest.fixture
def hears_ctrl_c():
    """What a shell starts in the background ignores SIGINT."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_asked_to_stop(tones, whole, tmp_path, hears_ctrl_c):
    """Ctrl-C, and a cluster's time limit: at once, with what is kept."""
    for number, call, kept in (
        (signal.SIGINT, 1, "no epoch was finished"),
        (signal.SIGTERM, 4, r"everything up to epoch 1 is kept in .*"),
    ):
        before = signal.getsignal(number)
        stop = functools.partial(os.kill, os.getpid(), number)
        match = rf"^stopped; {kept}: run again to go on$"
        killed(tones, tmp_path, loop, "seed_of_step", call, act=stop, error=KeyboardInterrupt, match=match)
        assert signal.getsignal(number) == before
    finish(tones, tmp_path, whole)


def test_sigkill_at_a_random_moment(tones, whole, tmp_path):
    """The program itself, killed by the system; then left to finish."""
    corpus, folder = Path(tones[0]["path"][0]).parent, tmp_path / "killed"
    checkpoint = folder / runs.CHECKPOINT
    command = [sys.executable, tones_program.__file__, str(corpus), str(folder), json.dumps(THREE)]
    with subprocess.Popen(command) as child:
        while child.poll() is None and not checkpoint.exists():
            time.sleep(0.001)
        time.sleep(np.random.default_rng().uniform(0, 0.5))
        child.kill()
    finish(tones, folder, whole)


class TestFullDisk:
    def test_says_what_is_kept_and_goes_on(self, tones, whole, tmp_path):
        def full():
            raise OSError(28, "No space left on device")

        for module, name, call, kept in [
            (checkpoints.torch, "save", 2, "1"), (storage, "to_bytes", 2, "2"), (storage, "describe_model", 1, "3")
        ]:  # fmt: skip
            match = (
                rf"can't be written .*No space left.*; everything up to epoch {kept} is kept in .*: make room"
            )
            killed(tones, tmp_path, module, name, call, act=full, error=RunError, match=match)
        finish(tones, tmp_path, whole)

    @pytest.mark.skipif(not Path("/dev/full").exists(), reason="a disk that is always full is Linux' own")
    def test_torch_names_the_fault(self, tmp_path):
        """What the message relies on: writing a checkpoint fails with the system's own error."""
        with pytest.raises(OSError, match="No space left"), open("/dev/full", "wb") as file:
            checkpoints.torch.save({"weights": checkpoints.torch.zeros(1000)}, file)

    def test_other_faults_of_the_system_keep_their_name(self, tones, tmp_path, monkeypatch):
        def too_many(*_):
            raise OSError(24, "Too many open files")

        monkeypatch.setattr(loop, "seed_of_step", too_many)
        with pytest.raises(OSError, match="Too many open files"):
            train(tones, tmp_path, **CHEAP)


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
                return [folder / runs.EPOCHS, *(folder / "model").glob("*")]
            return []

        monkeypatch.setattr(os, "fsync", send)
        monkeypatch.setattr(os, "replace", rename)
        return history

    def test_what_done_and_checkpoints_rely_on_is_on_the_disk(self, tones, tmp_path, disk):
        train(tones, tmp_path, views="mfcc", epochs=2)
        names = [path.name for path in disk]
        assert names[-1] == runs.DONE and names.count(runs.CHECKPOINT) == names.count(runs.EPOCHS) == 2
        assert {"model.safetensors", "files.json"} <= set(names)


@pytest.mark.parametrize("change", [{"micro_batch": 1}, {"micro_batch": 2, "gradient_checkpointing": True}])
def test_the_gradient_does_not_depend_on_the_pieces(tones, tmp_path, monkeypatch, change):
    """Every dropout is off. The second step's loss depends on the first one's gradient."""
    monkeypatch.setitem(coattention.PROFILES, "demo", QUIET)
    settings = {"epochs": 1, "batch_size": 3, "class_weights": True, "label_smoothing": 0.1}
    plain, pieces = (
        train(tones, tmp_path / name, **settings, **changes).history
        for name, changes in (("plain", {}), ("pieces", change))
    )
    for name in ("train_loss", "validation_loss"):
        np.testing.assert_allclose(pieces[name], plain[name], atol=1e-3)


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
        train(tones, tmp_path, **CHEAP)


def test_a_damaged_checkpoint_is_named(tones, tmp_path):
    killed(tones, tmp_path, checkpoints, "save_checkpoint", 1, before=False)
    path = tmp_path / runs.CHECKPOINT
    whole = path.read_bytes()
    for content in (whole[:-100], whole[: len(whole) // 2], b"", b"no checkpoint"):
        path.write_bytes(content)
        with pytest.raises(RunError, match=r"checkpoint.pt: damaged, or of another model .*delete it"):
            train(tones, tmp_path, **THREE)


def test_a_long_epoch_tells_how_far_it_is(tones, tmp_path, monkeypatch, capsys):
    train(tones, tmp_path / "short", **CHEAP)
    assert "epoch 1:" not in capsys.readouterr().err
    monkeypatch.setattr(loop, "LINE_S", 0.0)
    train(tones, tmp_path / "long", **CHEAP)
    assert re.search(r"epoch 1:.*1/\d+ \[", capsys.readouterr().err)


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
