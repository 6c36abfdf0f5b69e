"""The estimate before the work: costs by hand, lines by hand, and what does not fit."""

import shutil
import sys
from collections import namedtuple
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
import toy_project

from serkit import folds, runs
from serkit.corpora.manifest import make_manifest
from serkit.errors import ParameterError, RunError, WeightsError
from serkit.experiment import Experiment
from serkit.features.store import build_store
from serkit.recipe import CORRECTED
from serkit.reproduction import estimate, plan, reproduce
from serkit.reproduction.estimate import NOTEBOOK_BYTES, NOTEBOOK_S, Cost

Usage = namedtuple("Usage", "total used free")
DEMO = Experiment()
MEASURED = toy_project.MEASURED


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
    """A project of toy notebooks whose demo corpus is the tones."""
    toy_project.make_project(tmp_path, monkeypatch)
    monkeypatch.setattr(reproduce.corpora, "load", lambda *given, **options: tones)
    return tmp_path


def disk_with(free, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(10**13, 10**13 - free, free))


class TestTrainingCost:
    def cost(self, n_train=10, **settings):
        segments = {"train": n_train, "validation": 3, "test": 2}
        settings = {"epochs": 1, "batch_size": 16} | settings
        return estimate.training_cost(Experiment(**settings), segments, MEASURED)

    def test_disk_by_hand(self):
        """1 MB of weights: a checkpoint holds them and two moments; the next is written beside it."""
        assert self.cost().disk - NOTEBOOK_BYTES == 1_000_000 and self.cost().checkpoints == 6_000_000

    def test_a_batch_that_is_not_full_is_a_step(self):
        assert self.cost(17).seconds - self.cost(16).seconds == pytest.approx(16 * MEASURED["segment_s"])

    def test_what_is_predicted_by_hand(self):
        """Validation and test after each of two epochs, and once more at the end; test only if that is kept."""
        whole, part = (self.cost(epochs=2, keep_epochs=keep).seconds for keep in (True, False))
        assert whole - NOTEBOOK_S == pytest.approx((2 * 16 + 3 * 5 / 2) * MEASURED["segment_s"])
        assert whole - part == pytest.approx(2 * 2 / 2 * MEASURED["segment_s"])


