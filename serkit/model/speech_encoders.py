"""Speech encoders of transformers behind one interface: what goes in, how many frames come out, what of them learns.

What an encoder wants is read from its own folder (``config.json``, ``preprocessor_config.json``); how many
frames it makes of a segment is tried out on torch's meta device, where nothing is computed. Never is code
run that comes with a checkpoint.
"""

from pathlib import Path

import torch
import transformers
from safetensors import SafetensorError
from torch import nn
from transformers import AutoConfig, AutoFeatureExtractor, AutoModel, PretrainedConfig

from serkit.constants import SAMPLE_RATE, SEGMENT_SAMPLES
from serkit.errors import ParameterError, WeightsError, reported_as, shown

MASKED_FRAME = "masked_spec_embed"  # SpecAugment's stand-in for a frame; wav2vec2-base-960h has none
FAMILIES = (
    "wav2vec2", "hubert", "wavlm", "unispeech-sat", "data2vec-audio", "sew", "wav2vec2-conformer", "wav2vec2-bert",
    "whisper",
)  # fmt: skip
ONE_OF = f"one of {', '.join(FAMILIES)}"
LARGEST, MOST_LAYERS = 100_000, 100  # of any number in a structure: more would build for hours
WHISPER_FRAMES = SEGMENT_SAMPLES // 320  # of 20 ms: positions that a segment needs
TRIED = {}  # structure -> shape of its states: trying one out takes longer than building the model
LFS = b"version https://git-lfs"  # how a file begins whose content was not fetched


class Waveform(nn.Module):
    """Input of an encoder that hears samples. Their scale is the recipe's business, see ``ModelConfig.hears``."""

    steps = ()  # (width, step) of each stage from samples to frames, where not in the encoder's config
    shortest = 400  # samples that a mask leaves at least: of none at all an encoder makes NaN

    def __init__(self, extractor):
        super().__init__()
        scale = "unit variance" if getattr(extractor, "do_normalize", False) else "as recorded"
        self.says = f"waveform, {scale}"  # for a reader

    def count(self, num_samples):
        """Inputs (samples, or frames of a spectrogram) that ``num_samples`` make."""
        return num_samples

    def forward(self, waveform, num_samples=None):
        """What the encoder gets by name for waveforms (B, num_samples), of which the first ``num_samples`` are real."""
        return {"input_values": waveform}

    def mask(self, num_samples, n_inputs):
        """1 for real inputs, 0 for padding, shape (B, n_inputs)."""
        place = torch.arange(n_inputs, device=num_samples.device)
        return (place < self.count(num_samples)[:, None].clamp_min(self.shortest)).long()


class WhisperMel(Waveform):
    """Log-mel spectrogram of Whisper: 10 ms frames, levels within 80 dB of the segment's loudest band."""

    def __init__(self, extractor):
        super().__init__(extractor)
        self.n_fft, self.hop_length = extractor.n_fft, extractor.hop_length
        self.steps = ((self.n_fft, self.hop_length), (3, 1), (3, 2))
        self.says = f"log-mel, {extractor.feature_size} bands; cropped positions, no padding to 30 s"
        self.register_buffer("filters", torch.tensor(extractor.mel_filters.T).float(), persistent=False)
        self.register_buffer("window", torch.hann_window(self.n_fft), persistent=False)

    def count(self, num_samples):
        return num_samples // self.hop_length

    def forward(self, waveform, num_samples=None):
        spectrum = torch.stft(waveform, self.n_fft, self.hop_length, window=self.window, return_complex=True)
        power = spectrum[..., :-1].abs().square()  # (B, F, T), without the frame centred on the end
        level = (self.filters @ power).clamp_min(1e-10).log10()  # (B, bands, T)
        level = level.maximum(level.amax((1, 2), keepdim=True) - 8)
        return {"input_features": level / 4 + 1}


