"""One fold: the checkpoint rule by hand, what a run folder holds, and what is refused."""

import gc
import json
import weakref

import numpy as np
import pandas as pd
import pytest
import torch
from tones import make_tones, train

from serkit import runs
from serkit.constants import LABELS
from serkit.errors import ParameterError, RunError
from serkit.experiment import Experiment
from serkit.folds import find_fold, make_folds
from serkit.metrics import at_temperature, certainty
from serkit.model.coattention import DEMO, CoAttentionModel
from serkit.recipe import CORRECTED
from serkit.training import loop, scoring
from serkit.training.checkpoints import Progress, best_epoch


@pytest.fixture(scope="module")
def tones(tmp_path_factory):
    return make_tones(tmp_path_factory.mktemp("tones"))


@pytest.fixture(scope="module")
def trained(tones, tmp_path_factory):
    """A run of three epochs; nobody changes its folder."""
    return train(tones, tmp_path_factory.mktemp("trained") / "run", precision="float32")


class TestCheckpointRule:
    """Best is the first epoch with the highest WA + UA; patience counts from it, after min_epochs."""

    def history(self, *sums):
        return [{"epoch": i, "validation_wa": s / 2, "validation_ua": s / 2} for i, s in enumerate(sums, 1)]

    @pytest.mark.parametrize(
        ("sums", "best"), [((0.5,), 1), ((0.5, 0.6, 0.4), 2), ((0.5, 0.6, 0.6), 2), ((0.9, 0.1, 1.0), 3)]
    )
    def test_best_epoch(self, sums, best):
        assert best_epoch(self.history(*sums)) == best

    def test_without_selection_the_last_epoch_is_taken(self):
        assert best_epoch([{"epoch": 1}, {"epoch": 2}]) == 2

    def test_stops_after_patience_but_not_before_min_epochs(self):
        experiment = Experiment(profile="paper")  # patience 8, never before epoch 7
        flat = [1.0] + [0.5] * 20
        stops = [n for n in range(1, 20) if Progress(self.history(*flat[:n])).is_finished(experiment)]
        assert stops[0] == 9  # best is epoch 1, eight without a better one follow
        early = Experiment(patience=2, min_epochs=7)
        stops = [n for n in range(1, 20) if Progress(self.history(*flat[:n])).is_finished(early)]
        assert stops[0] == 7

    def test_stops_at_the_last_epoch(self):
        assert Progress(self.history(*np.arange(100.0))).is_finished(Experiment(profile="paper"))


def test_run_folder_holds_what_the_contract_says(tones, trained):
    result, folder = trained, trained.folder
    assert {path.name for path in folder.iterdir()} == {
        "DONE", "embedding.parquet", "epochs.parquet", "experiment.json", "files.json", "history.csv",
        "metrics.json", "model", "predictions.parquet", "tensorboard", "timing.csv",
    }  # fmt: skip
    assert {path.name for path in (folder / "model").iterdir()} >= {"config.json", "model.safetensors"}
    test = result.predictions[result.predictions["split"] == "test"]
    manifest = tones[0]
    assert sorted(test["utterance_id"]) == sorted(manifest["utterance_id"][manifest["session"] == "1"])
    assert set(result.predictions["speaker"]) == {"1F", "1M", "2F", "2M"}  # test, and validation beside it
    probability = test[[f"p_{label}" for label in LABELS]].to_numpy()
    np.testing.assert_allclose(probability.sum(axis=1), 1.0, atol=1e-12)
    assert (np.array(LABELS)[probability.argmax(axis=1)] == test["prediction"]).all()
    assert result.metrics["ua_pooled"] == pytest.approx(
        np.mean([(part["prediction"] == label).mean() for label, part in test.groupby("truth")])
    )


def test_a_training_that_hardly_learned_says_so_last(tones, tmp_path):
    lines = []
    train(tones, tmp_path / "slow", lines, epochs=1, learning_rate=1e-7, schedule="constant")
    assert "learning rate 1e-07" in lines
    assert lines[-1].startswith("WARNING: it hardly learned: last training loss 1.")
    assert "change the learning rate, at most 1e-07 so far: " in lines[-1]


