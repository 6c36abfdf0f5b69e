"""The estimate before the work: sizes to the byte, lines by hand, and what does not fit."""

import shutil
import sys
from collections import namedtuple
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile

from serkit import runs
from serkit.corpora.manifest import make_manifest
from serkit.errors import RunError
from serkit.experiment import Experiment
from serkit.features.rows import RowFile
from serkit.features.store import build_store, store_bytes_left, store_key
from serkit.recipe import CORRECTED
from serkit.reproduction import estimate, plan, reproduce
from serkit.reproduction.estimate import Cost, Measured, Memory

HOME = Path(__file__).parents[2]
Usage = namedtuple("Usage", "total used free")
DEMO = Experiment()
BALLAST = 1_700_000_000  # bytes, more than the probe takes for the demo model


@pytest.fixture(scope="module")
def tones(tmp_path_factory):
    """Manifest of six speakers in three sessions with four tones each, 0.5 to 3.5 s long."""
    folder = tmp_path_factory.mktemp("tones")
    rng = np.random.default_rng(1)
    rows = []
    for speaker in ("1F", "1M", "2F", "2M", "3F", "3M"):
        for number, label in enumerate(("angry", "sad", "happy", "neutral")):
            length = 8_000 + 16_000 * number
            path = folder / f"{speaker}_{number}.wav"
            soundfile.write(path, 0.1 * rng.standard_normal(length), 16_000)
            rows.append({
                "utterance_id": path.stem, "path": str(path), "corpus": "demo", "speaker": speaker,
                "session": speaker[0], "gender": speaker[1], "dialogue": "d", "emotion": label, "label": label,
                "num_samples": length, "sample_rate": 16_000,
            })  # fmt: skip
    return make_manifest(rows)


@pytest.fixture
def project(tmp_path, monkeypatch, tones):
    """A project whose demo corpus is the tones; the probe is asked once for all tests."""
    shutil.copytree(HOME / "notebooks", tmp_path / "notebooks")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(plan.corpora, "load", lambda *given, **options: tones)
    return tmp_path


@pytest.fixture
def nothing_asked(monkeypatch):
    """Fails when anything is measured."""

    def refuse(request):
        raise AssertionError("measured")

    monkeypatch.setattr(estimate, "_ask", refuse)


def disk_with(free, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(10**13, 10**13 - free, free))


