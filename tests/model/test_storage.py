"""A model on disk: there and back, its card, checkpoints of the published code, and all that can be wrong."""

import dataclasses
import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from huggingface_hub import ModelCard
from voices import write_model_folder

from serkit.constants import CORPORA, LABELS
from serkit.corpora import REGISTRY
from serkit.errors import WeightsError
from serkit.experiment import Experiment
from serkit.features.views import SpectrogramScaler
from serkit.model import speech_encoders, storage
from serkit.model.coattention import DEMO, create_model
from serkit.model.storage import (
    from_published_state_dict,
    load_model,
    load_published,
    model_card,
    open_model_folder,
    save_model,
)
from serkit.recipe import named

SHAPES = Path(__file__).parents[1] / "golden" / "ca_mser_state_dict_shapes.json"
EXPERIMENT = Experiment(recipe="published+D2")
METRICS = {"wa_pooled": 0.5, "ua_pooled": 0.4567, "n_utterances": 88}
SCALER = SpectrogramScaler(
    np.linspace(-80, -60, 200, dtype=np.float32), np.linspace(-1, -1 / 3, 200, dtype=np.float32)
)


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    torch.manual_seed(0)
    model = create_model(DEMO).eval()
    folder = tmp_path_factory.mktemp("model")
    write_model_folder(folder, model, scaler=SCALER, experiment=EXPERIMENT, metrics=METRICS)
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
    assert opened.experiment == dataclasses.asdict(EXPERIMENT)
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
        with pytest.raises(
            WeightsError, match=rf"{name}: damaged, or not of the files beside it \(.*train the model again"
        ):
            open_model_folder(copy)

    def test_cut_in_half(self, copy, name):
        whole = (copy / name).read_bytes()
        (copy / name).write_bytes(whole[: len(whole) // 2])
        with pytest.raises(WeightsError, match=rf"{name}: damaged, or not of the files") as caught:
            open_model_folder(copy)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"lstm_layers": 1_000_000}, "lstm_layers=1000000, expected numbers up to 100"),
        ({"hidden": 10**9}, "hidden=1000000000, expected"),
        ({"hidden": "64"}, "hidden=64, expected int"),
        ({"encoder_mask": "x"}, "encoder_mask='x', expected bool"),
        ({"encoder_layers": "lasst"}, "encoder_layers='lasst', expected"),
        ({"cnn_channels": [16, 16, 10**8, 32, 32]}, "cnn_channels=.*, expected numbers up to 100000"),
        ({"speech": {"model_type": "bert"}}, "model_type='bert', expected one of wav2vec2"),
        ({"speech": DEMO.speech | {"num_hidden_layers": 10**6}}, "num_hidden_layers=1000000, expected"),
        ({"speech": DEMO.speech | {"auto_map": {"AutoModel": "mine.Model"}}}, "auto_map asks to run code"),
        (
            {"speech": DEMO.speech | {"_attn_implementation": "a/kernel"}},
            "_attn_implementation asks to run code",
        ),
        ({"nobody": 1}, "nobody"),
    ],
)
def test_a_config_that_nobody_wrote(copy, change, sentence):
    """Refused within seconds, as nothing of that size is built."""
    edit(copy / "config.json", **change)
    with pytest.raises(
        WeightsError, match=rf"config.json: damaged, or not of the files beside it \(.*{sentence}"
    ) as caught:
        open_model_folder(copy)
    assert len(str(caught.value)) < 600


def test_a_structure_that_can_hear_nothing(copy):
    edit(copy / "config.json", speech=DEMO.speech | {"num_attention_heads": 0})
    with pytest.raises(
        WeightsError, match=r"type 'wav2vec2' can't hear 3 s of sound .*; use one of wav2vec2, hubert"
    ):
        open_model_folder(copy)


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


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        ("features.json", b"-80.0", b"-60.0"),  # level of a frequency
        ("features.json", b"published+D2", b"published+D1"),
        ("config.json", b'"num_attention_heads": 4', b'"num_attention_heads": 2'),
        ("model.safetensors", None, None),
    ],
)
def test_what_would_change_an_answer_is_refused(copy, name, old, new):
    """The file can be read all the same; beside it nothing says what it was."""
    content = (copy / name).read_bytes()
    changed = content.replace(old, new, 1) if old else content[:-5] + bytes([content[-5] ^ 1]) + content[-4:]
    assert changed != content
    (copy / name).write_bytes(changed)
    with pytest.raises(WeightsError, match=rf"{name}: damaged, or not of .*edited or damaged since training"):
        open_model_folder(copy)


