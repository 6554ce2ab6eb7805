"""Which trainings can take kept encoder states (`cohorts.hearing`): a step is then the decoder alone.

Where no expert sits in the encoder and nothing is augmented, an utterance has the same states in every epoch and for
every system. runtime.encoder_cache_bytes = 0 turns them off. States come from another program than the step's own
encoder and may differ from it in the last digit.
"""

from moejax.cohorts import hearing
from moejax.cohorts.hearing import States
from moejax.tasks import asr
from moejax.work.context import Context


def why_not(row: asr.Row, mixture: asr.Mixture) -> str | None:
    """What makes the encoder's states change from step to step; None where nothing does."""
    targets = [target if isinstance(target, str) else target[0] for target in mixture.targets]
    if any(target[0] in "*?[" or target.startswith("enc") for target in targets):
        return "experts sit in the encoder"
    changed = [name for name in ("dropout", "spec", "warp_time", "warp_freq", "level") if getattr(row, name)]
    return f"{changed[0]} changes what it hears" if changed else None


def opened(context: Context) -> States | None:
    """The states of the training part by rows of the manifest, heard now where they were not; None where they would not
    fit the limit.
    """
    return hearing.utterances(context)


def opened_windows(context: Context, windows) -> States | None:
    """The states of joined windows (`timed.Joined`), by their numbers; else as `opened`."""
    ear = hearing.Windows(
        context, range(len(windows)), lambda number: hearing.window_of(context, windows.audible(number))
    )
    made = {"ids": context.corpus.manifest.column("id").tolist(), "windows": windows.digest()}
    return hearing.kept(context, ear, made, "windows")
