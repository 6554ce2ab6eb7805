"""Windows in, text out: batching to fixed shapes, language detection, search, fallback.

The one entry to decoding for long audio, the recognizer and word times:

    decoder = tasks.recognition.make_decoder(graphdef, params, config, tokenizer, route=..., mixture=..., embedding=...)
    decodings = decoder.decode(windows, prompts, DecodingOptions(language="en", beam_size=5))

and in two steps, where the encoder's states are wanted afterwards (word alignment) or before (language):

    for encoded in decoder.encode(windows):                     # batches of one fixed shape
        mine = [prompts[i] for i in encoded.rows]
        decodings = decoder.search(encoded, mine, options)      # in the order of encoded.rows
        ... encoded.states_BTD, encoded.mask_BT, encoded.route: row b belongs to windows[encoded.rows[b]]
"""

import dataclasses
import hashlib
import zlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from moejax.audio.constants import SAMPLE_RATE
from moejax.decode import fallback, rules
from moejax.decode.options import DecodingOptions
from moejax.decode.prefix import Start, forced, room_for, starts, usual
from moejax.decode.results import Decoding
from moejax.decode.search import Draws, SearchPlan
from moejax.errors import BadValue
from moejax.ops import routing


@dataclasses.dataclass(frozen=True)
class Window:
    """One window whose features were computed elsewhere: `mel_NM` float32 [N, M].

    The reference takes the log-mel of a whole recording, whose maximum sets the floor, and slices it: hand in such
    slices. A slice may be short; zeros follow it, as in the reference. `audio_S`, the same stretch of audio, is only
    looked at by gates that trim silence.
    """

    mel_NM: np.ndarray
    audio_S: np.ndarray | None = None


@dataclasses.dataclass(frozen=True)
class Encoded:
    """One batch of encoded windows, of one fixed shape: rows after `len(rows)` are filler."""

    rows: list[int]  # which window each row is
    states_BTD: Any
    mask_BT: Any  # true on encoder frames of real audio
    route: Any  # types.Route, None without a mixture
    weight_BE: Any  # experts' weights, None without a mixture
    content_B: Any  # uint32, a digest of what each window holds


@dataclasses.dataclass(frozen=True)
class Programs:
    """Compiled parts of one model, made by `tasks.recognition.make_decoder`; shapes and `plan` are static."""

    # (params, audio_BS, samples_B, label_B, mel_BNM=None, states_BTD=None) -> states, mask, route, weight
    encode: Callable
    search: Callable  # (params, states, mask, route, Start, Rules, temperature, Draws, plan=SearchPlan) -> Decoded
    detect: Callable  # (params, states, mask, route, tokens before, ids) -> probabilities [B, ids] of the next one


class Heard(Protocol):
    """Encoder states [T, D] that are known, by `content` of their windows."""

    def __contains__(self, key: bytes) -> bool: ...

    def __call__(self, key: bytes) -> np.ndarray: ...

    def add(self, new: list[tuple[bytes, np.ndarray]]) -> None: ...


def content(window: Window) -> bytes:
    """Digest of what the encoder hears of a window."""
    mel_NM = np.ascontiguousarray(window.mel_NM, np.float32)
    return hashlib.blake2b(mel_NM.data, digest_size=16, salt=str(mel_NM.shape[1]).encode()).digest()


def _compact(wanted: list[bool], rows: int) -> list[int] | None:
    """The rows to search in where few of a batch are wanted, on a processor, where every row costs: as many as the next
    power of four, the first of them again in place of filler. None: all.
    """
    places = [b for b, one in enumerate(wanted) if one]
    size = next(size for size in (4**power for power in range(16)) if size >= len(places))
    if jax.default_backend() != "cpu" or size >= rows:
        return None
    return [*places, *places[:1] * (size - len(places))]


def _taken(encoded: Encoded, start: Start, places: list[int]) -> tuple[Encoded, Start]:
    """Rows of a batch as a batch of their own."""
    at = np.asarray(places)
    states, mask, route, weight, content_B = jax.tree.map(
        lambda x: x[at],
        (encoded.states_BTD, encoded.mask_BT, encoded.route, encoded.weight_BE, encoded.content_B),
    )
    rows = [encoded.rows[place] for place in places]
    return Encoded(rows, states, mask, route, weight, content_B), jax.tree.map(lambda x: x[at], start)


