"""The paper's numbers, each with unit and source on its line.

[P] Zou et al., ICASSP 2022, arXiv:2203.15326. [C] what the published code does where the
paper is silent. [D] follows from the others.
"""

# Signal
SAMPLE_RATE = 16_000  # Hz, IEMOCAP's own rate [P]
PREEMPHASIS = 0.97  # y[n] = x[n] - 0.97 x[n-1] [C]
SEGMENT_S = 3.0  # s, length of one segment [P]
MIN_SAMPLES = 400  # samples = 25 ms, one wav2vec 2.0 frame: nothing shorter can be encoded [D]
MAX_SAMPLES = 600 * SAMPLE_RATE  # samples = 10 min; an utterance is a turn, not a recording [D]

# Spectrogram
HOP_LENGTH = 160  # samples = 10 ms [P]
WIN_LENGTH = 640  # samples = 40 ms, Hamming [P]
N_FFT = 800  # points, so bins are 20 Hz apart [P]
N_BINS = 200  # lowest bins kept, 0 to 3980 Hz [P]
TOP_DB = 80.0  # dB below the peak at which levels are cut off [C]

# MFCC
N_MFCC = 40  # coefficients [P]
N_MELS = 128  # HTK mel bands with area normalisation [C]
MFCC_N_FFT = 2048  # samples, Hann window of the same length [C]

# Segments
SEGMENT_SAMPLES = 48_000  # samples, 3 s at 16 kHz [D]
SEGMENT_FRAMES = 300  # frames, 3 s at a hop of 10 ms [D]
SILENCE_DBFS = -60.0  # dB re full scale; a recording whose peak is below holds no usable speech [D]

# Spectrogram image
IMAGE_SIZE = (256, 384)  # pixels, height x width, after bilinear resizing [P]
IMAGENET_MEAN = (0.485, 0.456, 0.406)  # per channel, torchvision's ImageNet statistics [C]
IMAGENET_STD = (0.229, 0.224, 0.225)

# Task
LABELS = ("angry", "sad", "happy", "neutral")  # class order everywhere: 0, 1, 2, 3 [C]
# what a model may see: all is the paper's; speech is the waveform through wav2vec 2.0
VIEW_SETS = {"all": ("spectrogram", "mfcc", "speech")} | {
    name: tuple(name.split("+"))
    for name in ("spectrogram", "mfcc", "speech", "spectrogram+mfcc", "spectrogram+speech", "mfcc+speech")
}
# Of views; the first is the paper's
FUSIONS = ("coattention", "normalised", "softmax", "mean", "gated")
GUIDED = ("coattention", "normalised", "softmax")  # in which other views decide about the frames of speech
# That can be loaded by name [D]
CORPORA = ("cremad", "demo", "emodb", "iemocap", "ravdess", "savee", "tess")
CHANCE_UA = 100.0 / len(LABELS)  # %, unweighted accuracy of guessing [D]
SPEECH_ENCODER = "facebook/wav2vec2-base-960h"  # hub id [P]

# Reported results on IEMOCAP, (WA, UA) in % [P]
PAPER_RESULTS = {"session": (69.80, 71.05), "speaker": (71.64, 72.70)}

# IEMOCAP, four classes: what a full release must hold [counted from the released tags]
IEMOCAP_EMOTIONS = {"ang": 1103, "sad": 1084, "hap": 595, "exc": 1041, "neu": 1708}
IEMOCAP_SPEAKERS = {
    "1F": 528, "1M": 557, "2F": 481, "2M": 542, "3F": 522,
    "3M": 629, "4F": 528, "4M": 503, "5F": 590, "5M": 651,
}  # utterances of the four classes  # fmt: skip
IEMOCAP_UTTERANCES = 5531

PUBLISHED_SEEDS = (111, 211)

SEED = 20220522  # any number: with it, what is drawn outside of training is the same in each call
