"""Every family of speech encoders, small, with random weights, saved and loaded as transformers saves them."""

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from tones import make_tones, train
from transformers import (
    AutoModel,
    SeamlessM4TFeatureExtractor,
    Wav2Vec2FeatureExtractor,
    WhisperFeatureExtractor,
)

from serkit import features
from serkit.errors import ParameterError, WeightsError
from serkit.model import speech_encoders
from serkit.model.coattention import DEMO, CoAttentionModel, check_encoder, create_model, padding_effect
from serkit.model.storage import load_model, open_model_folder, save_model
from serkit.predict.predictor import Predictor
from serkit.recipe import CORRECTED

SHARED = Path(__file__).resolve().parents[3] / "shared"
GOLDEN = Path(__file__).resolve().parents[1] / "golden"
WHISPER = SHARED / "encoders" / "whisper-base"
SIZES = {"hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 32}
CONVOLUTIONS = {"conv_dim": [8] * 7, "num_conv_pos_embeddings": 8, "num_conv_pos_embedding_groups": 2}
WAVE = SIZES | CONVOLUTIONS
LAYER_NORM = {"feat_extract_norm": "layer", "do_stable_layer_norm": True}
FAMILIES = {  # name -> model_type, sizes, frames of 3 s and of 1 s, whether it gets a mask
    "wav2vec2": ("wav2vec2", WAVE, 149, 49, False),
    "wav2vec2 with layer norm": ("wav2vec2", WAVE | LAYER_NORM, 149, 49, True),
    "hubert": ("hubert", WAVE, 149, 49, False),
    "wavlm": ("wavlm", WAVE, 149, 49, False),
    "unispeech-sat": ("unispeech-sat", WAVE, 149, 49, False),
    "data2vec-audio": (
        "data2vec-audio", WAVE | {"num_conv_pos_embeddings": 2, "conv_pos_kernel_size": 3}, 149, 49, True
    ),
    "sew": ("sew", WAVE | {"conv_dim": [8] * 13, "squeeze_factor": 2}, 149, 49, False),
    "wav2vec2-conformer": ("wav2vec2-conformer", WAVE, 149, 49, False),
    "wav2vec2-bert": ("wav2vec2-bert", SIZES | {"output_hidden_size": 16}, 149, 49, True),
    "whisper": ("whisper", {
        "d_model": 16, "encoder_layers": 3, "encoder_attention_heads": 2, "encoder_ffn_dim": 32, "decoder_layers": 1,
        "decoder_attention_heads": 2, "decoder_ffn_dim": 8, "vocab_size": 8, "max_target_positions": 2, "pad_token_id": 0,
        "bos_token_id": 1, "eos_token_id": 1, "decoder_start_token_id": 1,
    }, 150, 50, False),
}  # fmt: skip
MODES = ("all", "transformer", "top_1", "frozen")


def make_folder(folder, family, *, dtype=torch.float32, **settings):
    """A checkpoint of this family, without a preprocessor."""
    kind, sizes, *_ = FAMILIES[family]
    torch.manual_seed(7)
    encoder = AutoModel.from_config(transformers.AutoConfig.for_model(kind, **sizes | settings))
    encoder.to(dtype).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module", params=FAMILIES)
def family(request, tmp_path_factory):
    return request.param, make_folder(tmp_path_factory.mktemp("family"), request.param)


@pytest.fixture(scope="module")
def wav2vec2(tmp_path_factory):
    return make_folder(tmp_path_factory.mktemp("family"), "wav2vec2")


def asked(folder, **settings):
    return dataclasses.replace(DEMO, speech_encoder=str(folder), views="speech", **settings)


def make_sound(*num_samples):
    """Noise of unit variance, shape (B, 48000), with zeros after ``num_samples``."""
    sound = np.random.default_rng(0).standard_normal((len(num_samples), 48_000), np.float32)
    for row, real in zip(sound, num_samples, strict=True):
        row[real:] = 0
    return torch.from_numpy(sound), torch.tensor(num_samples)


class TestEveryFamily:
    @pytest.mark.parametrize("layers", ["last", "weighted", "0", "2"])
    def test_gives_the_frames_it_was_planned_for(self, family, layers):
        name, folder = family
        *_, of_3_s, of_1_s, masked = FAMILIES[name]
        network = create_model(asked(folder, encoder_layers=layers)).eval()
        assert network.config.encoder_mask is masked
        sound, num_samples = make_sound(48_000, 16_000, 400, 0)
        with torch.no_grad():
            states = network.speech_states(sound, num_samples)
            logits = network(waveform=sound, num_samples=num_samples).logits
        assert states.shape[1:] == network.states_shape
        assert torch.isfinite(states).all() and torch.isfinite(logits).all()
        slow = name == "sew" and layers != "last"  # its layers work at half the rate
        frames = [74, 25, 1, 0] if slow else [of_3_s, of_1_s, 1, 0]
        assert network.frame_mask(num_samples).sum(dim=1).tolist() == frames
        assert network.states_shape == (4 if layers == "weighted" else 1, frames[0], 16)

    def test_numbers_mean_layers(self, family):
        """0 is what enters the first layer, k what leaves the k-th; all of them are the layers of `weighted`."""
        _, folder = family
        sound, num_samples = make_sound(48_000, 16_000)
        given = {}
        for layers in ("weighted", "0", "1", "2", "3"):
            network = create_model(asked(folder, encoder_layers=layers)).eval()
            stack = getattr(network.speech_encoder, "encoder", network.speech_encoder).layers
            entered = []
            stack[0].register_forward_pre_hook(
                lambda layer, given, named, entered=entered: entered.append([*given, *named.values()][0]),
                with_kwargs=True,
            )
            with torch.no_grad():
                given[layers] = network.speech_states(sound, num_samples)
        assert torch.equal(given["weighted"], torch.cat([given[str(layer)] for layer in range(4)], dim=1))
        assert torch.equal(given["0"][:, 0], entered[0])

    def test_content_of_padding(self, family):
        """Where there is a mask nothing of the padding is heard; else, what is heard is not hidden."""
        name, folder = family
        network = create_model(asked(folder)).eval()
        sound, num_samples = make_sound(48_000, 16_000)
        polluted = sound.clone()
        polluted[1, 16_000:] = 1.0
        with torch.no_grad():
            states, others = (network.speech_states(x, num_samples)[1, 0] for x in (sound, polluted))
        change = (states - others)[: FAMILIES[name][3]].abs().max()
        assert change < 1e-4 if network.config.encoder_mask else change > 1e-4

    @pytest.mark.parametrize("mode", MODES)
    def test_one_step(self, family, mode):
        name, folder = family
        torch.manual_seed(0)
        network = create_model(asked(folder, encoder_training=mode, layerdrop=0.0)).train()
        before = {key: value.clone() for key, value in network.named_parameters()}
        optimizer = torch.optim.AdamW([p for p in network.parameters() if p.requires_grad], lr=1e-2)
        sound, num_samples = make_sound(48_000, 16_000)
        loss = torch.nn.functional.cross_entropy(
            network(waveform=sound, num_samples=num_samples).logits, torch.tensor([0, 1])
        )
        loss.backward()
        optimizer.step()
        changed = {key for key, value in network.named_parameters() if not torch.equal(value, before[key])}
        assert torch.isfinite(loss) and "classifier.weight" in changed
        encoder = {
            key.removeprefix("speech_encoder.") for key in changed if key.startswith("speech_encoder.")
        }
        front = {key for key in encoder if key.startswith(("feature_extractor.", "conv1.", "conv2."))}
        layers = {number for number in range(3) for key in encoder if f"layers.{number}." in key}
        assert layers == {"all": {0, 1, 2}, "transformer": {0, 1, 2}, "top_1": {2}, "frozen": set()}[mode]
        assert bool(front) == (mode == "all" and name != "wav2vec2-bert")
        if mode in ("top_1", "frozen"):
            assert all("layers.2." in key for key in encoder)

    def test_recomputing_in_place_of_storing_gives_the_same_gradients(self, family):
        _, folder = family
        gradients = []
        for saves_memory in (False, True):
            torch.manual_seed(0)
            network = create_model(asked(folder, layerdrop=0.0)).train()
            if saves_memory:
                network.speech_encoder.activation_checkpointing_enable()
            torch.manual_seed(1)
            network(waveform=make_sound(48_000)[0]).logits.sum().backward()
            gradients.append({k: p.grad for k, p in network.named_parameters() if p.grad is not None})
        assert gradients[0].keys() == gradients[1].keys()
        for key, gradient in gradients[0].items():
            torch.testing.assert_close(gradient, gradients[1][key], atol=1e-5, rtol=1e-4)

    def test_saves_and_loads_equal(self, family, tmp_path):
        _, folder = family
        for layers in ("last", "weighted", "1"):
            network = create_model(asked(folder, encoder_layers=layers)).eval()
            save_model(network, tmp_path)
            loaded = load_model(tmp_path)
            assert loaded.config == network.config
            sound, num_samples = make_sound(48_000, 16_000)
            with torch.no_grad():
                logits = [each(waveform=sound, num_samples=num_samples).logits for each in (network, loaded)]
            assert torch.equal(*logits)

    def test_a_skipped_layer_has_states(self, family):
        """LayerDrop would leave states of skipped layers out, one time more and one time less."""
        _, folder = family
        network = create_model(asked(folder, encoder_layers="weighted", layerdrop=0.9)).train()
        assert network.speech_states(*make_sound(48_000)).shape == (1, *network.states_shape)

    def test_the_structure_alone(self, family):
        """Nothing drawn, nothing computed: the same shapes, and the random numbers of others stay as they were."""
        name, folder = family
        config = create_model(asked(folder)).config
        torch.manual_seed(3)
        state = torch.get_rng_state()
        shape = speech_encoders.states_shape(config.transformers_config(), config.preprocessor, "last")
        assert shape == (1, FAMILIES[name][2], 16)
        assert torch.equal(torch.get_rng_state(), state)


class TestLayers:
    def test_layers_above_never_learn(self, wav2vec2):
        network = create_model(asked(wav2vec2, encoder_layers="2", encoder_training="top_1"))
        learning = {
            name.split(".")[3]
            for name, p in network.named_parameters()
            if "encoder.layers" in name and p.requires_grad
        }
        assert learning == {"1"}
        with pytest.raises(
            ParameterError,
            match=r"encoder_training='top_3', but .* 2 transformer layers up to encoder_layers=2",
        ):
            create_model(asked(wav2vec2, encoder_layers="2", encoder_training="top_3"))

    def test_too_many(self, wav2vec2):
        with pytest.raises(
            ParameterError,
            match="encoder_layers=4, but the speech encoder has 3 layers; expected last, weighted or 0 to 3",
        ):
            check_encoder(asked(wav2vec2, encoder_layers="4"))


class TestWhatGoesIn:
    @pytest.mark.parametrize("loudness", [0.001, 0.05, 1.0])
    def test_log_mel(self, loudness):
        """transformers' own extractor, fed one by one and in double precision."""
        extractor = WhisperFeatureExtractor(chunk_length=3)
        sound, num_samples = make_sound(48_000, 16_000, 0)
        sound = loudness * sound
        ours = speech_encoders.encoder_input(extractor.to_dict())(sound, num_samples)["input_features"]
        theirs = extractor(list(sound.numpy()), sampling_rate=16_000, return_tensors="pt")["input_features"]
        assert ours.shape == (3, 80, 300)
        torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=0)

    def test_bands_of_kaldi(self):
        """Each piece without its padding through transformers' own extractor."""
        extractor = SeamlessM4TFeatureExtractor(padding_value=1.0)
        hears = speech_encoders.encoder_input(extractor.to_dict())
        sound, num_samples = make_sound(48_000, 16_000, 20_240)
        sound = 0.05 * sound
        inputs = hears(sound, num_samples)["input_features"]
        mask = hears.mask(num_samples, inputs.shape[1])
        assert inputs.shape == (3, 149, 160)
        for row, length, real, seen in zip(sound, num_samples, inputs, mask, strict=True):
            theirs = extractor(row[:length].numpy(), sampling_rate=16_000, return_tensors="pt")
            n = theirs["attention_mask"].sum()
            assert seen.sum() == n and (real[n + 1 :] == 1.0).all()
            torch.testing.assert_close(real[:n], theirs["input_features"][0, :n], atol=2e-3, rtol=0)

    @pytest.mark.parametrize("wanted", [True, False])
    def test_scale_as_the_preprocessor_says(self, tmp_path, wanted):
        folder = make_folder(tmp_path, "wavlm")
        Wav2Vec2FeatureExtractor(do_normalize=wanted, return_attention_mask=True).save_pretrained(folder)
        config = create_model(asked(folder)).config
        assert config.encoder_mask  # it asks for one, though its front end averages over time
        recipe = config.hears(CORRECTED)
        waveform = 0.1 * make_sound(30_000)[0][0, :30_000].numpy()
        heard = features.segment_features(waveform, recipe).waveform[0]
        if wanted:
            assert recipe == CORRECTED
            assert heard[:30_000].std() == pytest.approx(1, abs=1e-3)
        else:
            assert np.array_equal(heard[:30_000], waveform)
        assert not heard[30_000:].any()

    def test_half_precision_and_an_adapter(self, tmp_path):
        folder = make_folder(
            tmp_path,
            "wav2vec2",
            dtype=torch.float16,
            add_adapter=True,
            num_adapter_layers=1,
            output_hidden_size=16,
        )
        assert json.loads((folder / "config.json").read_text())["dtype"] == "float16"
        network = create_model(asked(folder))
        assert {p.dtype for p in network.parameters()} == {torch.float32}
        assert network.states_shape == (1, 149, 16)  # without the adapter, which would halve the frames


