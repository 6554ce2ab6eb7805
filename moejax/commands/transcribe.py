"""`moejax transcribe`: recordings in, text and subtitles out; one bad file does not stop the rest."""

import os
import shutil
import sys
import tempfile
import warnings
from pathlib import Path

from moejax.audio.flaws import Rejected
from moejax.commands import inputs, transcribe_options, voices
from moejax.decode import clips
from moejax.errors import BadValue, NotThere, Remark
from moejax.text import writers
from moejax.text.transcript import Transcript

INTERRUPTED = 130
WITHHELD = {  # {a guard's name: (what it says, the option that keeps such text)}
    "silent": ("nothing can be heard: silent from end to end, or too short", None),
    "energy": ("too quiet or without syllables", "--guards reference"),
    "no_speech": ("taken for silence by the model", "--no_speech_threshold None"),
    "compression": ("the same over and over, without sound for it", "--guards reference"),
    "length_ratio": ("more text than anybody can say", "--guards reference"),
}


def add(commands) -> None:
    transcribe_options.add(commands, run)


def run(options, left: list[str]) -> int:
    """Exit code of the command. Whatever can be known before the first recording is opened is refused before it."""
    asked = transcribe_options.asked(options, left)
    sources, missing = inputs.find(asked.files)
    _check_voice(asked)
    people = voices.known(asked.profiles)
    if asked.output_dir is None and len(sources) > 1 and asked.formats != ("txt",):
        raise BadValue(f"{len(sources)} files as {asked.formats[0]}: give --output_dir FOLDER")
    if asked.output_dir is not None:
        inputs.check_apart(sources)
        _check_writable(Path(asked.output_dir))
    _check_clips(asked)
    _set_up(asked)
    # Imported here: --help and refusals do not wait for JAX.
    from moejax.commands.translators import target_of, translator
    from moejax.loading import load

    if asked.translate_to is not None:
        target_of(asked)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("ignore")
        warnings.simplefilter("always", Remark)
        recognizer = load(
            asked.model,
            system=asked.system,
            weights=asked.weights,
            adapters=asked.adapters,
            route=asked.route,
            task=asked.options.get("task", "transcribe"),
        )
        _demand_accelerator(asked.device)
        writes = recognizer.check(**asked.options).target
    for remark in said:
        print(f"moejax transcribe: {remark.message}", file=sys.stderr)
    if writes and asked.translate_to is not None:
        raise BadValue(f"--task translate has {asked.model} write {writes} itself: leave --translate_to out")
    recognizer = voices.enrolled(recognizer, asked)
    translate = None if asked.translate_to is None else translator(asked)
    diarizer = None
    if asked.diarize is not None:
        from moejax.diarize import listening

        opened = listening.opened(asked.diarize)
        known = {one.name: opened.voice(one.waves) for one in people}

        def who_speaks(wave):
            turns = opened(wave)
            return opened.named(wave, turns, known) if known else turns

        diarizer = who_speaks

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Remark)  # said above, once for all files
        code = Job(asked, sources, missing, recognizer, translate, inputs.left_out(asked.files), diarizer).run()
    if asked.dry_run and translate is not None:
        for line in translate.costs():
            print(f"moejax transcribe: {line}", file=sys.stderr)
    return code


def _check_clips(asked):
    if "clip_timestamps" in asked.options:
        clips.parsed(asked.options["clip_timestamps"])


def _check_voice(asked):
    """Before a model is loaded: phrases that are there."""
    if asked.enroll and asked.speaker:
        raise BadValue("--enroll and --speaker are two ways to say who speaks: give one")
    if asked.speaker:
        from moejax.enrolment import profiles

        profiles.load(asked.speaker)
    if asked.enroll:
        voices.recordings(asked.enroll, "--enroll")


def _set_up(asked):
    """Before JAX starts: which device and how many cores it sees."""
    if asked.device == "cpu":
        os.environ["JAX_PLATFORMS"] = "cpu"
    if asked.threads is not None:
        if not hasattr(os, "sched_setaffinity"):
            raise BadValue("--threads: this system does not let a program choose its cores")
        os.sched_setaffinity(0, set(sorted(os.sched_getaffinity(0))[: asked.threads]))


def _demand_accelerator(device):
    import jax

    if device == "gpu" and jax.default_backend() == "cpu":
        raise BadValue("--device gpu: JAX sees no accelerator here; install moejax with one, or leave --device out")


def _check_writable(folder: Path):
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=folder, prefix=".moejax-"):
            pass
    except OSError as error:
        raise BadValue(f"--output_dir {folder}: cannot be written to ({error.strerror or error})") from error


