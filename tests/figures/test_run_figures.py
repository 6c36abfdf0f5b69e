"""Figures of a run: what is drawn is what the tables say, and bad tables draw nothing."""

import json

import numpy as np
import pandas as pd
import prediction_tables as tables
import pytest
from matplotlib import pyplot as plt

from serkit.constants import LABELS
from serkit.errors import FoldError, ParameterError, RunError
from serkit.evaluation import intervals
from serkit.evaluation.intervals import bootstrap_interval
from serkit.figures import certainty, confusions, embedding, foldcurves, mistakes
from serkit.figures.plots import EMOTION_COLOURS, paper_style
from serkit.figures.saving import save_figure
from serkit.metrics import recall_per_class, weighted_accuracy
from serkit.reproduction import runfigures


@pytest.fixture
def ax():
    with paper_style():
        figure, ax = plt.subplots()
        yield ax
    plt.close(figure)


@pytest.fixture(scope="module")
def about():
    """Ten speakers, 8 utterances each; durations and ratings that depend on the number."""
    table = tables.manifest()
    number = table["utterance_id"].str[-3:].astype(int)
    return table.assign(
        num_samples=16_000 * (1 + number), sample_rate=16_000, valence=1.0 + number % 4, activation=3.1
    )


@pytest.fixture(scope="module")
def predictions(about):
    return tables.predict(about)


def texts_in(ax):
    return [text.get_text() for text in ax.texts]


def legend_of(ax):
    return [text.get_text() for text in ax.get_legend().get_texts()]


class TestSubsets:
    def test_recall_is_that_of_metrics_with_the_interval_of_its_rows(self, predictions):
        test = predictions[predictions["split"] == "test"]
        found = intervals.class_recall(predictions).set_index("label")
        assert list(found.index) == list(LABELS)
        assert np.allclose(found["recall"], recall_per_class(test["truth"], test["prediction"]))
        interval = bootstrap_interval(test[test["truth"] == "sad"], "wa")
        assert tuple(found.loc["sad", ["low", "high"]]) == (interval.low, interval.high)
        assert set(found["n_utterances"]) == {20}

    def test_four_speakers_get_no_interval(self):
        about = tables.manifest(speakers=["1F", "1M", "2F", "2M"])
        found = intervals.class_recall(tables.predict(about))
        assert found[["low", "high"]].isna().all(axis=None) and found["recall"].notna().all()

    def test_a_class_without_utterances_keeps_its_row(self):
        found = intervals.class_recall(tables.with_counts([1, 2, 3, 4, 5], 6)).set_index("label")
        assert np.isclose(found.loc["sad", "recall"], 15 / 30)
        assert found.loc["angry", "n_utterances"] == 0 and np.isnan(found.loc["angry", "recall"])

    def test_an_utterance_outside_all_subsets_is_named(self, predictions):
        with pytest.raises(ParameterError, match=r"utterance 1F_000 is in no subset \(80"):
            intervals.subset_accuracy(predictions, pd.Series({"other": "a"}))


class TestSpeakerConfusions:
    def test_cells_hold_the_counts_of_each_speaker(self, predictions, ax):
        table = confusions.speaker_confusions(predictions)
        own = predictions[(predictions["split"] == "test") & (predictions["speaker"] == "2M")]
        row = table[(table["speaker"] == "2M") & (table["truth"] == "happy")].iloc[0]
        assert row["sad"] == ((own["truth"] == "happy") & (own["prediction"] == "sad")).sum()
        assert confusions.plot_speaker_confusions(predictions, ax) is ax
        assert len(ax.images) == 10
        cells = [int(text) for text in texts_in(ax) if text.isdigit()]
        assert cells[:4] == table.loc[0, list(LABELS)].tolist() and sum(cells) == 80

    def test_colour_is_the_share_of_the_row(self, predictions, ax):
        confusions.plot_speaker_confusions(predictions, ax)
        for image in ax.images:
            assert np.allclose(image.get_array().sum(axis=1), 100)
            assert image.get_clim() == (0, 100)

    def test_no_two_matrices_overlap(self, predictions, ax):
        confusions.plot_speaker_confusions(predictions, ax)
        corners = {(image.get_extent()[0], image.get_extent()[3]) for image in ax.images}
        assert len(corners) == 10
        assert min(np.diff(sorted({x for x, _ in corners}))) > len(LABELS)


