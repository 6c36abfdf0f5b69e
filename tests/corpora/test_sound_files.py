"""What a sound file announces, what it holds and what is read of it, in every container that soundfile writes."""

import os
import re
import struct
import sys

import numpy as np
import pytest
import soundfile

from serkit.corpora.sound_files import cut_short, is_joined, read_header, shown_path
from serkit.errors import AudioError
from serkit.features import audio
from serkit.predict.recording import Recording
from serkit.recipe import CORRECTED

RATE = 16_000
CONTAINERS = {  # file name -> how soundfile writes it
    "a.wav": {}, "b.wav": {"subtype": "PCM_24"}, "c.wav": {"subtype": "ULAW"}, "d.wav": {"format": "RF64"},
    "e.wav": {"format": "WAVEX"}, "f.w64": {}, "g.aiff": {}, "h.au": {}, "i.wav": {"subtype": "IMA_ADPCM"},
}  # fmt: skip
COMPRESSED = {"j.ogg": {"subtype": "VORBIS"}, "k.ogg": {"subtype": "OPUS"}, "l.mp3": {}, "m.flac": {}}


def noise(seconds, rate=RATE):
    return 0.1 * np.random.default_rng(0).normal(size=round(seconds * rate))


def write(path, seconds=4.0, rate=RATE, **options):
    soundfile.write(path, noise(seconds, rate), rate, **options)
    return path


def cut(path, share):
    content = path.read_bytes()
    path.write_bytes(content[: round(len(content) * share)])
    return path


def pcm_wav(path, n, data_size, riff_size=None):
    """A WAV of ``n`` samples with any size in its header."""
    form = struct.pack("<4sIHHIIHH", b"fmt ", 16, 1, 1, RATE, 2 * RATE, 2, 16)
    riff = struct.pack(
        "<4sI4s", b"RIFF", min(data_size + 36, 2**32 - 1) if riff_size is None else riff_size, b"WAVE"
    )
    pcm = (3000 * np.sin(np.arange(n) / 9)).astype("<i2").tobytes()
    path.write_bytes(riff + form + struct.pack("<4sI", b"data", data_size) + pcm)
    return path


def heard(path):
    """Seconds that prediction reads, and what it says of what is missing."""
    recording = Recording(path)
    for _ in recording.windows(CORRECTED):
        pass
    return recording.duration_s, [
        notice.text for notice in recording.notices() if notice.kind == "incomplete"
    ]


def flac_of(path, n, announced):
    """A FLAC of ``n`` samples whose header announces another number."""
    soundfile.write(path, noise(n / RATE), RATE)
    content = bytearray(path.read_bytes())
    content[21] = (content[21] & 0xF0) | (announced >> 32)  # 36 bits, after rate, channels and depth
    content[22:26] = (announced & 0xFFFFFFFF).to_bytes(4)
    path.write_bytes(content)
    return path


class TestSizes:
    @pytest.mark.parametrize(
        "size", [0x7FFFF000, 0x80000000, 0x7FFFFFFF, 0xFFFFFFFF, 0xFFFFFFFF - 36, 0x7FFFFFDB]
    )
    def test_a_placeholder_means_to_the_end(self, tmp_path, size):
        path = pcm_wav(tmp_path / "a.wav", 16_000, size)
        assert read_header(path).num_samples == len(audio.read(path)) == 16_000
        assert heard(path) == (1.0, [])

    @pytest.mark.parametrize("name", CONTAINERS)
    def test_whole(self, tmp_path, name):
        assert cut_short(soundfile.info(write(tmp_path / name, **CONTAINERS[name]))) == (0, 0)
        assert heard(tmp_path / name)[1] == []

    @pytest.mark.parametrize("name", CONTAINERS)
    def test_cut(self, tmp_path, name):
        path = cut(write(tmp_path / name, **CONTAINERS[name]), 0.5)
        with pytest.raises(AudioError, match=r"truncated, \d+ of \d+ bytes of sound are missing"):
            read_header(path)
        seconds, (said,) = heard(path)
        assert seconds == pytest.approx(2.0, abs=0.05)
        # blocks of ADPCM are only whole: 4.1 s
        assert re.fullmatch(rf"incomplete: the file announces 4\.[01] s and holds {seconds:.1f} s", said)

    def test_cut_behind_long_texts(self, tmp_path):
        path = pcm_wav(tmp_path / "a.wav", 16_000, 32_000)
        content, texts = (
            path.read_bytes(),
            60 * (struct.pack("<4sI", b"ICMT", 100) + bytes(99 * b"x" + b"\0")),
        )
        texts = struct.pack("<4sI4s", b"LIST", len(texts) + 4, b"INFO") + texts
        size = struct.pack("<I", 32_036 + len(texts))
        path.write_bytes(content[:4] + size + content[8:36] + texts + content[36:])
        assert read_header(path).num_samples == 16_000
        with pytest.raises(AudioError, match="bytes of sound are missing"):
            read_header(cut(path, 0.5))

    def test_what_follows_the_sound_is_no_sound(self, tmp_path):
        path = pcm_wav(tmp_path / "a.wav", 16_000, 32_000)
        path.write_bytes(path.read_bytes() + struct.pack("<4sI", b"LIST", 4) + b"INFO")
        assert read_header(path).num_samples == 16_000 and heard(path) == (1.0, [])

    def test_a_header_and_nothing_else(self, tmp_path):
        with pytest.raises(AudioError, match=r"a.wav: truncated, 32000 of 32000 bytes"):
            read_header(pcm_wav(tmp_path / "a.wav", 0, 32_000))


