"""What of the speech encoder learns, and the frozen one whose output is kept on disk."""

import dataclasses
import json
import os
import shutil

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from tones import QUIET, make_tones, train
from transformers import HubertConfig, HubertModel, Wav2Vec2Config, Wav2Vec2Model, WavLMConfig, WavLMModel

from serkit.errors import ParameterError, RunError, StoreError, WeightsError
from serkit.experiment import Experiment
from serkit.features.rows import RowFile
from serkit.features.store import FeatureStore
from serkit.model import coattention as model
from serkit.model.coattention import CoAttentionModel, create_model
from serkit.model.storage import load_model, save_model
from serkit.recipe import named
from serkit.training import checkpoints
from serkit.training import encoder_states as encoded
from serkit.training import loop as training
from serkit.training.batches import SegmentDataset, fit_scaler, model_inputs, segment_batch
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


def save_wav2vec2(folder, seed=5, **settings):
    torch.manual_seed(seed)
    Wav2Vec2Model(Wav2Vec2Config(**SMALL | settings)).save_pretrained(folder)
    return str(folder)


class TestNamedEncoder:
    """A frozen pretrained encoder is read where it came from, not copied into every fold."""

    @pytest.fixture
    def settings(self, tmp_path):
        return {
            "speech_encoder": save_wav2vec2(tmp_path / "encoder"),
            "encoder_training": "frozen",
            "epochs": 1,
        }

    @pytest.fixture
    def trained(self, tones, tmp_path, settings):
        train(tones, tmp_path / "run", **settings)
        return tmp_path / "run" / "model"

    def test_no_file_of_a_fold_holds_it(self, tones, trained, tmp_path, settings, monkeypatch):
        assert not [name for name in load_file(trained / "model.safetensors") if "speech_encoder" in name]
        sizes, real = [], checkpoints.save_checkpoint

        def keep(folder, learner, progress):
            real(folder, learner, progress)
            states = torch.load(folder / "checkpoint.pt", weights_only=True)["model"]
            sizes.append(sum("speech_encoder" in name for name in states))

        monkeypatch.setattr(checkpoints, "save_checkpoint", keep)
        train(tones, tmp_path / "again", **settings)
        train(tones, tmp_path / "random", encoder_training="frozen", epochs=1)
        assert sizes[0] == 0 and sizes[1] > 0  # random weights can't be had again

    def test_is_read_where_it_came_from(self, trained, settings):
        inside = load_model(trained).speech_encoder.state_dict()
        for name, value in Wav2Vec2Model.from_pretrained(settings["speech_encoder"]).state_dict().items():
            assert torch.equal(inside[name], value), name

    def test_another_one_or_none_is_refused_and_a_moved_one_can_be_named(self, trained, tmp_path):
        (tmp_path / "encoder").rename(tmp_path / "moved")
        with pytest.raises(
            WeightsError, match=r"config.json: the model was trained on .*encoder', which can't be read \("
        ):
            load_model(trained)
        for changes in ({"seed": 6}, {"hidden_size": 32}):
            save_wav2vec2(tmp_path / "encoder", **changes)
            with pytest.raises(
                WeightsError, match=r"which is another one by now, expected SHA-256 \w{12}\.\.\.; put that"
            ):
                load_model(trained)
        config = (trained / "config.json").read_text()
        (trained / "config.json").write_text(
            config.replace(str(tmp_path / "encoder"), str(tmp_path / "moved"))
        )
        load_model(trained)

    def test_a_whole_folder_needs_nothing_else(self, trained, tmp_path):
        network, inputs = load_model(trained), {"waveform": torch.randn(2, 48_000)}
        save_model(network, tmp_path / "whole", whole=True)
        shutil.rmtree(tmp_path / "encoder")
        with torch.no_grad():
            assert torch.equal(
                load_model(tmp_path / "whole").encode_speech(**inputs), network.encode_speech(**inputs)
            )

    def test_a_checkpoint_goes_on_with_the_same_encoder_only(self, tones, tmp_path, settings, monkeypatch):
        def stop(*_):
            raise KeyboardInterrupt

        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt, match="up to epoch 1 is kept"):
            patch.setattr("serkit.model.storage.save_model", stop)
            train(tones, tmp_path / "stopped", **settings)
        lines = []
        resumed = train(tones, tmp_path / "stopped", lines, **settings)
        assert any("resumed after epoch 1" in line for line in lines)
        whole = train(tones, tmp_path / "whole", **settings)
        assert (resumed.folder / "predictions.parquet").read_bytes() == (
            whole.folder / "predictions.parquet"
        ).read_bytes()
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr("serkit.model.storage.save_model", stop)
            train(tones, tmp_path / "changed", **settings)
        save_wav2vec2(tmp_path / "encoder", seed=6)
        with pytest.raises(RunError, match="its speech encoder was another one"):
            train(tones, tmp_path / "changed", **settings)

    def test_its_states_serve_every_seed(self, tones, tmp_path):
        """Hub checkpoints of wav2vec 2.0 lack the vector for masked frames: it would be random in each seed."""
        source, keys = save_wav2vec2(tmp_path / "encoder"), set()
        for seed in (1, 2):
            torch.manual_seed(seed)
            config = dataclasses.replace(
                QUIET, speech_encoder=source, encoder_training="frozen", mask_time_prob=0.05
            )
            keys.add(encoded.states_key(create_model(config), tones[1].recipe))
        assert len(keys) == 1