class TestConfusionDifference:
    def test_points_by_hand(self, ax):
        a, b = tables.with_counts([3, 1], 4), tables.with_counts([2, 1], 4, variant="other")
        points = confusions.confusion_difference(a, b)
        assert points.loc["sad", "sad"] == 12.5 and points.loc["sad", "happy"] == -12.5  # 4/8 - 3/8
        assert points.loc["angry"].isna().all()
        confusions.plot_confusion_difference(a, b, ax)
        assert "+12.5" in texts_in(ax) and "−12.5" in texts_in(ax) and texts_in(ax).count("–") == 12
        assert ax.images[0].get_clim() == (-12.5, 12.5)

    def test_a_variant_with_itself_is_nothing(self, predictions):
        assert (confusions.confusion_difference(predictions, predictions) == 0).all(axis=None)

    def test_a_variant_that_was_repeated_is_compared_at_the_common_seed(self, about, tmp_path):
        thrice = pd.concat([tables.predict(about, seed=seed) for seed in (111, 211, 311)], ignore_index=True)
        once = tables.predict(about, recipe="published")
        a, b = thrice["variant"].iloc[0], once["variant"].iloc[0]
        stem = f"confusion_difference_{a}__{b}"
        both, parameters = pd.concat([thrice, once], ignore_index=True), {a: {}, b: {}}
        files, not_made = runfigures.save_run_figures("trial", both, None, parameters, root=tmp_path)
        assert stem not in not_made and stem in {path.stem for path in files}
        found = pd.read_csv(tmp_path / "trial" / f"{stem}.csv")
        expected = confusions.confusion_difference(thrice[thrice["seed"] == 111], once)
        np.testing.assert_allclose(found.select_dtypes("number"), expected.select_dtypes("number"))
        assert "1 seed" in json.loads((tmp_path / "trial" / f"{stem}.json").read_text())["caption"]
        numbers = runfigures.run_numbers("trial", both, None)
        pd.testing.assert_frame_equal(numbers[stem](), expected)

    def test_no_common_seed_is_said(self, about, tmp_path):
        both = pd.concat([tables.predict(about), tables.predict(about, recipe="published", seed=7)])
        a, b = sorted(both["variant"].unique())
        _, not_made = runfigures.save_run_figures("trial", both, None, {a: {}, b: {}}, root=tmp_path)
        stem = f"confusion_difference_{a}__{b}"
        assert not_made[stem].startswith("no seed is common to all variants (")
        assert stem not in runfigures.run_numbers("trial", both, None)

    def test_other_utterances_are_refused(self, predictions):
        other = tables.predict(tables.manifest(per_speaker=4))
        with pytest.raises(ParameterError, match="utterance_id 1F_004 is tested in"):
            confusions.confusion_difference(predictions, other)


class TestCertainty:
    def test_bars_and_whiskers_are_recall_and_interval(self, predictions, ax):
        certainty.plot_recall_intervals(predictions, ax)
        table = intervals.class_recall(predictions)
        assert np.allclose([bar.get_height() for bar in ax.patches], 100 * table["recall"])
        ends = np.array([line.get_ydata() for line in ax.lines if line.get_linestyle() == "None"])
        assert np.allclose(ends, 100 * table[["low", "high"]].to_numpy().T)
        assert f"UA {100 * table['recall'].mean():.1f} %" in legend_of(ax)

    def test_classes_keep_their_colours(self, predictions, ax):
        certainty.plot_recall_intervals(predictions, ax)
        colours = [plt.matplotlib.colors.to_hex(bar.get_facecolor()).upper() for bar in ax.patches]
        assert colours == [EMOTION_COLOURS[label] for label in LABELS]

    def test_reliability_by_hand(self, ax):
        # confidence 0.7 throughout, 10 of 20 right: a gap of 20 points in one bin
        certainty.plot_reliability(tables.with_counts([1, 2, 2, 3, 2], 4), ax)
        assert [bar.get_height() for bar in ax.patches] == [50]
        dot = next(line for line in ax.lines if line.get_label() == "mean confidence")
        assert np.allclose(dot.get_xydata(), [[70, 50]])
        assert "20" in texts_in(ax) and "right; ECE 20.0 points (10 bins)" in legend_of(ax)


