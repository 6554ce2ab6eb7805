"""Searches against transformers' `generate`, an independent implementation, with random weights."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
import transformers
from transformers.generation.logits_process import (
    LogitsProcessorList,
    SuppressTokensAtBeginLogitsProcessor,
    SuppressTokensLogitsProcessor,
    WhisperTimeStampLogitsProcessor,
)
from transformers.modeling_outputs import BaseModelOutput

from moejax.convert import hf_whisper
from moejax.decode.prefix import shared
from moejax.decode.rules import Rules, mask
from moejax.decode.search import SearchPlan
from moejax.nn import functional
from moejax.nn.variables import Init
from moejax.nn.whisper import Whisper
from moejax.tasks import recognition

EOT, SOT, TIMES = 57, 58, 61  # 60 is the no-timestamps token, 40 timestamps follow
PREFIX, STEPS, ROWS, FRAMES = [SOT, 59], 20, 6, 20
BANNED, FIRST = [3, 4, 58, 59], [7, EOT]


@functools.cache
def their_model(layers, width):
    ids = dict.fromkeys(("bos_token_id", "eos_token_id", "pad_token_id"), EOT) | {"decoder_start_token_id": SOT}
    torch.manual_seed(1)  # its own first weights come from the global generator: whatever ran before must not matter
    model = transformers.WhisperForConditionalGeneration(
        transformers.WhisperConfig(
            d_model=width,
            encoder_layers=1,
            decoder_layers=layers,
            encoder_ffn_dim=48,
            decoder_ffn_dim=96,
            encoder_attention_heads=4,
            decoder_attention_heads=8,
            max_target_positions=32,
            vocab_size=101,
            max_source_positions=FRAMES,
            begin_suppress_tokens=None,
            suppress_tokens=None,
            **ids,
        )
    ).eval()
    generator = torch.Generator().manual_seed(layers)
    with torch.no_grad():
        for name, x in model.named_parameters():
            if "encoder.embed_positions" not in name:
                x += (0.7 if "decoder.embed_positions" in name else 0.15) * torch.randn(x.shape, generator=generator)
        tied = model.model.decoder
        # The end and the timestamps are said now and then, so that hypotheses end and pairs form.
        bias = tied.layer_norm.bias / tied.layer_norm.bias.norm() ** 2
        tied.embed_tokens.weight[EOT] += 2.0 * bias
        tied.embed_tokens.weight[TIMES:] += 0.5 * bias
    return model


TWO, ONE = (2, 64), (1, 32)  # layers, width


@pytest.fixture(scope="module")
def pair(request, tmp_path_factory):
    """(transformers' model, our search, params, encoder states)."""
    theirs = their_model(*request.param)
    folder = tmp_path_factory.mktemp("model")
    theirs.save_pretrained(folder)
    config, params = hf_whisper.load(folder)
    graphdef, _ = functional.abstract(lambda: Whisper(config, init=Init(0)))
    states_BTD = np.random.default_rng(1).normal(0, 1, (ROWS, FRAMES, config.d_model)).astype(np.float32)
    return theirs, recognition.make_search(graphdef), jax.tree.map(jnp.asarray, params), states_BTD


def their_tokens(theirs, states_BTD, timestamps=False, suppress=False, **options):
    processors = LogitsProcessorList()
    if suppress:
        processors += [
            SuppressTokensLogitsProcessor(BANNED),
            SuppressTokensAtBeginLogitsProcessor(FIRST, len(PREFIX)),
        ]
    if timestamps:
        rules = transformers.GenerationConfig(eos_token_id=EOT, no_timestamps_token_id=TIMES - 1)
        rules.max_initial_timestamp_index = 9
        processors.append(WhisperTimeStampLogitsProcessor(rules, begin_index=len(PREFIX)))
    config = transformers.GenerationConfig(
        max_new_tokens=STEPS, do_sample=False, eos_token_id=EOT, pad_token_id=EOT, **options
    )
    with torch.no_grad():
        # The generate() of the base class: Whisper's own adds prompts, languages and windows around it.
        out_BL = transformers.GenerationMixin.generate(
            theirs,
            encoder_outputs=BaseModelOutput(torch.from_numpy(states_BTD)),
            decoder_input_ids=torch.tensor([PREFIX] * ROWS),
            generation_config=config,
            logits_processor=processors,
        )[:, len(PREFIX) :].numpy()
    return np.pad(out_BL, ((0, 0), (0, STEPS - out_BL.shape[1])), constant_values=EOT)


def our_tokens(search, params, states_BTD, timestamps=False, suppress=False, **plan):
    rules = Rules(
        mask(BANNED, 101) if suppress else None,
        mask(FIRST, 101) if suppress else None,
        eot=EOT,
        timestamps=TIMES if timestamps else None,
        max_initial=9,
    )
    plan = SearchPlan(eot=EOT, max_tokens=STEPS, **plan)
    mask_BT = np.ones(states_BTD.shape[:2], bool)
    found = search(params, states_BTD, mask_BT, None, shared(PREFIX, ROWS, STEPS), rules, 0.0, None, plan=plan)
    return np.asarray(found.tokens_BL)


def differ(tokens_BL):
    """Rows say different things and end at different times."""
    lengths = (tokens_BL != EOT).sum(1)
    assert len(set(map(tuple, tokens_BL.tolist()))) > 2 and len(set(lengths.tolist())) > 1


@pytest.mark.parametrize(
    "pair,timestamps,suppress", [(TWO, False, True), (TWO, True, True), (ONE, True, False)], indirect=["pair"]
)
def test_greedy(pair, timestamps, suppress):
    theirs, search, params, states_BTD = pair
    want_BL = their_tokens(theirs, states_BTD, timestamps, suppress, num_beams=1)
    np.testing.assert_array_equal(our_tokens(search, params, states_BTD, timestamps, suppress), want_BL)
    differ(want_BL)


@pytest.mark.parametrize(
    "pair,timestamps,early_stopping,length_penalty",
    [
        (TWO, False, False, 1.0),
        (TWO, True, False, 1.0),
        (TWO, True, "never", 2.0),
        (ONE, False, True, 0.5),
        (ONE, False, False, -0.5),
    ],
    indirect=["pair"],
)
def test_beam_of_five(pair, timestamps, early_stopping, length_penalty):
    theirs, search, params, states_BTD = pair
    options = {"early_stopping": early_stopping, "length_penalty": length_penalty}
    want_BL = their_tokens(theirs, states_BTD, timestamps, timestamps, num_beams=5, **options)
    found_BL = our_tokens(
        search, params, states_BTD, timestamps, timestamps, beam=True, width=5, ranking="transformers", **options
    )
    np.testing.assert_array_equal(found_BL, want_BL)
    assert (found_BL != our_tokens(search, params, states_BTD, timestamps, timestamps)).any()
    differ(want_BL)
