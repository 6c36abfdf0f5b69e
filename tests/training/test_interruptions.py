"""Whatever happens to a training, its numbers are those of an undisturbed one."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from tones import QUIET, make_tones, train

from serkit import runs
from serkit.errors import RunError
from serkit.model import coattention as model
from serkit.training import checkpoints, interrupts, launch
from serkit.training import loop as training


@pytest.fixture(scope="module")
def tones(tmp_path_factory):
    return make_tones(tmp_path_factory.mktemp("tones"))


@pytest.fixture(scope="module")
def whole(tones, tmp_path_factory):
    """An undisturbed run."""
    return train(tones, tmp_path_factory.mktemp("whole"), batch_size=4)


def same(run, whole):
    for name in ("history.csv", "predictions.parquet", "embedding.parquet"):
        assert (run.folder / name).read_bytes() == (whole.folder / name).read_bytes()


class Killed(BaseException):
    pass


@pytest.mark.parametrize("step", [1, 3, 5, 8])
def test_killed_inside_an_epoch(tones, whole, tmp_path, monkeypatch, step):
    """Three steps an epoch; a checkpoint after each of them."""
    real, seen = training.seed_of_step, []

    def die_before(*arguments):
        seen.append(arguments)
        if len(seen) == step + 1:
            raise Killed
        return real(*arguments)

    monkeypatch.setattr(training, "seed_of_step", die_before)
    with pytest.raises(Killed):
        train(tones, tmp_path, batch_size=4, checkpoint_min=0.0)
    monkeypatch.setattr(training, "seed_of_step", real)
    lines = []
    batches = checkpoints.good_checkpoint(tmp_path).split(" of ")[-1].split()[0]
    again = train(tones, tmp_path, lines, batch_size=4)
    done, batch = divmod(step, int(batches))
    expected = f"resumed after epoch {done + 1}, batch {batch} of {batches}"
    assert any(line.startswith(expected) for line in lines), lines
    same(again, whole)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_asked_to_stop_saves_first(tones, whole, tmp_path, monkeypatch, number):
    real = training.seed_of_step

    def ask(seed, epoch, batch, process):
        if (epoch, batch) == (2, 2):
            os.kill(os.getpid(), number)
        return real(seed, epoch, batch, process)

    monkeypatch.setattr(training, "seed_of_step", ask)
    before = signal.getsignal(number)
    kind = KeyboardInterrupt if number == signal.SIGINT else RunError
    with pytest.raises(kind, match=r"the checkpoint of epoch 2, batch 2 of \d+ is good"):
        train(tones, tmp_path, batch_size=4)
    assert signal.getsignal(number) == before
    monkeypatch.setattr(training, "seed_of_step", real)
    same(train(tones, tmp_path, batch_size=4), whole)


def test_a_time_limit_that_is_told_twice_still_saves():
    """A cluster sends SIGTERM to every process, and the driver interrupts its jobs."""
    with interrupts.Interrupts(SimpleNamespace(num_processes=1), every_s=1e9) as asked:
        assert asked.due() == interrupts.NOTHING
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGINT)
        assert asked.due() == interrupts.STOP
        with pytest.raises(KeyboardInterrupt):  # somebody insists
            os.kill(os.getpid(), signal.SIGINT)


def test_sigkill_at_random_moments(tones, tmp_path):
    """The program itself, killed by the system three times; then left to finish."""
    folder = tmp_path / "corpus"
    folder.mkdir()
    make_tones(folder)
    settings = json.dumps(
        {"epochs": 8, "batch_size": 4, "checkpoint_min": 0.0, "patience": 8, "min_epochs": 8}
    )

    def start(name):
        program = [sys.executable, str(os.path.join(os.path.dirname(os.path.dirname(__file__)), "tones.py"))]
        return subprocess.Popen(
            [*program, str(folder), str(tmp_path / name), settings], stderr=subprocess.PIPE
        )

    undisturbed = start("undisturbed")
    assert undisturbed.wait(timeout=300) == 0, undisturbed.stderr.read()
    rng = np.random.default_rng()
    for _ in range(3):
        child = start("killed")
        checkpoint = tmp_path / "killed" / runs.CHECKPOINT
        known = checkpoint.stat().st_mtime_ns if checkpoint.exists() else 0
        while child.poll() is None and (not checkpoint.exists() or checkpoint.stat().st_mtime_ns == known):
            time.sleep(0.01)
        time.sleep(rng.uniform(0, 0.5))
        child.kill()
        child.wait()
        child.stderr.close()
    assert not (tmp_path / "killed" / "DONE").exists()
    last = start("killed")
    assert last.wait(timeout=300) == 0, last.stderr.read()
    for name in ("history.csv", "predictions.parquet", "embedding.parquet"):
        assert (tmp_path / "killed" / name).read_bytes() == (tmp_path / "undisturbed" / name).read_bytes()


FIVE = {"epochs": 5, "patience": 5, "min_epochs": 5, "batch_size": 8}


@pytest.fixture(scope="module")
def kept(tones, tmp_path_factory):
    """Bytes of the model after each epoch that was the best so far, and the undisturbed run."""
    weights, folder = {}, tmp_path_factory.mktemp("kept")
    with pytest.MonkeyPatch.context() as patch:

        def keep(network, place):
            model.save_model(network, place)
            weights[len(weights)] = (place / "model.safetensors").read_bytes()

        patch.setattr(training, "save_model", keep)
        whole = train(tones, folder, **FIVE)
    sums = (whole.history["validation_wa"] + whole.history["validation_ua"]).round(9)
    better = [epoch for epoch in range(1, 6) if sums[epoch - 1] > max([-1, *sums[: epoch - 1]])]
    assert len(better) == len(weights) >= 2  # or there is nothing to mix up
    return dict(zip(better, weights.values(), strict=True)), whole


class TestBestModel:
    """The model that is kept is that of the best epoch of the checkpoint, wherever a training ends."""

    @pytest.mark.parametrize("name", ["save_checkpoint", "save_model"])
    def test_killed_while_an_epoch_is_saved(self, kept, tones, tmp_path, monkeypatch, name):
        """In the last epoch that is better; on a GPU it may not be better when it is trained again."""
        weights, whole = kept
        real, last = getattr(training, name), max(weights)

        def die(*arguments):
            progress = arguments[-1] if name == "save_checkpoint" else {}
            calls.append(progress.get("epoch"))
            if progress.get("epoch") == last + 1 or (name == "save_model" and len(calls) == len(weights)):
                raise Killed
            real(*arguments)

        calls = []
        monkeypatch.setattr(training, name, die)
        with pytest.raises(Killed):
            train(tones, tmp_path, **FIVE)
        kept_before = (tmp_path / "model" / "model.safetensors").read_bytes()
        assert kept_before == weights[sorted(weights)[-2]]
        monkeypatch.setattr(training, name, real)
        again = train(tones, tmp_path, **FIVE)
        same(again, whole)
        for file in ("model.safetensors", "config.json"):
            assert (tmp_path / "model" / file).read_bytes() == (whole.folder / "model" / file).read_bytes()

    def test_killed_right_after_done(self, kept, tones, tmp_path, monkeypatch):
        """It is done, and a checkpoint that was left is taken away by whoever comes next."""
        monkeypatch.setattr(training, "remove_checkpoint", lambda folder: (_ for _ in ()).throw(Killed))
        with pytest.raises(Killed):
            train(tones, tmp_path, **FIVE)
        assert (tmp_path / runs.DONE).exists() and (tmp_path / runs.CHECKPOINT).exists()
        monkeypatch.undo()
        lines = []
        same(train(tones, tmp_path, lines, **FIVE), kept[1])
        assert lines[0].startswith("already done") and not (tmp_path / runs.CHECKPOINT).exists()


class TestPowerCut:
    """Files that were written but not yet sent to the disk are lost, or empty; whatever relies on them comes later."""

    @pytest.fixture
    def disk(self, monkeypatch):
        """What a power cut would leave: contents sent to the disk, and names sent since they were given."""
        sent, named, history = set(), set(), []
        fsync, replace = os.fsync, os.replace

        def send(number):
            place = os.readlink(f"/proc/self/fd/{number}")
            if os.path.isdir(place):
                named.update(Path(place).iterdir())
            else:
                sent.add(Path(place).read_bytes())
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
        train(tones, tmp_path, checkpoint_min=0.0)
        names = [path.name for path in disk]
        assert names[-1] == runs.DONE and names.count(runs.CHECKPOINT) >= 6
        assert {"model.safetensors", "files.json", "0001.parquet"} <= set(names)


class TestOneBatchManyWays:
    """The gradient of a batch does not depend on how it is computed (every dropout off)."""

    @pytest.fixture(autouse=True)
    def no_dropout(self, monkeypatch):
        monkeypatch.setitem(model.PROFILES, "demo", QUIET)

    # ten segments: the last batch is a single one, less than there are processes
    SETTINGS = {"epochs": 3, "batch_size": 3, "class_weights": True, "label_smoothing": 0.1}  # noqa: RUF012

    @pytest.fixture
    def plain(self, tones, tmp_path_factory):
        return train(tones, tmp_path_factory.mktemp("plain"), **self.SETTINGS).history

    @pytest.mark.parametrize("micro_batch", [1, 2])
    def test_accumulated(self, tones, tmp_path, plain, micro_batch):
        pieces = train(tones, tmp_path, **self.SETTINGS, micro_batch=micro_batch).history
        np.testing.assert_allclose(pieces["train_loss"], plain["train_loss"], atol=1e-3)
        np.testing.assert_allclose(pieces["validation_loss"], plain["validation_loss"], atol=1e-3)

    def test_gradient_checkpointing(self, tones, tmp_path, plain):
        saving = train(tones, tmp_path, **self.SETTINGS, gradient_checkpointing=True).history
        np.testing.assert_allclose(saving["train_loss"], plain["train_loss"], atol=1e-3)

    def test_two_processes(self, tmp_path, plain):
        command = [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2",
                   "--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no",
                   "--main_process_port", "0"]  # fmt: skip
        program = os.path.join(os.path.dirname(os.path.dirname(__file__)), "tones.py")
        folder = tmp_path / "corpus"
        folder.mkdir()
        make_tones(folder)
        done = subprocess.run(
            [*command, program, str(folder), str(tmp_path / "run"), json.dumps(self.SETTINGS)],
            check=True, timeout=300, capture_output=True, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"},
        )  # fmt: skip
        assert "2 process(es)" in done.stdout  # or one of them did it all
        pair = pd.read_csv(tmp_path / "run" / "history.csv")
        np.testing.assert_allclose(pair["train_loss"], plain["train_loss"], atol=1e-3)
        np.testing.assert_allclose(pair["validation_loss"], plain["validation_loss"], atol=1e-3)


def test_out_of_memory_says_what_to_change(tones, tmp_path, monkeypatch):
    def exhausted(*_, **__):
        raise RuntimeError("[enforce fail at alloc_cpu.cpp:124] DefaultCPUAllocator: can't allocate memory")

    monkeypatch.setattr(training, "_forward_backward", exhausted)
    expected = r"epoch 1, batch 1: out of memory with 8 segments at once; there is no checkpoint yet. Set micro_batch=4"
    with pytest.raises(RunError, match=expected):
        train(tones, tmp_path)


def test_a_damaged_checkpoint_is_named(tones, tmp_path, monkeypatch):
    monkeypatch.setattr(training, "log_scalars", lambda *_: (_ for _ in ()).throw(Killed))
    with pytest.raises(Killed):
        train(tones, tmp_path, checkpoint_min=0.0)
    path = tmp_path / runs.CHECKPOINT
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(RunError, match=r"checkpoint.safetensors: damaged, or of another model .*delete it"):
        train(tones, tmp_path)


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


class TestLaunch:
    """What the notebook does with several GPUs, here with two processes on the CPU."""

    @pytest.fixture
    def run(self, tones, tmp_path, monkeypatch):
        (tmp_path / "notebooks").mkdir()
        (tmp_path / "notebooks" / "01_prepare_corpus.ipynb").write_text("{}")
        monkeypatch.chdir(tmp_path)
        monkeypatch.setenv("OMP_NUM_THREADS", "1")
        run = runs.start_run("pair", corpus="demo", epochs=1, batch_size=8)
        run.processed.mkdir(parents=True)
        tones[0].to_parquet(run.processed / "manifest.parquet")
        return run

    def test_a_fold_on_two_processes(self, run):
        lines = []
        result = launch.train_in_processes(run, 2, report=lines.append)
        assert any("2 process(es)" in line for line in lines)
        assert (run.folder / "DONE").is_file()
        assert len(result.history) == 1
        assert runs.is_done(run.folder, run.experiment)

    def test_its_message_comes_through(self, run):
        (run.processed / "manifest.parquet").unlink()
        with pytest.raises(RunError, match=r"2 processes: .*manifest.parquet is missing; run notebook 01"):
            launch.train_in_processes(run, 2, report=[].append)

    def test_bad_parameters(self, tmp_path, capsys):
        path = tmp_path / "parameters.json"
        path.write_text("{")
        with pytest.raises(SystemExit, match=r"parameters.json: can't be read"):
            launch.main(["pair", str(path)])
        with pytest.raises(SystemExit, match="usage: accelerate launch"):
            launch.main([])
