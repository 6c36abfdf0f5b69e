"""The model: shapes, independence of the batch, masks, parameter counts, and where weights come from."""

import dataclasses
import json
from pathlib import Path
from urllib.error import URLError

import huggingface_hub.constants
import numpy as np
import pytest
import torch
import torchvision
from safetensors.torch import save_file
from torch import nn
from transformers import (
    HubertConfig,
    HubertModel,
    Wav2Vec2Config,
    Wav2Vec2ForCTC,
    Wav2Vec2Model,
    WavLMConfig,
    WavLMModel,
)
from trees import cut

from serkit.constants import SEGMENT_SAMPLES
from serkit.errors import ParameterError, WeightsError
from serkit.model import coattention as model_module
from serkit.model.coattention import (
    PAPER,
    PROFILES,
    CoAttentionModel,
    create_model,
    load_model,
    save_model,
)
from serkit.model.encoders import alexnet_features, count_encoder_frames
from serkit.model.published import from_published_state_dict, load_published

DEMO = PROFILES["demo"]
NUM_SAMPLES = (48_000, 20_000, 8000, 48_000, 1200)
SHAPES = Path(__file__).parents[1] / "golden" / "ca_mser_state_dict_shapes.json"


def make_inputs(num_samples=NUM_SAMPLES, seed=0):
    """Random segments with padding after the real samples."""
    rng = np.random.default_rng(seed)
    waveform = rng.standard_normal((len(num_samples), SEGMENT_SAMPLES))
    for row, real in zip(waveform, num_samples, strict=True):
        row[real:] = 0
    return {
        "spectrogram": torch.tensor(
            rng.standard_normal((len(num_samples), 3, 256, 384)), dtype=torch.float32
        ),
        "mfcc": torch.tensor(20 * rng.standard_normal((len(num_samples), 300, 40)), dtype=torch.float32),
        "waveform": torch.tensor(waveform, dtype=torch.float32),
        "num_samples": torch.tensor(num_samples),
    }


def pick(inputs, rows):
    return {name: value[rows] for name, value in inputs.items()}


@pytest.fixture(scope="module")
def demo():
    torch.manual_seed(0)
    network = create_model(DEMO).eval()
    # fresh weights leave a tenth of the co-attention at work and hardly any speech in the logits
    with torch.no_grad():
        network.coattention.bias.fill_(0.5)
    return network


@pytest.fixture(scope="module")
def output(demo):
    with torch.no_grad():
        return demo(**make_inputs())


class TestForward:
    def test_shapes(self, output):
        assert output.logits.shape == (5, 4)
        assert output.coattention.shape == (5, 149)
        for hidden in (output.speech_projection, output.fusion_hidden_1, output.fusion_hidden_2):
            assert hidden.shape == (5, 64)
            assert (hidden >= 0).all()
        assert output.logits.dtype == torch.float32
        assert torch.isfinite(output.logits).all()

    @pytest.mark.parametrize("masked", [True, False])
    def test_batch_independence(self, demo, masked):
        """What else is in the batch, and where, changes no segment's logits."""
        inputs = make_inputs()
        if not masked:
            del inputs["num_samples"]
        with torch.no_grad():
            together = demo(**inputs).logits
            order = [3, 0, 4, 2, 1]
            shuffled = demo(**pick(inputs, order)).logits
            alone = torch.cat([demo(**pick(inputs, [row])).logits for row in range(5)])
        # 1e-5: float32 adds in another order for another batch size
        torch.testing.assert_close(shuffled, together[order], atol=1e-5, rtol=0)
        torch.testing.assert_close(alone, together, atol=1e-5, rtol=0)
        assert (together[0] - together[3]).abs().max() > 1e-3  # the logits do tell segments apart

    @pytest.mark.parametrize("view", ["spectrogram", "mfcc", "waveform"])
    def test_every_view_matters(self, demo, output, view):
        inputs = make_inputs() | {view: make_inputs(seed=1)[view]}
        with torch.no_grad():
            other = demo(**inputs)
        assert (other.logits - output.logits).abs().amax(dim=1).min() > 1e-5

    def test_by_hand_from_its_parts(self, demo, output):
        """Weighted sum of frames, written out for one segment."""
        inputs = make_inputs()
        with torch.no_grad():
            frames = demo.speech_encoder(inputs["waveform"][:1]).last_hidden_state[0]  # (149, 48)
            summed = sum(output.coattention[0, t] * frames[t] for t in range(149))
            projected = torch.relu(demo.speech_projection.weight @ summed + demo.speech_projection.bias)
        torch.testing.assert_close(projected, output.speech_projection[0], atol=1e-4, rtol=1e-4)

    def test_mfcc_loudness_is_taken_out_frame_by_frame(self, demo, output):
        inputs = make_inputs()
        inputs["mfcc"] = inputs["mfcc"] * torch.linspace(0.5, 2, 300)[:, None]
        with torch.no_grad():
            torch.testing.assert_close(demo(**inputs).logits, output.logits, atol=1e-5, rtol=0)

    def test_dropout_only_in_training(self, demo):
        inputs = pick(make_inputs(), [0, 1])
        with torch.no_grad():
            assert torch.equal(demo(**inputs).logits, demo(**inputs).logits)
            demo.train()
            different = not torch.equal(demo(**inputs).logits, demo(**inputs).logits)
        demo.eval()
        assert different