class TestFlac:
    @pytest.mark.parametrize("announced", [0, 32_000])
    def test_no_length_and_the_right_one(self, tmp_path, announced):
        path = flac_of(tmp_path / "a.flac", 32_000, announced)
        assert read_header(path).num_samples == len(audio.read(path)) == 32_000
        assert heard(path) == (2.0, [])

    @pytest.mark.parametrize("announced", [40_000, 2**36 - 1])
    def test_too_long_a_length(self, tmp_path, announced):
        path = flac_of(tmp_path / "a.flac", 32_000, announced)
        with pytest.raises(AudioError, match=f"{announced - 32_000} of {announced} samples are missing"):
            read_header(path)
        seconds, (said,) = heard(path)
        assert seconds == 2.0 and said.endswith("and holds 2.0 s")

    def test_cut(self, tmp_path):
        path = cut(write(tmp_path / "a.flac"), 0.6)
        with pytest.raises(AudioError, match="of 64000 samples are missing"):
            read_header(path)
        seconds, (said,) = heard(path)
        assert 1.5 < seconds < 2.5 and said.startswith("incomplete: the file announces 4.0 s and holds")

    def test_damaged_from_the_first_frame_on(self, tmp_path):
        """The header promises sound that can't be decoded: one sentence, wherever it is read."""
        path = write(tmp_path / "a.flac")
        content = path.read_bytes()
        first = content.index(b"\xff\xf8")
        path.write_bytes(content[:first] + bytes(len(content) - first))
        for reader in (audio.read, lambda name: list(Recording(name).windows(CORRECTED))):
            with pytest.raises(AudioError, match=r"a\.flac: not readable as audio|a\.flac: 0\.000 s long"):
                reader(path)