class TestRefused:
    """Before anything runs: `check_encoder` is what a plan asks."""

    def refused(self, folder, sentence, **settings):
        with pytest.raises(WeightsError, match=sentence) as caught:
            check_encoder(asked(folder, **settings))
        assert "\n" not in str(caught.value)

    @pytest.fixture
    def folder(self, wav2vec2, tmp_path):
        return shutil.copytree(wav2vec2, tmp_path / "encoder")

    @pytest.mark.parametrize("name", ["config.json", "preprocessor_config.json", "model.safetensors"])
    def test_git_lfs_pointer(self, folder, name):
        (folder / name).write_text(
            "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 377667514\n"
        )
        self.refused(folder, rf"{name} is a Git LFS pointer, run `git lfs pull`")

    def test_weights_that_are_cut_off(self, folder):
        content = (folder / "model.safetensors").read_bytes()
        (folder / "model.safetensors").write_bytes(content[:5000])
        self.refused(folder, "can't be loaded")

    def test_code_that_comes_with_a_checkpoint(self, folder):
        config = json.loads((folder / "config.json").read_text())
        config |= {"model_type": "mine", "auto_map": {"AutoConfig": "mine.Config", "AutoModel": "mine.Model"}}
        (folder / "config.json").write_text(json.dumps(config))
        (folder / "mine.py").write_text("raise SystemExit('this code ran')")
        self.refused(folder, "can't be loaded")

    @pytest.mark.parametrize(
        ("entry", "sentence"),
        [
            ({"auto_map": {"AutoModel": "mine.Model"}}, "auto_map asks to run code"),
            ({"_attn_implementation": "org/kernel"}, "attn_implementation asks to run code"),
            ({"attn_implementation": "org/kernel"}, "attn_implementation asks to run code"),
            ({"num_hidden_layers": 1_000_000}, "num_hidden_layers=1000000, expected numbers up to 100"),
            ({"conv_dim": [8, 10**30]}, r"conv_dim=\[8, 10+\.*.*, expected numbers up to 100000"),
        ],
    )
    def test_what_a_strange_folder_asks_for(self, folder, entry, sentence):
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps(config | entry))
        self.refused(folder, sentence)

    @pytest.mark.parametrize(
        "content", [b"", b"\x80\x02cos\nsystem\nU\x02id\x85R.", b"version https://git-lfs.github.com/x"]
    )
    def test_pickles_are_not_opened(self, folder, content):
        (folder / "model.safetensors").unlink()
        (folder / "pytorch_model.bin").write_bytes(content)
        self.refused(folder, "can't be loaded")

    def test_a_model_of_texts(self, tmp_path):
        config = transformers.BertConfig(**SIZES, vocab_size=8)
        transformers.BertModel(config).save_pretrained(tmp_path)
        self.refused(tmp_path, "model_type='bert', expected one of wav2vec2, hubert,")

    @pytest.mark.parametrize(
        ("extractor", "sentence"),
        [
            (Wav2Vec2FeatureExtractor(sampling_rate=8000), "it hears 8000 Hz, expected 16000"),
            (
                transformers.ASTFeatureExtractor(),
                "its input is made by ASTFeatureExtractor; use one of wav2vec2,",
            ),
        ],
    )
    def test_another_input(self, folder, extractor, sentence):
        extractor.save_pretrained(folder)
        self.refused(folder, sentence)

    def test_a_preprocessor_that_is_no_json(self, folder):
        (folder / "preprocessor_config.json").write_text("{")
        self.refused(folder, "can't be loaded")


