"""From a waveform to the three views of its segments, and the store that keeps them."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submodules=[
        "arrays", "audio", "extraction", "images", "kernels", "segments", "store", "views",
    ],
    submod_attrs={
        "arrays": [
            "RowFile", "part_files", "encode_level", "level_of_code", "encode_audio", "decode_audio",
            "checksum", "allocated_bytes",
        ],
        "audio": [
            "read", "open_sound", "read_channels", "downmix", "resample", "resampled_length",
            "check_waveform", "preemphasise",
        ],
        "extraction": ["usable_cores", "extract", "plan_files", "spans", "Task", "Job"],
        "images": ["SpectrogramScaler", "spectrogram_pixels", "spectrogram_image"],
        "kernels": ["window_frames", "keep_power", "power_of"],
        "segments": [
            "SegmentPlan", "count_segments", "plan_segments", "cut_frames", "cut_samples", "interval_mask",
        ],
        "store": ["FeatureStore", "store_key", "build_store", "store_bytes_left", "open_store"],
        "views": [
            "UtteranceFeatures", "SegmentFeatures", "segment_features", "utterance_features",
            "cut_segments", "padding_level", "log_spectrogram", "mfcc", "normalise_waveform",
        ],
    },
)  # fmt: skip