def test_what_is_saved_once_more_is_whole_again(copy):
    """As for handing it on: load, and save with all weights."""
    model = load_model(copy)
    with torch.no_grad():
        model.classifier.bias += 1
    save_model(model, copy, whole=True)
    assert torch.equal(open_model_folder(copy).model.classifier.bias, model.classifier.bias)


def test_a_model_of_an_older_version_has_no_digests(copy):
    record = json.loads((copy / "features.json").read_text())
    del record["key"], record["digests"]
    (copy / "features.json").write_text(json.dumps(record))
    open_model_folder(copy)


def test_weights_of_another_network_are_refused(copy):
    edit(copy / "config.json", hidden=32)
    with pytest.raises(
        WeightsError, match=r"model.safetensors: damaged, or not of the files beside it \(size mismatch"
    ):
        open_model_folder(copy)


class TestCard:
    def card(self, config=DEMO, metrics=METRICS, **settings):
        return model_card(dataclasses.asdict(config), experiment=Experiment(**settings), metrics=metrics)

    def test_every_corpus_has_one(self):
        cards = [self.card(corpus=corpus) for corpus in REGISTRY]
        about = [re.search(r"The corpus is (.*)\. The emotions", card)[1] for card in cards]
        assert len(set(about)) == len(REGISTRY) and all(len(words.split()) > 5 for words in about)

    def test_header_is_yaml_with_the_scores(self):
        _, header, body = self.card().split("---\n", 2)
        record = yaml.safe_load(header)
        assert record["language"] == ["en"] and record["pipeline_tag"] == "audio-classification"
        values = {m["name"]: m["value"] for m in record["model-index"][0]["results"][0]["metrics"]}
        assert values == {"WA (%)": 50.0, "UA (%)": 45.67}
        assert "45.7 %" in body and "88 utterances" in body and "25 %" in body

    def header(self, **settings):
        return yaml.safe_load(self.card(**settings).split("---\n")[1])

    def test_the_header_is_one_that_the_hub_knows(self):
        """Read as the hub's own library reads it; its names of licences are on hf.co/docs/hub/repositories-licenses."""
        rows = [
            {"gender": "F", "n": 44, "wa": 0.5, "ua": 0.5},
            {"gender": "M", "n": 44, "wa": 0.5, "ua": float("nan")},
        ]
        text = self.card(corpus="ravdess", metrics=METRICS | {"by_gender": rows})
        data = ModelCard(text, ignore_metadata_errors=False).data
        found = {
            (r.metric_type, r.metric_name): (r.metric_value, r.dataset_type, r.metric_args)
            for r in data.eval_results
        }
        assert found == {
            ("accuracy", "WA (%)"): (50.0, "ravdess", None),
            ("recall", "UA (%)"): (45.67, "ravdess", {"average": "macro"}),
            ("recall", "UA, female voices (%)"): (50.0, "ravdess", {"average": "macro"}),
        }
        assert data.metrics == ["accuracy", "recall"] and data.datasets == ["ravdess"]
        assert "| UA, female voices (44 utterances) | 50.0 % | 25 % |" in text
        assert "| UA, male voices (44 utterances) | – % | 25 % |" in text

    def test_licences_of_corpora_pass_on(self):
        assert self.header(corpus="ravdess")["license"] == "cc-by-nc-sa-4.0"
        iemocap = self.header(corpus="iemocap")
        assert iemocap["license"] == "other" and iemocap["license_name"] == "iemocap-by-agreement-with-usc"
        assert iemocap["license_link"].startswith("https://sail.usc.edu/")
        assert self.header(corpus="mine")["license"] == "unknown" and "language" not in self.header(
            corpus="mine"
        )
        assert set(storage.CORPORA) == set(CORPORA), "model/corpora.toml"

    def test_across_corpora_those_that_were_learned_from_count(self):
        record = self.header(corpus="ravdess+emodb-to-tess", fold="test")
        assert record["datasets"] == ["ravdess", "emodb"] and record["language"] == ["de", "en"]
        assert (record["license"], record["license_name"]) == ("other", "those-of-ravdess-and-emodb")
        assert record["model-index"][0]["results"][0]["dataset"]["type"] == "tess"
        assert self.header(corpus="ravdess-to-tess", fold="test")["license"] == "cc-by-nc-sa-4.0"

    def test_random_weights_are_visible(self):
        assert self.card().count("**random** weights") == 2
        paper = self.card(dataclasses.replace(DEMO, speech_encoder="a/b", cnn_weights="imagenet"))
        assert "`a/b`" in paper and "**random**" not in paper

    def test_the_base_model_is_the_encoder_that_was_used(self, tmp_path):
        def base(encoder, **settings):
            card = self.card(dataclasses.replace(DEMO, speech_encoder=encoder), **settings)
            return yaml.safe_load(card.split("---\n")[1]).get("base_model")

        assert base("openai/whisper-base", profile="paper") == "openai/whisper-base"
        assert base("openai/whisper-base") == "openai/whisper-base"
        assert base("openai/whisper-base", views="mfcc") is None
        assert base("random") is None and base(str(tmp_path)) is None  # the hub knows neither

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