class TestStore:
    def test_bytes_are_those_that_are_written(self, tones, tmp_path):
        expected = store_bytes_left(tones, CORRECTED, tmp_path)
        assert not list(tmp_path.iterdir())  # nothing is written to find out
        folder = build_store(tones, CORRECTED, tmp_path).folder
        arrays = sum(path.stat().st_size for path in folder.glob("*.npy"))
        assert expected == arrays - (folder / "done.npy").stat().st_size

    def test_by_hand(self, tones, tmp_path):
        """One second is 101 frames of 2 x 200 + 4 x 40 bytes and 16,000 samples of 2."""
        one = tones.iloc[:1].assign(num_samples=16_000)
        assert store_bytes_left(one, CORRECTED, tmp_path) == 101 * 560 + 32_000 + 3 * 128

    def test_what_is_complete_needs_nothing(self, tones, tmp_path):
        build_store(tones, CORRECTED, tmp_path)
        assert store_bytes_left(tones, CORRECTED, tmp_path) == 0

    def test_what_was_written_into_a_file_with_holes_is_not_counted_again(self, tones, tmp_path):
        whole = store_bytes_left(tones, CORRECTED, tmp_path)
        folder = tmp_path / store_key(tones, CORRECTED)
        folder.mkdir()
        size = RowFile(folder / "audio.npy", "int16", (int(tones["num_samples"].sum()),)).total_bytes
        with open(folder / "audio.npy", "wb") as file:
            file.write(bytes(size // 2))
            file.truncate(size)
        assert store_bytes_left(tones, CORRECTED, tmp_path) == pytest.approx(whole - size // 2, abs=20_000)


class TestFold:
    def test_disk_by_hand(self, tmp_path):
        """1,000 bytes of weights: a checkpoint holds them and two moments; the next is written beside it."""
        cost = Measured(DEMO, model=1000).fold({"train": 16, "validation": 0, "test": 1}, 1, tmp_path)
        assert (cost.model, cost.checkpoint) == (1000, 6000)

    def test_an_interrupted_fold_has_part_of_it_already(self, tmp_path):
        (tmp_path / "model").mkdir()
        (tmp_path / "model" / "model.safetensors").write_bytes(bytes(1_000_000))
        (tmp_path / runs.CHECKPOINT).write_bytes(bytes(3_000_000))
        cost = Measured(DEMO, model=1_000_000).fold({"train": 16, "validation": 0, "test": 1}, 1, tmp_path)
        assert cost.model <= 4096 and cost.checkpoint == pytest.approx(3_000_000, abs=10_000)

    def test_a_batch_that_is_not_full_is_a_step(self, tmp_path):
        measured = Measured(Experiment(batch_size=16), step_s=1.0)
        seconds = [
            measured.fold({"train": n, "validation": 0, "test": 0}, 1, tmp_path).seconds for n in (16, 17)
        ]
        assert seconds[1] - seconds[0] == pytest.approx(1.0)


@pytest.fixture(scope="module")
def answer(tones):
    """The probe's answer and what is made of it, asked for by a process with a large past."""
    ballast, asked, real = np.ones(BALLAST, np.uint8), [], estimate._ask
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(estimate, "_ask", lambda request: asked.append(real(request)) or asked[-1])
        patch.chdir(Path(tones["path"][0]).parent)
        measured = estimate.measure(DEMO, tones)
    assert len(ballast) == BALLAST
    return asked[0], measured


class TestFrozenEncoder:
    """What is computed once is counted once: for all folds, or for each seed of random weights."""

    COUNTS = {"train": 10, "validation": 3, "test": 2}  # noqa: RUF012

    def measured(self, **settings):
        return Measured(Experiment(**settings), encoder_s=2.0, state_bytes=100, random_encoder=True)

    def test_by_hand(self):
        assert self.measured().encoding(self.COUNTS).seconds == 30.0
        assert self.measured().encoding(self.COUNTS).store == 1500
        # published: who chooses the checkpoint is who is tested
        assert self.measured(selection="published").encoding(self.COUNTS).store == 1200

    def test_whose_output_it_is(self):
        assert self.measured().encoder_of(Experiment(seed=3)) == 3
        assert self.measured().encoder_of(None) is None
        assert Measured(DEMO).encoder_of(DEMO) is None
        assert Measured(DEMO, state_bytes=1).encoder_of(DEMO) == "pretrained"

    def test_only_the_first_fold_of_a_seed_pays(self, tones, tmp_path, monkeypatch):
        monkeypatch.setattr(estimate, "measure", lambda *_, **__: self.measured())
        experiments = [Experiment(fold=fold, seed=seed) for seed in (1, 2) for fold in ("1", "2")]
        steps = [
            plan.Step("05_train_coattention", {}, tmp_path / f"{e.fold}-{e.seed}" / "x.ipynb", e)
            for e in experiments
        ]
        stores = [step.cost.store for step in plan._with_costs(steps, tones)]
        assert [store > 0 for store in stores] == [True, False, True, False]


class TestProbe:
    """One real measurement of the demo model, shared by these tests."""

    def test_memory_grows_with_the_batch(self, answer):
        """Its time does too, but not on every machine that is busy at that moment."""
        steps = answer[0]["steps"]
        assert list(steps) == ["2", "4", "16"]  # the demo's own batch is small enough to be tried
        assert all(seconds > 0 for seconds, _ in steps.values())
        # the three views of a segment, its picture and the first layers: more than 1 MB each
        assert (steps["16"][1] - steps["2"][1]) / 14 > 1e6
        ours, larger = estimate.extrapolate(steps, 16), estimate.extrapolate(steps, 64)
        assert ours == tuple(steps["16"]) and larger[1] > ours[1]

    @pytest.mark.parametrize(("on_cpu", "seconds", "n_pieces"), [(True, 1.0, 3), (False, 2.0, 4)])
    def test_a_piece_of_work_once_all_runs_in(self, monkeypatch, on_cpu, seconds, n_pieces):
        """Pieces of 3, 1, 1 and 3 s: on a CPU the shortest counts, and after 4 s no further one is begun."""
        from serkit.reproduction import probe

        times = iter([0.0, 3.0, 4.0, 5.0, 8.0])
        monkeypatch.setattr(probe.time, "perf_counter", lambda: next(times))
        begun = []
        assert probe._seconds_each((begun.append(number) for number in range(4)), on_cpu) == seconds
        assert len(begun) == n_pieces

    def test_weights_are_those_of_the_model(self, answer):
        import torch

        from serkit.model.coattention import PROFILES, CoAttentionModel

        with torch.device("meta"):
            parameters = sum(CoAttentionModel(PROFILES["demo"]).count_parameters().values())
        assert answer[1].model == 4 * parameters

    @pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a process begins without a past")
    def test_the_peak_is_not_that_of_the_parent(self, answer):
        """On Linux a new program inherits the peak of who started it, if getrusage is asked."""
        assert 50e6 < answer[0]["process_bytes"] < BALLAST

    def test_everything_is_measured(self, answer):
        measured = answer[1]
        assert 0 < measured.extraction_s < 60 and 0 < measured.forward_s < measured.step_s < 60
        assert measured.memory.peak < measured.memory.total and measured.memory.place == "this machine"


class TestLines:
    def lines(self, *costs):
        return "\n".join(estimate.describe(costs, DEMO))

    def test_memory_that_is_there(self, project):
        text = self.lines(Cost(memory=Memory(3e9, 20_000_000_000, 24_000_000_000, "this machine")))
        assert "3.0 GB at the peak of training; this machine has 24.0 GB, 20.0 GB of them free" in text
        assert "WARNING" not in text

    def test_memory_that_is_not(self, project):
        text = self.lines(Cost(memory=Memory(40e9, 20_000_000_000, 24_000_000_000, "the GPU")))
        assert "batch_size=16 does not fit into the free memory of the GPU" in text
        assert "set micro_batch=" in text

    def test_jobs_that_share_a_memory(self, project):
        """Two of 12 GB don't fit into 20 GB, one does; on two GPUs each has one for itself."""
        cost = Cost(memory=Memory(12e9, 20_000_000_000, 24_000_000_000, "this machine"))
        alone = "\n".join(estimate.describe([cost], DEMO, 2, 1))
        shared = "\n".join(estimate.describe([cost], DEMO, 2, 2))
        assert "at the peak of training" in alone and "WARNING" not in alone
        assert "about 12.0 GB at the peak of each of 2 trainings; this machine has" in shared
        assert "WARNING: 2 trainings with batch_size=16 do not fit" in shared and "use fewer jobs" in shared

    def test_checkpoints_of_jobs_side_by_side(self, project, monkeypatch):
        disk_with(50_000_000_000, monkeypatch)
        folds = [Cost(checkpoint=n * 1_000_000_000) for n in (1, 3, 2)]
        text = "\n".join(estimate.describe([replace(one, model=1) for one in folds], DEMO, 2))
        assert "checkpoints of 2 folds 5.0 GB" in text

    def test_disk(self, project, monkeypatch):
        disk_with(50_000_000_000, monkeypatch)
        fold = Cost(model=400_000_000, checkpoint=2_400_000_000)
        text = self.lines(Cost(store=2_200_000_000), fold, fold)
        assert "store 2.2 GB + 2 models x 400 MB + checkpoints of one fold 2.4 GB" in text
        # 2.2 + 2 x 0.4 + 2.4 + 3 x 0.005
        assert "= 5.4 GB; 50.0 GB free" in text and "WARNING" not in text
        disk_with(5_000_000_000, monkeypatch)
        assert "WARNING" in self.lines(Cost(store=2_200_000_000), fold, fold)


class TestReproduce:
    def settings(self):
        return {"corpus": "demo", "fold_names": ["1"], "epochs": 1, "by": "session"}

    def test_dry_run_says_everything_and_writes_nothing(self, project, capsys):
        assert reproduce.reproduce("trial", dry_run=True, **self.settings()) == 0
        text = capsys.readouterr().out
        for part in ("8 utterances, training steps of 2, 4 and 16 segments", "memory: ", "disk:   store"):
            assert part in text
        assert "WARNING" not in text and not (project / "runs").exists()

    def test_a_disk_that_is_too_small(self, project, monkeypatch, capsys):
        disk_with(1_000_000, monkeypatch)
        assert reproduce.reproduce("trial", dry_run=True, **self.settings()) == 0
        assert "WARNING: the disk of" in capsys.readouterr().out
        with pytest.raises(RunError, match=r"has 1 MB free, this plan needs \d+ MB; make room"):
            reproduce.reproduce("trial", **self.settings())
        assert not (project / "runs").exists()

    def test_nothing_is_measured_when_all_is_done(self, project, monkeypatch, nothing_asked, capsys):
        monkeypatch.setattr(plan.Step, "is_done", lambda step: True)
        assert reproduce.reproduce("trial", dry_run=True, **self.settings()) == 0
        text = capsys.readouterr().out
        assert "7 steps, 7 done before" in text and "at most 0 min" in text and "memory" not in text

    def test_no_extraction_and_no_training_means_no_measuring(self, project, tones, nothing_asked):
        build_store(tones, CORRECTED, runs.processed_folder("demo"))
        measured = estimate.measure(DEMO, tones, train=False)
        assert measured.preparation() == Cost()

    def test_what_fails_is_said_and_stops_nothing(self, project, monkeypatch, capsys):
        monkeypatch.setattr(estimate.sys, "executable", "/bin/false")
        steps = plan.make_plan("trial", learning_rate=0.5, **self.settings())  # not asked before
        assert "it can't be measured: no reason given" in capsys.readouterr().out
        assert {step.estimate_s for step in steps} == {estimate.NOTEBOOK_S}
