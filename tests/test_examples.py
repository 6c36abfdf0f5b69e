"""Predictions packed into one file: what comes out is what went in, and what the kit holds is fit to be read."""

from pathlib import Path

import pandas as pd
import prediction_tables as tables
import pytest
from pack_run import pack

from serkit import evaluation, runs
from serkit.constants import FUSIONS
from serkit.errors import RunError
from serkit.evaluation.comparison import RULES
from serkit.experiment import Experiment

HOME = Path(__file__).parents[1]
SHIPPED = HOME / runs.PACKED
VARIANT, MEAN = (
    Experiment(speech_encoder="/a/b/tiny", fusion=fusion).variant for fusion in ("coattention", "mean")
)
SEEDS = (111, 211)
ORDER = ["variant", "seed", "fold", "split", "utterance_id", "epoch"]


def epochs_of(rows):
    """Three epochs: the first has the classes of the next utterance."""
    return pd.concat([rows.assign(epoch=epoch) for epoch in (1, 2, 3)], ignore_index=True)


@pytest.fixture
def trained(project):
    """Two variants by two seeds, every fold finished, with predictions of every epoch."""
    for variant, seed in ((variant, seed) for variant in (VARIANT, MEAN) for seed in SEEDS):
        fusion = "mean" if variant == MEAN else "coattention"
        for fold, rows in tables.predict(tables.manifest(), "session", seed=seed).groupby("fold"):
            experiment = Experiment(speech_encoder="/a/b/tiny", fusion=fusion, fold=fold, seed=seed)
            folder = experiment.folder("tiny")
            about = {
                "key": experiment.key,
                "parameters": vars(experiment),
                "folds": list("12345"),
                "machine": "m",
            }
            runs.write_json(folder / "experiment.json", about)
            rows = rows.assign(variant=variant, p_angry=rows["p_angry"] + 3e-5, p_sad=rows["p_sad"] - 3e-5)
            rows.to_parquet(folder / "predictions.parquet")
            epochs_of(rows).to_parquet(folder / runs.EPOCHS)
            (folder / runs.DONE).write_text("x")
    (project / runs.PACKED).parent.mkdir(parents=True)
    return project


def in_order(table):
    return table.sort_values([name for name in ORDER if name in table])[sorted(table.columns)].reset_index(
        drop=True
    )


def test_what_comes_out_is_what_went_in(trained):
    written = pack("tiny", trained / runs.PACKED, VARIANT)
    assert written["folds"].tolist() == [5] * 4 and set(written["variant"]) == {VARIANT, MEAN}
    there, again = in_order(runs.load_predictions("tiny")), in_order(runs.load_predictions(runs.EXAMPLE))
    pd.testing.assert_frame_equal(there, again, atol=5.1e-5, rtol=0)
    exact = there.columns.difference(["p_angry", "p_sad", "p_happy", "p_neutral"])
    pd.testing.assert_frame_equal(there[exact], again[exact])
    evaluation.check_predictions(again, "12345")
    first, second = (in_order(evaluation.load_epochs(run, VARIANT)) for run in ("tiny", runs.EXAMPLE))
    pd.testing.assert_frame_equal(first, second, atol=5.1e-5, rtol=0)
    with pytest.raises(RunError, match="kept no predictions of its epochs"):
        evaluation.load_epochs(runs.EXAMPLE, MEAN)


def test_settings_and_records_come_along_without_paths(trained):
    pack("tiny", trained / runs.PACKED)
    for variant in (VARIANT, MEAN):
        packed, own = (runs.shared_parameters(run, variant) for run in (runs.EXAMPLE, "tiny"))
        assert packed.pop("speech_encoder") == "tiny" and own.pop("speech_encoder") == "/a/b/tiny"
        assert packed == own
        assert runs.planned_folds(runs.EXAMPLE, variant) == list("12345")
    for folder in runs.finished_folders(runs.EXAMPLE):
        assert runs.is_done(folder, runs.read_experiment(folder))
        assert runs.read_record(folder)["machine"] == "m"
    assert sorted(evaluation.families(runs.EXAMPLE, "fusion")[0]) == ["coattention", "mean"]