class Job:
    """The work of one command line: reads, recognises, writes, and remembers what went wrong."""

    def __init__(
        self, asked: transcribe_options.Asked, sources, missing, recognizer, translate, left_out=None, diarizer=None
    ):
        """`missing`: {argument: why it stands for nothing}, `left_out`: {folder: what of it is not transcribed}."""
        self.asked, self.sources, self.recognizer, self.translate = asked, sources, recognizer, translate
        self.diarizer, self.turns = diarizer, {}  # {source: who speaks when in it}
        self.failed = dict(missing)  # {name: reason}
        # (name, what is wrong with what was read all the same)
        self.warned: list[tuple[str, str]] = list((left_out or {}).items())
        self.several = len(sources) + len(missing) > 1
        self.withheld: dict[str, dict[str, int]] = {}  # {name: {reason: windows}}
        self.read: list[int] = []  # the source of each recording that could be read, in the order of reading
        self.ready: dict[int, list] = {}  # results that wait for those before them
        self.next = 0

    def run(self) -> int:
        from moejax.commands.progress import Progress

        interrupted = False
        with Progress(self.sources) as self.progress:
            try:
                for place, transcript in self.recognizer.stream(
                    self._waves(), progress=self._heard, **self.asked.options
                ):
                    self._finish(self.read[place], transcript)
            except KeyboardInterrupt:
                interrupted = True
        for name, flaw in self.warned:
            print(f"moejax transcribe: warning: {name}: {flaw}", file=sys.stderr)
        for name, reason in self.failed.items():
            print(f"moejax transcribe: {name}: {reason}", file=sys.stderr)
        for name, dropped in self.withheld.items():
            print(f"moejax transcribe: {name}: {_withheld(dropped)}", file=sys.stderr)
        if interrupted:
            left = len(self.sources) - self.next
            print(f"moejax transcribe: interrupted; {left} of {len(self.sources)} files not done", file=sys.stderr)
            return INTERRUPTED
        return 1 if self.failed else 0

    def _waves(self):
        """Samples of each recording that can be read; the others are noted as failed."""
        for number, source in enumerate(self.sources):
            try:
                wave = self._samples(source)
            except (ValueError, OSError) as error:
                self._fail(number, error)
                continue
            self.read.append(number)
            if self.diarizer is not None:
                self.turns[number] = self.diarizer(wave)
            self.progress.opened(number, len(wave))
            yield wave

    def _samples(self, source):
        def warn(flaw):
            self.warned.append((source.name, flaw))

        if source.path is not None:
            return self.recognizer.read(source.path, warn=warn)
        with tempfile.TemporaryFile() as spooled:  # on disk: an hour of stereo is 600 MB
            shutil.copyfileobj(sys.stdin.buffer, spooled)
            size = spooled.tell()
            if size < 2:
                raise BadValue("nothing came from standard input")
            if self.asked.rate is None:
                return self.recognizer.read(spooled, warn=warn)
            import numpy as np

            samples = np.memmap(spooled, "<i2", mode="r", shape=(size // 2,))
            return self.recognizer.read(samples, self.asked.rate, warn=warn)

    def _heard(self, place, seconds, total):
        self.progress.heard(self.read[place], seconds)

    def _finish(self, number, transcript):
        if self.diarizer is not None:
            from moejax.diarize import said

            transcript = said.attributed(transcript, self.turns.pop(number))
        results: list[tuple[str | None, Transcript]] = [(None, transcript)]
        name, dropped = self.sources[number].name, dict(transcript.dropped)
        if any(warned == name for warned, _ in self.warned):
            dropped.pop("silent", None)  # reading has said so, and how quiet it is
        if dropped:
            self.withheld[name] = dropped
        try:
            translated = None if self.translate is None else self.translate(transcript)
            if translated is not None:
                results.append((self.asked.translate_to, translated))
        except ValueError as error:  # the translator's: the text that was recognised is written all the same
            self.failed[self.sources[number].name] = _one_line(error, self.sources[number])
        if self.asked.output_dir is not None:
            try:
                self._write(Path(self.asked.output_dir), self.sources[number], results)
            except OSError as error:
                self.failed[self.sources[number].name] = _one_line(error, self.sources[number])
        self._show(number, results)

    def _write(self, folder, source, results):
        for language, transcript in results:
            stem = folder / (f"{source.stem}.{language}" if language else source.stem)
            writers.write(transcript, stem, self.asked.formats, self.asked.layout)

    def _fail(self, number, error):
        self.failed[self.sources[number].name] = _one_line(error, self.sources[number])
        self._show(number, [])

    def _show(self, number, results):
        """Prints results in the order of the files, whatever order they are finished in; of two, the translation."""
        self.ready[number] = results
        while self.next in self.ready:
            source, results = self.sources[self.next], self.ready.pop(self.next)
            self.next += 1
            if results and self.asked.output_dir is None:
                self._print(source, results[-1][1])
        self.progress.done(number)

    def _print(self, source, transcript):
        format = self.asked.formats[0]
        if self.several and format == "txt":
            self.progress.print(f"{source.name}\t{' '.join(transcript.text.split())}\n")
        else:
            self.progress.print(writers.render(transcript, format, self.asked.layout))


def _withheld(dropped: dict[str, int]) -> str:
    """What was not written, and by which option it would have been."""
    parts = []
    for reason, count in sorted(dropped.items()):
        why, keeps = WITHHELD.get(reason, (reason, None))
        windows = "1 window" if count == 1 else f"{count} windows"
        parts.append(why if keeps is None else f"{windows} withheld, {why} ({keeps} keeps such)")
    return "; ".join(parts)


def _one_line(error, source) -> str:
    """What is wrong, without the name of the recording, which stands before it."""
    if isinstance(error, Rejected):
        return f"{error.reason}: {error.what}"
    if isinstance(error, NotThere):  # it was, when the command began
        return "no such file"
    if isinstance(error, OSError) and error.strerror:
        named = error.filename and str(error.filename) != str(source.path)
        return f"{error.strerror}: {error.filename}" if named else error.strerror
    return " ".join(str(error).split()) or type(error).__name__
