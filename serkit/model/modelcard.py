"""The model card: what a trained model is, how well it did, what it is for and what it can't say."""

import math

from huggingface_hub import EvalResult, ModelCardData

from serkit.constants import CHANCE_UA, LABELS, SPEECH_ENCODER, VIEW_SETS
from serkit.model.encoders import RANDOM
from serkit.runs import leak_notice

# corpus -> (language code, what was heard)
CORPORA = {
    "demo": ("en", "English sentences spoken by a speech synthesiser (eSpeak NG); no human voice is in it"),
    "ravdess": ("en", "24 actors from North America speaking two fixed English sentences"),
    "emodb": ("de", "10 actors speaking ten fixed German sentences"),
    "iemocap": ("en", "10 actors in scripted and improvised dialogues in American English"),
}

TEXT = """
# {name}

Four emotions ({labels}) from speech, with the co-attention model of Zou, Si, Chen, Rajan and Chng
(ICASSP 2022, arXiv:2203.15326), trained with serkit.

    serkit predict recording.wav --model <this folder>

## Trained on

| | |
| :--- | :--- |
{facts}

## Scores

On {n_utterances} utterances of the tested {by} ({fold}), none of whose speakers was in training:

| | this model | guessing |
| :--- | ---: | ---: |
| UA, mean recall of the four classes | {ua} % | {chance:.0f} % |
| WA, share of utterances that are right | {wa} % | depends on the classes' shares |

{remarks}

## Intended use

Research and teaching: repeating an experiment, comparing features and protocols, looking at how
such a model behaves on other recordings. It is not meant for decisions about people.

## Limits

- The corpus is {heard}. The emotions in it are acted{synthetic}; spontaneous ones sound different.
- It knows four classes and always answers with one or a mixture of them. Fear, disgust, boredom,
  irony, music or a dog get one of the four as well.
- Language: {language}. Nothing is known about others, about children's voices, about telephone or
  far-away microphones, or about speech beside noise and music.
- It judges how a voice sounds. It can't say what a person feels, and its probabilities are not
  calibrated: 90 % does not mean right in nine of ten cases.
- It does not tell speakers apart: two people in one segment get one answer.
- The corpus' licence decides whether these weights may be passed on.
"""


def model_card(config, *, recipe, experiment, metrics):
    """Text of a model card with Hugging Face's header.

    Parameters
    ----------
    config : ModelConfig
    recipe : Recipe
    experiment : Experiment
    metrics : dict
        ``wa_pooled`` and ``ua_pooled`` (fractions) and ``n_utterances`` of the test set.

    Returns
    -------
    str
        Markdown.
    """
    language, heard = CORPORA[experiment.corpus]
    name = f"serkit-{experiment.corpus}-{experiment.variant}-fold{experiment.fold}-seed{experiment.seed}"
    scores = {key: _percent(metrics[f"{key}_pooled"]) for key in ("wa", "ua")}
    body = TEXT.format(
        name=name,
        labels=", ".join(LABELS),
        facts="\n".join(
            f"| {key} | {value} |" for key, value in _facts(config, recipe, experiment, heard).items()
        ),
        n_utterances=metrics["n_utterances"],
        by=experiment.by,
        fold=experiment.fold,
        chance=CHANCE_UA,
        remarks="\n\n".join(_remarks(experiment)),
        heard=heard,
        synthetic=", here even by a machine" if experiment.corpus == "demo" else "",
        language={"en": "English", "de": "German"}[language],
        **scores,
    )
    return f"---\n{_header(name, language, experiment, metrics)}\n---\n{body}"


def _facts(config, recipe, experiment, heard):
    """Rows of the table; where weights came from is said even where the answer is: nowhere."""
    sources = {}
    if "speech" in VIEW_SETS[config.views]:
        sources["speech encoder"] = config.speech_encoder
    if "spectrogram" in VIEW_SETS[config.views]:
        sources["spectrogram CNN"] = config.cnn_weights
    weights = {
        f"{part}, start of training": f"**{RANDOM}** weights, learned from scratch on this corpus"
        if source == RANDOM
        else f"pretrained: `{source}`"
        for part, source in sources.items()
    }
    return {
        "corpus": f"`{experiment.corpus}`: {heard}",
        "protocol": f"leave one {experiment.by} out, fold {experiment.fold}, selection `{experiment.selection}`",
        "recipe": f"`{recipe.name}`, deviations mended: {', '.join(recipe.deviations) or 'none'}",
        "profile": f"`{experiment.profile}`, at most {experiment.epochs} epochs, batches of {experiment.batch_size}, "
        f"learning rate {experiment.learning_rate:g}, seed {experiment.seed}",
        "views": f"{', '.join(VIEW_SETS[config.views])}; fusion: {config.fusion}",
        **weights,
    }


def _remarks(experiment):
    yield (
        "These are the scores of one fold and one seed. Another tested "
        f"{experiment.by} or seed gives others; only the mean over all folds is comparable with published numbers."
    )
    if notice := leak_notice({"selection": experiment.selection}):
        yield f"**{notice}** The scores are better than they would be on speakers nobody has looked at."
    if experiment.corpus != "iemocap":
        yield (
            f"**The corpus is `{experiment.corpus}`, not IEMOCAP: the scores say nothing about the paper's numbers.**"
        )
    elif experiment.profile != "paper":
        yield "**The network is not the paper's size: the scores say nothing about the paper's numbers.**"


def _header(name, language, experiment, metrics):
    """Metadata as the Hugging Face hub reads it."""
    results = [
        EvalResult(
            task_type="audio-classification",
            dataset_type=experiment.corpus,
            dataset_name=f"{experiment.corpus}, {experiment.by} {experiment.fold}",
            metric_type=kind,
            metric_name=title,
            metric_value=round(100 * metrics[f"{key}_pooled"], 2),
        )
        for key, kind, title in (("wa", "accuracy", "WA (%)"), ("ua", "recall", "UA (%)"))
        if math.isfinite(metrics[f"{key}_pooled"])
    ]
    data = ModelCardData(
        language=language,
        library_name="serkit",
        pipeline_tag="audio-classification",
        tags=["speech-emotion-recognition", "co-attention"],
        base_model=SPEECH_ENCODER if experiment.profile == "paper" else None,
        model_name=name,
        eval_results=results,
    )
    return data.to_yaml()


def _percent(fraction):
    return f"{100 * fraction:.1f}" if math.isfinite(fraction) else "–"