class KaldiBands(Waveform):
    """Mel bands of w2v-BERT 2.0 as Kaldi computes them: each at zero mean and unit variance, two frames as one."""

    shortest = 1
    steps = ((400, 160), (2, 2))
    win_length, hop_length, n_fft = 400, 160, 512  # samples

    def __init__(self, extractor):
        super().__init__(extractor)
        self.says = "mel bands as of Kaldi, two frames as one"
        self.padding, self.stride = extractor.padding_value, extractor.stride
        self.register_buffer("filters", torch.tensor(extractor.mel_filters).float(), persistent=False)
        self.register_buffer("window", torch.tensor(extractor.window).float(), persistent=False)

    def count(self, num_samples):
        return ((num_samples - self.win_length) // self.hop_length + 1) // self.stride

    def forward(self, waveform, num_samples=None):
        frames = waveform.unfold(1, self.win_length, self.hop_length) * 2.0**15  # (B, T, 400), as of 16 bits
        frames = frames - frames.mean(2, keepdim=True)
        frames = frames - 0.97 * torch.cat([frames[..., :1], frames[..., :-1]], dim=2)
        power = torch.fft.rfft(frames * self.window, self.n_fft).abs().square()  # (B, T, 257)
        level = (power @ self.filters).clamp_min(torch.finfo(torch.float32).eps).log()  # (B, T, 80)
        real = torch.ones_like(level[..., :1])
        if num_samples is not None:
            n_real = ((num_samples - self.win_length) // self.hop_length + 1).clamp_min(self.stride)
            real = (torch.arange(level.shape[1], device=level.device) < n_real[:, None]).float()[..., None]
        n_real = real.sum(1, keepdim=True)
        level = level - (level * real).sum(1, keepdim=True) / n_real
        variance = (level * real).square().sum(1, keepdim=True) / (n_real - 1)
        level = torch.where(real > 0, level / (variance + 1e-7).sqrt(), self.padding)
        level = level[:, : level.shape[1] // self.stride * self.stride]
        return {"input_features": level.reshape(level.shape[0], -1, self.stride * level.shape[2])}


INPUTS = {
    "Wav2Vec2FeatureExtractor": Waveform,
    "WhisperFeatureExtractor": WhisperMel,
    "SeamlessM4TFeatureExtractor": KaldiBands,
}


def encoder_input(preprocessor):
    """The module that makes an encoder's input of waveforms; it holds no weights.

    Parameters
    ----------
    preprocessor : dict
        As ``preprocessor_config.json`` has it.
    """
    kind = preprocessor["feature_extractor_type"]
    return INPUTS[kind](getattr(transformers, kind)(**preprocessor))


def check_structure(speech):
    """Refuse a structure from a strange folder that could run code, is of no known family, or is far too large.

    Raises
    ------
    ValueError
        Naming the entry.
    """
    if (family := speech.get("model_type")) not in FAMILIES:
        raise ValueError(f"model_type={shown(family)}, expected {ONE_OF}")
    for name, value in speech.items():
        # transformers would fetch a kernel of that name from the hub
        if name == "auto_map" or ("attn_implementation" in name and "/" in str(value)):
            raise ValueError(f"{name} asks to run code that comes with a model: not done")
    check_sizes(speech)


def check_sizes(settings):
    """Refuse, with a ValueError, a number that would take hours to build."""
    for name, value in settings.items():
        numbers = value if isinstance(value, list) else [value]
        limit = MOST_LAYERS if name.endswith("layers") else LARGEST
        if any(isinstance(number, int | float) and not abs(number) <= limit for number in numbers):
            raise ValueError(f"{name}={shown(value)}, expected numbers up to {limit}")


def read_structure(source):
    """Structure and preprocessor of a speech encoder from the hub or a local folder; needs no weights.

    Without a preprocessor, that of the family is taken: for encoders that hear samples, unit variance.

    Parameters
    ----------
    source : str
        Hub id such as ``facebook/wav2vec2-base-960h``, or a folder.

    Returns
    -------
    speech : dict
        For ``AutoConfig.for_model``. An adapter behind the layers is left out, and Whisper has positions for a
        segment only: its 30 s of padding are.
    preprocessor : dict
        For :func:`encoder_input`.

    Raises
    ------
    WeightsError
        If it can't be had, with the files to put where, or needs an input that is not known here.
    """
    with _reading(source):
        _check_pointers(source)
        check_structure(PretrainedConfig.get_config_dict(source)[0])
        config = AutoConfig.from_pretrained(source, trust_remote_code=False)
        preprocessor = _read_preprocessor(source, config)
        kind, rate = preprocessor["feature_extractor_type"], preprocessor.get("sampling_rate", SAMPLE_RATE)
        if kind not in INPUTS:
            raise ValueError(f"its input is made by {kind}; use {ONE_OF}")
        if rate != SAMPLE_RATE:
            raise ValueError(f"it hears {rate} Hz, expected {SAMPLE_RATE}")
    speech = config.to_diff_dict() | {"model_type": config.model_type}
    speech = {name: value for name, value in speech.items() if name not in ("dtype", "add_adapter")}
    if config.model_type == "whisper":
        speech["max_source_positions"] = WHISPER_FRAMES
    return speech, preprocessor


def _read_preprocessor(source, config):
    names = ("preprocessor_config.json", "processor_config.json")
    if Path(source).is_dir() and not any((Path(source) / name).is_file() for name in names):
        usual = {
            "whisper": lambda: transformers.WhisperFeatureExtractor(feature_size=config.num_mel_bins),
            "wav2vec2-bert": transformers.SeamlessM4TFeatureExtractor,
        }
        return usual.get(config.model_type, transformers.Wav2Vec2FeatureExtractor)().to_dict()
    return AutoFeatureExtractor.from_pretrained(source, trust_remote_code=False).to_dict()


def _check_pointers(source):
    """Refuse a folder that was cloned without Git LFS."""
    folder = Path(source)
    weights = list(folder.glob("*.safetensors")) or list(folder.glob("*.bin"))
    for path in [*folder.glob("*config.json"), *weights]:
        with open(path, "rb") as file:
            if file.read(len(LFS)) == LFS:
                raise ValueError(f"{path.name} is a Git LFS pointer, run `git lfs pull` in its folder")


def build_speech_encoder(config):
    """An encoder of this structure with random weights, in float32.

    Parameters
    ----------
    config : transformers.PretrainedConfig
    """
    if config.model_type == "whisper":
        return transformers.models.whisper.modeling_whisper.WhisperEncoder._from_config(config)
    return AutoModel.from_config(config, trust_remote_code=False)


def load_speech_encoder(source):
    """A pretrained speech encoder, in float32 whatever it was saved in.

    Parameters
    ----------
    source : str
        Hub id such as ``facebook/wav2vec2-base-960h``, or a folder with ``config.json`` and
        ``model.safetensors``.

    Returns
    -------
    transformers.PreTrainedModel
        Of Whisper the encoder, with positions for one segment.

    Raises
    ------
    WeightsError
        If it can't be had, or some of its weights are missing or of another shape: transformers
        would start those from random values.
    """
    with _reading(source):
        _check_pointers(source)
        options = {"dtype": torch.float32, "trust_remote_code": False, "use_safetensors": True}
        encoder, report = AutoModel.from_pretrained(source, output_loading_info=True, **options)
        if absent := sorted(set(report["missing_keys"]) - {MASKED_FRAME}):
            raise ValueError(f"{len(absent)} of its weights are missing, the first is {absent[0]}")
    if encoder.config.model_type == "whisper":
        encoder = encoder.get_encoder()
        crop_positions(encoder, WHISPER_FRAMES)
    return encoder


def crop_positions(encoder, n_frames):
    """Let a Whisper encoder hear ``n_frames`` frames of 20 ms in place of 30 s."""
    encoder.config.max_source_positions = n_frames
    encoder.embed_positions = nn.Embedding.from_pretrained(encoder.embed_positions.weight[:n_frames])


def _reading(source):
    """Report what is wrong with a speech encoder, with what to do about it."""
    files = "config.json, preprocessor_config.json and model.safetensors"
    cure = f"expected a folder with {files}"
    if not Path(source).is_dir():
        cure = f"without a connection, put its {files} into a folder and pass that folder as speech_encoder; or ask "
        cure += "for random weights by name: speech_encoder='random'"
    causes = OSError, ValueError, RuntimeError, SafetensorError
    return reported_as(WeightsError, f"speech encoder {shown(source)} can't be loaded", cure, causes)


def wants_mask(config, preprocessor):
    """Whether an encoder is to be told where padding begins.

    If its preprocessor asks for it; and if nothing in its front end averages over time, as a group norm does:
    a mask then keeps padding out of the states entirely. Whisper has no use for a mask.
    """
    if config.model_type == "whisper":
        return False
    with torch.random.fork_rng(devices=[]), torch.device("meta"):
        parts = build_speech_encoder(config).modules()
    averages = any(isinstance(part, nn.GroupNorm) for part in parts)
    return bool(preprocessor.get("return_attention_mask")) or not averages


def read_states(encoder, inputs, layers):
    """Hidden states of chosen layers, shape (B, L, T', D).

    Parameters
    ----------
    encoder : transformers.PreTrainedModel
    inputs : dict of str to torch.Tensor
        As an :func:`encoder_input` gives them.
    layers : str
        ``last``: what leaves the encoder. ``weighted``: the input of the first layer and the output of each.
        A number: one of these, 0 is the input of the first.
    """
    output = encoder(**inputs, output_hidden_states=layers != "last")
    if layers == "last":
        return output.last_hidden_state[:, None]
    states = output.hidden_states
    return torch.stack(states if layers == "weighted" else [states[int(layers)]], dim=1)


def states_shape(config, preprocessor, layers):
    """How many layers, frames and numbers ``read_states`` gives for a segment of 3 s: (L, T', D).

    Raises
    ------
    ParameterError
        If there is no such layer.
    WeightsError
        If this structure can't be fed with a segment.
    """
    if layers.isdigit() and int(layers) > config.num_hidden_layers:
        given = f"encoder_layers={layers}, but the speech encoder has {config.num_hidden_layers} layers"
        known = f"last, weighted or 0 to {config.num_hidden_layers} (0 is the input of the first)"
        raise ParameterError(f"{given}; expected {known}")
    structure = config.to_json_string(), str(preprocessor), layers
    if structure in TRIED:
        return TRIED[structure]
    # transformers knows hundreds of structures, few of them for speech
    about = f"speech encoder of type {config.model_type!r} can't hear 3 s of sound"
    unheard = reported_as(WeightsError, about, f"use {ONE_OF}")
    with unheard, torch.random.fork_rng(devices=[]), torch.device("meta"), torch.no_grad():
        encoder = build_speech_encoder(config).eval()
        inputs = encoder_input(preprocessor)(torch.zeros(1, SEGMENT_SAMPLES))
        return TRIED.setdefault(structure, tuple(read_states(encoder, inputs, layers).shape[1:]))


def count_encoder_frames(num_samples, encoder, heard):
    """Frames that an encoder makes of ``num_samples``: 149 of 48,000 for wav2vec2-base.

    Counted through the encoder's own convolutions, where it has any.

    Parameters
    ----------
    num_samples : torch.Tensor of int64
    encoder : transformers.PreTrainedModel
    heard : Waveform
        Its :func:`encoder_input`.

    Returns
    -------
    torch.Tensor of int64
        A piece with any sample has at least one frame, one without samples has none.
    """
    frames = heard.count(num_samples)
    if hasattr(encoder, "_get_feat_extract_output_lengths"):
        frames = encoder._get_feat_extract_output_lengths(frames)
    return torch.where(num_samples > 0, frames.clamp_min(1), 0)


def freeze(encoder, training, layers="last"):
    """Take the parts of a speech encoder out of training that ``training`` leaves out.

    Parameters
    ----------
    encoder : transformers.PreTrainedModel
    training : str
        ``all``; ``transformer``: all but the convolutions that make frames (w2v-BERT 2.0 has none: the same as
        ``all``); ``top_<k>``: the last ``k`` transformer layers that are read; ``frozen``: nothing.
    layers : str, optional
        Which layers are read, see :func:`read_states`: those above a chosen one never learn.

    Raises
    ------
    ParameterError
        If there are fewer than ``k`` layers.
    """
    stack = getattr(encoder, "encoder", encoder).layers
    read = stack[: int(layers)] if layers.isdigit() else stack
    stack[len(read) :].requires_grad_(False)
    if training == "all":
        return
    if hasattr(encoder, "feature_extractor"):
        # its convolutions else ask for the gradient of their input, which nobody needs
        encoder.feature_extractor._freeze_parameters()
    for part in encoder.children():
        if isinstance(part, nn.Conv1d):  # of Whisper
            part.requires_grad_(False)
    if training == "transformer":
        return
    encoder.requires_grad_(False)
    if training.startswith("top_"):
        wanted = int(training.removeprefix("top_"))
        if wanted > len(read):
            below = f" up to encoder_layers={layers}" if layers.isdigit() else ""
            given = f"encoder_training={training!r}"
            raise ParameterError(f"{given}, but the speech encoder has {len(read)} transformer layers{below}")
        read[-wanted:].requires_grad_(True)
