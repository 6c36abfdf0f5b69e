"""Views left out and other fusions: what is computed, by hand, and that nothing else is there."""

import dataclasses
import itertools

import numpy as np
import pytest
import torch

from serkit.constants import FUSIONS, GUIDED, VIEW_SETS
from serkit.errors import ParameterError
from serkit.experiment import Experiment
from serkit.model.coattention import PROFILES, CoAttentionModel, weigh_frames
from serkit.model.storage import load_model, save_model
from serkit.training.batches import TENSORS

DEMO = PROFILES["demo"]
BRANCH = {"spectrogram": "spectrogram_encoder", "mfcc": "mfcc_encoder", "speech": "speech_encoder"}


def make_model(**changes):
    torch.manual_seed(3)
    return CoAttentionModel(dataclasses.replace(DEMO, **changes)).eval()


@pytest.fixture(scope="module")
def inputs():
    generator = torch.Generator().manual_seed(5)
    return {
        "spectrogram": torch.randn(2, 3, 256, 384, generator=generator),
        "mfcc": torch.randn(2, 300, 40, generator=generator),
        "waveform": torch.randn(2, 48_000, generator=generator),
        "num_samples": torch.tensor([48_000, 16_000]),
    }


class TestWeights:
    """Scores 1, 3, -2 and, on padding, 9."""

    SCORES = torch.tensor([[1.0, 3.0, -2.0, 9.0]])
    MASK = torch.tensor([[1.0, 1.0, 1.0, 0.0]])

    def test_coattention_is_what_the_paper_does(self):
        assert weigh_frames(self.SCORES, self.MASK, "coattention").tolist() == [[1.0, 3.0, 0.0, 0.0]]

    def test_normalised_is_the_same_with_sum_one(self):
        assert weigh_frames(self.SCORES, self.MASK, "normalised").tolist() == [[0.25, 0.75, 0.0, 0.0]]

    def test_normalised_without_any_weight_is_the_mean_and_learns_without_nan(self):
        scores = torch.tensor([[-1.0, -3.0, -2.0, 9.0], [1.0, 3.0, -2.0, 9.0]], requires_grad=True)
        weights = weigh_frames(scores, self.MASK, "normalised")
        torch.testing.assert_close(weights[0], torch.tensor([1 / 3, 1 / 3, 1 / 3, 0.0]))
        weights[:, 0].sum().backward()
        torch.testing.assert_close(
            scores.grad[1], torch.tensor([3 / 16, -1 / 16, 0.0, 0.0])
        )  # of a / (a + b)
        assert not scores.grad[0].any()

    def test_softmax(self):
        total = np.exp([1, 3, -2]).sum()
        expected = [np.e / total, np.e**3 / total, np.e**-2 / total, 0.0]
        assert weigh_frames(self.SCORES, self.MASK, "softmax")[0].tolist() == pytest.approx(expected)

    @pytest.mark.parametrize("fusion", FUSIONS)
    def test_without_scores_all_real_frames_count_alike(self, fusion):
        assert weigh_frames(None, self.MASK, fusion)[0].tolist() == pytest.approx([1 / 3, 1 / 3, 1 / 3, 0])

    @pytest.mark.parametrize("fusion", FUSIONS[1:])
    def test_a_row_without_speech_stays_a_number(self, fusion):
        scores = self.SCORES if fusion in GUIDED else None
        weights = weigh_frames(scores, torch.zeros(1, 4), fusion)
        assert weights.sum().item() == pytest.approx(1.0)


class TestViews:
    @pytest.mark.parametrize("views", VIEW_SETS)
    def test_only_what_is_seen_is_there_and_matters(self, views, inputs):
        """A change of an input changes the logits if, and only if, the model has that view."""
        network = make_model(views=views)
        seen = VIEW_SETS[views]
        assert {view for view, name in BRANCH.items() if hasattr(network, name)} == set(seen)
        with torch.no_grad():
            before = network(**inputs)
            assert before.logits.shape == (2, 4)
            for view, name in TENSORS.items():
                other = network(**(inputs | {name: inputs[name] * 0.5 + 0.1})).logits
                assert torch.equal(other, before.logits) == (view not in seen), view
        assert before.coattention.any() == ("speech" in seen)

    @pytest.mark.parametrize("views", VIEW_SETS)
    def test_missing_inputs_are_not_asked_for(self, views, inputs):
        needed = {TENSORS[view]: inputs[TENSORS[view]] for view in VIEW_SETS[views]}
        network = make_model(views=views)
        with torch.no_grad():
            assert torch.equal(network(**needed).logits, network(**(inputs | {"num_samples": None})).logits)

    def test_speech_alone_is_the_mean_of_its_frames(self, inputs):
        network = make_model(views="speech")
        with torch.no_grad():
            output = network(**inputs)
            frames = network.encode_speech(inputs["waveform"])  # (2, 149, 48)
            second = torch.relu(network.speech_projection(frames[1, :49].mean(dim=0)))  # 1 s: 49 frames
        torch.testing.assert_close(output.speech_projection[1], second)

    @pytest.mark.parametrize("views", VIEW_SETS)
    def test_every_parameter_learns(self, views, inputs):
        network = make_model(views=views).train()
        network(**inputs).logits.square().sum().backward()
        without = [
            n for n, p in network.named_parameters() if p.grad is None and "masked_spec_embed" not in n
        ]
        assert not without

    def test_sizes_by_hand(self):
        """Each view brings 64 numbers; the co-attention turns those of two views into 149 weights."""
        sizes = {
            views: make_model(views=views).count_parameters() for views in ("all", "mfcc+speech", "mfcc")
        }
        assert sizes["all"]["coattention"] == 128 * 149 + 149
        assert sizes["mfcc+speech"]["coattention"] == 64 * 149 + 149
        assert "coattention" not in sizes["mfcc"]
        assert [sizes[views]["fusion_1"] for views in sizes] == [n * 64 * 64 + 64 for n in (3, 2, 1)]


