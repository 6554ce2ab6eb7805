"""BEATs' and SALMONN's checkpoints in the layout that they have, and the whole system of folders and files."""

import collections

import llama_folder
import numpy as np
import pytest
import tiny_llama as tiny
from salmonn_folder import CFG, RANK, beats_file, salmonn_file, whisper_folder

from moejax.convert import beats, salmonn, torch_file
from moejax.errors import BadValue, NotThere
from moejax.nn import functional


def test_beats_is_read_with_its_weight_norm_multiplied_out(tmp_path):
    torch = pytest.importorskip("torch")
    conv = torch.nn.Conv1d(16, 16, 6, padding=3, groups=4)
    normed = torch.nn.utils.parametrizations.weight_norm(conv, dim=2)
    gain, direction = (getattr(normed.parametrizations.weight, f"original{n}").detach().numpy() for n in (0, 1))
    gain = gain * np.linspace(0.5, 2, 6, dtype=np.float32)[None, None]
    with torch.no_grad():
        normed.parametrizations.weight.original0.copy_(torch.tensor(gain))
    own = {"encoder.pos_conv.0.weight_g": gain, "encoder.pos_conv.0.weight_v": direction}
    model = beats_file(tmp_path / "beats.pt", **own)
    config, params = beats.load(tmp_path / "beats.pt")
    assert config == tiny.BEATS
    flat = functional.paths(params)
    wanted = functional.paths(tiny.audio()[1]["backbone"]["sounds"])
    assert {p: x.shape for p, x in flat.items()} == {f"backbone/{p}": x.shape for p, x in wanted.items()}
    np.testing.assert_allclose(flat["backbone/conv_kernel"].transpose(2, 1, 0), normed.weight.detach(), atol=1e-6)
    patches = model["patch_embedding.weight"]
    np.testing.assert_array_equal(flat["backbone/patches/kernel"][16 * 3 + 5], patches[:, 0, 3, 5])
    np.testing.assert_array_equal(flat["backbone/layers/1/fc1/kernel"], model["encoder.layers.1.fc1.weight"].T)


@pytest.mark.parametrize(
    ("cfg", "changes", "match"),
    [
        (CFG, {"encoder.layers.0.fc3.weight": np.ones(2, np.float32)}, r"unknown keys encoder\.layers\.0\.fc3"),
        (CFG, {"layer_norm.bias": None}, r"weights lack layer_norm\.bias"),
        (
            CFG,
            {"encoder.layers.1.self_attn.relative_attention_bias.weight": np.ones((16, 2), np.float32)},
            "differs from the first layer's",
        ),
        (CFG | {"deep_norm": False}, {}, "deep_norm is False; only True"),
        (CFG | {"encoder_attention_heads": 3}, {}, "width 16 must divide by 3 heads"),
    ],
    ids=["unknown", "missing", "shared", "kind", "size"],
)
def test_beats_files_that_do_not_fit(tmp_path, cfg, changes, match):
    beats_file(tmp_path / "beats.pt", cfg, **changes)
    with pytest.raises(BadValue, match=match):
        beats.load(tmp_path / "beats.pt")


def test_the_whole_system_of_published_files(tmp_path):
    whisper_folder(tmp_path / "whisper")
    llama_folder.write_shards(tmp_path / "llama", llama_folder.tensors(), "safetensors")
    beats_file(tmp_path / "beats.pt")
    model = salmonn_file(tmp_path / "salmonn.pth")
    places = [tmp_path / name for name in ("whisper", "llama", "beats.pt", "salmonn.pth")]
    rank, config, params = salmonn.load(*places)
    assert rank == RANK and config == tiny.AUDIO
    own = functional.paths(tiny.audio()[1])
    found = functional.paths(params)
    assert found.keys() == own.keys()
    of_experts = {path for path in own if path.startswith("expert/")}
    assert all(tuple(found[path].shape) == own[path].shape for path in own.keys() - of_experts)
    key = "llama_model.base_model.model.model.layers.1.self_attn.v_proj.lora_{}.default.weight"
    update = model[key.format("B")] @ model[key.format("A")]
    at = "expert/decoder/layers/1/self_attn/v/experts"
    np.testing.assert_allclose((found[f"{at}/A"][0] @ found[f"{at}/B"][0]).T, update, atol=1e-5)
    query = model["speech_Qformer.bert.encoder.layer.1.crossattention.self.key.weight"]
    np.testing.assert_array_equal(found["head/connector/qformer/layers/1/cross_attn/k/kernel"], query.T)
    with pytest.raises(BadValue, match=r"unknown keys ln_audio\.bias, ln_audio\.weight"):  # trained with BEATs
        salmonn.load(*places[:2], None, places[3])


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"ln_text.weight": np.ones(2, np.float32)}, r"unknown keys ln_text\.weight"),
        ({"ln_audio.bias": None, "speech_query_tokens": None}, r"lack ln_audio\.bias, speech_query_tokens"),
        ({"speech_llama_proj.bias": np.ones(3, np.float32)}, r"wrong shape: speech_llama_proj\.bias \(3,\)"),
        ({"ln_audio.bias": 3}, "'ln_audio.bias' is a int, not an array"),
        ({salmonn._LORA.format(0, "q", "A"): None}, "by which the LoRA's rank is known"),
    ],
    ids=["unknown", "missing", "shape", "array", "rank"],
)
def test_files_of_salmonn_that_do_not_fit(tmp_path, changes, match):
    salmonn_file(tmp_path / "salmonn.pth", **changes)
    with pytest.raises(BadValue, match=match):
        salmonn.load_trained(tmp_path / "salmonn.pth", tiny.AUDIO)


def test_other_files_and_options_of_somebodys_class(tmp_path):
    with pytest.raises(NotThere, match=r"salmonn_v1\.pth and the like"):
        salmonn.load_trained(tmp_path / "none.pth", tiny.AUDIO)
    torch_file.write(tmp_path / "other.pth", {"weights": {}})
    with pytest.raises(BadValue, match="not a checkpoint of SALMONN"):
        salmonn.load_trained(tmp_path / "other.pth", tiny.AUDIO)
    with pytest.raises(BadValue, match="not a BEATs checkpoint"):
        beats.load(tmp_path / "other.pth")
    torch = pytest.importorskip("torch")
    model = salmonn_file(tmp_path / "plain.pth")
    tensors = collections.OrderedDict((key, torch.tensor(array)) for key, array in model.items())
    options = collections.Counter(lr=3)  # any class that is not read
    torch.save({"model": tensors, "config": options, "path": tmp_path}, tmp_path / "full.pth")
    with pytest.raises(torch_file.NotATorchFile, match="asks for"):
        torch_file.read(tmp_path / "full.pth")
    with pytest.raises(BadValue, match="not a checkpoint of SALMONN"):
        salmonn.connector_of(tmp_path / "other.pth")
    rank, params = salmonn.load_trained(tmp_path / "full.pth", tiny.AUDIO)
    assert rank == RANK
    want = functional.paths(salmonn.load_trained(tmp_path / "plain.pth", tiny.AUDIO)[1])
    for path, array in functional.paths(params).items():
        np.testing.assert_array_equal(array, want[path])