class Decoder:
    """Decodes windows with one model. Rows never see each other: batching changes no result, nor does the order."""

    def __init__(
        self, params, programs: Programs, config, tokenizer, *, samples: Sequence[int], batch_size=8, label=0, seed=0
    ):
        """`config` nn.whisper.WhisperConfig; `samples` window lengths, each window is padded to the next that fits
        (published models: (480000,)); `label` the expert of a known route.
        """
        self.params, self.programs, self.config, self.tokenizer = params, programs, config, tokenizer
        self.samples, self.batch_size, self.label, self.seed = tuple(sorted(samples)), batch_size, label, seed
        self.heard: Heard | None = None  # windows whose states are known, and where new ones go

    def decode(self, windows, prompts=None, options: DecodingOptions | None = None) -> list[Decoding]:
        """One `Decoding` per window, in order.

        Args:
          windows: float32 audio [S], 16 kHz, at most the longest window; or `Window`, or its mel [N, M].
          prompts: per window the token ids of the text before it, without control tokens (None or empty: none); they
            are cut from the left to half the decoder's context. None: `options.prompt` for all.
          options: `DecodingOptions`; default: greedy, language detected.

        Errors: ValueError for a window that is too long, an unknown language, a task the vocabulary cannot do.
        """
        results: dict[int, Decoding] = {}
        for encoded in self.encode(windows):
            mine = None if prompts is None else [prompts[i] for i in encoded.rows]
            for i, found in zip(encoded.rows, self.search(encoded, mine, options), strict=True):
                results[i] = found
        return [results[i] for i in range(len(windows))]

    def encode(self, windows) -> Iterator[Encoded]:
        """Batches of at most `batch_size` rows, each made when asked for.

        On a processor every row costs, so a last batch has no more than the next power of two, and every window is
        encoded by itself (its activations stay in the cache); elsewhere one shape serves all batches of several rows.
        """
        windows = [w if isinstance(w, Window) or np.ndim(w) != 2 else Window(w) for w in windows]
        places = [
            (self._length(w), isinstance(w, Window) + (isinstance(w, Window) and w.audio_S is not None))
            for w in windows
        ]
        for place in sorted(set(places)):
            members = [i for i, other in enumerate(places) if other == place]
            for at in range(0, len(members), self.batch_size):
                chosen = members[at : at + self.batch_size]
                yield self._encode([windows[i] for i in chosen], chosen, self._rows(len(chosen), len(windows)), *place)

    def search(
        self, encoded: Encoded, prompts=None, options: DecodingOptions | None = None, before=None, earliest=None
    ) -> list[Decoding]:
        """One `Decoding` per real row of an encoded batch: language detection, search, fallback.

        `before`: per row, ids that the decoder is to have said in this window already; they are not in the result.
        `earliest`: per row, the timestamp (in steps of 20 ms) from which on it goes on.
        """
        options = options or DecodingOptions()
        languages = self._languages(encoded, options)
        emotions = self._emotions(encoded, languages, options)
        start = starts(
            self.tokenizer,
            languages,
            prompts,
            options,
            context=self.config.max_target_positions,
            rows=encoded.states_BTD.shape[0],
            before=before,
        )
        rows, own = len(encoded.rows), len(forced(self.tokenizer, options, self.config.max_target_positions))

        def searched(temperature, wanted, limit_B=start.limit_B):
            first = start._replace(limit_B=limit_B)
            places = _compact(wanted, encoded.states_BTD.shape[0])
            if places is None:
                found = self._search(encoded, first, options, temperature, wanted, earliest)
                return [self._decoding(found, b, languages[b], temperature, encoded, first, own) for b in range(rows)]
            some, begun = _taken(encoded, first, places)
            only = [place < rows and wanted[place] and place not in places[:b] for b, place in enumerate(places)]
            later = None if earliest is None else [earliest[place] for place in places]
            found = self._search(some, begun, options, temperature, only, later)
            decodings: list[Any] = [None] * rows
            for b, place in enumerate(places):
                if only[b]:
                    decodings[place] = self._decoding(found, b, languages[place], temperature, some, begun, own)
            return decodings

        def decode(temperature, wanted):
            greedy = temperature == 0 and options.beam_size is None and jax.default_backend() == "cpu"
            if not greedy or rows == 1:
                return searched(temperature, wanted)
            frames_B = np.asarray(encoded.mask_BT).sum(1)
            usual_B = usual(frames_B * 2 * self.config.hop / SAMPLE_RATE) + own
            limit_B = np.where(2 * usual_B > start.limit_B, start.limit_B, usual_B)
            found = searched(temperature, wanted, limit_B)
            cut = limit_B < start.limit_B
            longer = [bool(one and cut[b] and not found[b].ended) for b, one in enumerate(wanted)]
            more = searched(temperature, longer) if any(longer) else found
            return [more[b] if longer[b] else found[b] for b in range(rows)]

        found = fallback.climb(decode, rows, options)
        if emotions is None:
            return found
        return [dataclasses.replace(one, emotion=own) for one, own in zip(found, emotions, strict=True)]

    def detect(self, encoded: Encoded) -> list[dict[str, float]]:
        """{language: probability} per real row of an encoded batch."""
        codes = self.tokenizer.languages if self.tokenizer.is_multilingual else ()
        if not codes:
            raise BadValue("an English-only vocabulary has no languages to choose from")
        ids = np.asarray([self.tokenizer.language_id(code) for code in codes], np.int32)
        prob_BC = self.programs.detect(
            self.params, encoded.states_BTD, encoded.mask_BT, encoded.route, np.int32(self.tokenizer.sot), ids
        )
        rows = np.asarray(prob_BC)[: len(encoded.rows)].astype(float)
        return [dict(zip(codes, row.tolist(), strict=True)) for row in rows]

    def _emotions(self, encoded, languages, options) -> list[dict[str, float]] | None:
        """{emotion: probability} per real row, of a model with tokens of these: its next token after language and task,
        among these alone, with the LoRA that has learnt to say it. None where there are none, or nobody asks.
        """
        names = self.tokenizer.emotions
        if not names or options.emotion is False:
            return None
        heads = [self.tokenizer.prefix(code, options.task, timestamps=True) for code in languages]
        heads += heads[:1] * (encoded.states_BTD.shape[0] - len(heads))
        ids = np.asarray(list(names.values()), np.int32)
        heard = encoded.states_BTD, encoded.mask_BT, routing.one_hot(jnp.zeros(len(heads), jnp.int32))
        prob_BC = np.asarray(self.programs.detect(self.params, *heard, np.asarray(heads, np.int32), ids))
        rows = prob_BC[: len(languages)].astype(float).tolist()
        return [dict(zip(names, row, strict=True)) for row in rows]

    def _languages(self, encoded, options):
        if options.language is not None or not self.tokenizer.is_multilingual:
            return [options.language or "en"] * len(encoded.rows)
        return [max(found, key=found.__getitem__) for found in self.detect(encoded)]

    def _length(self, window):
        """Samples of the smallest window length that holds this window."""
        if isinstance(window, Window):
            if window.mel_NM.shape[1] != self.config.num_mel_bins:
                raise ValueError(f"mel [N, M] of shape {window.mel_NM.shape}: M must be {self.config.num_mel_bins}")
            size = len(window.mel_NM) * self.config.hop
        else:
            size = len(window)
        fitting = [length for length in self.samples if length >= size]
        if not fitting:
            longest = self.samples[-1] / SAMPLE_RATE
            raise BadValue(f"a window of {size / SAMPLE_RATE:.2f} s; the model takes at most {longest:.2f} s")
        return fitting[0]

    def _rows(self, filled, of):
        """Rows of a batch with `filled` of `of` windows."""
        if jax.default_backend() == "cpu":
            return min(1 << (filled - 1).bit_length(), self.batch_size)
        return self.batch_size if of > 1 else 1

    def _encode(self, windows, index, rows, length, kind):
        """`kind` 0: audio; 1: mel; 2: mel with audio."""
        hop = self.config.hop
        audio_BS = np.zeros((rows, length), np.float32) if kind != 1 else None
        mel_BNM = np.zeros((rows, length // hop, self.config.num_mel_bins), np.float32) if kind else None
        samples_B, content_B = np.ones(rows, np.int32), np.zeros(rows, np.uint32)
        for b, window in enumerate(windows):
            audio_S, mel_NM = (window.audio_S, window.mel_NM) if kind else (window, None)
            if mel_BNM is not None and mel_NM is not None:
                mel_BNM[b, : len(mel_NM)], samples_B[b] = mel_NM, max(len(mel_NM) * hop, 1)
            if audio_BS is not None and audio_S is not None:
                audio_BS[b, : len(audio_S)] = audio_S[:length]
                samples_B[b] = max(len(audio_S), 1)
            content_B[b] = zlib.crc32(np.ascontiguousarray(window.mel_NM if kind else window, np.float32).data)
        label_B = np.full(rows, self.label, np.int32)
        keys = [content(window) for window in windows] if self.heard is not None and kind else None
        if jax.default_backend() == "cpu":
            each = []
            for b in range(len(windows)):
                own = [None if x is None else x[b : b + 1] for x in (audio_BS, mel_BNM)]
                key = keys and keys[b : b + 1]
                each.append(self._run(own[0], samples_B[b : b + 1], label_B[b : b + 1], own[1], key))
            each += each[-1:] * (rows - len(each))
            encoded = jax.tree.map(lambda *parts: jnp.concatenate(parts), *each) if rows > 1 else each[0]
        else:
            encoded = self._run(audio_BS, samples_B, label_B, mel_BNM, keys)
        states_BTD, mask_BT, route, weight_BE = encoded
        return Encoded(index, states_BTD, mask_BT, route, weight_BE, content_B)

    def _run(self, audio_BS, samples_B, label_B, mel_BNM, keys):
        """`keys`: of the windows that the first rows are, where their states may be known."""
        inputs = self.params, audio_BS, samples_B, label_B
        if keys is None or self.heard is None:
            return self.programs.encode(*inputs, mel_BNM=mel_BNM)
        if all(key in self.heard for key in keys):
            known = [self.heard(key) for key in keys]
            states_BTD = np.stack([*known, *[np.zeros_like(known[0])] * (len(label_B) - len(known))])
            return self.programs.encode(*inputs, states_BTD=states_BTD)
        encoded = self.programs.encode(*inputs, mel_BNM=mel_BNM)
        self.heard.add(list(zip(keys, np.asarray(encoded[0]), strict=False)))
        return encoded

    def _search(self, encoded, start: Start, options, temperature, wanted, earliest):
        """One rung of the ladder: every row is in the batch, rows that are not wanted have no room and end at once."""
        ruled = rules.make(self.tokenizer, options, self.config)
        if earliest is not None and ruled.timestamps is not None:
            filled = [*earliest, *[0] * (len(start.limit_B) - len(earliest))]
            ruled = dataclasses.replace(ruled, earliest_B=np.asarray(filled, np.int32))
        plan = self._plan(options, temperature, start)
        limit_B = np.where([*wanted, *[False] * (len(start.limit_B) - len(wanted))], start.limit_B, 0)
        draws = Draws(np.uint32(self.seed), np.uint32(round(1000 * temperature)), encoded.content_B)
        found = self.programs.search(
            self.params,
            encoded.states_BTD,
            encoded.mask_BT,
            encoded.route,
            start._replace(limit_B=limit_B),
            ruled,
            np.float32(temperature),
            draws,
            plan=plan,
        )
        return jax.tree.map(np.asarray, found)

    def _plan(self, options, temperature, start):
        beam = options.beam_size if temperature == 0 else None
        several = (options.best_of or 1) if temperature > 0 else 1
        room = self.config.max_target_positions
        return SearchPlan(
            eot=self.tokenizer.eot,
            no_speech=self.tokenizer.no_speech,
            beam=beam is not None,
            width=several if beam is None else beam,
            max_tokens=room_for(self.tokenizer, options, room),
            patience=None if beam is None else options.patience,
            length_penalty=options.length_penalty,
            ranking=options.ranking,
            early_stopping=options.early_stopping,
        )

    def _decoding(self, found, b, language, temperature, encoded, start, own):
        """`own`: forced tokens, which have no likelihood of their own."""
        tokens = found.tokens_BL[b, : found.lengths_B[b]].tolist()
        text = self.tokenizer.decode(tokens)
        weight = None if encoded.weight_BE is None else np.asarray(encoded.weight_BE[b]).astype(float).tolist()
        return Decoding(
            tokens=tokens,
            text=text,
            language=language,
            avg_logprob=float(found.sum_logprob_B[b]) / (max(len(tokens) - own, 0) + 1),
            no_speech_prob=float(found.no_speech_B[b]),
            temperature=float(temperature),
            compression_ratio=fallback.compression_ratio(text),
            route=weight,
            ended=bool(found.lengths_B[b] < start.limit_B[b]),
        )
