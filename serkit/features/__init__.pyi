from . import audio, rows, segments, store, views
from .audio import (
    check_waveform,
    downmix,
    open_sound,
    preemphasise,
    read,
    read_channels,
    resample,
    resampled_length,
)
from .rows import Progress, RowFile, checksum, encode_level, level_of_code
from .segments import SegmentPlan, count_segments, cut_frames, cut_samples, interval_mask, plan_segments
from .store import FeatureStore, build_store, check_store, store_key, usable_cores
from .views import (
    SegmentFeatures,
    SpectrogramScaler,
    UtteranceFeatures,
    cut_segments,
    log_spectrogram,
    mfcc,
    normalise_waveform,
    padding_level,
    segment_features,
    spectrogram_image,
    spectrogram_pixels,
    utterance_features,
)