class TestMask:
    def test_padding_gets_exactly_no_weight(self, demo, output):
        real = count_encoder_frames(torch.tensor(NUM_SAMPLES), demo.speech_encoder.config)
        assert real.tolist() == [149, 62, 24, 149, 3]
        for weights, frames in zip(output.coattention, real, strict=True):
            assert (weights[frames:] == 0).all()
            assert (weights[:frames] > 0).any()

    def test_without_num_samples_padding_has_weight(self, demo):
        inputs = make_inputs()
        del inputs["num_samples"]
        with torch.no_grad():
            weights = demo(**inputs).coattention
        assert (weights[1, 62:] > 0).any()
        assert (weights[4, 3:] > 0).any()

    def test_frames_agree_with_the_other_views(self, demo):
        """Frame e of the encoder hears samples 320 e to 320 e + 399: real if and only if they all are."""
        num_samples = torch.arange(400, 48_001, 37)
        mask = demo.frame_mask(num_samples)
        place = torch.arange(149)
        assert torch.equal(mask.bool(), 320 * place + 400 <= num_samples[:, None])

    def test_segment_without_samples(self, demo):
        """As published, 3.00 s has one: no weight at all, finite logits."""
        with torch.no_grad():
            output = demo(**make_inputs((0,)))
        assert (output.coattention == 0).all()
        assert torch.isfinite(output.logits).all()


class TestEncoderFrames:
    def test_149_in_three_seconds(self):
        assert count_encoder_frames(48_000, Wav2Vec2Config()) == 149

    @pytest.mark.parametrize("config", [Wav2Vec2Config(), HubertConfig(), DEMO.transformers_config()])
    def test_against_transformers(self, config):
        reference = Wav2Vec2Model(tiny(Wav2Vec2Config))._get_feat_extract_output_lengths
        lengths = torch.cat([torch.arange(400, 2000), torch.arange(2000, 50_000, 61)])
        assert torch.equal(count_encoder_frames(lengths, config), reference(lengths))
        for length in (400, 719, 720, 721, 47_999):
            frames = count_encoder_frames(length, config)
            assert isinstance(frames, int)
            assert frames == int(reference(torch.tensor(length)))

    def test_less_than_one_frame(self):
        assert [count_encoder_frames(n, Wav2Vec2Config()) for n in (0, 1, 399, 400)] == [0, 1, 1, 1]

    def test_encoder_without_convolutions(self):
        config = type("Config", (), {"model_type": "bert"})()
        with pytest.raises(ParameterError, match="type 'bert' has no convolutional front end"):
            count_encoder_frames(48_000, config)


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