class TestMistakes:
    def test_durations_by_hand(self, predictions, about, ax):
        table = mistakes.duration_accuracy(predictions, about, edges_s=(0, 3, 5)).set_index("duration")
        # utterance i lasts 1 + i seconds: two of eight are shorter than 3 s, two more than 5 s
        assert table["n_utterances"].to_dict() == {"0–3": 20, "3–5": 20, "≥ 5": 40}
        test = predictions[predictions["split"] == "test"]
        short = test[test["utterance_id"].str[-3:].astype(int) < 2]
        assert np.isclose(
            table.loc["0–3", "accuracy"], weighted_accuracy(short["truth"], short["prediction"])
        )
        mistakes.plot_duration_accuracy(predictions, about, ax, edges_s=(0, 3, 5))
        dots = next(line for line in ax.lines if line.get_label() == "right")
        assert np.allclose(dots.get_ydata(), 100 * table["accuracy"])
        wa = 100 * weighted_accuracy(test["truth"], test["prediction"])
        assert {f"WA {wa:.1f} %", "3 s segment"} <= set(legend_of(ax))

    @pytest.mark.parametrize("edges", [(0,), (1, 2), (0, 2, 2)])
    def test_edges_that_leave_something_out_are_refused(self, predictions, about, edges):
        with pytest.raises(ParameterError, match="edges_s="):
            mistakes.duration_accuracy(predictions, about, edges_s=edges)

    def test_ratings_by_hand(self, predictions, about, ax):
        table = mistakes.rating_mistakes(predictions, about)
        assert table["valence"].tolist() == [1, 2, 3, 4] and set(table["activation"]) == {3.0}
        test = predictions[predictions["split"] == "test"]
        recall = recall_per_class(test["truth"], test["prediction"])  # valence goes with the class here
        assert np.allclose(table["mistakes"], 1 - recall)
        mistakes.plot_rating_mistakes(predictions, about, ax)
        dots = ax.collections[0]
        assert np.allclose(dots.get_array(), 100 * table["mistakes"])
        assert np.allclose(dots.get_offsets(), table[["valence", "activation"]])

    def test_a_corpus_without_ratings_says_so(self, predictions, about, ax):
        bare = about.assign(valence=np.nan)
        with pytest.raises(ParameterError, match=r"1F_000 has no valence and activation \(80 of 80"):
            mistakes.plot_rating_mistakes(predictions, bare, ax)


def history(fold, ua, kept):
    n = len(ua)
    return pd.DataFrame({
        "fold": fold, "seed": 1, "epoch": range(1, n + 1), "kept": np.arange(1, n + 1) == kept,
        "train_ua": 1.0, "validation_ua": ua,
    })  # fmt: skip


class TestFoldCurves:
    def test_mean_ends_where_the_first_fold_stops(self, ax):
        histories = pd.concat([history("1", [0.2, 0.4, 0.6], 3), history("2", [0.4, 0.5], 1)])
        foldcurves.plot_fold_curves(histories, ax)
        lines = {line.get_label(): line for line in ax.lines}
        assert np.allclose(lines["validation, mean of 2"].get_xydata(), [[1, 30], [2, 45]])
        assert np.allclose(lines["kept"].get_xydata(), [[3, 60], [1, 40]])
        assert len([line for line in ax.lines if line.get_linewidth() == 0.6]) == 4

    def test_two_variants_in_one_table_are_refused(self, ax):
        one = history("1", [0.2, 0.4], 2)
        with pytest.raises(ParameterError, match="fold 1, seed 1: epoch 1 stands in histories twice"):
            foldcurves.plot_fold_curves(pd.concat([one, one]), ax)

    def test_nothing_to_draw_is_named(self, ax):
        with pytest.raises(ParameterError, match="lack values of train_loss and validation_loss"):
            foldcurves.plot_fold_curves(history("1", [0.2], 1), ax, what="loss")


