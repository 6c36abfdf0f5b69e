"""What of the speech encoder learns, and the frozen one whose output is kept on disk."""

import dataclasses
import json
import os

import numpy as np
import pytest
import torch
from tones import QUIET, make_tones, train
from transformers import HubertConfig, HubertModel, Wav2Vec2Config, Wav2Vec2Model, WavLMConfig, WavLMModel

from serkit.errors import ParameterError, StoreError, WeightsError
from serkit.experiment import Experiment
from serkit.model import coattention as model
from serkit.model.coattention import CoAttentionModel, create_model
from serkit.model.storage import load_model
from serkit.training import encoder_states as encoded
from serkit.training import loop as training
from serkit.training.batches import SegmentDataset, fit_scaler, model_inputs
from serkit.training.encoder_states import build_states
from serkit.training.scoring import make_accelerator

ACCELERATOR = make_accelerator("float32")
SMALL = {
    "conv_dim": [8, 8, 8, 8, 8, 8, 8], "hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2,
    "intermediate_size": 32, "num_conv_pos_embeddings": 8, "num_conv_pos_embedding_groups": 2,
    "mask_time_prob": 0.0,
}  # fmt: skip
FAMILIES = {
    "wav2vec2": (Wav2Vec2Config, Wav2Vec2Model), "hubert": (HubertConfig, HubertModel), "wavlm": (WavLMConfig, WavLMModel),
}  # fmt: skip
MODES = [
    ("wav2vec2", "all"), ("hubert", "all"), ("hubert", "transformer"), ("wavlm", "top_1"), ("wav2vec2", "frozen")
]  # fmt: skip


@pytest.fixture(scope="module")
def tones(tmp_path_factory):
    return make_tones(tmp_path_factory.mktemp("tones"))


@pytest.mark.parametrize(("family", "mode"), MODES)
def test_a_saved_encoder_trains_and_frozen_parts_stay(tones, tmp_path, family, mode):
    """A small speech encoder, saved as transformers saves it."""
    config, build = FAMILIES[family]
    torch.manual_seed(5)
    encoder_folder = tmp_path / family
    build(config(**SMALL)).save_pretrained(encoder_folder)
    settings = {"speech_encoder": str(encoder_folder), "encoder_training": mode, "epochs": 1}
    result = train(tones, tmp_path / "run", **settings)
    before = create_model(training.model_config(Experiment(**settings))).speech_encoder
    after = load_model(tmp_path / "run" / "model").speech_encoder.state_dict()
    changed = {name for name, value in before.state_dict().items() if not torch.equal(value, after[name])}
    last = f"encoder.layers.{SMALL['num_hidden_layers'] - 1}."
    convolutions = {name for name in changed if name.startswith("feature_extractor.")}
    if mode == "frozen":
        assert not changed
    elif mode == "top_1":
        assert changed and all(name.startswith(last) for name in changed)
    else:
        assert any(name.startswith(last) for name in changed)
        assert any(name.startswith("encoder.layers.0.") for name in changed)
        assert bool(convolutions) == (mode == "all")
    weights = result.metrics["weights"]["speech_encoder"]
    assert (weights["name"], weights["from"]) == (str(encoder_folder), "folder")
    assert len(weights["sha256"]) == 64


def test_more_layers_than_there_are(tones, tmp_path):
    with pytest.raises(ParameterError, match=r"encoder_training='top_9', but the speech encoder has 2"):
        train(tones, tmp_path, encoder_training="top_9")


def test_an_encoder_that_is_not_there_is_one_message(tones, tmp_path):
    with pytest.raises(WeightsError, match=r"config.json, preprocessor_config.json and model.safetensors"):
        train(tones, tmp_path, speech_encoder=str(tmp_path / "nowhere"))


def test_random_weights_are_said(tones, tmp_path):
    lines = []
    result = train(tones, tmp_path, lines, epochs=1)
    assert "speech encoder: RANDOM weights" in lines
    assert json.loads((tmp_path / "metrics.json").read_text())["weights"] == result.metrics["weights"]
    assert result.metrics["weights"]["cnn"]["name"] == "random"
    assert "random" in (tmp_path / "model" / "README.md").read_text().lower()


