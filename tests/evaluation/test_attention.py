"""The co-attention looked into: on networks whose weights are known, on tables by hand, and on a finished fold."""

import dataclasses
import json
import shutil
from types import SimpleNamespace

import numpy as np
import pandas as pd
import prediction_tables as tables
import pytest
import torch
from tones import make_tones, train
from torch.nn import functional as F

from serkit import evaluation, runs
from serkit.evaluation import attention
from serkit.features.store import SHAPES, build_store
from serkit.features.views import SegmentFeatures, SpectrogramScaler
from serkit.model.coattention import DEMO, CoAttentionModel
from serkit.recipe import CORRECTED, PUBLISHED
from serkit.reproduction import report
from serkit.training.scoring import make_accelerator

SCALER = SpectrogramScaler(np.full(200, -80, np.float32), np.zeros(200, np.float32))
VARIANT = "corrected_clean_session_demo"
N = 6  # segments


class Loudness(torch.nn.Module):
    """In place of the spectrogram's branch: how loud each of 149 frames is, from 0 to 1."""

    def forward(self, image):
        rows = image[:, :1].mean(dim=2)  # (B, 1, 384)
        return F.interpolate(rows - rows.amin(), 149, mode="linear")[:, 0]  # (B, 149)


def network(bias=None, fusion="coattention"):
    """A network whose weights are ``bias`` whatever it hears; without bias they copy the loudness."""
    torch.manual_seed(0)
    model = CoAttentionModel(dataclasses.replace(DEMO, hidden=149, fusion=fusion)).eval()
    model.spectrogram_encoder = Loudness()
    with torch.no_grad():
        model.coattention.weight.zero_()
        model.coattention.bias.copy_(torch.zeros(149) if bias is None else torch.as_tensor(bias))
        if bias is None:
            model.coattention.weight[:, :149] = torch.eye(149)
    return model


def sounds(recipe=CORRECTED, num_samples=48_000):
    """Segments that are loud for a second, each elsewhere, and 60 dB below that for the rest of its 3 s."""
    rng = np.random.default_rng(0)
    level = np.full((N, 300), -60.0, np.float32)
    for number in range(N):
        level[number, 40 * number : 40 * number + 100] = 0
    waveform = np.repeat(10 ** (level / 20), 160, axis=1) * rng.choice([-1.0, 1.0], (N, 48_000))
    features = SegmentFeatures(
        np.repeat(level[:, None], 200, axis=1), rng.normal(size=(N, 300, 40)).astype(np.float32),
        waveform.astype(np.float32), np.full(N, 300), np.full(N, num_samples), np.full(N, 48_000 - num_samples),
    )  # fmt: skip
    segments = pd.DataFrame({"utterance_id": [f"u{number}" for number in range(N)], "segment": 0})

    def read(rows, views=tuple(SHAPES)):
        wanted = {name: name in views or name not in SHAPES for name in vars(features)}
        return SegmentFeatures(*(vars(features)[name][rows] if wanted[name] else None for name in wanted))

    return SimpleNamespace(segments=segments, recipe=recipe, read=read)


def look(model, store):
    """The row of the table, and the scores with each kind of weights."""
    accelerator = make_accelerator("float32")
    segments, scores = attention.weigh_segments(model, SCALER, store, np.arange(N), accelerator)
    return attention.attention_table(segments.assign(fold="1", seed=1)).iloc[0], scores