class TestCheckpointRefused:
    @pytest.fixture(autouse=True)
    def without_storage(self, monkeypatch):
        """A refusal needs names and shapes only: no time spent on drawing 120 million weights."""
        monkeypatch.setattr(model_module, "count_encoder_frames", lambda *_: 149)
        with torch.device("meta"):
            yield

    def test_missing(self, old_checkpoint):
        state = dict(old_checkpoint)
        del state["module.post_wav_layer.bias"], state["module.lstm_mfcc.weight_ih_l0"]
        message = "2 faults: missing mfcc_encoder.lstm.weight_ih_l0; missing speech_projection.bias"
        with pytest.raises(WeightsError, match=message):
            from_published_state_dict(state)

    def test_unknown(self, old_checkpoint):
        state = old_checkpoint | {
            "module.post_att_layer_4.weight": torch.zeros(4),
            "optimizer": torch.zeros(1),
        }
        with pytest.raises(
            WeightsError, match=r"2 faults: unknown post_att_layer_4\.weight; unknown optimizer"
        ):
            from_published_state_dict(state)

    def test_wrong_shape(self, old_checkpoint):
        state = old_checkpoint | {"module.post_att_layer_3.weight": torch.zeros(6, 128)}
        message = r"1 faults: classifier\.weight is \(6, 128\), expected \(4, 128\)"
        with pytest.raises(WeightsError, match=message):
            from_published_state_dict(state)

    def test_something_else_entirely(self):
        with pytest.raises(WeightsError, match=r"252 faults: .*; \.\.\.$"):
            from_published_state_dict({"weight": torch.zeros(2)})


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
        with pytest.raises(WeightsError, match="expected a state_dict, names with tensors"):
            load_published(path)
        path.write_text("not a checkpoint")
        with pytest.raises(WeightsError, match="can't be read as tensors"):
            load_published(path)
        with pytest.raises(WeightsError, match="No such file"):
            load_published(tmp_path / "nowhere.pt")

    def test_names_are_checked(self, tmp_path):
        path = tmp_path / "checkpoint.pt"
        torch.save({"post_att_layer_3.bias": torch.zeros(4)}, path)
        with pytest.raises(WeightsError, match="missing spectrogram_encoder"):
            load_published(path)


class TestAlexNet:
    def test_is_torchvisions(self):
        torch.manual_seed(0)
        reference = torchvision.models.alexnet(weights=None).features.eval()
        ours = alexnet_features(PAPER.cnn_channels).eval()
        ours.load_state_dict(reference.state_dict())
        assert [type(layer) for layer in ours] == [type(layer) for layer in reference]
        image = torch.randn(2, 3, 256, 384)
        with torch.no_grad():
            assert torch.equal(ours(image), reference(image))


class TestSaveAndLoad:
    def test_round_trip(self, tmp_path, demo, output):
        save_model(demo, tmp_path / "model")
        assert {p.name for p in (tmp_path / "model").iterdir()} == {"config.json", "model.safetensors"}
        loaded = load_model(tmp_path / "model")
        assert loaded.config == demo.config
        assert not loaded.training
        with torch.no_grad():
            assert torch.equal(loaded(**make_inputs()).logits, output.logits)

    @pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
    def test_missing_file(self, tmp_path, demo, name):
        save_model(demo, tmp_path)
        (tmp_path / name).unlink()
        with pytest.raises(WeightsError, match=f"{name} is missing; train one with notebook 05"):
            load_model(tmp_path)


SMALL = {
    "conv_dim": [16] * 7, "hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2,
    "intermediate_size": 64, "num_conv_pos_embeddings": 16, "num_conv_pos_embedding_groups": 2,
}  # fmt: skip


def tiny(config_class, **settings):
    return config_class(**SMALL, **settings)


def save_encoder(folder, model_class, config):
    """A speech encoder as transformers saves it, weights from a seed of its own."""
    torch.manual_seed(7)
    encoder = model_class(config)
    encoder.save_pretrained(folder)
    return encoder


def with_encoder(folder, **settings):
    return dataclasses.replace(DEMO, speech_encoder=str(folder), **settings)