def test_a_seed_without_all_its_folds_waits_for_the_next_call(trained):
    last = Experiment(speech_encoder="/a/b/tiny", fold="5", seed=211).folder("tiny") / runs.DONE
    last.unlink()
    written = pack("tiny", trained / runs.PACKED)
    assert written.set_index(["variant", "seed"])["folds"].to_dict() == {
        (VARIANT, 111): 5, (MEAN, 111): 5, (MEAN, 211): 5,
    }  # fmt: skip
    assert set(runs.load_predictions(runs.EXAMPLE, VARIANT)["seed"]) == {111}
    last.write_text("x")
    pack("tiny", trained / runs.PACKED)
    assert set(runs.load_predictions(runs.EXAMPLE, VARIANT)["seed"]) == {111, 211}


def test_it_is_unpacked_once_and_after_an_interruption(trained):
    pack("tiny", trained / runs.PACKED)
    (some, *_) = runs.finished_folders(runs.EXAMPLE)
    (some / "metrics.json").write_text("{}")  # a user's own work beside it
    before = (some / "predictions.parquet").stat().st_mtime_ns
    runs.load_predictions(runs.EXAMPLE)
    assert (some / "predictions.parquet").stat().st_mtime_ns == before
    (trained / "runs" / runs.EXAMPLE / "unpacked.txt").unlink()
    (some / runs.DONE).unlink()
    assert some in runs.finished_folders(runs.EXAMPLE) and (some / "metrics.json").is_file()


def test_nothing_to_pack_and_nothing_to_unpack(project):
    with pytest.raises(RunError, match="run 'example': no finished fold"):
        runs.load_predictions(runs.EXAMPLE)
    folder = Experiment().folder("tiny")
    runs.write_json(folder / "experiment.json", {"parameters": vars(Experiment()), "folds": ["1", "2"]})
    (folder / runs.DONE).write_text("x")
    with pytest.raises(RunError, match="run 'tiny': no seed has all its folds yet"):
        pack("tiny", project / "packed.tar.xz")


class TestShipped:
    """The file that comes with the kit."""

    @pytest.fixture
    def predictions(self, project):
        (project / runs.PACKED).parent.mkdir(parents=True)
        (project / runs.PACKED).write_bytes(SHIPPED.read_bytes())
        return runs.load_predictions(runs.EXAMPLE)

    def test_it_is_small_and_holds_no_paths(self, predictions):
        assert SHIPPED.stat().st_size < 1_000_000
        folders = runs.finished_folders(runs.EXAMPLE)
        parameters = [runs.read_record(folder)["parameters"] for folder in folders]
        assert {about["speech_encoder"] for about in parameters} == {"whisper-base"}
        assert {about["corpus"] for about in parameters} == {"ravdess"}

    def test_it_passes_every_check_of_a_run(self, predictions):
        evaluation.check_predictions(predictions, "123456")
        tested = predictions[predictions["split"] == "test"]
        every = tested.groupby(["variant", "seed"])["utterance_id"].nunique()
        assert len(every) == 7 * 3 and every.eq(672).all()
        assert tested["speaker"].nunique() == 24

    def test_a_variant_has_every_epoch(self, predictions):
        [epochs] = evaluation.kept_epochs(runs.EXAMPLE)
        assert epochs["variant"].unique().tolist() == [min(predictions["variant"], key=len) + "_speech"]
        assert epochs["seed"].nunique() == 3
        assert set(evaluation.rule_scores(epochs)["rule"]) == set(RULES)

    def test_it_has_what_notebook_07_compares(self, predictions):
        names = ("views", "fusion", "encoder_layers")
        compared = {name: evaluation.families(runs.EXAMPLE, name) for name in names}
        assert {name: [set(family) for family in families] for name, families in compared.items()} == {
            "views": [{"all", "speech"}], "fusion": [set(FUSIONS)], "encoder_layers": [{"last", "weighted"}],
        }  # fmt: skip