class TestKnownNetworks:
    def test_a_constant(self):
        """Weights 1, 2, ... 75 on the first frames, whatever is heard: nothing depends on the segment."""
        bias = np.where(np.arange(149) < 75, np.arange(149) + 1.0, -1.0)
        row, scores = look(network(bias), sounds())
        assert row["correlation"] == pytest.approx(1)
        assert row["unused"] == pytest.approx(100 * 74 / 149)
        assert row["effective"] == pytest.approx(75 * 76**2 / 4 / (76 * 151 / 6))  # (sum)^2 / sum of squares
        assert row["no weight"] == row["on padding"] == row["padded"] == 0
        for name in ("fold's mean", "another segment's"):
            np.testing.assert_allclose(scores[name], scores["own"], atol=1e-5)
        assert np.abs(scores["equal"] - scores["own"]).max() > 1e-3

    def test_equal_weights(self):
        row, scores = look(network(np.full(149, 0.5)), sounds())
        assert np.isnan(row["correlation"]) and row["effective"] == pytest.approx(149)
        assert row["on silence"] == pytest.approx(row["silent"])
        for values in scores.values():
            np.testing.assert_allclose(values, scores["own"], atol=1e-5)

    @pytest.mark.parametrize("fusion", ["coattention", "normalised"])
    def test_one_frame(self, fusion):
        row, _ = look(network(np.where(np.arange(149) == 60, 5.0, -1.0), fusion), sounds())
        assert row["correlation"] == pytest.approx(1) and row["effective"] == pytest.approx(1)
        assert row["unused"] == pytest.approx(100 * 148 / 149)

    def test_a_copy_of_the_loudness(self):
        """Silence is two thirds of each segment and gets nothing but what interpolation smears over the edges."""
        row, scores = look(network(), sounds())
        assert row["silent"] == pytest.approx(100 * 2 / 3, abs=1)
        assert row["on silence"] < 2
        assert row["effective"] == pytest.approx(50, abs=2)  # one second
        assert row["correlation"] < 0.5
        for name in ("fold's mean", "equal", "another segment's"):
            assert np.abs(scores[name] - scores["own"]).max() > 1e-3

    def test_none_at_all(self):
        row, _ = look(network(np.full(149, -1.0)), sounds())
        assert row["no weight"] == row["unused"] == 100 and np.isnan(row["effective"])

    @pytest.mark.parametrize(("recipe", "on_padding"), [(PUBLISHED, 100 * 100 / 149), (CORRECTED, 0)])
    def test_padding_gets_weight_in_the_published_recipe_only(self, recipe, on_padding):
        """One second of sound is 49 frames: the last ones as published, the first ones as corrected."""
        store = sounds(recipe, num_samples=16_000)
        segments, _ = attention.weigh_segments(
            network(np.ones(149)), SCALER, store, np.arange(N), make_accelerator("float32")
        )
        real = ~np.isnan(np.stack(segments["level_db"].to_numpy()))
        assert (
            real[:, slice(100, None) if recipe is PUBLISHED else slice(0, 49)].all() and real.sum() == 49 * N
        )
        row = attention.attention_table(segments.assign(fold="1", seed=1)).iloc[0]
        assert row["padded"] == pytest.approx(100 * 100 / 149)
        assert row["on padding"] == pytest.approx(on_padding)


