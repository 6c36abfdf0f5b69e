"""Two of the three branches: AlexNet on the spectrogram, BiLSTM on the MFCC. The third: ``speech_encoders``.

Structure comes from a config, weights from a named source: nothing starts from random weights
unless ``random`` is asked for.
"""

import hashlib

import torch
from torch import nn
from torch.nn import functional as F

from serkit.constants import SEGMENT_FRAMES
from serkit.errors import WeightsError, reported_as

RANDOM = "random"  # the source that must be asked for by name
# a CPU without AVX-512 has no LSTM in bf16: there it stays in float32, where torch would end in an error
CPU_HAS_BF16_LSTM = torch.cpu.get_capabilities().get("avx512_bw", False)
ALEXNET_POOL = (6, 6)  # what adaptive pooling leaves of any picture, height x width


def alexnet_features(channels):
    """AlexNet's convolutions at any width; (64, 192, 384, 256, 256) is torchvision's own.

    Layer indices are torchvision's, so that its ImageNet weights load by name.
    """
    c1, c2, c3, c4, c5 = channels
    return nn.Sequential(
        nn.Conv2d(3, c1, kernel_size=11, stride=4, padding=2),
        nn.ReLU(inplace=True),
        nn.MaxPool2d(kernel_size=3, stride=2),
        nn.Conv2d(c1, c2, kernel_size=5, padding=2),
        nn.ReLU(inplace=True),
        nn.MaxPool2d(kernel_size=3, stride=2),
        nn.Conv2d(c2, c3, kernel_size=3, padding=1),
        nn.ReLU(inplace=True),
        nn.Conv2d(c3, c4, kernel_size=3, padding=1),
        nn.ReLU(inplace=True),
        nn.Conv2d(c4, c5, kernel_size=3, padding=1),
        nn.ReLU(inplace=True),
        nn.MaxPool2d(kernel_size=3, stride=2),
    )


class SpectrogramCNN(nn.Module):
    """Picture of a spectrogram to a vector: AlexNet features, pooling, one linear layer."""

    def __init__(self, channels, hidden, dropout):
        super().__init__()
        self.features = alexnet_features(channels)
        for layer in self.features:
            if isinstance(layer, nn.Conv2d):
                # torch's default shrinks the signal layer by layer (He et al. 2015)
                nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
                nn.init.zeros_(layer.bias)
        self.pool = nn.AdaptiveAvgPool2d(ALEXNET_POOL)
        self.dropout = nn.Dropout(dropout)
        self.projection = nn.Linear(channels[-1] * ALEXNET_POOL[0] * ALEXNET_POOL[1], hidden)

    def forward(self, image):
        x = self.pool(self.features(image))  # (B, C, 6, 6)
        return F.relu(self.projection(self.dropout(x.flatten(1))))  # (B, hidden)


class MfccBiLstm(nn.Module):
    """MFCC to a vector: two-way LSTM over unit-length frames, all outputs flattened, one linear layer."""

    def __init__(self, n_mfcc, lstm_hidden, layers, lstm_dropout, hidden, dropout):
        super().__init__()
        both_ways = {"batch_first": True, "bidirectional": True, "dropout": lstm_dropout}
        self.lstm = nn.LSTM(n_mfcc, lstm_hidden, layers, **both_ways)
        self.dropout = nn.Dropout(dropout)
        self.projection = nn.Linear(SEGMENT_FRAMES * 2 * lstm_hidden, hidden)

    def forward(self, mfcc):
        with torch.autocast("cpu", enabled=torch.is_autocast_enabled("cpu") and CPU_HAS_BF16_LSTM):
            x, _ = self.lstm(F.normalize(mfcc, dim=2))  # (B, T, 2 * lstm_hidden)
        return F.relu(self.projection(self.dropout(x.flatten(1))))  # (B, hidden)


def fingerprint(module):
    """SHA-256 over names and values of a module's weights: equal weights, equal numbers."""
    digest = hashlib.sha256()
    for name, value in sorted(module.state_dict().items()):
        digest.update(name.encode())
        digest.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()


def load_alexnet_weights():
    """ImageNet weights of AlexNet's convolutions from torchvision (downloaded once, then cached).

    Returns
    -------
    dict of str to torch.Tensor
        Names as in ``alexnet_features``.

    Raises
    ------
    WeightsError
        If they can't be had, with the file to put where.
    """
    from torchvision.models import AlexNet_Weights  # here: it takes two seconds, and only these need it

    weights = AlexNet_Weights.IMAGENET1K_V1
    about = "AlexNet's ImageNet weights can't be downloaded"
    by_hand = f"put {weights.url} into {torch.hub.get_dir()}/checkpoints"
    cure = f"{by_hand}, or ask for random weights by name: cnn_weights='random'"
    with reported_as(WeightsError, about, cure, (OSError, RuntimeError)):
        state = weights.get_state_dict(progress=False, check_hash=True, weights_only=True)
    return {name.removeprefix("features."): value for name, value in state.items() if "features." in name}
