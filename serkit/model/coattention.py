"""The co-attention model of the paper: its configuration, its parts, and the weights it starts from.

The spectrogram and the MFCC of a segment decide together how much each wav2vec 2.0 frame
counts; the three resulting vectors are joined and classified. Views can be left out and the fusion
exchanged, to see what each of them is good for.
"""

from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional as F
from transformers import AutoConfig, AutoModel
from transformers.utils import ModelOutput

from serkit.constants import GUIDED, LABELS, N_MFCC, SEGMENT_SAMPLES, SPEECH_ENCODER, VIEW_SETS
from serkit.model import encoders


@dataclass(frozen=True)
class ModelConfig:
    """Sizes and sources of a model. The defaults are the paper's."""

    profile: str = "paper"
    speech_encoder: str = SPEECH_ENCODER  # hub id, local folder, or "random"
    cnn_weights: str = "imagenet"  # or "random"
    speech: dict = field(default_factory=lambda: {"model_type": "wav2vec2"})  # transformers config
    cnn_channels: tuple = (64, 192, 384, 256, 256)  # AlexNet
    lstm_hidden: int = 256  # each way
    lstm_layers: int = 2
    lstm_dropout: float = 0.5  # between layers
    hidden: int = 128  # length of each branch's vector
    dropout: float = 0.1
    layerdrop: float = 0.1  # share of transformer layers skipped in training
    mask_time_prob: float = 0.05  # SpecAugment: share of frames masked in training, 0 = off
    mask_time_length: int = 10  # frames in one mask
    encoder_mask: bool = False  # does the encoder itself want an attention mask?
    encoder_training: str = "all"  # what of the encoder learns: all, transformer, top_<k>, frozen
    encoder_layers: str = "last"  # its last layer, or a learned weighted sum of all: weighted
    views: str = "all"  # what the model sees, see serkit.constants.VIEW_SETS
    fusion: str = "coattention"  # how the views become one vector, see weigh_frames
    sources: dict = field(default_factory=dict)  # where weights came from; filled by create_model

    def transformers_config(self):
        """The speech encoder's structure with SpecAugment and LayerDrop set as said here."""
        changes = {
            "layerdrop": self.layerdrop,
            "apply_spec_augment": self.mask_time_prob > 0,
            "mask_time_prob": self.mask_time_prob,
            "mask_time_length": self.mask_time_length,
        }
        return AutoConfig.for_model(**self.speech | changes)


PAPER = ModelConfig()
DEMO = ModelConfig(
    profile="demo",
    speech_encoder=encoders.RANDOM,
    cnn_weights=encoders.RANDOM,
    speech={
        "model_type": "wav2vec2",
        "conv_dim": [8, 16, 16, 32, 32, 32, 32],
        "hidden_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "intermediate_size": 96,
        "num_conv_pos_embeddings": 16,
        "num_conv_pos_embedding_groups": 4,
        "attention_dropout": 0.0,  # drawing its random numbers would take a third of the time
    },
    cnn_channels=(16, 16, 32, 32, 32),
    lstm_hidden=16,
    hidden=64,
    dropout=0.2,
    layerdrop=0.0,  # of two layers none can be spared
    mask_time_prob=0.0,  # learned from scratch on few data
)
PROFILES = {"paper": PAPER, "demo": DEMO}


@dataclass
class CoAttentionOutput(ModelOutput):
    """What a forward pass gives; everything but the logits is there to be looked at."""

    logits: torch.Tensor | None = None  # (B, 4)
    coattention: torch.Tensor | None = None  # (B, T'), weight of each encoder frame; zeros without speech
    speech_projection: torch.Tensor | None = None  # (B, hidden); None without speech
    fusion_hidden_1: torch.Tensor | None = None  # (B, hidden)
    fusion_hidden_2: torch.Tensor | None = None  # (B, hidden)