class TestEstimate:
    def steps(self, tones, **settings):
        return plan.make_plan("trial", tones, corpus="demo", **settings)

    def test_the_first_step_builds_the_store_and_each_kind_is_measured_once(
        self, project, tones, monkeypatch
    ):
        asked = []
        measured = MEASURED | {"extraction_s": 2.0, "store_bytes": 1000}
        monkeypatch.setattr(estimate, "measure", lambda *given: asked.append(given[0].variant) or measured)
        variants = [("a", {}), ("b", {"recipe": "published"}), ("c", {"views": "mfcc"})]
        steps = self.steps(tones, variants=variants, seeds=(1, 2), epochs=1)
        costs = estimate.estimate(steps, tones)
        assert asked == ["corrected_clean_session_demo", "corrected_clean_session_demo_mfcc"]
        speech_s = 6 * (0.5 + 1.5 + 2.5 + 3.5)
        assert costs[steps[0].title].seconds == NOTEBOOK_S + 2 * speech_s / estimate.threads_per_job(1)
        assert costs[steps[0].title].disk == NOTEBOOK_BYTES + 1000 * speech_s
        assert costs[steps[1].title] == costs[steps[-1].title] == Cost()
        training = next(step for step in steps if step.experiment is not None)
        fold = folds.find_fold(folds.make_folds(tones), training.experiment.fold)
        # four utterances of 0.5 to 3.5 s have 1 + 1 + 1 + 2 segments
        segments = {split: len(getattr(fold, split)) * 5 // 4 for split in folds.SPLITS}
        assert costs[training.title] == estimate.training_cost(training.experiment, segments, measured)
        build_store(tones, CORRECTED, runs.processed_folder("demo"))
        assert estimate.estimate(steps, tones)[steps[0].title].seconds == NOTEBOOK_S

    def test_nothing_is_measured_when_all_is_trained(self, project, tones, monkeypatch):
        monkeypatch.setattr(estimate, "measure", None)
        steps = [step for step in self.steps(tones) if step.experiment is None]
        assert set(estimate.estimate(steps, tones).values()) == {Cost()}


@pytest.fixture
def quick_to_start(monkeypatch, forkserver):
    """The process that measures is there at once."""
    monkeypatch.setattr(estimate.multiprocessing, "get_context", lambda method: forkserver)


def test_what_can_not_be_measured_is_said(tones, quick_to_start, capsys):
    """Sound files that are gone."""
    assert estimate.measure(DEMO, tones.assign(path="gone.wav")) is None
    assert "it can't be measured: " in capsys.readouterr().out


def test_an_encoder_that_can_not_be_built_ends_the_plan(tones, quick_to_start, tmp_path):
    (tmp_path / "config.json").write_text("version https://git-lfs.github.com/spec/v1\n")
    with pytest.raises(WeightsError, match=r"config\.json is a Git LFS pointer"):
        estimate.measure(replace(DEMO, speech_encoder=str(tmp_path)), tones)
    with pytest.raises(ParameterError, match="encoder_layers=3, but the speech encoder has 2 layers"):
        estimate.measure(replace(DEMO, encoder_layers="3"), tones)


def test_a_real_measurement(tones):
    """The demo model on eight of the tones, in a process of its own."""
    measured = estimate.measure(DEMO, tones, threads=1)
    import torch

    from serkit.model.coattention import PROFILES, CoAttentionModel

    with torch.device("meta"):
        parameters = sum(CoAttentionModel(PROFILES["demo"]).count_parameters().values())
    assert measured["model_bytes"] == 4 * parameters
    # frames of 2 x 200 + 4 x 40 bytes and 100 of them each second, samples of 2 bytes: and half a per cent of heads
    assert measured["store_bytes"] == pytest.approx(100 * 560 + 32_000, rel=0.05)
    assert 0 < measured["extraction_s"] < 1 and 0 < measured["segment_s"] < 10
    assert 1e8 < measured["memory"] < 4e9


def test_the_memory_of_a_gpu_is_predicted_for_the_paper_profile(tones, monkeypatch):
    from serkit.reproduction import gpu_memory
    from serkit.training import loop

    monkeypatch.setattr(sys, "stdout", sys.stdout)  # put back after the test
    monkeypatch.setattr(sys, "stderr", sys.stderr)
    monkeypatch.setattr(loop, "time_steps", lambda *given: (1.0, 1e9))
    monkeypatch.setattr(gpu_memory, "step_memory", lambda experiment: experiment.batch_size)
    asked = {"views": "mfcc", "batch_size": 48}
    for profile, expected in (("paper", 48), ("demo", 0)):
        assert estimate._measure(Experiment(profile=profile, **asked), tones, 1)["gpu_memory"] == expected
    measured = MEASURED | {"gpu_memory": 48}
    assert estimate.training_cost(DEMO, {"train": 1, "validation": 0, "test": 1}, measured).gpu_memory == 48


class TestLines:
    COST = Cost(memory=12e9, free=20 * 10**9)

    def lines(self, *costs, **changes):
        return "\n".join(estimate.describe(costs, DEMO, **changes))

    def test_memory(self, project):
        """Two of 12 GB don't fit into 20 GB, one does; on two GPUs each has one for itself."""
        text = self.lines(Cost(), self.COST, at_once=2)
        assert "memory: about 12.0 GB at the peak, 20.0 GB free" in text and "WARNING" not in text
        text = self.lines(Cost(), self.COST, at_once=2, sharing=2)
        assert "memory: about 24.0 GB at the peak of 2 trainings, 20.0 GB free" in text
        assert "WARNING: batch_size=8 does not fit into the free memory" in text
        assert "use fewer jobs, set micro_batch=4 (the batch" in text

    @pytest.mark.parametrize(
        ("gib", "precision", "line"),
        [
            (
                10.3,
                "auto",
                "about 11.1 GB at the peak of a training, predicted (auto is bf16 there): fits a GPU of 16, 24 GB",
            ),
            (
                6.3,
                "bf16",
                "about 6.8 GB at the peak of a training, predicted: fits a GPU of 8, 12, 16, 24 GB",
            ),
            (21, "bf16", "predicted: more than 24 GB; micro_batch=8 needs less"),
        ],
    )
    def test_memory_of_a_gpu(self, project, gib, precision, line):
        """1.1 times as much and 1 GiB: 12.3, 7.9 and 24.1 GiB."""
        costs = [Cost(), Cost(gpu_memory=round(gib * 2**30))]
        assert line in "\n".join(estimate.describe(costs, Experiment(precision=precision)))
        assert "GPU" not in self.lines(Cost())

    def test_disk(self, project, monkeypatch):
        """What stays, and the checkpoints of as many as run at once."""
        disk_with(50 * 10**9, monkeypatch)
        costs = [Cost(disk=10**9, checkpoints=n * 10**9) for n in (1, 3, 2)]
        assert self.lines(*costs) == "disk:   about 6.0 GB, 50.0 GB free"
        assert self.lines(*costs, at_once=2) == "disk:   about 8.0 GB, 50.0 GB free"
        disk_with(5 * 10**9, monkeypatch)
        assert self.lines(*costs).endswith("\nWARNING: it does not fit on the disk")


def test_a_disk_that_is_too_small(project, monkeypatch, capsys):
    disk_with(1_000_000, monkeypatch)
    assert reproduce.reproduce("trial", corpus="demo", fold_names=["1"], dry_run=True) == 0
    assert "WARNING: it does not fit on the disk" in capsys.readouterr().out
    with pytest.raises(RunError, match=r"has 1 MB free, this plan needs \d+ MB; make room"):
        reproduce.reproduce("trial", corpus="demo", fold_names=["1"])
    assert not Path("runs").exists()