def test_utterance_score_is_the_mean_log_probability_of_its_segments(tones, trained):
    """Recomputed segment by segment with the saved model, without any batching."""
    import torch

    from serkit.model.storage import load_model
    from serkit.training.batches import SegmentDataset, fit_scaler, model_inputs

    manifest, store = tones
    fold = find_fold(make_folds(manifest, "session", "clean"), "1")
    scaler = fit_scaler(store, store.rows_of(fold.train))
    model = load_model(trained.folder / "model")
    longest = store.segments["utterance_id"].value_counts().idxmax()
    longest = next(u for u in fold.test if u.split("_")[1] == longest.split("_")[1])
    dataset = SegmentDataset(store, store.rows_of([longest]), {longest: 0})
    scores, fused = [], []
    for place in range(len(dataset)):
        with torch.no_grad():
            output = model(**model_inputs(dataset[[place]], scaler, CORRECTED, "cpu"))
        scores.append(torch.log_softmax(output.logits, dim=1)[0].double().numpy())
        fused.append(output.fusion_hidden_2[0].double().numpy())
    expected = np.exp(np.mean(scores, axis=0))
    row = trained.predictions.set_index("utterance_id").loc[longest]
    np.testing.assert_allclose(
        row[[f"p_{label}" for label in LABELS]].to_numpy(float), expected / expected.sum(), atol=1e-5
    )
    vectors = pd.read_parquet(trained.folder / "embedding.parquet").set_index("utterance_id")
    np.testing.assert_allclose(vectors.loc[longest], np.mean(fused, axis=0), atol=1e-5)


def test_vectors_are_those_of_the_test_utterances(trained):
    vectors = pd.read_parquet(trained.folder / "embedding.parquet")
    test = trained.predictions[trained.predictions["split"] == "test"]
    assert vectors["utterance_id"].tolist() == test["utterance_id"].tolist()
    assert list(vectors.columns[1:]) == [f"fused_{i}" for i in range(1, DEMO.hidden + 1)]
    assert (vectors.dtypes[1:] == np.float32).all()


def test_a_wide_vector_is_written_without_a_warning(recwarn):
    """pandas warns of a table in more than a hundred pieces, and the paper's vectors have 128 numbers."""
    scores = pd.DataFrame(np.zeros((4, 128)), columns=[f"{scoring.FUSED}{i}" for i in range(1, 129)])
    means = scoring.mean_over_segments(scores.assign(truth=[0, 0, 1, 1]), ["a", "a", "b", "b"])
    assert means["truth"].tolist() == [0, 1] and means["truth"].dtype == int
    assert scoring.vector_table(means).shape == (2, 129) and not recwarn.list


def test_learns_tones_of_unseen_speakers(tones, tmp_path):
    """Four pitches are easy: far above the 25 % of guessing after a dozen epochs."""
    result = train(tones, tmp_path, lines := [], epochs=15, batch_size=4)
    assert result.metrics["ua_pooled"] >= 0.7
    assert not any("hardly learned" in line for line in lines)


def test_same_seed_same_numbers_and_another_seed_others(tones, trained, tmp_path):
    """All of a run, byte for byte: see ``test_interruptions``."""
    one, again = (train(tones, tmp_path / name, epochs=1) for name in ("one", "again"))
    other = train(tones, tmp_path / "other", epochs=1, seed=112)
    pd.testing.assert_frame_equal(again.history, one.history)
    assert not np.allclose(again.history["train_loss"], other.history["train_loss"])


def test_the_rate_of_the_demo_profile_rises_and_falls_and_that_of_the_paper_is_constant(trained):
    """Of each epoch's last step; three epochs have their peak in the first, and none is left at the end."""
    rates = trained.history["learning_rate"].tolist()
    assert rates == sorted(rates, reverse=True) and rates[0] > 5e-4 and rates[-1] < 0.1 * rates[0]
    paper = Experiment(profile="paper")
    assert (paper.schedule, paper.warmup) == ("constant", 0.0)


def test_done_is_read_back_and_not_trained_again(tones, trained):
    before = (trained.folder / "predictions.parquet").stat().st_mtime_ns
    lines = []
    second = train(tones, trained.folder, lines, precision="float32")
    assert lines[0].startswith("already done")
    assert (trained.folder / "predictions.parquet").stat().st_mtime_ns == before
    pd.testing.assert_frame_equal(trained.predictions, second.predictions)


def test_another_experiment_never_overwrites(tones, trained):
    with pytest.raises(RunError, match=r"holds a run with epochs=3, asked for 2; choose another run name"):
        train(tones, trained.folder, epochs=2, precision="float32")
    assert json.loads((trained.folder / "experiment.json").read_text())["parameters"]["epochs"] == 3


def test_published_selection_is_the_test_set_itself(tones, tmp_path):
    result = train(tones, tmp_path, selection="published", epochs=2, views="mfcc")
    parts = dict(iter(result.predictions.groupby("split")))
    assert list(parts["validation"]["utterance_id"]) == list(parts["test"]["utterance_id"])
    best = result.history.set_index("epoch").loc[result.best_epoch]
    assert best["validation_ua"] == pytest.approx(result.metrics["ua_pooled"])