class CoAttentionModel(nn.Module):
    """Structure only, with fresh random weights; ``create_model`` adds the pretrained ones.

    Parameters
    ----------
    config : ModelConfig
    """

    def __init__(self, config=PAPER):
        super().__init__()
        self.config = config
        speech = config.transformers_config()
        self.n_encoder_frames = encoders.count_encoder_frames(SEGMENT_SAMPLES, speech)  # T', 149 in the paper
        hidden, self.views = config.hidden, VIEW_SETS[config.views]
        guides = [view for view in self.views if view != "speech"]
        if "spectrogram" in self.views:
            self.spectrogram_encoder = encoders.SpectrogramCNN(config.cnn_channels, hidden, config.dropout)
        if "mfcc" in self.views:
            self.mfcc_encoder = encoders.MfccBiLstm(
                N_MFCC, config.lstm_hidden, config.lstm_layers, config.lstm_dropout, hidden, config.dropout
            )
        if "speech" in self.views:
            self.speech_encoder = AutoModel.from_config(speech)
            encoders.freeze(self.speech_encoder, config.encoder_training)
            if config.encoder_layers == "weighted":
                # of every layer and of what enters the first one; equal at the beginning
                self.layer_weights = nn.Parameter(torch.zeros(speech.num_hidden_layers + 1))
            if guides and config.fusion in GUIDED:
                self.coattention = nn.Linear(len(guides) * hidden, self.n_encoder_frames)
            self.speech_projection = nn.Linear(speech.hidden_size, hidden)
        self.fusion_1 = nn.Linear(len(self.views) * hidden, hidden)
        self.fusion_2 = nn.Linear(hidden, hidden)
        self.classifier = nn.Linear(hidden, len(LABELS))
        self.dropout = nn.Dropout(config.dropout)
        if config.fusion == "gated":
            self.gate = nn.Linear(len(self.views) * hidden, len(self.views) * hidden)

    def train(self, mode=True):
        """A frozen encoder never drops out or masks anything: its output is a feature like the others."""
        super().train(mode)
        if self.config.encoder_training == "frozen" and "speech" in self.views:
            self.speech_encoder.eval()
        return self

    def forward(self, spectrogram=None, mfcc=None, waveform=None, num_samples=None, states=None):
        """Classify a batch of segments; views that the model does not have are not looked at.

        Parameters
        ----------
        spectrogram : torch.Tensor, shape (B, 3, 256, 384), float32, optional
            From ``serkit.features.views.spectrogram_image``.
        mfcc : torch.Tensor, shape (B, 300, 40), float32, optional
        waveform : torch.Tensor, shape (B, 48000), float32, optional
            Not needed where ``states`` are given.
        num_samples : torch.Tensor of int64, shape (B,), optional
            Real samples of each segment, padding after them. Given, frames of padding get no
            weight in the co-attention (D1); without it every frame may get some, as published.
        states : torch.Tensor, shape (B, L, T', D), optional
            What ``speech_states`` gives for the waveform, computed before.

        Returns
        -------
        CoAttentionOutput
        """
        guides = self.guide_vectors(spectrogram, mfcc)  # (B, hidden) each
        frames = weights = None
        if "speech" in self.views:
            if states is None:
                states = self.speech_states(waveform, num_samples)  # (B, L, T', D)
            frames = self.mix_layers(states)  # (B, T', D)
            weights = self.frame_weights(guides, frames, num_samples)  # (B, T')
        return self.classify(guides, frames, weights)

    def guide_vectors(self, spectrogram, mfcc):
        """What the views other than speech are to the fusion: a vector of shape (B, hidden) for each."""
        guides = []
        if "spectrogram" in self.views:
            guides.append(self.spectrogram_encoder(spectrogram))
        if "mfcc" in self.views:
            guides.append(self.mfcc_encoder(mfcc))
        return guides

    def classify(self, guides, frames=None, weights=None):
        """Weigh the frames of speech, join the views, and classify: the part behind the encoders.

        Parameters
        ----------
        guides : list of torch.Tensor, shape (B, hidden)
            From ``guide_vectors``.
        frames : torch.Tensor, shape (B, T', D), optional
            From ``mix_layers``; none without speech.
        weights : torch.Tensor, shape (B, T'), optional
            From ``frame_weights``, or any others, to see what the answer would be with those.

        Returns
        -------
        CoAttentionOutput
        """
        vectors, speech = list(guides), None
        if frames is not None:
            speech = torch.bmm(weights[:, None].to(frames.dtype), frames)[:, 0]  # (B, D)
            speech = F.relu(self.speech_projection(self.dropout(speech)))  # (B, hidden)
            vectors.append(speech)
        joined = torch.cat(vectors, dim=1)  # (B, n_views * hidden)
        if weights is None:  # no frame of speech counts
            weights = joined.new_zeros(len(joined), self.n_encoder_frames)
        if self.config.fusion == "gated":
            joined = joined * torch.sigmoid(self.gate(joined))
        hidden_1 = F.relu(self.fusion_1(self.dropout(joined)))  # (B, hidden)
        hidden_2 = F.relu(self.fusion_2(self.dropout(hidden_1)))  # (B, hidden)
        logits = self.classifier(hidden_2)  # (B, 4)
        return CoAttentionOutput(logits, weights, speech, hidden_1, hidden_2)

    def frame_weights(self, guides, frames, num_samples=None):
        """How much each frame of speech counts, shape (B, T').

        Parameters
        ----------
        guides : list of torch.Tensor, shape (B, hidden)
            Vectors of the other views; none: all frames count alike.
        frames : torch.Tensor, shape (B, T', D)
        num_samples : torch.Tensor of int64, shape (B,), optional
            As in ``forward``.
        """
        mask = torch.ones_like(frames[:, :, 0]) if num_samples is None else self.frame_mask(num_samples)
        scores = None
        if guides and self.config.fusion in GUIDED:
            scores = self.coattention(self.dropout(torch.cat(guides, dim=1)))  # (B, T')
        return weigh_frames(scores, mask, self.config.fusion)

    def speech_states(self, waveform, num_samples=None):
        """Hidden states of the speech encoder: of the last layer, or of all, shape (B, L, T', D)."""
        mask = None
        if num_samples is not None and self.config.encoder_mask:
            position = torch.arange(waveform.shape[1], device=waveform.device)
            # an encoder that sees no sample at all returns NaN: leave it one frame
            mask = (position < num_samples[:, None].clamp_min(400)).long()  # (B, 48000)
        all_layers = self.config.encoder_layers == "weighted"
        learns = self.config.encoder_training != "frozen" and torch.is_grad_enabled()
        with torch.set_grad_enabled(learns):
            output = self.speech_encoder(waveform, attention_mask=mask, output_hidden_states=all_layers)
        if all_layers:
            return torch.stack(output.hidden_states, dim=1)  # (B, L, T', D)
        return output.last_hidden_state[:, None]  # (B, 1, T', D)

    def mix_layers(self, states):
        """One layer of many, shape (B, T', D): the only one, or the learned weighted sum."""
        states = states.float()
        if self.config.encoder_layers == "last":
            return states[:, 0]  # (B, T', D)
        share = torch.softmax(self.layer_weights, dim=0)  # (L,)
        return torch.einsum("l,bltd->btd", share, states)  # (B, T', D)

    def encode_speech(self, waveform, num_samples=None):
        """The frames that the co-attention weighs, shape (B, T', D)."""
        return self.mix_layers(self.speech_states(waveform, num_samples))

    def frame_mask(self, num_samples):
        """1.0 for encoder frames that hold speech, 0.0 for padding, shape (B, T')."""
        frames = encoders.count_encoder_frames(num_samples, self.speech_encoder.config)  # (B,)
        frame = torch.arange(self.n_encoder_frames, device=num_samples.device)
        return (frame < frames[:, None]).float()

    def count_parameters(self):
        """Number of trainable values, branch by branch."""
        return {
            name: sum(p.numel() for p in part.parameters() if p.requires_grad)
            for name, part in self.named_children()
            if list(part.parameters())
        }


