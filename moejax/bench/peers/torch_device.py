"""What the three torch peers share: the device, the threads, and numbers on it."""

import importlib.metadata
import os

import torch

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def use_all_cores() -> None:
    torch.set_num_threads(os.cpu_count())


def place(array, dtype=None):
    """A tensor on the device; floating-point numbers in `dtype`."""
    tensor = torch.from_numpy(array).to(DEVICE)
    return tensor if dtype is None else tensor.to(dtype)


def kind(options):
    """torch's name of the options' type."""
    return getattr(torch, options.get("dtype", "float32"))


def finish(result):
    """Waits for the device."""
    if DEVICE == "cuda":
        torch.cuda.synchronize()
    return result


def numbers(tensor):
    """A numpy array, float32 where the tensor has fractions."""
    tensor = tensor.detach().cpu()
    return (tensor.float() if tensor.is_floating_point() else tensor).numpy()


def hello(*packages) -> dict:
    versions = {name: importlib.metadata.version(name) for name in ("torch", *packages)}
    return {"device": DEVICE, "threads": torch.get_num_threads(), "versions": versions}