# Parameters of the paper's model. Each linear layer has inputs x outputs + outputs.
BRANCHES = {
    # convolutions 23296 + 307392 + 663936 + 884992 + 590080 = 2469696, linear 9216 x 128 + 128 = 1179776
    "spectrogram_encoder": 3_649_472,
    # layer 1: 2 x 4 x 256 x (40 + 256 + 2) = 610304, layer 2: 2 x 4 x 256 x (512 + 256 + 2) = 1576960,
    # linear 153600 x 128 + 128 = 19660928
    "mfcc_encoder": 21_848_192,
    "speech_encoder": 94_371_712,  # wav2vec2-base
    "coattention": 256 * 149 + 149,
    "speech_projection": 768 * 128 + 128,
    "fusion_1": 384 * 128 + 128,
    "fusion_2": 128 * 128 + 128,
    "classifier": 128 * 4 + 4,
}


@pytest.fixture(scope="module")
def old_checkpoint():
    """A published checkpoint as an older torch wrote it from several GPUs; each tensor is one number."""
    renamed = {"original0": "weight_g", "original1": "weight_v"}
    state = {}
    for number, (name, shape) in enumerate(json.loads(SHAPES.read_text()).items()):
        if "parametrizations" in name:
            name = name.replace("parametrizations.weight.", "")
            name = name.replace(name.rsplit(".", 1)[1], renamed[name.rsplit(".", 1)[1]])
        state[f"module.{name}"] = torch.tensor(float(number)).expand(shape)
    return state


@pytest.fixture(scope="module")
def published(old_checkpoint):
    return from_published_state_dict(old_checkpoint)