def weigh_frames(scores, mask, fusion):
    """Weight of every frame of speech; padding gets none.

    ``coattention``, as published: scores pass a ReLU. Weights do not add up to anything, and all of
    them can be zero. ``normalised``: the same weights divided by their sum; where all are zero, all
    frames count alike. ``softmax``: the scores made positive with sum one. ``mean`` and ``gated``: all
    frames count alike; with ``gated`` every number of the joined vector is then multiplied by a gate
    between 0 and 1 that depends on all of them. Without speech there is nothing to weigh, without
    another view nothing that could: the vectors there are stand side by side.

    Parameters
    ----------
    scores : torch.Tensor, shape (B, T'), or None
        What the other views make of each frame; None: all frames count alike, whatever the fusion.
    mask : torch.Tensor, shape (B, T')
        1.0 for speech, 0.0 for padding. A row without any speech counts as all speech.
    fusion : str
        One of ``serkit.constants.FUSIONS``.

    Returns
    -------
    torch.Tensor, shape (B, T')

    Examples
    --------
    >>> scores, mask = torch.tensor([[-1.0, 2.0, 2.0, 5.0]]), torch.tensor([[1.0, 1.0, 1.0, 0.0]])
    >>> weigh_frames(scores, mask, "coattention").tolist()
    [[0.0, 2.0, 2.0, 0.0]]
    >>> weigh_frames(scores, mask, "normalised").tolist()
    [[0.0, 0.5, 0.5, 0.0]]
    >>> (6 * weigh_frames(None, mask, "mean")).round().tolist()
    [[2.0, 2.0, 2.0, 0.0]]
    """
    if scores is not None and fusion in ("coattention", "normalised"):
        weights = F.relu(scores) * mask
        if fusion == "coattention":
            return weights
        total = weights.sum(dim=1, keepdim=True)
        shares = weights / total.clamp_min(
            torch.finfo(total.dtype).tiny
        )  # a NaN here would reach the gradient
        return torch.where(total > 0, shares, weigh_frames(None, mask, fusion))
    real = torch.where(mask.sum(dim=1, keepdim=True) > 0, mask, torch.ones_like(mask)) > 0
    flat = torch.zeros_like(mask) if scores is None else scores
    return torch.softmax(flat.masked_fill(~real, float("-inf")), dim=1)