def test_loss_that_is_no_number_names_epoch_and_cure(tones, tmp_path, monkeypatch):
    import torch

    monkeypatch.setattr(
        loop.F, "cross_entropy", lambda logits, label, **_: logits.sum() * torch.tensor(float("nan"))
    )
    with pytest.raises(
        RunError, match=r"epoch 1, batch 1: the loss is nan, expected a number; lower learning_rate=0.002"
    ):
        train(tones, tmp_path)


@pytest.mark.parametrize(("given", "accelerate"), [("float32", "no"), ("bf16", "bf16"), ("fp16", "fp16")])
def test_precision_names(given, accelerate, monkeypatch):
    monkeypatch.setattr(scoring, "on_gpu", lambda: True)
    assert scoring.resolve_precision(given) == accelerate


def test_a_cpu_has_no_fp16(tones, tmp_path, monkeypatch):
    with pytest.raises(
        ParameterError, match="precision='fp16' without a GPU, expected auto, float32 or bf16"
    ):
        train(tones, tmp_path, precision="fp16")
    monkeypatch.setattr(scoring, "on_gpu", lambda: True)
    with pytest.raises(ParameterError, match="precision='fp16' without a GPU"):
        scoring.resolve_precision("fp16", device="cpu")


def test_bf16_on_cpu_trains(tones, tmp_path, monkeypatch):
    """The autocast path that a GPU takes; bf16 has 8 bits of mantissa, so losses agree to about 1 %.

    Without dropout, which draws other numbers for other types, and at a rate that amplifies nothing.
    """
    monkeypatch.setattr(
        CoAttentionModel, "train", lambda model, mode=True: torch.nn.Module.train(model, False)
    )
    losses = {}
    for precision in ("bf16", "float32"):
        settings = {"epochs": 1, "precision": precision, "learning_rate": 1e-6}
        losses[precision] = train(tones, tmp_path / precision, **settings).history["train_loss"][0]
    assert losses["bf16"] == pytest.approx(losses["float32"], rel=0.02)
    assert losses["bf16"] != losses["float32"]


def test_is_done_wants_the_same_experiment(trained):
    about = {"batch_size": 8, "precision": "float32"}
    assert runs.is_done(trained.folder, Experiment(epochs=3, **about))
    assert not runs.is_done(trained.folder, Experiment(epochs=4, **about))


def test_model_folder_predicts_what_the_run_recorded(tones, trained):
    """From the sound files and the model folder alone: the probabilities in predictions.parquet, at its temperature."""
    from serkit.predict.predictor import Predictor

    predictor = Predictor(trained.folder / "model", device="cpu")
    test = trained.predictions[trained.predictions["split"] == "test"]
    path_of = tones[0].set_index("utterance_id")["path"]
    again = [list(predictor.predict(path_of[name]).utterance.values()) for name in test["utterance_id"]]
    recorded = test[[f"p_{label}" for label in LABELS]].to_numpy()
    assert predictor.temperature == certainty(trained.predictions)["temperature"] != 1
    np.testing.assert_allclose(at_temperature(recorded, predictor.temperature), again, atol=1e-5)
    assert f"On {len(test)} utterances" in (trained.folder / "model" / "README.md").read_text()


def test_steps_are_timed_as_they_are_trained(tones):
    """For estimates: real steps of the experiment's own batch, cut into pieces where that is asked for."""
    seconds, peak = loop.time_steps(Experiment(batch_size=4, micro_batch=2), tones[1], n_steps=1)
    assert 0.001 < seconds < 60
    assert 50e6 < peak < 50e9


def test_a_model_that_was_timed_is_gone_before_the_next_is_made(tones, monkeypatch):
    """Else the memory of both counts for the second, and an estimate takes that for the cost of a larger batch.

    In bf16 accelerate ties a knot into a model, which only a search for garbage undoes.
    """
    made, alive = [], []

    def make(config):
        alive.append(sum(reference() is not None for reference in made))
        model = CoAttentionModel(config)
        made.append(weakref.ref(model))
        return model

    monkeypatch.setattr(loop.coattention, "CoAttentionModel", make)
    gc.disable()
    try:
        for size in (2, 4):
            loop.time_steps(Experiment(batch_size=size, precision="bf16"), tones[1], n_steps=1)
    finally:
        gc.enable()
    assert alive == [0, 0]
