"""The system on one page: every box and its text, what is lit, and a file that needs nothing but itself."""

import base64
import importlib.util
import re
from pathlib import Path
from xml.etree import ElementTree

import pytest

from serkit import figures
from serkit.constants import LABELS
from serkit.errors import ParameterError
from serkit.figures import VIEW_COLOURS

HOME = Path(__file__).parents[2]
specification = importlib.util.spec_from_file_location("make_system", HOME / "figures/make_system.py")
specification.loader.exec_module(system := importlib.util.module_from_spec(specification))
SVG = "{http://www.w3.org/2000/svg}"
BRANCHES = {"spectrogram": "CNN (AlexNet)", "mfcc": "BiLSTM", "speech": "wav2vec 2.0"}


def texts(svg, lit=True):
    """Lines of text in the groups that are in full colour, or in those that are pale."""
    groups = [
        group
        for group in ElementTree.fromstring(svg).iter(f"{SVG}g")
        if ("opacity" not in group.attrib) is lit
    ]
    return ["".join(text.itertext()) for group in groups for text in group.iter(f"{SVG}text")]


def picture(lit):
    """What a notebook shows."""
    data = re.search(r'src="data:image/svg\+xml;base64,([^"]+)"', figures.show_system(lit).data)[1]
    return base64.b64decode(data).decode()


def test_every_step_is_named_with_its_shape_and_its_equation():
    shown = texts(system.system_svg())
    assert texts(system.system_svg(), lit=False) == []
    for line in (
        "3 s of speech", "48,000 samples", "log spectrogram", "200 × 300", "MFCC", "300 × 40", "CNN (AlexNet)",
        "hs ∈ ℝH", "BiLSTM", "hm ∈ ℝH", "wav2vec 2.0", "V ∈ ℝT′×D", "co-attention", "[hs; hm] → linear → ReLU",
        "weights a ∈ ℝT′", "weighted sum", "c = Σt at Vt ∈ ℝD", "hw = ReLU(Ww c + bw) ∈ ℝH",
        "joined: [hs; hm; hw] ∈ ℝ3H", "classifier", *LABELS,
    ):  # fmt: skip
        assert line in shown
    assert [line for line in shown if re.fullmatch(r"\(\d\)", line)] == [f"({n})" for n in range(1, 7)]


def test_the_equation_stands_in_the_box_that_it_belongs_to():
    numbers = {lines[0]: equation for *_, equation, lines in system.BOXES if equation}
    assert numbers == {
        "CNN (AlexNet)": "(1)", "BiLSTM": "(2)", "wav2vec 2.0": "(3)", "co-attention": "(4)", "weighted sum": "(5)",
        "classifier": "(6)",
    }  # fmt: skip


@pytest.mark.parametrize(("lit", "named"), [
    ("corpus", {"3 s of speech", *LABELS}),
    ("mfcc", {"MFCC", "BiLSTM"}),
    ("spectrogram", {"log spectrogram", "CNN (AlexNet)"}),
    ("speech", {"waveform", "wav2vec 2.0"}),
    ("coattention", {"co-attention", "weighted sum"}),
    ("result", {"classifier", *LABELS}),
    ("ablations", {*BRANCHES.values(), "co-attention", "weighted sum"}),
    ("predict", {"3 s of speech", *BRANCHES.values(), "co-attention", "weighted sum", "classifier", *LABELS}),
    ("speech+coattention", {"wav2vec 2.0", "co-attention", "weighted sum"}),
])  # fmt: skip
def test_the_part_of_a_notebook_is_in_full_colour_and_the_rest_pale(lit, named):
    svg = picture(lit)
    titles = {"3 s of speech", *BRANCHES.values(), "co-attention", "weighted sum", "classifier", *LABELS}
    full, pale = set(texts(svg)), set(texts(svg, lit=False))
    assert named <= full and titles - named <= pale
    assert full | pale == set(texts(system.system_svg()))


def test_a_view_keeps_its_colour_from_its_box_to_its_vector():
    for view, colour in VIEW_COLOURS.items():
        assert {box[5] for box in system.BOXES if box[0] == view} == {colour}
        assert {arrow[1] for arrow in system.ARROWS if arrow[0] == view} == {colour}
    assert not {*VIEW_COLOURS.values()} & {*figures.EMOTION_COLOURS.values()}


def test_boxes_and_the_names_of_arrows_do_not_overlap():
    boxes = [(x, y, x + width, y + height) for _, x, y, width, height, *_ in system.BOXES]
    boxes += [(x, y - 10, x + 7 * len(text.replace("_", "")), y + 3) for _, x, y, text in system.NAMES]
    for n, (left, top, right, bottom) in enumerate(boxes):
        assert left > 0 and right < system.WIDTH and top > 0 and bottom < system.HEIGHT
        for other in boxes[n + 1 :]:
            assert right <= other[0] or other[2] <= left or bottom <= other[1] or other[3] <= top


def test_lines_fit_their_boxes():
    for _, _, _, width, height, _, _, lines in system.BOXES:
        assert 16 * len(lines) <= height
        for line in lines:  # 7.5 units are a wide letter; indices are smaller
            assert 7.5 * len(re.sub(r"[_^{}]", "", line)) <= width


def test_nothing_is_fetched_from_outside():
    svg = system.system_svg()
    assert re.findall(r"\w+://[^\"]+", svg) == ["http://www.w3.org/2000/svg"]  # the name of the format
    tags = {element.tag.removeprefix(SVG) for element in ElementTree.fromstring(svg).iter()}
    assert tags == {"svg", "title", "rect", "g", "path", "text", "tspan"}


def test_the_notebook_shows_the_same_picture_with_words_for_those_who_cannot_see_it():
    html = figures.show_system("mfcc").data
    alt, data = re.fullmatch(
        r'<img alt="([^"]+)" style="[^"]+" src="data:image/svg\+xml;base64,([^"]+)">', html
    ).groups()
    assert base64.b64decode(data).decode().count('opacity="0.4"') > 10
    assert "wav2vec 2.0" in alt and alt.endswith("In full colour: mfcc.")


@pytest.mark.parametrize("lit", ["mfccs", "mfcc+", "mfcc,speech"])
def test_an_unknown_part_is_one_sentence(lit):
    with pytest.raises(ParameterError, match=r"^lit='.*', expected one of mfcc, spectrogram, "):
        figures.show_system(lit)


def test_the_committed_picture_is_what_the_code_makes():
    committed = HOME / "serkit/figures/system.svg"
    assert committed.read_text(encoding="utf-8") == system.system_svg()  # make system