class TestStatistics:
    """Every feature of a frozen encoder's states gets mean zero and variance one over the training set."""

    def fit(self, tones, recipe="corrected", layers="weighted", cached=True):
        torch.manual_seed(3)
        network = CoAttentionModel(
            dataclasses.replace(QUIET, encoder_training="frozen", encoder_layers=layers)
        ).eval()
        store = FeatureStore(tones[1].folder, named(recipe))
        rows = np.array([0, 3, 4, 7])  # of 1.0, 3.25 and 2.5 s
        states = build_states(store, network, ACCELERATOR) if cached else None
        dataset = SegmentDataset(
            store, rows, dict.fromkeys(store.utterances["utterance_id"], 0), states, "speech"
        )
        encoded.fit_states(network, dataset, ACCELERATOR)
        inputs = model_inputs(segment_batch(store.read(rows)), fit_scaler(store, rows), store.recipe, "cpu")
        with torch.no_grad():
            frames = network.speech_states(inputs["waveform"], inputs["num_samples"]).double().numpy()
        return network, frames, store.segments.iloc[rows]["num_samples"].to_numpy()

    @pytest.mark.parametrize("cached", [True, False])
    @pytest.mark.parametrize(
        ("recipe", "side"), [("corrected", "after"), ("corrected-D1", "before"), ("published", "")]
    )
    def test_are_those_of_the_frames_that_count(self, tones, recipe, side, cached):
        network, frames, num_samples = self.fit(tones, recipe, cached=cached)
        n_real = [int(network.count_frames(torch.tensor(n))) if side else 149 for n in num_samples]
        assert not side or min(n_real) < 100
        real = np.concatenate([
            layers[:, -n:] if side == "before" else layers[:, :n] for layers, n in zip(frames, n_real, strict=True)
        ], axis=1)  # (L, frames, D)  # fmt: skip
        atol = 1e-3 if cached else 1e-5  # half precision
        np.testing.assert_allclose(network.states_mean, real.mean(axis=1), atol=atol)
        np.testing.assert_allclose(network.states_std, real.std(axis=1), atol=atol)

    def test_each_layer_is_standardised_before_the_sum(self, tones):
        network, frames, _ = self.fit(tones, "published")
        network.layer_weights.data = torch.tensor([50.0, 0.0, 0.0])  # softmax: the first alone
        mixed = network.mix_layers(torch.from_numpy(frames)).detach().numpy().reshape(-1, 48)
        np.testing.assert_allclose(mixed.mean(axis=0), 0, atol=2e-3)
        np.testing.assert_allclose(mixed.std(axis=0), 1, atol=2e-3)

    def test_only_a_frozen_encoder_is_standardised(self):
        names = CoAttentionModel(QUIET).state_dict()
        assert "states_mean" not in names
        frozen = CoAttentionModel(dataclasses.replace(QUIET, encoder_training="frozen")).state_dict()
        assert frozen.keys() - names.keys() == {"states_mean", "states_std"}

    def test_stay_with_the_model(self, tones, tmp_path):
        train(tones, tmp_path, encoder_training="frozen", epochs=1)
        network = load_model(tmp_path / "model")
        assert network.states_std.min() > 0 and network.states_mean.abs().max() > 0
        assert not torch.equal(network.states_std, torch.ones_like(network.states_std))


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
        learning.load_state_dict(network.state_dict(), strict=False)  # it has no statistics
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

    def test_what_the_model_does_not_see_is_not_read(self, tones, monkeypatch):
        network, store = self.build(tones)
        label_of, states = (
            dict.fromkeys(store.utterances["utterance_id"], 0),
            build_states(store, network, ACCELERATOR),
        )
        read, real = [], RowFile.read
        monkeypatch.setattr(RowFile, "read", lambda file, *at: read.append(file.path.stem) or real(file, *at))
        for views, kept, wanted in (
            ("speech", None, {"audio"}), ("speech", states, {"states"}), ("mfcc", None, {"mfcc"}),
            ("all", states, {"spectrogram", "mfcc", "states"}), ("all", None, {"spectrogram", "mfcc", "audio"}),
        ):  # fmt: skip
            read.clear()
            batch = SegmentDataset(store, np.arange(3), label_of, kept, views)[[0, 1, 2]]
            assert set(read) == wanted, (views, kept)
            assert len(batch["num_samples"]) == 3 and ("states" in batch) == (kept is not None)

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
        keys = {encoded.states_key(each, named("corrected")) for each in (network, other, changed)}
        assert len(keys | {encoded.states_key(network, named("published"))}) == 4

    def test_damage_is_named(self, tones):
        network, store = self.build(tones)
        states = build_states(store, network, ACCELERATOR)
        os.truncate(states.path.parent / "states.npy", 10_000)
        with pytest.raises(StoreError, match=r"states.npy: damaged or missing \(ends before row"):
            states.take([len(store) - 1])
        with pytest.raises(
            StoreError, match=r"states.npy: damaged or missing \(expected float16 .*delete its folder"
        ):
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
        with pytest.raises(StoreError, match=r"a hidden state is .*use encoder_cache=False"):
            build_states(store, network, ACCELERATOR)
