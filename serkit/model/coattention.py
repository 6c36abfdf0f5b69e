"""The co-attention model of the paper: its configuration, its parts, and the weights it starts from.

The spectrogram and the MFCC of a segment decide together how much each wav2vec 2.0 frame
counts; the three resulting vectors are joined and classified. Views can be left out and the fusion
exchanged, to see what each of them is good for.
"""

import copy
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional as F
from transformers import AutoConfig
from transformers.utils import ModelOutput

from serkit.constants import GUIDED, LABELS, N_MFCC, SAMPLE_RATE, SEGMENT_SAMPLES, SPEECH_ENCODER, VIEW_SETS
from serkit.files import read_toml
from serkit.model import encoders, speech_encoders


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
    preprocessor: dict = field(  # of sound for the speech encoder, as preprocessor_config.json has it
        default_factory=lambda: {"feature_extractor_type": "Wav2Vec2FeatureExtractor", "do_normalize": True}
    )
    encoder_mask: bool = False  # does the encoder itself want an attention mask?
    encoder_training: str = "all"  # what of the encoder learns: all, transformer, top_<k>, frozen
    encoder_layers: str = "last"  # last, one by its number, or a learned weighted sum of all: weighted
    views: str = "all"  # what the model sees, see serkit.constants.VIEW_SETS
    fusion: str = "coattention"  # how the views become one vector, see weigh_frames
    labels: tuple = LABELS  # the classes, in class order
    sources: dict = field(default_factory=dict)  # where weights came from; filled by create_model

    def __post_init__(self):
        # files have lists
        vars(self).update(cnn_channels=tuple(self.cnn_channels), labels=tuple(self.labels))

    @property
    def names_encoder(self):
        """Whether a saved model names its speech encoder and holds none of its weights: it is frozen, not random."""
        frozen = self.encoder_training == "frozen" and "speech" in VIEW_SETS[self.views]
        return frozen and self.speech_encoder != encoders.RANDOM

    def transformers_config(self):
        """The speech encoder's structure with SpecAugment and LayerDrop set as said here.

        A layer that is left out has no states: where other layers than the last are read, none is. Whisper's
        encoder knows no SpecAugment.
        """
        layerdrop = "encoder_layerdrop" if self.speech["model_type"] == "whisper" else "layerdrop"
        changes = {
            layerdrop: self.layerdrop if self.encoder_layers == "last" else 0.0,
            "apply_spec_augment": self.mask_time_prob > 0,
            "mask_time_prob": self.mask_time_prob,
            "mask_time_length": self.mask_time_length,
        }
        if self.encoder_training == "frozen":  # it masks nothing: no random stand-in for a masked frame
            changes |= {"mask_time_prob": 0.0, "mask_feature_prob": 0.0}
        return AutoConfig.for_model(**self.speech | changes)

    def hears(self, recipe):
        """The recipe with the waveform scaled as the speech encoder's preprocessor says."""
        return replace(recipe, unit_variance=self.preprocessor.get("do_normalize", False))


PAPER = ModelConfig()
DEMO = ModelConfig(**read_toml(__file__, "demo.toml"))
PROFILES = {"paper": PAPER, "demo": DEMO}