def create_model(config):
    """A model ready for training: structure, and the pretrained weights that the config names.

    Parameters
    ----------
    config : ModelConfig

    Returns
    -------
    CoAttentionModel

    Raises
    ------
    WeightsError
        If weights can't be had; nothing falls back to random ones.
    """
    config = resolve_structure(config)
    model, sources = CoAttentionModel(config), {}
    if "speech" in model.views:
        if config.speech_encoder != encoders.RANDOM:
            pretrained = encoders.load_speech_encoder(config.speech_encoder).state_dict()
            ours = model.speech_encoder.state_dict()
            # SpecAugment's own weight may be missing in the file, or not be wanted here
            model.speech_encoder.load_state_dict({name: pretrained.get(name, ours[name]) for name in ours})
        sources["speech_encoder"] = weights_source(config.speech_encoder, model.speech_encoder)
    if "spectrogram" in model.views:
        if config.cnn_weights != encoders.RANDOM:
            model.spectrogram_encoder.features.load_state_dict(encoders.load_alexnet_weights())
        sources["cnn"] = weights_source(config.cnn_weights, model.spectrogram_encoder.features)
    model.config = replace(config, sources=sources)
    return model


def resolve_structure(config):
    """The config with the structure of the speech encoder that it names; needs no weights.

    Raises
    ------
    WeightsError
        If the encoder's own config can't be had.
    """
    if config.speech_encoder == encoders.RANDOM or "speech" not in VIEW_SETS[config.views]:
        return config
    structure = encoders.speech_config(config.speech_encoder)
    speech = structure.to_diff_dict() | {"model_type": structure.model_type}
    wants_mask = getattr(structure, "feat_extract_norm", "group") == "layer"
    return replace(config, speech=speech, encoder_mask=wants_mask)


def weights_source(name, module):
    """Where a branch's first weights came from: name, origin, revision, and a hash of the values."""
    revision = None
    if name == encoders.RANDOM:
        origin = "random values"
    elif name == "imagenet":
        origin, revision = "torchvision or its cache", "IMAGENET1K_V1"
    else:
        origin = "folder" if Path(name).is_dir() else "hub or its cache"
        revision = getattr(module.config, "_commit_hash", None)
    return {"name": name, "from": origin, "revision": revision, "sha256": encoders.fingerprint(module)}