@pytest.fixture(scope="module")
def network():
    return create_model(asked(WHISPER)).eval()


@pytest.fixture(scope="module")
def clip():
    clips = sorted((SHARED / "data" / "ravdess").rglob("*.flac"))
    if not clips:
        pytest.skip("no RAVDESS in the shared folder")
    return features.audio.read(clips[0])


@pytest.mark.skipif(not WHISPER.is_dir(), reason="no real encoder in the shared folder")
class TestWhisperBase:
    def test_is_said(self, network):
        assert network.describe_encoder() == (
            "whisper hears log-mel, 80 bands; cropped positions, no padding to 30 s; 3 s are 150 frames of 512, "
            "layer: last, without a mask"
        )

    def test_states_are_those_of_transformers(self, network, clip):
        """Its own extractor and encoder, told that a recording has 3 s."""
        extractor = WhisperFeatureExtractor.from_pretrained(WHISPER, chunk_length=3)
        encoder = AutoModel.from_pretrained(WHISPER, dtype=torch.float32).get_encoder().eval()
        speech_encoders.crop_positions(encoder, 150)
        segment = features.segment_features(clip, network.config.hears(CORRECTED))
        mel = extractor(segment.waveform[0], sampling_rate=16_000, return_tensors="pt")["input_features"]
        with torch.no_grad():
            wanted = encoder(mel).last_hidden_state
            states = network.speech_states(torch.from_numpy(segment.waveform[:1]))[:, 0]
        # float32 and float64 mel bands differ by 1e-5, states have values up to 100
        torch.testing.assert_close(states, wanted, atol=0.02, rtol=1e-3)

    def test_cropping_changes_little(self, network, clip):
        """Against 30 s as Whisper was trained: frames of speech, without what all frames share."""
        extractor = WhisperFeatureExtractor.from_pretrained(WHISPER)
        encoder = AutoModel.from_pretrained(WHISPER, dtype=torch.float32).get_encoder().eval()
        segment = features.segment_features(clip, network.config.hears(CORRECTED)).waveform[:1]
        mel = extractor(segment[0], sampling_rate=16_000, return_tensors="pt")["input_features"]
        with torch.no_grad():
            whole = encoder(mel).last_hidden_state[0, :150]
            states = network.speech_states(torch.from_numpy(segment))[0, 0]
        alike = torch.cosine_similarity(states - states.mean(0), whole - whole.mean(0), dim=1)
        assert alike.mean() > 0.85


