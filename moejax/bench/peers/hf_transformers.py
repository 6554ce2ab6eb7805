"""transformers on torch: encoder forward with sdpa, logits, and greedy `generate`."""

import torch
import transformers

from moejax.bench import inputs
from moejax.bench.peers import torch_device as device
from moejax.bench.worker import Job, serve


def load(options):
    model = transformers.WhisperForConditionalGeneration.from_pretrained(
        options["folder"], attn_implementation="sdpa", dtype=device.kind(options)
    )
    return model.to(device.DEVICE).eval()


def features(options):
    mel_BNM = inputs.mel(options["batch"], options["seconds"], options["bins"])
    return device.place(mel_BNM.transpose(0, 2, 1).copy(), device.kind(options))


def encode(options) -> Job:
    encoder, mel = load(options).get_encoder(), features(options)

    @torch.inference_mode()
    def run():
        return device.finish(encoder(mel).last_hidden_state)

    return Job(run, device.numbers)


def logits(options) -> Job:
    model, mel = load(options), features(options)
    tokens_BL, _ = inputs.tokens(options["batch"], options["tokens"], options["prefix"])
    tokens = device.place(tokens_BL).long()

    @torch.inference_mode()
    def run():
        return device.finish(model(input_features=mel, decoder_input_ids=tokens, use_cache=False).logits)

    return Job(run, device.numbers)


def greedy(options) -> Job:
    """The `generate` of the base class: Whisper's own wraps it in language and timestamp rules, which only cost time.

    As many tokens on all sides: minimal and maximal number are the same.
    """
    model, mel = load(options), features(options)
    prefix = torch.tensor([options["prefix"]] * options["batch"], device=device.DEVICE)
    settings = transformers.GenerationConfig(
        min_new_tokens=options["tokens"],
        max_new_tokens=options["tokens"],
        do_sample=False,
        num_beams=1,
        suppress_tokens=options["suppress"],
        eos_token_id=options["eot"],
        pad_token_id=options["eot"],
    )

    @torch.inference_mode()
    def run():
        found = transformers.GenerationMixin.generate(
            model, input_features=mel, decoder_input_ids=prefix, generation_config=settings
        )
        return device.finish(found[:, len(options["prefix"]) :])

    return Job(run, device.numbers)


JOBS = {"encode": encode, "logits": logits, "greedy": greedy}

if __name__ == "__main__":
    device.use_all_cores()
    transformers.utils.logging.set_verbosity_error()
    serve(JOBS, lambda: device.hello("transformers"))
