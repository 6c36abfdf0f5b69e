"""Baselines: what is averaged and fitted, which encoder is probed, what is made again, what a report says."""

import shutil
import sys

import numpy as np
import pandas as pd
import prediction_tables as tables
import pytest
from sklearn.linear_model import LogisticRegression
from tones import make_tones, train

from serkit import runs
from serkit.constants import LABELS
from serkit.evaluation import baselines, check_predictions
from serkit.experiment import Experiment
from serkit.features.store import FeatureStore
from serkit.folds import Fold
from serkit.model.encoders import fingerprint
from serkit.model.storage import open_model_folder
from serkit.training import batches
from serkit.training.encoder_states import build_states
from serkit.training.scoring import make_accelerator

FROZEN = {"encoder_training": "frozen", "views": "speech", "epochs": 1}


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A project with a run of one fold: its encoder frozen in one variant, and fine-tuned in another."""
    folder = tmp_path_factory.mktemp("project")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        (folder / "notebooks").mkdir()
        (folder / "notebooks" / "01_prepare_corpus.ipynb").write_text("{}")
        tones = make_tones(folder)
        processed = runs.processed_folder("demo")
        shutil.copytree(tones[1].folder, processed / tones[1].folder.name)
        tones[0].to_parquet(processed / runs.MANIFEST)
        for settings in (FROZEN, FROZEN | {"encoder_training": "all"}):
            train(tones, Experiment(**settings).folder("trial"), **settings)
    return folder


@pytest.fixture
def project(home, tmp_path, monkeypatch):
    """A copy of it to work in."""
    monkeypatch.chdir(shutil.copytree(home, tmp_path / "project"))
    return Experiment(**FROZEN), Experiment(**FROZEN | {"encoder_training": "all"})


class TestClassify:
    FOLD = Fold("1", np.array(list("abcd")), np.array([]), np.array(["x", "y"]))
    LABEL = pd.Series({"a": 0, "b": 1, "c": 2, "d": 3, "x": 0, "y": 3})

    def values(self, **utterances):
        return pd.DataFrame(list(utterances.values()), index=list(utterances))

    def test_scores_of_segments_are_averaged_and_the_largest_is_the_class(self):
        corners = {"a": [0, 0], "b": [0, 9], "c": [9, 0], "d": [9, 9]}
        values = self.values(**corners, x=[1, 1], y=[8, 8])
        values = pd.concat([values, self.values(x=[0, 9])])  # a second segment, of another class
        scored = baselines.classify(values, self.LABEL, self.FOLD, LogisticRegression())
        assert scored.index.tolist() == ["x", "y"]
        centred = (values.to_numpy(float) - 4.5) / 4.5  # mean and deviation of the training corners
        fitted = LogisticRegression().fit(centred[:4], [0, 1, 2, 3])
        np.testing.assert_allclose(
            scored.loc["x", list(LABELS)],
            fitted.decision_function(centred[[4, 6]]).mean(axis=0),
            atol=1e-9,
        )
        assert scored["truth"].tolist() == [0, 3]
        assert scored.loc["y", list(LABELS)].argmax() == 3

    def test_what_is_not_training_changes_no_score_of_the_others(self):
        corners = {"a": [0, 0], "b": [0, 9], "c": [9, 0], "d": [9, 9]}
        first, second = (
            baselines.classify(
                self.values(**corners, x=[1, 1], y=y), self.LABEL, self.FOLD, LogisticRegression()
            )
            for y in ([8, 8], [1e6, -1e6])
        )
        assert first.loc["x"].equals(second.loc["x"])


class TestProbe:
    def test_frames_of_padding_have_no_part_in_the_mean(self, project):
        folder = project[0].folder("trial")
        opened = open_model_folder(folder / "model")
        [store] = runs.processed_folder("demo").glob("*/store.json")
        store = FeatureStore(store.parent, opened.recipe)
        means = baselines.mean_states(store, opened.model)
        states = build_states(store, opened.model, make_accelerator("auto"))
        features = batches.segment_batch(store.read(np.arange(len(store))))
        real = opened.model.frame_mask(features["num_samples"]).numpy() > 0
        assert len(means) == len(store) and not real.all()
        for row in range(len(store)):
            expected = states.take([row])[0, -1].astype(np.float32)[real[row]].mean(axis=0)
            np.testing.assert_allclose(means.iloc[row], expected, atol=1e-5)
        assert means.index.tolist() == store.segments["utterance_id"].tolist()

    @pytest.mark.parametrize("frozen", [True, False])
    def test_the_encoder_is_the_one_that_training_began_with(self, project, frozen):
        folder = project[not frozen].folder("trial")
        opened = open_model_folder(folder / "model")
        began = opened.model.config.sources["speech_encoder"]["sha256"]
        assert (fingerprint(opened.model.speech_encoder) == began) == frozen  # or it has learned
        assert fingerprint(baselines.source_model(opened).speech_encoder) == began

    def test_a_prediction_table_of_the_same_utterances(self, project):
        frozen, tuned = project
        assert baselines.make_baselines("trial", frozen.variant) == []
        made = pd.read_parquet(frozen.folder("trial") / "baseline_probe.parquet", partitioning=None)
        predicted = runs.read_predictions(frozen.folder("trial"))
        check_predictions(made, ["1"])
        assert list(made) == list(predicted)
        assert made["variant"].unique().tolist() == [f"{frozen.variant}_probe"]
        # tones of four pitches: any states tell them apart
        assert (made["truth"] == made["prediction"]).mean() > 0.7
        # states of an encoder that was fine-tuned are not kept: only if asked for
        assert baselines.make_baselines("trial", tuned.variant) == []
        assert not (tuned.folder("trial") / "baseline_probe.parquet").exists()
        faults = baselines.make_baselines("trial", tuned.variant, everything=True)
        assert (tuned.folder("trial") / "baseline_probe.parquet").exists()
        assert all("no baseline egemaps: opensmile is not installed" in fault for fault in faults)

    def test_made_once_and_again_if_damaged_or_of_other_utterances(self, project):
        folder = project[0].folder("trial")
        path, variant = folder / "baseline_probe.parquet", project[0].variant
        baselines.make_baselines("trial", variant)
        whole, when = path.read_bytes(), path.stat().st_mtime_ns
        baselines.make_baselines("trial", variant)
        assert path.stat().st_mtime_ns == when
        for broken in (whole[:100], None):
            if broken:
                path.write_bytes(broken)
            else:
                pd.read_parquet(path, partitioning=None)[1:].to_parquet(path)
            assert baselines.baseline_table("trial", runs.load_predictions("trial"), {variant: ["1"]}).empty
            baselines.make_baselines("trial", variant)
            assert path.read_bytes() == whole

    def test_a_run_without_its_corpus_gets_a_sentence(self, project):
        shutil.rmtree("data")
        [fault] = baselines.make_baselines("trial", project[0].variant)
        assert fault.startswith(
            f"{project[0].variant}: no baseline probe: data/processed/demo/manifest.parquet is missing"
        )


class TestEgemaps:
    def test_without_opensmile_one_sentence(self, project, monkeypatch):
        monkeypatch.setitem(sys.modules, "opensmile", None)
        [fault] = baselines.make_baselines("trial", project[0].variant, everything=True)
        assert "no baseline egemaps: opensmile is not installed (" in fault
        assert fault.endswith("; install it with `pip install opensmile`")

    def test_descriptors_of_every_utterance_kept_beside_the_features(self, project, monkeypatch):
        pytest.importorskip("opensmile", reason="an optional extra: pip install opensmile")
        assert baselines.make_baselines("trial", project[0].variant, everything=True) == []
        made = pd.read_parquet(project[0].folder("trial") / "baseline_egemaps.parquet", partitioning=None)
        check_predictions(made, ["1"])
        [path] = runs.processed_folder("demo").glob("*/egemaps.parquet")
        table = pd.read_parquet(path)
        assert table.shape == (24, 88)
        pitch = 27.5 * 2 ** (table["F0semitoneFrom27.5Hz_sma3nz_amean"] / 12)
        for name, hertz in pitch.items():  # see tones: 200 Hz times 1, 2, 3, 4; above 400 Hz it hears none
            if name.endswith("0"):
                assert hertz == pytest.approx(200, rel=0.02)
        monkeypatch.setitem(sys.modules, "opensmile", None)
        (project[0].folder("trial") / "baseline_egemaps.parquet").unlink()
        assert baselines.make_baselines("trial", project[0].variant, everything=True) == []


class TestTable:
    def both(self, tmp_path, monkeypatch, right, of_baseline):
        """A run of ten folds with this many of ten right for each speaker, and its baseline."""
        monkeypatch.chdir(tmp_path)
        predictions = tables.with_counts(right, 10)
        variant = predictions["variant"].iloc[0]
        for table, name in (
            (predictions, "predictions"),
            (tables.with_counts(of_baseline, 10), "baseline_probe"),
        ):
            for fold, rows in table.groupby("fold"):
                folder = tmp_path / "runs" / "trial" / variant / f"fold={fold}" / "seed=111"
                folder.mkdir(parents=True, exist_ok=True)
                strings = {"utterance_id": "string"}  # a baseline's ids may come from another kind of table
                rows.astype(strings if name == "baseline_probe" else {}).to_parquet(
                    folder / f"{name}.parquet"
                )
                (folder / runs.DONE).touch()
        folds = {variant: sorted(predictions["fold"].unique())}
        return variant, baselines.baseline_table("trial", predictions, folds)

    def test_by_hand(self, tmp_path, monkeypatch):
        variant, table = self.both(tmp_path, monkeypatch, [4, 5, 6, 5, 5, 4, 6, 5], [7, 8, 8, 8, 9, 6, 9, 9])
        [row] = table.to_dict("records")
        assert (row["variant"], row["baseline"]) == (variant, "probe")
        assert row["UA"].value == pytest.approx(50) and row["UA of baseline"].value == pytest.approx(80)
        points = row["difference"]
        assert points.value == pytest.approx(-30) and points.low < -30 < points.high < 0
        [sentence] = baselines.below_baseline(table)
        assert sentence.startswith(
            f"WARNING: {variant}: UA 50.0 is below its baseline probe, 80.0: −30.0 points ["
        )
        assert sentence.endswith("before anything larger.")

    def test_what_may_be_chance_is_called_so_and_what_is_above_is_not_named(self, tmp_path, monkeypatch):
        _, table = self.both(tmp_path, monkeypatch, [4, 9, 6, 5, 5], [7, 5, 6, 8, 4])
        [sentence] = baselines.below_baseline(table)
        assert "−2.0 points [" in sentence and sentence.endswith("neither is shown to be better.")
        assert not sentence.startswith("WARNING")
        (tmp_path / "b").mkdir()
        _, table = self.both(tmp_path / "b", monkeypatch, [7, 8, 8, 8, 9], [4, 5, 6, 5, 5])
        assert baselines.below_baseline(table) == []

    def test_four_speakers_give_no_interval(self, tmp_path, monkeypatch):
        _, table = self.both(tmp_path, monkeypatch, [4, 5, 6, 5], [7, 8, 8, 8])
        assert np.isnan(table["difference"].iloc[0].low)
        assert "−27.5 points; look at" in baselines.below_baseline(table)[0]