class TestStreams:
    @pytest.mark.parametrize("name", ["j.ogg", "k.ogg", "l.mp3"])
    def test_joined_recordings_are_read_to_the_last(self, tmp_path, name):
        pytest.importorskip("av", reason="PyAV is not installed")
        path = write(tmp_path / name, rate=48_000, **COMPRESSED[name])
        once = heard(path)
        path.write_bytes(3 * path.read_bytes())
        assert is_joined(path)
        assert (
            heard(path) == (pytest.approx(3 * once[0], abs=0.2), []) and once[1] == []
        )  # a frame of MP3 is silent
        assert len(audio.read(path)) == pytest.approx(3 * once[0] * RATE, abs=0.2 * RATE)

    def test_without_pyav_joined_recordings_are_refused(self, tmp_path, monkeypatch):
        monkeypatch.setitem(sys.modules, "av", None)
        path = write(tmp_path / "a.ogg", rate=48_000)
        path.write_bytes(2 * path.read_bytes())
        with pytest.raises(AudioError, match=r"a\.ogg: soundfile can't read all of this; pip install"):
            audio.read(path)

    def test_an_id3_picture_is_no_recording(self, tmp_path):
        path = write(tmp_path / "a.mp3", rate=48_000)
        path.write_bytes(b"ID3\4\0\0" + bytes([0, 0, 40, 16]) + bytes(40 * 128 + 16) + path.read_bytes())
        assert not is_joined(path) and heard(path) == (4.0, [])

    def test_recordings_that_do_not_fit_together(self, tmp_path):
        pytest.importorskip("av", reason="PyAV is not installed")
        first, second = (write(tmp_path / f"{rate}.ogg", rate=rate) for rate in (16_000, 48_000))
        first.write_bytes(first.read_bytes() + second.read_bytes())
        with pytest.raises(
            AudioError, match="several recordings in one file, and not all can be read; split it"
        ):
            audio.read(first)

    @pytest.mark.parametrize("name", COMPRESSED)
    def test_whole(self, tmp_path, name):
        assert heard(write(tmp_path / name, rate=48_000, **COMPRESSED[name]))[1] == []

    @pytest.mark.parametrize("name", ["j.ogg", "k.ogg"])
    def test_an_ogg_that_breaks_off(self, tmp_path, name):
        path = cut(write(tmp_path / name, rate=48_000, **COMPRESSED[name]), 0.6)
        seconds, (said,) = heard(path)
        assert seconds < 3.5 and said == f"incomplete: the file breaks off after {seconds:.1f} s"

    @pytest.mark.parametrize(
        ("form", "subtype"),
        [("WAV", "GSM610"), ("WAV", "G721_32"), ("AU", "G723_24"), ("WAV", "NMS_ADPCM_16"), ("WAV", "ULAW")],
    )
    def test_codecs_that_cannot_be_sought_in(self, tmp_path, form, subtype):
        path = write(tmp_path / "a.wav", 2.0, 8000, format=form, subtype=subtype)
        assert len(audio.read(path)) == pytest.approx(32_000, abs=1000)
        assert heard(path)[0] == pytest.approx(2.0, abs=0.05)


class TestOdd:
    @pytest.mark.parametrize("rate", [1, 1999, 768_001, 4_000_000_000])
    def test_rates_that_no_sound_has(self, tmp_path, rate):
        path = pcm_wav(tmp_path / "a.wav", 16_000, 32_000)
        content = bytearray(path.read_bytes())
        content[24:28] = struct.pack("<I", rate)
        path.write_bytes(content)
        for reader in (read_header, audio.read, Recording):
            with pytest.raises(
                AudioError, match=r"its header says \d+ Hz, expected 2000 to 768000|not readable|be read"
            ):
                reader(path)

    def test_a_name_that_is_not_utf8(self, tmp_path):
        path = os.path.join(os.fsdecode(os.fsencode(tmp_path)), os.fsdecode(b"caf\xe9.wav"))
        soundfile.write(os.fsencode(path), noise(1.0), RATE, format="WAV")
        assert read_header(path).num_samples == len(audio.read(path)) == RATE
        assert shown_path(path).endswith(r"caf\xe9.wav")

    @pytest.mark.parametrize("value", [1e30, -1e30, 2e10, np.inf, np.nan])
    def test_one_sample_that_is_no_sound(self, tmp_path, value):
        sound = noise(1.0)
        sound[9000] = value
        soundfile.write(tmp_path / "a.wav", sound, RATE, subtype="DOUBLE")
        with pytest.raises(AudioError, match=r"sample 9000 is .*, expected -1e\+10 to 1e\+10"):
            audio.read(tmp_path / "a.wav")

    def test_a_float_beyond_full_scale_is_not_clipped(self, tmp_path):
        loud = 3 * np.sin(2 * np.pi * 220 * np.arange(2 * RATE) / RATE)
        kinds = []
        for name, options in {"a.wav": {"subtype": "FLOAT"}, "b.wav": {}}.items():
            soundfile.write(tmp_path / name, loud if options else loud.clip(-1, 1), RATE, **options)
            recording = Recording(tmp_path / name)
            list(recording.windows(CORRECTED))
            kinds.append([notice.kind for notice in recording.notices()])
        assert kinds == [[], ["clipping"]]

    def test_the_digest_is_of_the_sound_and_not_of_its_place(self, tmp_path):
        first, other = write(tmp_path / "a.wav"), tmp_path / "b.wav"
        other.write_bytes(first.read_bytes())
        assert read_header(first) == read_header(other)
        soundfile.write(other, -noise(4.0), RATE)
        assert read_header(first).digest != read_header(other).digest