class TestTables:
    def test_levels(self):
        """Quarters of the segment at full, half, and no amplitude, and padding; 150 frames of 20 ms."""
        waveform = np.repeat([[1.0, 0.5, 0.0, 0.0]], 12_000, axis=1)
        real = np.arange(150)[None] < 112
        level = attention.frame_levels(waveform, real)[0]
        assert (level[:37] == 0).all()
        np.testing.assert_allclose(level[38:75], 20 * np.log10(0.5), atol=1e-4)
        np.testing.assert_allclose(level[75:112], -120)
        assert np.isnan(level[112:]).all()

    def test_by_hand(self):
        """Four frames; the second segment ends after two, the third has no weight."""
        nan = np.nan
        segments = pd.DataFrame({
            "fold": "1", "seed": 1, "length_speech": [1.0, 2.0, 6.0],
            "weights": [[4.0, 0.0, 2.0, 0.0], [1.0, 0.0, 0.0, 1.0], [0.0, 0.0, 0.0, 0.0]],
            "level_db": [[0.0, -39.0, -41.0, -50.0], [0.0, -60.0, nan, nan], [0.0, -1.0, -2.0, -3.0]],
        })  # fmt: skip
        row = attention.attention_table(segments).iloc[0]
        assert row["unused"] == 25
        assert row["effective"] == pytest.approx((36 / 20 + 2) / 2)
        assert row["on silence"] == pytest.approx(100 * (2 / 6 + 0) / 2)
        assert row["silent"] == pytest.approx(100 * 3 / 10)
        assert row["on padding"] == pytest.approx(100 * (0 + 1 / 2) / 2)
        assert row["padded"] == pytest.approx(100 * 2 / 12)
        assert row["no weight"] == pytest.approx(100 / 3)
        assert row["length_speech"] == 3
        # means over real frames 5/3, 0, 1, 0: the first segment against them, the second against 5/3, 0
        expected = np.mean([np.corrcoef([4, 0, 2, 0], [5 / 3, 0, 1, 0])[0, 1], 1.0])
        assert row["correlation"] == pytest.approx(expected)

    def test_others_keep_away_from_what_the_model_masks(self):
        real = np.array([[True, True, False], [True, True, True], [True, True, False], [True, True, True]])
        own = np.where(real, np.arange(12.0).reshape(4, 3) + 1, 0)
        for name, values in attention.other_weights(own, real, real, sum_to_one=True).items():
            if name != "own":
                assert not values[~real].any(), name
                np.testing.assert_allclose(values.sum(axis=1), 1, rtol=1e-6)
        swapped = attention.other_weights(own, real, real, sum_to_one=False)["another segment's"]
        assert not (swapped == own).all(axis=1).any()  # nobody gets its own
        assert (swapped[[0, 2]].sum(axis=1) > 0).all()

    def test_worth(self):
        own = tables.predict(tables.manifest(per_speaker=40), "session", right=0.9)
        own = own[own["split"] == "test"]
        always = tables.with_probabilities(own.assign(prediction="sad"))
        swapped = pd.concat([own.assign(weights="own"), always.assign(weights="fold's mean")])
        table = attention.worth_table(swapped, list("12345")).set_index("weights")
        ua = 100 * (own["prediction"] == own["truth"]).mean()  # balanced: UA is WA
        assert table.loc["own", "UA"].value == pytest.approx(ua)
        assert table.loc["fold's mean", "UA"].value == pytest.approx(25)
        low, high = table.loc["fold's mean", "difference"][1:]
        assert low < 25 - ua < high < 0
        assert table.loc["fold's mean", "changed"] == pytest.approx(100 * (own["prediction"] != "sad").mean())

    @pytest.mark.parametrize(
        ("interval", "said"),
        [
            ((-5.0, -9.0, -1.0), "depend on the segment help"),
            ((5.0, 1.0, 9.0), "depend on the segment harm"),
            ((-1.0, -4.0, 2.0), "not shown .* holds 0"),
            ((0.0, 0.0, 0.0), "not shown .* holds 0"),
            ((-5.0,), "fewer than 5 speakers"),
        ],
    )
    def test_the_paragraph_says_no_more_than_the_interval(self, interval, said):
        change = evaluation.Estimate(*interval)
        worth = pd.DataFrame({
            "weights": ["own", "fold's mean", "equal", "another segment's"],
            "difference": [evaluation.Estimate(np.nan), change, change, change],
        })  # fmt: skip
        row, _ = look(network(np.arange(149.0)), sounds())
        text = f"{attention.weights_text(pd.DataFrame([row]))} {attention.worth_text(worth)}"
        assert pd.Series(text).str.contains(said).item(), text
        assert f"changes by {interval[0]:+.1f}".replace("-", "−") in text and "nan" not in text


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A project with three folds of tones that have just begun to learn, and the store they were made from."""
    home = tmp_path_factory.mktemp("project")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(home)
        (home / "notebooks").mkdir()
        (home / "notebooks" / "01_prepare_corpus.ipynb").write_text("{}")
        manifest, _ = tones = make_tones(home)
        (home / "data" / "processed" / "demo").mkdir(parents=True)
        manifest.to_parquet(runs.processed_folder("demo") / runs.MANIFEST)
        build_store(manifest, CORRECTED, runs.processed_folder("demo"), workers=1)
        for fold in "123":
            folder = home / "runs" / "trial" / VARIANT / f"fold={fold}" / "seed=111"
            train(tones, folder, fold=fold, epochs=2, precision="float32")
        folder = home / "runs" / "frozen" / f"{VARIANT}_frozen" / "fold=1" / "seed=111"
        train(tones, folder, epochs=1, precision="float32", encoder_training="frozen")
    return home


@pytest.fixture
def copy(finished, tmp_path, monkeypatch):
    shutil.copytree(finished, tmp_path / "copy")
    monkeypatch.chdir(tmp_path / "copy")
    return tmp_path / "copy"


class TestFinishedFolds:
    @pytest.mark.parametrize(("run", "variant"), [("trial", VARIANT), ("frozen", f"{VARIANT}_frozen")])
    def test_own_weights_give_the_predictions_of_the_run(self, copy, run, variant):
        evaluation.look_into(run, variant)
        folders = runs.finished_folders(run)
        swapped = pd.concat(pd.read_parquet(folder / runs.SWAPPED, partitioning=None) for folder in folders)
        own = swapped[swapped["weights"] == "own"].set_index("utterance_id")
        tested = runs.load_predictions(run).query("split == 'test'").set_index("utterance_id")
        assert own["prediction"].to_dict() == tested["prediction"].to_dict()
        np.testing.assert_allclose(own["p_sad"], tested["p_sad"].loc[own.index], atol=1e-3)

    def test_measured_once(self, copy, capsys, monkeypatch):
        text, (by_fold, worth, stems) = evaluation.look_into("trial", VARIANT)
        assert capsys.readouterr().out.count("looking into the co-attention of") == 3
        assert text.startswith(f"{VARIANT}: ") and "UA changes by" in text
        monkeypatch.setattr(attention, "measure_fold", lambda folder: pytest.fail("measured again"))
        shutil.rmtree(copy / "data")  # everything follows from what was measured
        assert evaluation.look_into("trial", VARIANT)[0] == text
        assert by_fold["fold"].tolist() == ["1", "2", "3"]
        assert worth["UA"].map(lambda cell: cell.low <= cell.value <= cell.high).all()  # six speakers
        assert len(stems) == 3 * 3 * 149 and stems["time_s"].between(0, 3).all()

    def test_the_report_shows_what_was_measured(self, copy):
        def stems():
            predictions, folds = report.checked_predictions("trial")
            items = report.run_figures("trial", predictions, folds, report.made_with("trial", predictions)[0])
            return {item.stem: item for item in items if item.stem.startswith("attention")}

        assert not stems()
        evaluation.look_into("trial", VARIANT)
        items = stems()
        assert list(items) == ["attention", "attention_worth", "attention_weights"]
        for item in items.values():
            assert all(path.is_file() for path in item.save("trial"))

    def test_without_features_it_says_what_makes_them(self, copy):
        shutil.rmtree(copy / "data")
        text, tables = evaluation.look_into("trial", VARIANT)
        why = "can't be looked into: data/processed/demo/manifest.parquet is missing; run notebook 01"
        assert why in text and not tables
        assert not list(copy.rglob(runs.ATTENTION))

    @pytest.mark.parametrize("settings", [{"fusion": "mean"}, {"views": "speech"}, {"views": "mfcc"}])
    def test_where_no_view_decides_about_frames_it_says_so(self, project, settings):
        folder = project / "runs" / "trial" / "v" / "fold=1" / "seed=111"
        folder.mkdir(parents=True)
        (folder / "experiment.json").write_text(json.dumps({"parameters": settings}))
        (folder / "DONE").write_text("x")
        text, tables = evaluation.look_into("trial", "v")
        assert text.startswith("v: there is no co-attention to look into") and not tables
