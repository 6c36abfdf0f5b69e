"""Recipes: every mistake can be mended alone, and says so in name and key."""

import dataclasses
import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serkit.errors import ParameterError
from serkit.recipe import CORRECTED, DEVIATIONS, PUBLISHED, Recipe, named

IDS = ("D1", "D2", "D3", "D4", "D5")


def switches(recipe):
    return {key: value for key, value in dataclasses.asdict(recipe).items() if key != "name"}


def test_the_two_ends_by_hand():
    assert switches(PUBLISHED) == {
        "preemphasis": 0.97, "top_db": 80.0, "edge": "reflect", "waveform_padding": "before",
        "mask_padding": False, "spectrogram_fill": "peak", "last_piece": "padded",
        "preemphasis_waveform": True, "statistics_over_padding": True, "unit_variance": True,
    }  # fmt: skip
    assert switches(CORRECTED) == {
        "preemphasis": 0.97, "top_db": 80.0, "edge": "reflect", "waveform_padding": "after",
        "mask_padding": True, "spectrogram_fill": "floor", "last_piece": "overlapping",
        "preemphasis_waveform": False, "statistics_over_padding": False, "unit_variance": True,
    }  # fmt: skip
    assert (PUBLISHED.name, PUBLISHED.deviations) == ("published", ())
    assert (CORRECTED.name, CORRECTED.deviations) == ("corrected", IDS)
    assert tuple(DEVIATIONS) == IDS


# id -> the switches that it may touch
TOUCHES = {
    "D1": {"waveform_padding", "mask_padding"},
    "D2": {"spectrogram_fill"},
    "D3": {"last_piece"},
    "D4": {"preemphasis_waveform"},
    "D5": {"statistics_over_padding"},
}


@pytest.mark.parametrize("key", IDS)
def test_each_deviation_alone(key):
    mended = PUBLISHED.with_deviation(key)
    changed = {name for name, value in switches(mended).items() if value != switches(PUBLISHED)[name]}
    assert changed == TOUCHES[key]
    assert mended.deviations == (key,)
    back = CORRECTED.with_deviation(key, mended=False)
    changed = {name for name, value in switches(back).items() if value != switches(CORRECTED)[name]}
    assert changed == TOUCHES[key]
    assert back.deviations == tuple(other for other in IDS if other != key)
    # mending and bringing back are each other's opposite
    assert switches(mended.with_deviation(key, mended=False)) == switches(PUBLISHED)


def test_all_combinations_have_switches_of_their_own():
    subsets = [subset for size in range(6) for subset in itertools.combinations(IDS, size)]
    recipes = {subset: named("published" + "".join(f"+{key}" for key in subset)) for subset in subsets}
    assert {subset: recipe.deviations for subset, recipe in recipes.items()} == {s: s for s in subsets}
    assert len({tuple(switches(recipe).items()) for recipe in recipes.values()}) == 2 ** len(IDS)


def test_all_mended_is_the_corrected_recipe():
    assert switches(named("published+D1+D2+D3+D4+D5")) == switches(named("corrected"))


@given(
    base=st.sampled_from(["published", "corrected"]),
    changes=st.lists(st.tuples(st.sampled_from("+-"), st.sampled_from(IDS)), max_size=5),
)
@settings(deadline=None, derandomize=True)
def test_names_round_trip(base, changes):
    """The last word on a deviation counts, and the name says how the recipe is had again."""
    name = base + "".join(sign + key for sign, key in changes)
    recipe = named(name)
    assert named(recipe.name) == recipe
    assert len(recipe.name) <= len(name) and len({*recipe.name.split("D")[1:]}) == recipe.name.count("D")
    mended = set(IDS) if base == "corrected" else set()
    for sign, key in changes:
        mended = mended | {key} if sign == "+" else mended - {key}
    assert recipe.deviations == tuple(sorted(mended))


@pytest.mark.parametrize(
    "name",
    ["", "paper", "Published", "published+D6", "published+D0", "published D1", "corrected+", "corrected+D12",
     "published+d1", "published+D1,D2", "published+D1\n"],
)  # fmt: skip
def test_bad_names(name):
    with pytest.raises(ParameterError, match="expected published or corrected, then changes such as"):
        named(name)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"preemphasis": 1.0}, "preemphasis=1.0, expected a number from 0 to 0.999"),
        ({"preemphasis": -0.1}, "preemphasis=-0.1"),
        ({"top_db": 0}, "top_db=0, expected a number from 0.1 to 1000"),
        ({"edge": "constant"}, "edge='constant', expected one of reflect, zero"),
        ({"spectrogram_fill": 0}, "spectrogram_fill=0, expected one of peak, floor"),
        ({"waveform_padding": "both"}, "waveform_padding='both', expected one of before, after"),
        ({"last_piece": None}, "last_piece=None, expected one of padded, overlapping"),
        ({"mask_padding": True}, "mask_padding=True needs waveform_padding='after'"),
    ],
)
def test_bad_switches(arguments, message):
    with pytest.raises(ParameterError, match=message):
        Recipe(**arguments)


def test_bad_deviation():
    with pytest.raises(ParameterError, match="deviation='D6', expected one of D1, D2, D3, D4, D5"):
        PUBLISHED.with_deviation("D6")


def test_recipes_cannot_be_changed():
    with pytest.raises(dataclasses.FrozenInstanceError):
        PUBLISHED.edge = "zero"