class TestSpeechEncoders:
    @pytest.mark.parametrize(
        ("model_class", "config", "encoder_mask"),
        [
            (Wav2Vec2Model, tiny(Wav2Vec2Config), False),
            (HubertModel, tiny(HubertConfig), False),
            (WavLMModel, tiny(WavLMConfig), False),
            (Wav2Vec2Model, tiny(Wav2Vec2Config, feat_extract_norm="layer", conv_bias=True), True),
        ],
        ids=["wav2vec2", "hubert", "wavlm", "wav2vec2-layer-norm"],
    )
    def test_weights_are_really_loaded(self, tmp_path, model_class, config, encoder_mask):
        saved = save_encoder(tmp_path, model_class, config)
        torch.manual_seed(1)
        network = create_model(with_encoder(tmp_path)).eval()
        assert type(network.speech_encoder) is model_class
        assert network.config.encoder_mask is encoder_mask
        state = network.speech_encoder.state_dict()
        assert saved.state_dict().keys() - state.keys() == {"masked_spec_embed"}  # SpecAugment is off
        for name, value in state.items():
            assert torch.equal(value, saved.state_dict()[name]), name
        # the folder's structure, with this project's own training settings
        assert network.speech_encoder.config.layerdrop == DEMO.layerdrop
        inputs = make_inputs((48_000, 8000))
        with torch.no_grad():
            logits = network(**inputs).logits
        assert torch.isfinite(logits).all()
        # and the saved model needs neither the folder nor the hub
        save_model(network, tmp_path / "model")
        (tmp_path / "model.safetensors").unlink()
        with torch.no_grad():
            torch.testing.assert_close(load_model(tmp_path / "model")(**inputs).logits, logits)

    @pytest.mark.parametrize("model_class", [Wav2Vec2ForCTC, HubertModel, WavLMModel])
    def test_layout_of_the_hub(self, tmp_path, model_class):
        """Hub checkpoints: old names of the weight norm, a head for transcripts, no vector for masked frames."""
        saved = save_encoder(tmp_path, model_class, tiny(model_class.config_class))
        state = {
            name.replace("parametrizations.weight.original0", "weight_g").replace(
                "parametrizations.weight.original1", "weight_v"
            ): value.contiguous()
            for name, value in saved.state_dict().items()
            if not name.endswith("masked_spec_embed")
        }
        assert sum(name.endswith(("weight_g", "weight_v")) for name in state) == 2
        save_file(state, tmp_path / "model.safetensors", metadata={"format": "pt"})
        config = with_encoder(tmp_path, mask_time_prob=0.05)  # with SpecAugment the vector starts fresh
        loaded = create_model(config).speech_encoder.state_dict()
        for name, value in getattr(saved, "wav2vec2", saved).state_dict().items():
            assert torch.equal(loaded[name], value) == (name != "masked_spec_embed"), name

    @pytest.mark.parametrize("in_file", [True, False])
    @pytest.mark.parametrize("wanted", [True, False])
    def test_spec_augment_here_and_there(self, tmp_path, in_file, wanted):
        """Encoders trained with and without SpecAugment can be fine-tuned with and without it."""
        config = tiny(Wav2Vec2Config, mask_time_prob=0.05 if in_file else 0.0)
        saved = save_encoder(tmp_path, Wav2Vec2Model, config).state_dict()
        assert ("masked_spec_embed" in saved) == in_file
        network = create_model(with_encoder(tmp_path, mask_time_prob=0.05 if wanted else 0.0))
        loaded = network.speech_encoder.state_dict()
        assert ("masked_spec_embed" in loaded) == wanted
        for name in set(saved) & set(loaded):
            assert torch.equal(loaded[name], saved[name]), name

    def test_content_of_padding(self, tmp_path):
        """Layer-norm encoders get a mask, and hear nothing of the padding; group-norm ones hear all of it."""
        inputs = make_inputs((48_000, 8000, 20_000))
        polluted = dict(inputs, waveform=inputs["waveform"].clone())
        polluted["waveform"][1, 8000:] = 1.0
        polluted["waveform"][2, 20_000:] = torch.randn(28_000, generator=torch.Generator().manual_seed(0))
        change = {}
        for norm in ("layer", "group"):
            save_encoder(tmp_path / norm, Wav2Vec2Model, tiny(Wav2Vec2Config, feat_extract_norm=norm))
            torch.manual_seed(1)
            network = create_model(with_encoder(tmp_path / norm)).eval()
            with torch.no_grad():
                difference = network(**inputs).logits - network(**polluted).logits
            change[norm] = difference.abs().amax(dim=1)
        assert change["layer"].max() < 1e-5
        assert change["group"][0] < 1e-5  # not padded
        assert change["group"][1:].min() > 1e-4

    @pytest.mark.parametrize("norm", ["layer", "group"])
    def test_spec_augment_on_very_short_utterances(self, tmp_path, norm):
        """Masks of 10 frames where there are 1, 2, 3: no crash, no NaN, and gradients."""
        save_encoder(tmp_path, Wav2Vec2Model, tiny(Wav2Vec2Config, feat_extract_norm=norm))
        config = with_encoder(tmp_path, mask_time_prob=0.5, mask_time_length=10)
        torch.manual_seed(1)
        network = create_model(config).train()
        assert network.speech_encoder.config.apply_spec_augment
        logits = network(**make_inputs((400, 401, 720, 1200, 0))).logits
        assert torch.isfinite(logits).all()
        logits.sum().backward()
        gradients = [p.grad for p in network.parameters() if p.grad is not None]
        assert all(torch.isfinite(gradient).all() for gradient in gradients)

    def test_spec_augment_can_be_turned_off(self):
        for probability in (0.0, 0.05):
            config = dataclasses.replace(DEMO, mask_time_prob=probability).transformers_config()
            assert config.apply_spec_augment is (probability > 0)
            assert config.mask_time_prob == probability


