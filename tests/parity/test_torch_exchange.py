"""Against torch: its files read here, ours read there."""

import collections

import ml_dtypes
import numpy as np
import pytest
import torch

from moejax.convert import torch_file

generator = torch.Generator().manual_seed(0)
WIDE = torch.randn(6, 4, 5, generator=generator)
TENSORS = {
    "plain": WIDE,
    "turned": WIDE.permute(2, 0, 1),
    "part": WIDE[1:, ::2],
    "scalar": torch.tensor(3.0),
    "empty": torch.zeros(0, 3),
    "half": WIDE.half(),
    "brain": WIDE.bfloat16(),
    "integers": torch.arange(7),
    "truth": torch.tensor([True, False]),
}


def numbers(tensor):
    return tensor.float().numpy().astype(ml_dtypes.bfloat16) if tensor.dtype == torch.bfloat16 else tensor.numpy()


def test_torchs_files_are_read(tmp_path):
    state = torch.nn.Linear(3, 2).state_dict()  # an OrderedDict with an attribute of torch's own
    value = {"a": 1, "b": [0.5, None, True, "x"], "tensors": collections.OrderedDict(TENSORS), "state": state}
    torch.save(value, tmp_path / "x.pt")
    found = torch_file.read(tmp_path / "x.pt")
    assert {**found, "tensors": 0, "state": 0} == {**value, "tensors": 0, "state": 0}
    for name, tensor in (*TENSORS.items(), *state.items()):
        array = found["tensors" if name in TENSORS else "state"][name]
        assert array.shape == tuple(tensor.shape)
        np.testing.assert_array_equal(array, numbers(tensor), err_msg=name)
        assert array.dtype == numbers(tensor).dtype


@pytest.mark.parametrize("mmap", [False, True])
def test_our_files_are_read_there(tmp_path, mmap):
    value = {"dims": {"n": 80, "big": 2**40, "x": 0.5}, "tensors": {k: numbers(v) for k, v in TENSORS.items()}}
    torch_file.write(tmp_path / "x.pt", value)
    found = torch.load(tmp_path / "x.pt", weights_only=True, mmap=mmap)
    assert found["dims"] == value["dims"] and found["tensors"].keys() == TENSORS.keys()
    for name, tensor in TENSORS.items():
        assert found["tensors"][name].dtype == tensor.dtype
        assert torch.equal(found["tensors"][name], tensor), name


def test_the_format_before_1_6_is_named(tmp_path):
    torch.save({"a": WIDE}, tmp_path / "x.pt", _use_new_zipfile_serialization=False)
    with pytest.raises(ValueError, match="x.pt: torch's format before 1.6"):
        torch_file.read(tmp_path / "x.pt")


def test_a_module_is_refused(tmp_path):
    torch.save(torch.nn.Linear(2, 2), tmp_path / "x.pt")
    with pytest.raises(ValueError, match="asks for torch.nn.modules.linear.Linear"):
        torch_file.read(tmp_path / "x.pt")