class TestKeptStates:
    """The cached path and the live path are one model."""

    def build(self, tones, layers="last", mode="frozen"):
        torch.manual_seed(3)
        config = dataclasses.replace(QUIET, encoder_training=mode, encoder_layers=layers)
        network = CoAttentionModel(config).eval()
        return network, tones[1]

    @pytest.mark.parametrize("layers", ["last", "weighted"])
    def test_are_what_the_encoder_gives_learning_or_not(self, tones, layers):
        network, store = self.build(tones, layers)
        states = build_states(store, network, ACCELERATOR)
        rows = np.arange(len(store))
        features = store.read(rows)
        learning = CoAttentionModel(dataclasses.replace(network.config, encoder_training="all")).eval()
        learning.load_state_dict(network.state_dict())
        for live in (network, learning):
            with torch.no_grad():
                wanted = live.speech_states(
                    torch.from_numpy(features.waveform), torch.from_numpy(features.num_samples)
                )
            # half precision: 11 bits, a relative error of at most 2 ** -11
            np.testing.assert_allclose(states.take(rows), wanted.numpy(), rtol=2**-11 + 1e-5, atol=1e-6)
        assert states.shape == (len(store), 1 if layers == "last" else 3, 149, 48)

    @pytest.mark.parametrize("layers", ["last", "weighted"])
    def test_give_the_same_logits(self, tones, layers):
        network, store = self.build(tones, layers)
        label_of = dict.fromkeys(store.utterances["utterance_id"], 0)
        rows = np.arange(len(store))
        scaler = fit_scaler(store, rows)
        logits = []
        for states in (None, build_states(store, network, ACCELERATOR)):
            batch = SegmentDataset(store, rows, label_of, states)[list(rows)]
            assert ("waveform" in batch) == (states is None)
            with torch.no_grad():
                logits.append(network(**model_inputs(batch, scaler, store.recipe, "cpu")).logits)
        torch.testing.assert_close(logits[0], logits[1], rtol=0, atol=2e-3)
        assert not torch.equal(logits[0], logits[1])  # or the states were not used

    def test_training_loses_nothing(self, tones, tmp_path, monkeypatch):
        """The loss curve of the cached path is that of the live one, to what half precision allows."""
        monkeypatch.setitem(model.PROFILES, "demo", QUIET)
        settings = {"encoder_training": "frozen", "encoder_layers": "weighted", "epochs": 2}
        kept = train(tones, tmp_path / "kept", **settings).history
        live = train(tones, tmp_path / "live", **settings, encoder_cache=False).history
        np.testing.assert_allclose(kept["train_loss"], live["train_loss"], atol=1e-3)

    def test_layer_weights_learn(self, tones, tmp_path):
        train(tones, tmp_path, encoder_training="frozen", encoder_layers="weighted", epochs=1)
        weights = load_model(tmp_path / "model").layer_weights
        assert weights.shape == (3,) and weights.abs().max() > 0

    def test_an_interrupted_call_computes_the_rest_only(self, tones, tmp_path, monkeypatch):
        network, store = self.build(tones)
        network.coattention.weight.data += 1  # not part of the encoder: the same states
        whole = build_states(store, network, ACCELERATOR)
        content = (whole.path.parent / "states.npy").read_bytes()
        for path in whole.path.parent.iterdir():
            path.unlink()

        seen, real = [], encoded.segment_batch

        def die_at_the_third(features):
            seen.append(len(features))
            if len(seen) == 3:
                raise KeyboardInterrupt
            return real(features)

        monkeypatch.setattr(encoded, "segment_batch", die_at_the_third)
        with pytest.raises(KeyboardInterrupt):
            build_states(store, network, ACCELERATOR)
        done = sum(seen[:2])
        monkeypatch.setattr(
            encoded, "segment_batch", lambda features: seen.append(len(features)) or real(features)
        )
        again = build_states(store, network, ACCELERATOR)
        assert sum(seen[3:]) == len(store) - done
        assert (again.path.parent / "states.npy").read_bytes() == content

    def test_another_encoder_or_recipe_has_another_folder(self, tones):
        network, _ = self.build(tones)
        other, _ = self.build(tones, "weighted")
        changed, _ = self.build(tones)
        changed.speech_encoder.encoder.layers[0].layer_norm.bias.data += 1e-3
        from serkit.recipe import CORRECTED, PUBLISHED

        keys = {encoded.states_key(each, CORRECTED) for each in (network, other, changed)}
        assert len(keys | {encoded.states_key(network, PUBLISHED)}) == 4

    def test_damage_is_named(self, tones):
        network, store = self.build(tones)
        states = build_states(store, network, ACCELERATOR)
        os.truncate(states.path.parent / "states.npy", 10_000)
        with pytest.raises(StoreError, match=r"states.npy: damaged or missing \(ends before row"):
            states.take([len(store) - 1])
        with pytest.raises(StoreError, match=r"states.npy: damaged or missing; delete the folder"):
            build_states(store, network, ACCELERATOR)
        for path in states.path.parent.iterdir():
            path.unlink()

    def test_a_full_disk_is_said_with_the_size(self, tones, monkeypatch):
        network, store = self.build(tones)
        network.speech_encoder.encoder.layers[0].layer_norm.bias.data += 1e-2

        def full(*_):
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(encoded.EncoderStates, "write", full)
        with pytest.raises(
            StoreError, match=r"states of \d+ segments take .* GB, and can't be written \(No space"
        ):
            build_states(store, network, ACCELERATOR)

    def test_states_that_half_precision_cannot_hold(self, tones):
        network, store = self.build(tones)
        network.speech_encoder.encoder.layers[-1].final_layer_norm.weight.data *= 1e6
        with pytest.raises(
            StoreError, match=r"a hidden state of segments 0 to \d+ is .*use encoder_cache=False"
        ):
            build_states(store, network, ACCELERATOR)
