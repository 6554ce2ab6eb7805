"""What a stage is, as the graph sees it: a function, what it reads, and what of that changes its results.

Every stage module declares one (`STAGE`, or several where one module trains several); `job/stages.py` lists them.
"""

import dataclasses
from collections.abc import Callable, Mapping

# In the order in which they run; here so that the command line can name them without importing what they import.
ABOUT = {
    "describe": "gate the audio, write manifest and splits, print hours and leakage",
    "base": "train or fine-tune the base, or name the pretrained folder",
    "embed": "pool encoder states of every utterance",
    "cluster": "discover cohorts in the embeddings of the sample",
    "gate": "pretrain the gate on the clusters",
    "experts": "train the experts, gate frozen",
    "joint": "train experts and gate together",
    "adapters": "train the baselines of the table",
    "hyper": "train hypernetworks and their control",
    "targets": "have texts of train and dev translated, for st to learn from",
    "st": "train again with translation: systems that write both languages",
    "ctc": "train a head that says when words and letters sound",
    "emotion": "teach a published model to say emotions before the text",
    "salmonn": "teach a language model that hears to transcribe and to translate",
    "goodness": "learn what a sound's goodness is worth, and the tones of Mandarin",
    "rater": "learn to score pronunciation as experts did",
    "evaluate": "decode the test part with every system",
    "translate": "translate the hypotheses, score BLEU and chrF",
    "report": "tables, figures, error analysis",
    "clips": "keep what classifiers of sounds hear of labelled clips",
    "folds": "train classifiers fold by fold, fresh in each",
    "talks": "simulate talks of the corpus' speakers, keep what a diarizer hears of them",
    "diarizer": "train a network that says who speaks when",
    "ego": "train a network that follows one enrolled speaker through talks",
    "cv": "the table of a cross-validation: accuracy, recall, confusion, saliency",
    "emotions": "read the test part with emotions, without them and as published, beside a probe",
}
# What they read that is not in the workdir.
OUTSIDE = {
    "describe": "the corpus: data.source and data.root; the vocabulary of model.pretrained, where texts are long",
    "base": "the pretrained folder, where model.pretrained names one",
    "salmonn": "the folder salmonn.folder",
    "rater": "the columns rater.scores of the corpus' table",
    "clips": "the recordings at their own rate; the pretrained folder, where folds.models has probe",
    "talks": "the pretrained folder, where talks.hears is whisper; the folder talks.rhythm",
    "targets": "DeepL's answers, or translate.folder, where st.targets names one",
    "translate": "DeepL's answers, where translate.backends asks it; translate.deepl_glossary, translate.folder",
}
_LOGGED = {
    "metrics.jsonl, events.*": "one object per logged step, exact; the same for TensorBoard",
    "checkpoints/": "states from which training goes on",
}
_TRAINED = {"params.safetensors": "the trained arrays", **_LOGGED}
# The files of W/<stage>; <name> stands for one of several.
WRITES = {
    "describe": {
        "manifest.parquet": "every utterance: its audio, text, speaker, cohort, part of the split",
        "audio/": "recordings that had to be converted to 16 kHz mono",
        "skipped.csv": "recordings that the audio gate refused, and why",
        "summary.md, summary.json": "hours by cohort, split and speaker",
        "leakage.md": "what the parts of the split share",
    },
    "base": {
        "model.json": "where the base is: model/ beside it, or the pretrained folder",
        "model/": "the trained base, as a Hugging Face folder",
        **_LOGGED,
    },
    "embed": {
        "embeddings.npz": "pooled encoder states of every utterance, layer by layer",
        "gradients.npz": "the direction in which each pulls an adapter, where embed.signals has gradient",
    },
    "cluster": {
        "clusters.npz": "cluster and memberships of every utterance",
        "agreement.md, agreement.json": "how clusters were chosen, and how they agree with cohorts and speakers",
        "map.png, overlap.png": "the clusters in a plane, and speakers against clusters",
    },
    "gate": {
        "gate.safetensors": "the gate, and the statistics of its input",
        "scores.json": "how well it finds the clusters of utterances that it was not trained on",
        **_LOGGED,
    },
    "experts": _TRAINED,
    "joint": _TRAINED,
    "adapters": {
        "index.json": "the systems of the table that were trained here",
        "<kind>/": "of each of adapters.kinds: params.safetensors, metrics.jsonl, checkpoints/",
        "merged/": "the mean of the adapters of all cohorts",
    },
    "hyper": {
        "index.json": "the systems of the table that were trained here",
        "<system>/": "of each of hyper.systems: params.safetensors, metrics.jsonl, checkpoints/",
    },
    "targets": {
        "translations.jsonl": "one object per utterance: text, translation, who made it and when",
    },
    "st": {
        "index.json": "the systems of the table that were trained here",
        "<system>/": "of each of st.kinds: params.safetensors, metrics.jsonl, checkpoints/",
    },
    "ctc": {"params.safetensors": "the head, and the letters that it knows", **_LOGGED},
    "emotion": {"params.safetensors": "the LoRA, the tokens' rows of the embedding and their names", **_LOGGED},
    "salmonn": {
        "index.json": "the systems of the table that are of this stage",
        "<system>/": "of each that learns: params.safetensors; of its lessons metrics.jsonl, checkpoints/",
    },
    "goodness": {
        "calibration.json": "the curve that makes a score of 0 to 100 of a goodness, for each kind of sound",
        "tones.safetensors": "the classifier of tones, where ctc.units is pinyin",
        "table.md": "how well swapped sounds are told from right ones, with intervals",
    },
    "rater": {
        "rater.safetensors": "the regression, and which layers it hears",
        "table.csv, table.md": "correlation with the experts beside controls, with intervals",
        "predictions.csv": "every scored utterance: the experts' score, and that of a rater without its speaker",
    },
    "evaluate": {
        "<system>.jsonl": "one object per utterance: reference, hypothesis, route",
        "systems.json": "the systems, and what they are",
        "decoded.json": "what each file was decoded from: lines that are the same under another config stay",
        "routing.json": "how the gate spreads cohorts over experts",
    },
    "translate": {
        "<system>.<translator>.jsonl": "one object per utterance: source, reference, translation",
        "table.csv, table.md": "WER, BLEU, chrF of every system by every translator, with intervals and p-values",
        "summary.json": "the same for programs",
        "model/": "the offline translator: params.safetensors, tokenizer/, metrics.jsonl",
        "tuned/": "the same, fine-tuned on the recognised texts in heard.jsonl",
    },
    "report": {
        "report.html": "everything on one page",
        "table.csv, table.md": "error rates of all systems by cohort, with intervals",
        "errors.md": "where errors occur, which words go wrong, and the worst utterances",
        "factors.csv": "error rates and BLEU by etiology, device, noise, accent, length, with intervals",
        "figures/": "the figures as PNG",
        "summary.json": "the same for programs",
        "seeds*.csv": "rates and differences over many runs, after --seeds, --variants, --leave_one_out",
    },
    "clips": {
        "labels.json": "the labelled clips: their classes, groups and folds",
        "waves-<digest>/": "their waves as the networks from scratch hear them",
        "states-<digest>/, frames-<digest>/": "what the frozen encoder says of them, for a probe",
    },
    "folds": {
        "<model>/": "of each of folds.models: a folder for every fold, its result, parameters, metrics",
        "pictures.npz": "log-mel images of one clip of each class, and which cells decide",
        "pictures_probe.npz": "the same of a probe, through the encoder that it stands on",
    },
    "talks": {
        "train.rttm, dev.rttm, test.rttm": "who speaks when in each talk",
        "train.uem, dev.uem, test.uem": "how long each is",
        "cards.json": "what the talks are like: overlap, silence, turns, speakers",
        "heard-<digest>/": "what a diarizer hears of them, part by part",
    },
    "diarizer": {
        "params.safetensors": "the network, and all that it takes to use it",
        "scores.json": "DER on the dev and test talks, with intervals and controls",
        "test.rttm": "what it said of the test talks",
        "voices.npz": "how voices are compared with enrolled ones, where there are speakers enough",
        **_LOGGED,
    },
    "ego": {
        "params.safetensors": "the network",
        "scores.json": "accuracy, F1 and DER on dev and test talks, by the right, a wrong and no enrolment",
        **_LOGGED,
    },
    "cv": {
        "table.csv, table.md": "accuracy, recall and F1 of every model, with intervals",
        "report.html": "everything on one page",
        "saliency.html, saliency_probe.html": "clips to be played, over what decides their class",
        "figures/": "confusion of classes and mel pictures as PNG",
        "summary.json": "the same for programs",
    },
    "emotions": {
        "base.jsonl, off.jsonl, on.jsonl": "one object per utterance: reference, hypothesis, label, emotion",
        "table.md": "word error rates with and without the token, emotions of token and probe, with intervals",
        "summary.json": "the same for programs",
    },
}


@dataclasses.dataclass(frozen=True)
class Stage:
    """`run(config, work) -> summary` writes W/<name>; the rest says when it has to run again."""

    name: str
    run: Callable
    needs: tuple[str, ...] = ()  # stages whose results it reads
    reads: tuple[str, ...] = ()  # config sections, or single keys
    without: tuple[str, ...] = ()  # keys of those sections that it does not read
    # It trains: several processes run it on all their devices. `shared`: each does its share alone, on its own devices,
    # and the first puts them together. Neither: the first runs it by itself, and the others wait
    together: bool = False
    shared: bool = False
    reseeded: bool = False  # draws by seed + train_seed: runs that differ in train_seed alone share all other stages
    keeps: bool = False  # its files say themselves what they were made of: other inputs do not clear its folder
    apart: bool = False  # of another task than recognition: `moejax all` leaves it out
    switch: str = ""  # a config key that is empty where the stage has nothing to do: then nothing depends on it
    # Digest of what it reads from outside the workdir, or None. Errors: what is not there, before any stage has run
    outside: Callable | None = None
    sections: Mapping[str, Mapping] = dataclasses.field(default_factory=dict)  # the config sections that it declares

    @property
    def about(self) -> str:
        return ABOUT[self.name]