@dataclass
class CoAttentionOutput(ModelOutput):
    """What a forward pass gives; everything but the logits is there to be looked at."""

    logits: torch.Tensor | None = None  # (B, K), one for each class
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
        self.states_shape = speech_encoders.states_shape(speech, config.preprocessor, config.encoder_layers)
        n_layers, self.n_encoder_frames, width = self.states_shape  # L, T' (149 in the paper), D
        hidden, self.views = config.hidden, VIEW_SETS[config.views]
        guides = [view for view in self.views if view != "speech"]
        if "spectrogram" in self.views:
            self.spectrogram_encoder = encoders.SpectrogramCNN(config.cnn_channels, hidden, config.dropout)
        if "mfcc" in self.views:
            lstm = config.lstm_hidden, config.lstm_layers, config.lstm_dropout
            self.mfcc_encoder = encoders.MfccBiLstm(N_MFCC, *lstm, hidden, config.dropout)
        if "speech" in self.views:
            self.speech_input = speech_encoders.encoder_input(config.preprocessor)
            self.speech_encoder = speech_encoders.build_speech_encoder(speech)
            speech_encoders.freeze(self.speech_encoder, config.encoder_training, config.encoder_layers)
            if config.encoder_layers == "weighted":
                # of every layer and of what enters the first one; equal at the beginning
                self.layer_weights = nn.Parameter(torch.zeros(n_layers))
            if config.encoder_training == "frozen":  # of every feature, filled in by fit_states
                self.register_buffer("states_mean", torch.zeros(n_layers, width))
                self.register_buffer("states_std", torch.ones(n_layers, width))
            if guides and config.fusion in GUIDED:
                self.coattention = nn.Linear(len(guides) * hidden, self.n_encoder_frames)
            self.speech_projection = nn.Linear(width, hidden)
        self.fusion_1 = nn.Linear(len(self.views) * hidden, hidden)
        self.fusion_2 = nn.Linear(hidden, hidden)
        self.classifier = nn.Linear(hidden, len(config.labels))
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
            weights = joined.new_zeros(joined.shape[0], self.n_encoder_frames)
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
        """Hidden states of the layers that are read, shape (B, L, T', D)."""
        with torch.autocast(waveform.device.type, enabled=False):
            inputs = self.speech_input(waveform, num_samples)
        if num_samples is not None and self.config.encoder_mask:
            (values,) = inputs.values()
            inputs["attention_mask"] = self.speech_input.mask(num_samples, values.shape[1])
        learns = self.config.encoder_training != "frozen" and torch.is_grad_enabled()
        with torch.set_grad_enabled(learns):
            return speech_encoders.read_states(self.speech_encoder, inputs, self.config.encoder_layers)

    def mix_layers(self, states):
        """One layer of many, shape (B, T', D): the only one, or the learned weighted sum.

        Those of a frozen encoder are standardised first, each layer by itself. In encoders that normalise before
        their layers (Whisper, WavLM-large) a few features are far larger than all others, and all far from zero:
        a sum over frames would pass on little else.
        """
        states = states.float()
        if self.config.encoder_training == "frozen":
            states = (states - self.states_mean[:, None]) / self.states_std[:, None]  # (B, L, T', D)
        if self.config.encoder_layers != "weighted":
            return states[:, 0]  # (B, T', D)
        share = torch.softmax(self.layer_weights, dim=0)  # (L,)
        return torch.einsum("l,bltd->btd", share, states)  # (B, T', D)

    def encode_speech(self, waveform, num_samples=None):
        """The frames that the co-attention weighs, shape (B, T', D)."""
        return self.mix_layers(self.speech_states(waveform, num_samples))

    def count_frames(self, num_samples):
        """Encoder frames that hold speech, shape (B,): in proportion, where layers have another rate than the front end."""
        encoder = self.speech_encoder, self.speech_input
        whole = torch.full_like(num_samples, SEGMENT_SAMPLES)
        frames, of_all = (speech_encoders.count_encoder_frames(n, *encoder) for n in (num_samples, whole))
        return -(-frames * self.n_encoder_frames // of_all)

    def frame_mask(self, num_samples):
        """1.0 for encoder frames that hold speech, 0.0 for padding, shape (B, T')."""
        frames = self.count_frames(num_samples)  # (B,)
        frame = torch.arange(self.n_encoder_frames, device=num_samples.device)
        return (frame < frames[:, None]).float()

    def saved_state(self):
        """What of the weights a file must hold: not those of a frozen encoder that can be read where they came from."""
        left_out = "speech_encoder." if self.config.names_encoder else ()
        return {name: value for name, value in self.state_dict().items() if not name.startswith(left_out)}

    def load_saved_state(self, state):
        """Take over what ``saved_state`` gave; what it left out stays as it is."""
        ours = self.state_dict()
        self.load_state_dict({name: ours[name] for name in ours.keys() - self.saved_state().keys()} | state)

    def describe_encoder(self):
        """What the speech encoder hears and gives, in a line."""
        (n_layers, n_frames, width), config = self.states_shape, self.config
        layers = f"{n_layers} layers, weighted" if n_layers > 1 else f"layer: {config.encoder_layers}"
        mask = "with" if config.encoder_mask else "without"
        hears = f"{config.speech['model_type']} hears {self.speech_input.says}"
        return f"{hears}; 3 s are {n_frames} frames of {width}, {layers}, {mask} a mask"

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
        tiny = torch.finfo(total.dtype).tiny  # in place of zero: a NaN here would reach the gradient
        return torch.where(total > 0, weights / total.clamp_min(tiny), weigh_frames(None, mask, fusion))
    real = torch.where(mask.sum(dim=1, keepdim=True) > 0, mask, torch.ones_like(mask)) > 0
    flat = torch.zeros_like(mask) if scores is None else scores
    return torch.softmax(flat.masked_fill(~real, float("-inf")), dim=1)


def padding_effect(network, waveform, seconds):
    """How much zeros after a sound change the hidden states of its frames.

    Parameters
    ----------
    network : CoAttentionModel
        In evaluation mode, on the CPU.
    waveform : torch.Tensor, shape (48000,), float32
        Sound from beginning to end.
    seconds : sequence of float
        How much of it is left in front of the zeros.

    Returns
    -------
    list of float
        Length of the difference to the states of the same sound alone, in % of their length, both summed over frames.
    """
    changes = []
    for length_s in seconds:
        n = torch.tensor([round(length_s * SAMPLE_RATE)])
        padded, unpadded = torch.where(torch.arange(len(waveform)) < n, waveform, 0.0), network
        if network.config.speech["model_type"] == "whisper":  # its number of positions is that of its frames
            unpadded = copy.deepcopy(network)
            speech_encoders.crop_positions(unpadded.speech_encoder, int(network.count_frames(n)))
        with torch.inference_mode():
            alone = unpadded.encode_speech(waveform[None, : int(n)])[0]  # (frames, D)
            among = network.encode_speech(padded[None], n)[0, : len(alone)]  # (frames, D)
        changes.append(100 * ((among - alone).norm(dim=1).sum() / alone.norm(dim=1).sum()).item())
    return changes


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
            read_speech_encoder(model)
        sources["speech_encoder"] = weights_source(config.speech_encoder, model.speech_encoder)
    if "spectrogram" in model.views:
        if config.cnn_weights != encoders.RANDOM:
            model.spectrogram_encoder.features.load_state_dict(encoders.load_alexnet_weights())
        sources["cnn"] = weights_source(config.cnn_weights, model.spectrogram_encoder.features)
    model.config = replace(config, sources=sources)
    return model


def read_speech_encoder(model):
    """Fill a model's speech encoder with the weights that its config names.

    Raises
    ------
    WeightsError
        If they can't be had.
    """
    pretrained = speech_encoders.load_speech_encoder(model.config.speech_encoder).state_dict()
    ours = model.speech_encoder.state_dict()
    # SpecAugment's own weight may be missing in the file, or not be wanted here
    model.speech_encoder.load_state_dict({name: pretrained.get(name, ours[name]) for name in ours})


def check_encoder(config):
    """The model without memory for its weights, if its speech encoder can be built and loaded.

    A folder's weights are read once; those of a hub id are fetched when a training begins.

    Raises
    ------
    WeightsError, ParameterError
        As ``create_model``.
    """
    with torch.device("meta"):
        model = CoAttentionModel(resolve_structure(config))
    if "speech" in model.views and Path(config.speech_encoder).is_dir():
        speech_encoders.load_speech_encoder(config.speech_encoder)
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
    speech, preprocessor = speech_encoders.read_structure(config.speech_encoder)
    wants_mask = speech_encoders.wants_mask(AutoConfig.for_model(**speech), preprocessor)
    return replace(config, speech=speech, preprocessor=preprocessor, encoder_mask=wants_mask)


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