@pytest.fixture(scope="module")
def vectors():
    """Four groups far apart in ten dimensions."""
    rng = np.random.default_rng(3)
    return rng.normal(size=(60, 10)) + 12 * np.eye(10)[np.repeat(range(4), 15)]


class TestEmbedding:
    def test_neighbours_stay_neighbours_and_points_are_repeatable(self, vectors):
        points = embedding.project(vectors, perplexity=8)
        distance = np.linalg.norm(points[:, None] - points[None], axis=2)
        np.fill_diagonal(distance, np.inf)
        assert (distance.argmin(axis=1) // 15 == np.arange(60) // 15).all()
        assert np.array_equal(points, embedding.project(vectors, perplexity=8))

    def test_points_on_a_plane_are_drawn_as_given(self, vectors, ax):
        truth = np.repeat(LABELS, 15)
        embedding.plot_embedding(vectors[:, :2], truth, ax)
        assert legend_of(ax) == list(LABELS)
        drawn = {group.get_label(): group for group in ax.collections}
        assert np.array_equal(drawn["happy"].get_offsets(), vectors[30:45, :2])
        colour = plt.matplotlib.colors.to_hex(drawn["happy"].get_facecolor()[0]).upper()
        assert colour == EMOTION_COLOURS["happy"]

    def test_ten_speakers_all_look_different(self, vectors, ax):
        embedding.plot_embedding(vectors[:, :2], np.resize(tables.SPEAKERS, 60), ax)
        looks = {
            (tuple(group.get_facecolor()[0]), group.get_paths()[0].vertices.shape, group.get_paths()[0].vertices[1, 0])
            for group in ax.collections
        }  # fmt: skip
        assert len(looks) == 10

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            (lambda v: (v[:3], ["a"] * 3), "perplexity=30.0: expected 1 to 1"),
            (lambda v: (v, ["a"]), "1 labels, expected one label for each"),
            (lambda v: (np.full_like(v, np.nan), ["a"] * 60), "without NaN"),
            (lambda v: (np.ones_like(v), ["a"] * 60), "all 60 embeddings are the same"),
            (lambda v: (v, list(map(str, range(60)))), "60 different labels, expected at most 36"),
        ],
    )
    def test_what_can_not_be_projected(self, vectors, ax, change, message):
        with pytest.raises(ParameterError, match=message):
            embedding.plot_embedding(*change(vectors), ax)


def keep_vectors(project, predictions, n_dims=8, run="trial"):
    """What training leaves in each run folder: a group far from the others for each class."""
    rng = np.random.default_rng(7)
    test = predictions[predictions["split"] == "test"]
    for (variant, fold, seed), own in test.groupby(["variant", "fold", "seed"]):
        folder = project / "runs" / run / variant / f"fold={fold}" / f"seed={seed}"
        folder.mkdir(parents=True)
        groups = own["truth"].map(LABELS.index).to_numpy()
        values = rng.normal(size=(len(own), n_dims)) + 12 * np.eye(n_dims)[groups]
        table = pd.DataFrame(values.astype(np.float32), columns=[f"fused_{i + 1}" for i in range(n_dims)])
        table.insert(0, "utterance_id", own["utterance_id"].to_numpy())
        table[::-1].to_parquet(folder / "embedding.parquet", index=False)  # the order must not matter


def first_two(vectors, **_):
    """A projection that takes no time."""
    return vectors[:, :2]