class TestWeightsThatCannotBeHad:
    @pytest.fixture(autouse=True)
    def no_network(self, monkeypatch, tmp_path):
        def refuse(*_, **__):
            raise URLError("no network in tests")

        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
        monkeypatch.setenv("TORCH_HOME", str(tmp_path))  # weights cached on this machine do not count
        monkeypatch.setattr(torch.hub, "urlopen", refuse)

    @pytest.mark.timeout(60)
    def test_hub_id(self):
        message = (
            "speech encoder 'serkit/no-such-encoder' can't be loaded .*pass that folder as speech_encoder"
        )
        with pytest.raises(WeightsError, match=message):
            create_model(dataclasses.replace(DEMO, speech_encoder="serkit/no-such-encoder"))

    def test_folder_without_model(self, tmp_path):
        with pytest.raises(WeightsError, match="can't be loaded"):
            create_model(with_encoder(tmp_path))

    def test_folder_without_weights(self, tmp_path):
        save_encoder(tmp_path, Wav2Vec2Model, tiny(Wav2Vec2Config))
        (tmp_path / "model.safetensors").unlink()
        with pytest.raises(WeightsError, match=r"can't be loaded .*model\.safetensors"):
            create_model(with_encoder(tmp_path))

    def test_incomplete_weights_are_not_filled_up_with_random_ones(self, tmp_path):
        state = save_encoder(tmp_path, Wav2Vec2Model, tiny(Wav2Vec2Config)).state_dict()
        del state["encoder.layers.0.attention.k_proj.weight"]
        save_file(state, tmp_path / "model.safetensors", metadata={"format": "pt"})
        message = r"1 of its weights are missing, the first is encoder\.layers\.0\.attention\.k_proj\.weight"
        with pytest.raises(WeightsError, match=message):
            create_model(with_encoder(tmp_path))

    def test_weights_of_another_shape(self, tmp_path):
        state = save_encoder(tmp_path, Wav2Vec2Model, tiny(Wav2Vec2Config)).state_dict()
        state["encoder.layer_norm.weight"] = torch.ones(7)
        save_file(state, tmp_path / "model.safetensors", metadata={"format": "pt"})
        with pytest.raises(WeightsError, match="can't be loaded"):
            create_model(with_encoder(tmp_path))

    def test_broken_download(self, tmp_path):
        save_encoder(tmp_path, Wav2Vec2Model, tiny(Wav2Vec2Config))
        cut(tmp_path / "model.safetensors", 1000)
        with pytest.raises(WeightsError, match="can't be loaded"):
            create_model(with_encoder(tmp_path))

    @pytest.mark.timeout(60)
    def test_imagenet(self):
        message = (
            r"AlexNet's ImageNet weights can't be downloaded .*no network in tests.*Put https://.*alexnet"
        )
        with pytest.raises(WeightsError, match=message):
            create_model(dataclasses.replace(DEMO, cnn_weights="imagenet"))

    def test_unknown_source(self):
        with pytest.raises(ParameterError, match="cnn_weights='places365', expected imagenet or random"):
            create_model(dataclasses.replace(DEMO, cnn_weights="places365"))


def test_structure_alone_has_random_weights():
    """CoAttentionModel is structure: two seeds, two models."""
    first, second = [], []
    for seed, values in ((0, first), (1, second)):
        torch.manual_seed(seed)
        values.append(CoAttentionModel(DEMO).classifier.weight)
    assert isinstance(first[0], nn.Parameter)
    assert not torch.equal(first[0], second[0])
