"""Training curves, and the vectors of a network on a plane."""

import json

import matplotlib as mpl
import numpy as np
import pandas as pd
import prediction_tables as tables
import pytest
from matplotlib import pyplot as plt

from serkit import figures
from serkit.constants import LABELS
from serkit.errors import ParameterError, RunError
from serkit.figures import EMOTION_COLOURS, curves
from serkit.reproduction import report

mpl.use("Agg")

HISTORY = pd.DataFrame(
    {
        "epoch": [1, 2, 3],
        "train_loss": [1.4, 1.0, 0.7],
        "validation_loss": [1.5, 1.2, 1.3],
        "train_ua": [0.25, 0.5, 0.75],
        "validation_ua": [np.nan] * 3,
    }
)


@pytest.fixture
def ax():
    with figures.paper_style():
        figure, ax = plt.subplots()
        yield ax
    plt.close(figure)


def texts_in(ax):
    return [text.get_text() for text in ax.texts]


def legend_of(ax):
    return [text.get_text() for text in ax.get_legend().get_texts()]


class TestHistory:
    def test_loss(self, ax):
        figures.plot_history(HISTORY, ax, best_epoch=2)
        assert [list(line.get_ydata()) for line in ax.lines[:2]] == [[1.4, 1.0, 0.7], [1.5, 1.2, 1.3]]
        assert ax.lines[2].get_xdata()[0] == 2

    def test_ua_in_percent_without_validation(self, ax):
        figures.plot_history(HISTORY, ax, what="ua")
        assert list(ax.lines[0].get_ydata()) == [25, 50, 75]
        assert [text.get_text() for text in ax.get_legend().get_texts()] == ["train", "chance"]


def history(fold, ua, kept):
    n = len(ua)
    return pd.DataFrame({
        "fold": fold, "seed": 1, "epoch": range(1, n + 1), "kept": np.arange(1, n + 1) == kept,
        "train_ua": 1.0, "validation_ua": ua,
    })  # fmt: skip


class TestHistoriesOfManyFolds:
    def test_mean_ends_where_the_first_fold_stops(self, ax):
        histories = pd.concat([history("1", [0.2, 0.4, 0.6], 3), history("2", [0.4, 0.5], 1)])
        figures.plot_history(histories, ax, what="ua")
        lines = {line.get_label(): line for line in ax.lines}
        assert np.allclose(lines["validation, mean of 2"].get_xydata(), [[1, 30], [2, 45]])
        assert np.allclose(lines["kept"].get_xydata(), [[3, 60], [1, 40]])
        assert len([line for line in ax.lines if line.get_linewidth() == 0.6]) == 4


@pytest.fixture(scope="module")
def vectors():
    """Four groups far apart in ten dimensions."""
    rng = np.random.default_rng(3)
    return rng.normal(size=(60, 10)) + 12 * np.eye(10)[np.repeat(range(4), 15)]


