"""From a waveform to the three views of its segments, and the store that keeps them."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submodules=["audio", "images", "rows", "segments", "store", "views"],
    submod_attrs={
        "audio": [
            "read", "open_sound", "read_channels", "downmix", "resample", "resampled_length",
            "check_waveform", "preemphasise",
        ],
        "images": ["SpectrogramScaler", "spectrogram_pixels", "spectrogram_image"],
        "rows": ["RowFile", "Progress", "checksum", "encode_level", "level_of_code"],
        "segments": [
            "SegmentPlan", "count_segments", "plan_segments", "cut_frames", "cut_samples", "interval_mask",
        ],
        "store": [
            "FeatureStore", "build_store", "store_key", "store_bytes_left", "usable_cores",
        ],
        "views": [
            "UtteranceFeatures", "SegmentFeatures", "segment_features", "utterance_features",
            "cut_segments", "padding_level", "log_spectrogram", "mfcc", "normalise_waveform",
        ],
    },
)  # fmt: skip
