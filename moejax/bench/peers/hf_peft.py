"""PEFT on transformers: a training step of one LoRA on every linear layer of the decoder.

`target_modules` is a regular expression on the decoder: a plain suffix would hit the encoder too, and its gradient
makes the step 2.6 x slower.
"""

import peft
import torch
import transformers
from transformers.modeling_outputs import BaseModelOutput

from moejax.bench import inputs
from moejax.bench.peers import torch_device as device
from moejax.bench.peers.hf_transformers import load
from moejax.bench.worker import Job, serve

RANK, ALPHA, RATE, CLIP = 8, 16, 1e-3, 1.0  # ours too: see bench.training
DECODER = r".*\.decoder\.layers\.\d+\..*(q_proj|k_proj|v_proj|out_proj|fc1|fc2)"


def train(options) -> Job:
    """One step: from encoder states, or through the encoder without gradients. The result is the loss."""
    lora = peft.LoraConfig(r=RANK, lora_alpha=ALPHA, target_modules=DECODER, lora_dropout=0.0)
    model = peft.get_peft_model(load(options), lora).train()
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    encoder = model.get_base_model().get_encoder()
    # fused: one pass over all adapters; the plain loop over 80 small tensors would cost the peer time
    optimizer = torch.optim.AdamW(trained, lr=RATE, weight_decay=0.0, fused=True)
    tokens_BL, targets_BL = inputs.tokens(options["batch"], options["tokens"], options["prefix"])
    tokens, labels = device.place(tokens_BL).long(), device.place(targets_BL).long()
    batch, seconds, dtype = options["batch"], options["seconds"], device.kind(options)
    if options["states"]:
        given = device.place(inputs.states(batch, seconds, options["width"]), dtype)
    else:
        given = device.place(inputs.mel(batch, seconds, options["bins"]).transpose(0, 2, 1).copy(), dtype)

    def run():
        states = given
        if not options["states"]:
            with torch.no_grad():
                states = encoder(given).last_hidden_state
        out = model(
            encoder_outputs=BaseModelOutput(last_hidden_state=states),
            decoder_input_ids=tokens,
            labels=labels,
            use_cache=False,
        )
        out.loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, CLIP)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return device.finish(out.loss.detach())

    return Job(run, device.numbers)


JOBS = {"train": train}

if __name__ == "__main__":
    device.use_all_cores()
    transformers.utils.logging.set_verbosity_error()
    serve(JOBS, lambda: device.hello("transformers", "peft"))