class TestPaperModel:
    def test_parameter_counts(self, published):
        assert published.count_parameters() == BRANCHES
        assert sum(BRANCHES.values()) == sum(p.numel() for p in published.parameters())

    def test_no_alexnet_classifier(self, published):
        for part in published.spectrogram_encoder.modules():
            assert 4096 not in (getattr(part, "in_features", 0), getattr(part, "out_features", 0))
        assert not [name for name in published.state_dict() if "alexnet" in name]

    def test_old_names_and_prefix_are_understood(self, published, old_checkpoint):
        """One tensor of each branch arrives where it belongs."""
        expected = {
            "spectrogram_encoder.features.10.weight": "alexnet_model.features.10.weight",
            "spectrogram_encoder.projection.bias": "post_spec_layer.bias",
            "mfcc_encoder.lstm.weight_hh_l1_reverse": "lstm_mfcc.weight_hh_l1_reverse",
            "mfcc_encoder.projection.weight": "post_mfcc_layer.weight",
            "speech_encoder.masked_spec_embed": "wav2vec2_model.masked_spec_embed",
            "speech_encoder.encoder.pos_conv_embed.conv.parametrizations.weight.original0":
                "wav2vec2_model.encoder.pos_conv_embed.conv.weight_g",
            "speech_encoder.encoder.pos_conv_embed.conv.parametrizations.weight.original1":
                "wav2vec2_model.encoder.pos_conv_embed.conv.weight_v",
            "coattention.weight": "post_spec_mfcc_att_layer.weight",
            "speech_projection.weight": "post_wav_layer.weight",
            "fusion_1.weight": "post_att_layer_1.weight",
            "fusion_2.bias": "post_att_layer_2.bias",
            "classifier.bias": "post_att_layer_3.bias",
        }  # fmt: skip
        state = published.state_dict()
        for ours, theirs in expected.items():
            assert torch.equal(state[ours], old_checkpoint[f"module.{theirs}"]), ours
        # all 257 but the six of AlexNet's classifier arrived, each once
        assert len({value.flatten()[0].item() for value in state.values()}) == len(state) == 251

    def test_evaluation_mode(self, published):
        assert not published.training


@pytest.mark.filterwarnings("ignore:.*meta parameter")
class TestCheckpointRefused:
    @pytest.fixture(autouse=True)
    def without_storage(self, monkeypatch):
        """A refusal needs names and shapes only: no time spent on drawing 120 million weights."""
        monkeypatch.setattr(speech_encoders, "states_shape", lambda *_: (1, 149, 768))
        with torch.device("meta"):
            yield

    @pytest.mark.parametrize(
        ("change", "fault"),
        [
            (
                lambda state: state.pop("module.post_wav_layer.bias"),
                r'Missing key.*"speech_projection\.bias"',
            ),
            (lambda state: state.update(optimizer=torch.zeros(1)), r'Unexpected key.*"optimizer"'),
            (
                lambda state: state.update({"module.post_att_layer_3.weight": torch.zeros(6, 128)}),
                r"size mismatch for classifier\.weight: .*\[6, 128\].*\[4, 128\]",
            ),
        ],
    )
    def test_what_does_not_fit_is_named(self, old_checkpoint, change, fault):
        state = dict(old_checkpoint)
        change(state)
        with pytest.raises(WeightsError, match=rf"does not fit the published model: {fault}"):
            from_published_state_dict(state)

    def test_something_else_entirely(self):
        with pytest.raises(WeightsError, match="does not fit the published model: Missing key") as caught:
            from_published_state_dict({"weight": torch.zeros(2)})
        assert len(str(caught.value)) < 1100


class Malicious:
    """Runs code when it is unpickled."""

    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return Path.touch, (Path(self.marker),)


class TestCheckpointFile:
    """``load_published`` reads tensors from a file and nothing else."""

    def test_malicious_checkpoint_is_not_unpickled(self, tmp_path):
        marker, path = tmp_path / "owned", tmp_path / "checkpoint.pt"
        torch.save({"post_att_layer_3.bias": torch.zeros(4), "extra": Malicious(str(marker))}, path)
        with pytest.raises(
            WeightsError, match=r"checkpoint.pt: can't be read as tensors .*Weights only load"
        ):
            load_published(path)
        assert not marker.exists()
        torch.load(path, weights_only=False)
        assert marker.exists()  # it would have run

    def test_what_is_no_state_dict_is_refused(self, tmp_path):
        path = tmp_path / "checkpoint.pt"
        torch.save({"epoch": 3}, path)
        with pytest.raises(WeightsError, match=r"it holds something else too.*expected a state_dict"):
            load_published(path)
        for content in ("not a checkpoint", ""):
            path.write_text(content)
            with pytest.raises(WeightsError, match="can't be read as tensors"):
                load_published(path)
        with pytest.raises(WeightsError, match="No such file"):
            load_published(tmp_path / "nowhere.pt")

    def test_names_are_checked(self, tmp_path):
        path = tmp_path / "checkpoint.pt"
        torch.save({"post_att_layer_3.bias": torch.zeros(4)}, path)
        with pytest.raises(WeightsError, match=r"Missing key.*spectrogram_encoder"):
            load_published(path)
