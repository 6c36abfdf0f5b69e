"""The model folder: there and back, what its card says, and every piece that can be missing or wrong."""

import dataclasses
import json

import numpy as np
import pytest
import torch
import yaml

from serkit.constants import LABELS
from serkit.corpora import REGISTRY
from serkit.errors import WeightsError
from serkit.experiment import Experiment
from serkit.features.images import SpectrogramScaler
from serkit.model.coattention import DEMO, create_model
from serkit.model.modelcard import CORPORA, model_card
from serkit.model.storage import open_model_folder, write_model_folder
from serkit.recipe import PUBLISHED, named

METRICS = {"wa_pooled": 0.5, "ua_pooled": 0.4567, "n_utterances": 88}
SCALER = SpectrogramScaler(
    np.linspace(-80, -60, 200, dtype=np.float32), np.linspace(-1, -1 / 3, 200, dtype=np.float32)
)


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    torch.manual_seed(0)
    model = create_model(DEMO).eval()
    folder = tmp_path_factory.mktemp("model")
    write_model_folder(
        folder, model, recipe=named("published+D2"), scaler=SCALER, experiment=Experiment(), metrics=METRICS
    )
    return folder, model


@pytest.fixture
def copy(written, tmp_path):
    for path in written[0].iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    return tmp_path


def edit(path, **changes):
    record = json.loads(path.read_text())
    path.write_text(json.dumps(record | changes))


def test_there_and_back(written):
    folder, model = written
    opened = open_model_folder(folder)
    assert {path.name for path in folder.iterdir()} == {
        "config.json", "features.json", "model.safetensors", "README.md"
    }  # fmt: skip
    assert opened.recipe == named("published+D2")
    np.testing.assert_array_equal(opened.scaler.minimum, SCALER.minimum)  # to the last bit
    np.testing.assert_array_equal(opened.scaler.maximum, SCALER.maximum)
    assert opened.scaler.minimum.dtype == np.float32
    assert not opened.model.training
    for name, value in model.state_dict().items():
        assert torch.equal(opened.model.state_dict()[name], value)
    assert opened.experiment == dataclasses.asdict(Experiment())
    assert json.loads((folder / "features.json").read_text())["labels"] == list(LABELS)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "features.json"])
class TestPieces:
    def test_missing(self, copy, name):
        (copy / name).unlink()
        with pytest.raises(WeightsError, match=rf"{name} is missing; train"):
            open_model_folder(copy)

    @pytest.mark.parametrize("content", [b"", b"{}", b"\xff\x00 no"])
    def test_damaged(self, copy, name, content):
        (copy / name).write_bytes(content)
        with pytest.raises(WeightsError, match=rf"{name}: damaged or unreadable \(.*train the model again"):
            open_model_folder(copy)

    def test_cut_in_half(self, copy, name):
        whole = (copy / name).read_bytes()
        (copy / name).write_bytes(whole[: len(whole) // 2])
        with pytest.raises(WeightsError, match=rf"{name}: damaged or unreadable") as caught:
            open_model_folder(copy)
        assert "\n" not in str(caught.value)


def test_folder_missing(tmp_path):
    with pytest.raises(WeightsError, match=r"nowhere: no such folder; train a model with notebook"):
        open_model_folder(tmp_path / "nowhere")


def test_other_label_order_is_refused(copy):
    edit(copy / "features.json", labels=["angry", "happy", "neutral", "sad"])
    with pytest.raises(WeightsError, match=r"labels=\['angry', 'happy'.*expected \['angry', 'sad'"):
        open_model_folder(copy)


def test_other_feature_version_is_refused(copy):
    edit(copy / "features.json", feature_version=1)
    with pytest.raises(WeightsError, match=r"feature_version=1, expected"):
        open_model_folder(copy)


def test_scaler_of_another_length_is_refused(copy):
    edit(copy / "features.json", scaler={"minimum": [0.0], "maximum": [1.0]})
    with pytest.raises(WeightsError, match=r"features.json: damaged.*scaler minimum has shape \(1,\)"):
        open_model_folder(copy)


def test_weights_of_another_network_are_refused(copy):
    edit(copy / "config.json", hidden=32)
    with pytest.raises(WeightsError, match=r"model.safetensors: does not fit config.json beside it \(.*size"):
        open_model_folder(copy)


class TestCard:
    def card(self, config=DEMO, recipe=PUBLISHED, metrics=METRICS, **settings):
        return model_card(config, recipe=recipe, experiment=Experiment(**settings), metrics=metrics)

    def test_every_corpus_has_one(self):
        assert set(CORPORA) == set(REGISTRY)

    def test_header_is_yaml_with_the_scores(self):
        _, header, body = self.card().split("---\n", 2)
        record = yaml.safe_load(header)
        assert record["language"] == "en" and record["pipeline_tag"] == "audio-classification"
        values = {m["name"]: m["value"] for m in record["model-index"][0]["results"][0]["metrics"]}
        assert values == {"WA (%)": 50.0, "UA (%)": 45.67}
        assert "45.7 %" in body and "88 utterances" in body and "25 %" in body

    def test_random_weights_are_visible(self):
        assert self.card().count("**random** weights") == 2
        paper = self.card(dataclasses.replace(DEMO, speech_encoder="a/b", cnn_weights="imagenet"))
        assert "`a/b`" in paper and "**random**" not in paper

    def test_only_iemocap_with_the_papers_network_speaks_about_the_paper(self):
        silent = "say nothing about the paper"
        assert silent in self.card(corpus="ravdess") and silent in self.card(corpus="demo", profile="paper")
        assert silent in self.card(corpus="iemocap") and silent not in self.card(
            corpus="iemocap", profile="paper"
        )

    def test_leak_is_said(self):
        leak = "chosen on the test speakers"
        assert leak in self.card(selection="published") and leak not in self.card(selection="clean")

    def test_language(self):
        assert "Language: German" in self.card(corpus="emodb")

    def test_score_that_is_no_number(self):
        card = self.card(metrics=METRICS | {"ua_pooled": float("nan")})
        assert "UA (%)" not in card and "| – % |" in card