def padding_row(folder):
    """A row of the table in the README of the model room, but for its name."""
    network = create_model(asked(folder)).eval()
    sound = features.audio.read(GOLDEN / "exact_3.0s.wav")
    heard = features.segment_features(sound, network.config.hears(CORRECTED)).waveform[0]
    mask = "yes" if network.config.encoder_mask else "no"
    return [mask, *padding_effect(network, torch.from_numpy(heard), [0.5, 1.0, 2.0, 2.5])]


@pytest.mark.parametrize("name", [*FAMILIES, "Whisper base, its real weights"])
def test_table_of_padding(tmp_path, name):
    if name not in FAMILIES and not WHISPER.is_dir():
        pytest.skip("no real encoder in the shared folder")
    lines = Path(speech_encoders.__file__).with_name("README.md").read_text(encoding="utf-8").splitlines()
    (row,) = [line.strip("| ").split(" | ")[1:] for line in lines if line.startswith(f"| {name} |")]
    mask, *changes = padding_row(make_folder(tmp_path, name) if name in FAMILIES else WHISPER)
    assert row[0] == mask
    # random weights are drawn alike everywhere; sums are not added in the same order
    assert [float(value) for value in row[1:]] == pytest.approx(changes, abs=0.3)


@pytest.mark.parametrize("mode", ["frozen", "top_1"])
def test_a_fold_with_whisper(tmp_path, mode):
    """From sound to a model folder: in training and afterwards it hears sounds as they were recorded."""
    tones, lines = make_tones(tmp_path), []
    encoder = make_folder(tmp_path / "encoder", "whisper")
    settings = {"speech_encoder": str(encoder), "encoder_training": mode, "encoder_layers": 2, "epochs": 1}
    result = train(tones, tmp_path / "run", lines, **settings)
    assert any("whisper hears log-mel" in line and "layer: 2" in line for line in lines)
    opened = open_model_folder(tmp_path / "run" / "model")
    assert opened.recipe == dataclasses.replace(CORRECTED, unit_variance=False)
    row = result.predictions.query("split == 'test'").iloc[0]
    path = tones[0].set_index("utterance_id").loc[row["utterance_id"], "path"]
    predictor = Predictor(tmp_path / "run" / "model", "cpu")
    predictor.temperature = 1.0  # predictions.parquet has probabilities as the network gave them
    prediction = predictor.predict(path)
    for label, probability in prediction.utterance.items():
        # cached states have 11 bits
        assert row[f"p_{label}"] == pytest.approx(probability, abs=2e-3)


def test_views_without_speech_need_no_encoder():
    network = CoAttentionModel(dataclasses.replace(DEMO, views="mfcc"))
    assert network.n_encoder_frames == 149 and not hasattr(network, "speech_encoder")
