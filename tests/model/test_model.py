"""The model: shapes, independence of the batch, masks, and where weights come from."""

import dataclasses
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
from serkit.errors import WeightsError
from serkit.model.coattention import PAPER, PROFILES, CoAttentionModel, create_model
from serkit.model.encoders import alexnet_features
from serkit.model.speech_encoders import count_encoder_frames, encoder_input
from serkit.model.storage import load_model, save_model

DEMO = PROFILES["demo"]
NUM_SAMPLES = (48_000, 20_000, 8000, 48_000, 1200)


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
        real = demo.count_frames(torch.tensor(NUM_SAMPLES))
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
    def frames(self, num_samples, encoder):
        return count_encoder_frames(torch.as_tensor(num_samples), encoder, encoder_input(PAPER.preprocessor))

    @pytest.mark.parametrize("model_class", [Wav2Vec2Model, HubertModel])
    def test_by_hand(self, model_class):
        """A frame needs 400 samples, and the next one 320 more."""
        encoder = model_class(tiny(model_class.config_class))
        lengths = torch.cat([torch.arange(400, 2000), torch.arange(2000, 50_000, 61)])
        assert torch.equal(self.frames(lengths, encoder), 1 + (lengths - 400) // 320)
        assert self.frames([47_999, 48_000], encoder).tolist() == [149, 149]

    def test_less_than_one_frame(self):
        encoder = Wav2Vec2Model(tiny(Wav2Vec2Config))
        assert self.frames([0, 1, 399, 400], encoder).tolist() == [0, 1, 1, 1]


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
        with pytest.raises(WeightsError, match=r"can't be loaded \(.*model\.safetensors"):
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
            r"AlexNet's ImageNet weights can't be downloaded .*no network in tests.*put https://.*alexnet"
        )
        with pytest.raises(WeightsError, match=message):
            create_model(dataclasses.replace(DEMO, cnn_weights="imagenet"))


def test_structure_alone_has_random_weights():
    """CoAttentionModel is structure: two seeds, two models."""
    first, second = [], []
    for seed, values in ((0, first), (1, second)):
        torch.manual_seed(seed)
        values.append(CoAttentionModel(DEMO).classifier.weight)
    assert isinstance(first[0], nn.Parameter)
    assert not torch.equal(first[0], second[0])