class TestFusion:
    def test_all_start_from_the_same_branches(self):
        """Random weights are drawn in the same order: variants differ in what they do, not by luck."""
        networks = [make_model(fusion=fusion).state_dict() for fusion in FUSIONS]
        for one, other in itertools.pairwise(networks):
            assert torch.equal(
                one["spectrogram_encoder.features.0.weight"], other["spectrogram_encoder.features.0.weight"]
            )

    def test_each_name_does_something_of_its_own(self, inputs):
        """From the same weights as far as they have the same: one that is only a name would do what ``mean`` does."""
        networks = {fusion: make_model(fusion=fusion) for fusion in FUSIONS}
        with torch.no_grad():
            logits = {fusion: network(**inputs).logits for fusion, network in networks.items()}
        for one, other in itertools.combinations(FUSIONS, 2):
            assert not torch.allclose(logits[one], logits[other]), f"{one} and {other} are the same"

    def test_guided_ones_weigh_by_the_other_views_and_mean_does_not(self, inputs):
        changed = inputs | {"mfcc": inputs["mfcc"] + 1.0}
        with torch.no_grad():
            for fusion in FUSIONS:
                network = make_model(fusion=fusion)
                weights = [network(**batch).coattention for batch in (inputs, changed)]
                assert torch.equal(*weights) != (fusion in GUIDED), fusion
                if fusion != "coattention":
                    torch.testing.assert_close(weights[0].sum(dim=1), torch.ones(2))

    def test_other_weights_can_be_put_in_place(self, inputs):
        """The parts that forward is made of; with weights of zero only the bias of the projection is left."""
        network = make_model()
        with torch.no_grad():
            whole = network(**inputs)
            guides = network.guide_vectors(inputs["spectrogram"], inputs["mfcc"])
            frames = network.encode_speech(inputs["waveform"], inputs["num_samples"])
            assert torch.equal(network.classify(guides, frames, whole.coattention).logits, whole.logits)
            other = network.classify(guides, frames, torch.zeros_like(whole.coattention))
            torch.testing.assert_close(
                other.speech_projection[0], torch.relu(network.speech_projection.bias), rtol=0, atol=0
            )
            assert not torch.equal(other.logits, whole.logits)

    def test_an_open_gate_changes_nothing(self, inputs):
        gated, mean = make_model(fusion="gated"), make_model(fusion="mean")
        mean.load_state_dict({k: v for k, v in gated.state_dict().items() if not k.startswith("gate.")})
        with torch.no_grad():
            gated.gate.weight.zero_()
            gated.gate.bias.fill_(50.0)
            torch.testing.assert_close(gated(**inputs).logits, mean(**inputs).logits)
            gated.gate.bias.fill_(-50.0)
            closed = gated(**inputs).logits
            torch.testing.assert_close(closed[0], closed[1])  # nothing of the input is left

    def test_saved_and_loaded(self, tmp_path, inputs):
        network = make_model(fusion="gated")
        save_model(network, tmp_path)
        with torch.no_grad():
            assert torch.equal(load_model(tmp_path)(**inputs).logits, network(**inputs).logits)


class TestExperiment:
    def test_names(self):
        assert Experiment(views="mfcc+speech").variant == "corrected_clean_session_demo_mfcc+speech"
        assert Experiment(fusion="gated").variant == "corrected_clean_session_demo_gated"

    def test_unknown(self):
        with pytest.raises(ParameterError, match=r"views='prosody', expected one of all, spectrogram"):
            Experiment(views="prosody")
        with pytest.raises(ParameterError, match=r"fusion='concat', expected one of coattention, normalised"):
            Experiment(fusion="concat")

    def test_fusions_are_compared_on_all_views(self):
        with pytest.raises(ParameterError, match=r"fusion='mean' with views='mfcc', expected views='all'"):
            Experiment(fusion="mean", views="mfcc")