class TestEmbedding:
    def test_neighbours_stay_neighbours_and_points_are_repeatable(self, vectors):
        points = curves.project(vectors, perplexity=8)
        distance = np.linalg.norm(points[:, None] - points[None], axis=2)
        np.fill_diagonal(distance, np.inf)
        assert (distance.argmin(axis=1) // 15 == np.arange(60) // 15).all()
        assert np.array_equal(points, curves.project(vectors, perplexity=8))

    def test_a_network_that_has_learned_nothing_is_said(self, vectors):
        with pytest.raises(ParameterError, match="all 60 embeddings are the same"):
            figures.project(np.ones_like(vectors), perplexity=8)


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
        patch.setattr(curves.runs, "project_home", lambda: home)
        keep_vectors(home, by_session)
        return curves.read_vectors("trial", by_session)


@pytest.fixture(scope="module")
def points(kept):
    return curves.fold_points(kept)


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
        monkeypatch.setattr(curves, "project", first_two)
        monkeypatch.setattr(curves, "MAX_POINTS", 40)
        points = curves.fold_points(kept)
        # 8 of the 24 of session 1: 0, 23/7, 46/7, ... rounded
        ids = sorted(kept["utterance_id"][kept["fold"] == "1"])
        expected = [ids[i] for i in (0, 3, 7, 10, 13, 16, 20, 23)]
        assert points["utterance_id"][points["fold"] == "1"].tolist() == expected
        monkeypatch.setattr(curves, "MAX_POINTS", 29)
        with pytest.raises(ParameterError, match="fold 1: 5 utterances to draw, expected at least 6"):
            curves.fold_points(kept)

    def test_emotions_keep_their_colours_in_every_panel(self, points, ax):
        curves.plot_fold_points(points, ax)
        panels = [panel for panel in ax.figure.axes if panel is not ax]
        assert [panel.get_title() for panel in panels] == [f"fold {fold}, n = 24" for fold in range(1, 6)]
        for panel, (_, rows) in zip(panels, points.groupby("fold"), strict=True):
            drawn = {group.get_label(): group for group in panel.collections}
            assert list(drawn) == list(LABELS)
            for label, group in drawn.items():
                assert (
                    plt.matplotlib.colors.to_hex(group.get_facecolor()[0]).upper() == EMOTION_COLOURS[label]
                )
                expected = rows.loc[rows["truth"] == label, ["x", "y"]]
                assert np.array_equal(group.get_offsets(), expected)
        assert [text.get_text() for text in ax.figure.legends[0].get_texts()] == list(LABELS)

    def test_speakers_are_named_under_their_panel(self, points, ax):
        curves.plot_fold_points(points, ax, by="speaker")
        names = []
        for panel in ax.figure.axes[1:]:
            names += legend_of(panel)
            assert [len(group.get_offsets()) for group in panel.collections] == [12, 12]
        assert names == tables.SPEAKERS and not ax.figure.legends

    def test_one_speaker_in_a_fold_can_not_be_told_from_others(self, points, ax):
        alone = points.assign(speaker="1F")
        with pytest.raises(ParameterError, match="fold 1: tests 1 speaker, expected 2 to 6"):
            curves.plot_fold_points(alone, ax, by="speaker")

    def test_a_run_from_before_says_so(self, project, by_session):
        with pytest.raises(
            RunError, match=r"fold=1/seed=111/embedding\.parquet is missing, train this fold again"
        ):
            curves.read_vectors("trial", by_session)

    @pytest.mark.parametrize(
        ("damage", "message"),
        [
            (
                lambda path: pd.read_parquet(path)[:-1].to_parquet(path),
                "vectors of other utterances than predictions",
            ),
            (lambda path: path.write_bytes(b"PAR1"), r"embedding\.parquet can't be read"),
        ],
    )
    def test_a_damaged_file_is_named(self, project, by_session, damage, message):
        keep_vectors(project, by_session)
        damage(next((project / "runs").rglob("fold=3/seed=111/embedding.parquet")))
        with pytest.raises(RunError, match=f"fold=3/seed=111/.*{message}"):
            curves.read_vectors("trial", by_session)

    def test_figures_of_a_report_are_the_same_bytes_again(self, project, by_session, monkeypatch):
        monkeypatch.setattr(curves, "project", first_two)  # that t-SNE repeats itself is tested above
        table = by_session[by_session["seed"] == 111]
        keep_vectors(project, table)
        variant = table["variant"].iloc[0]
        parameters, folds = {variant: {"corpus": "demo", "by": "session"}}, {variant: list("12345")}
        saved = []
        for root in ("a", "b"):
            made = report.run_figures("trial", table, folds, parameters)
            chosen = [figure for figure in made if figure.stem.startswith("embedding_")]
            paths = [path for figure in chosen for path in figure.save("trial", project / root)]
            saved.append({path.name: path.read_bytes() for path in paths})
        assert saved[0] == saved[1] and len(saved[0]) == 10
        caption = json.loads(saved[0]["embedding_emotion.json"])["caption"]
        assert "seed 111, at most 300 utterances a fold" in caption
        assert (
            "Coloured by emotion. Five leave-one-session-out folds (120 utterances of 10 synthetic" in caption
        )