@pytest.fixture(scope="module")
def by_session():
    """Five folds of two speakers each, 12 utterances of a speaker, two seeds."""
    about = tables.manifest(per_speaker=12)
    return pd.concat([tables.predict(about, "session", seed=seed) for seed in (111, 211)])


@pytest.fixture(scope="module")
def kept(by_session, tmp_path_factory):
    """Vectors of the five folds, read back."""
    home = tmp_path_factory.mktemp("project")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(embedding.runs, "project_home", lambda: home)
        keep_vectors(home, by_session)
        return embedding.read_vectors("trial", by_session)


@pytest.fixture(scope="module")
def points(kept):
    return embedding.fold_points(kept)


class TestFoldPoints:
    def test_every_test_utterance_of_the_first_seed_once(self, points, by_session):
        test = by_session[(by_session["split"] == "test") & (by_session["seed"] == 111)]
        assert sorted(points["utterance_id"]) == sorted(test["utterance_id"])
        assert set(points["seed"]) == {111}
        truth = test.set_index("utterance_id")["truth"]
        assert (points["truth"] == points["utterance_id"].map(truth)).all()

    def test_classes_are_groups_in_each_fold_and_folds_fill_their_panels(self, points):
        for _, own in points.groupby("fold"):
            place = own[["x", "y"]].to_numpy()
            distance = np.linalg.norm(place[:, None] - place[None], axis=2)
            np.fill_diagonal(distance, np.inf)
            assert (own["truth"].to_numpy()[distance.argmin(axis=1)] == own["truth"]).all()
            assert (place.min(axis=0) == 0).all() and (place.max(axis=0) == 1).all()

    def test_thinned_out_at_even_steps(self, kept, monkeypatch):
        monkeypatch.setattr(embedding, "project", first_two)
        points = embedding.fold_points(kept, max_points=40)
        # 8 of the 24 of session 1: 0, 23/7, 46/7, ... rounded
        ids = sorted(kept["utterance_id"][kept["fold"] == "1"])
        expected = [ids[i] for i in (0, 3, 7, 10, 13, 16, 20, 23)]
        assert points["utterance_id"][points["fold"] == "1"].tolist() == expected
        with pytest.raises(ParameterError, match="fold 1: 5 utterances to draw, expected at least 6"):
            embedding.fold_points(kept, max_points=29)

    def test_emotions_keep_their_colours_and_panels_stay_apart(self, points, ax):
        embedding.plot_fold_points(points, ax)
        assert legend_of(ax) == list(LABELS)
        drawn = {group.get_label(): group for group in ax.collections}
        colour = plt.matplotlib.colors.to_hex(drawn["sad"].get_facecolor()[0]).upper()
        assert colour == EMOTION_COLOURS["sad"] and len(drawn["sad"].get_offsets()) == 30
        across = np.concatenate([group.get_offsets()[:, 0] for group in ax.collections])
        assert np.allclose(np.unique(across // (1 + embedding.GAP)), range(5))
        assert texts_in(ax) == [f"fold {fold}, n = 24" for fold in range(1, 6)]

    def test_speakers_are_named_in_the_colour_of_their_points(self, points, ax):
        embedding.plot_fold_points(points, ax, by="speaker")
        names = {text.get_text(): text.get_color() for text in ax.texts if "fold" not in text.get_text()}
        assert sorted(names) == tables.SPEAKERS
        own = points[points["speaker"] == "1M"]
        group = next(
            g for g in ax.collections if (g.get_offsets() == own[["x", "y"]].to_numpy()[0]).all(axis=1).any()
        )
        assert plt.matplotlib.colors.to_hex(group.get_facecolor()[0]).upper() == names["1M"].upper()
        assert len(group.get_offsets()) == 60 and ax.get_legend() is None

    def test_one_speaker_in_a_fold_can_not_be_told_from_others(self, points, ax):
        alone = points.assign(speaker="1F")
        with pytest.raises(ParameterError, match="fold 1 tests 1 speakers, expected 2 to 6"):
            embedding.plot_fold_points(alone, ax, by="speaker")

    def test_a_run_from_before_says_so(self, project, by_session):
        with pytest.raises(
            RunError, match=r"fold=1/seed=111/embedding\.parquet is missing: .* trained before"
        ):
            embedding.read_vectors("trial", by_session)

    @pytest.mark.parametrize(
        ("damage", "message"),
        [
            (
                lambda path: pd.read_parquet(path)[:-1].to_parquet(path),
                "vectors of 23 utterances, expected those of the 24",
            ),
            (lambda path: path.write_bytes(b"PAR1"), r"embedding\.parquet can't be read"),
        ],
    )
    def test_a_damaged_file_is_named(self, project, by_session, damage, message):
        keep_vectors(project, by_session)
        damage(next((project / "runs").rglob("fold=3/seed=111/embedding.parquet")))
        with pytest.raises(RunError, match=f"fold=3/seed=111/.*{message}"):
            embedding.read_vectors("trial", by_session)

    def test_report_figures_are_made_and_the_same_bytes_again(self, project, by_session, monkeypatch):
        monkeypatch.setattr(embedding, "project", first_two)  # that t-SNE repeats itself is tested above
        table = by_session[by_session["seed"] == 111]
        keep_vectors(project, table)
        variant = table["variant"].iloc[0]
        parameters = {variant: {"corpus": "demo", "by": "session"}}
        saved = []
        for root in ("a", "b"):
            files, not_made = runfigures.save_run_figures(
                "trial", table, None, parameters, root=project / root
            )
            chosen = [path for path in files if path.stem.startswith("embedding_")]
            saved.append({path.name: path.read_bytes() for path in chosen})
        assert not [stem for stem in not_made if stem.startswith("embedding")]
        assert saved[0] == saved[1] and len(saved[0]) == 10
        caption = json.loads(saved[0][f"embedding_emotion_{variant}.json"])["caption"]
        assert (
            "seed 111, at most 300 test utterances a fold, at even steps, by emotion: demo, 5 folds"
            in caption
        )


PLOTS = {
    "speakers": lambda p, m, ax: confusions.plot_speaker_confusions(p, ax),
    "difference": lambda p, m, ax: confusions.plot_confusion_difference(p, p, ax),
    "recall": lambda p, m, ax: certainty.plot_recall_intervals(p, ax),
    "reliability": lambda p, m, ax: certainty.plot_reliability(p, ax),
    "durations": mistakes.plot_duration_accuracy,
    "ratings": mistakes.plot_rating_mistakes,
}


@pytest.mark.parametrize("name", PLOTS)
class TestEveryPlot:
    def test_returns_its_axes(self, name, predictions, about, ax):
        assert PLOTS[name](predictions, about, ax) is ax

    def test_a_missing_fold_is_named(self, name, predictions, about, ax):
        part = predictions[predictions["fold"] != "3F"]
        with pytest.raises(RunError, match="fold 3F is missing"):
            PLOTS[name](part, about, ax)

    def test_a_speaker_in_two_splits_is_named(self, name, predictions, about, ax):
        edited = predictions.copy()
        edited.loc[edited.index[edited["fold"] == "3F"][0], "split"] = "test"
        with pytest.raises(FoldError, match=r"fold 3F: speaker 3M is in validation \(7 .* and in test \(1\)"):
            PLOTS[name](edited, about, ax)

    def test_saved_again_it_is_the_same_bytes(self, name, predictions, about, tmp_path):
        saved = []
        for root in ("a", "b"):
            with paper_style(columns=2, height=3.4):
                figure, ax = plt.subplots()
                PLOTS[name](predictions, about, ax)
                paths = save_figure(
                    figure,
                    name,
                    run="trial",
                    data=about[["label"]],
                    caption="A figure.",
                    root=tmp_path / root,
                )
                plt.close(figure)
            saved.append([path.read_bytes() for path in paths])
        assert saved[0] == saved[1]
