"""Folders that CTranslate2 runs translate as transformers' own models do: a tiny OPUS-MT of random weights, with
SentencePieces that are trained here, through CTranslate2's converter. (That of CTranslate2 4.8 loses the languages of
M2M100's tokenizer of transformers 5: such folders are made with transformers 4.)
"""

import json

import pytest

from moejax.errors import BadValue
from moejax.mt import ctranslate2_folder
from moejax.mt.ctranslate2_folder import CTranslate2

spm = pytest.importorskip("sentencepiece")
ctranslate2 = pytest.importorskip("ctranslate2")
torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

SAID = ["The doctor sees you at four.", "Open the window.", "We call it bear, and it has two legs.", "Tea with milk"]
SIZES = dict(d_model=32, encoder_layers=1, decoder_layers=1, encoder_attention_heads=2, decoder_attention_heads=2)
SIZES |= dict(encoder_ffn_dim=64, decoder_ffn_dim=64, max_position_embeddings=512, init_std=1.5)


def pieces(folder, name, lines, size=90):
    (folder / "lines.txt").write_text("\n".join(lines * 20))
    where = str(folder / name)
    options = dict(vocab_size=size, model_type="unigram", hard_vocab_limit=False, minloglevel=2)
    spm.SentencePieceTrainer.train(input=str(folder / "lines.txt"), model_prefix=where, **options)
    read = spm.SentencePieceProcessor(f"{where}.model")
    return read, [read.id_to_piece(i) for i in range(read.get_piece_size())]


@pytest.fixture(scope="module")
def opus(tmp_path_factory):
    """(folder of CTranslate2, text -> what transformers writes)."""
    folder = tmp_path_factory.mktemp("opus")
    german = ["Der Arzt sieht dich um vier.", "Mach das Fenster auf.", "Wir nennen es Baer.", "Tee mit Milch"]
    _, first = pieces(folder, "source", SAID)
    _, second = pieces(folder, "target", german)
    words = ["</s>", "<unk>", *sorted({*first, *second} - {"<s>", "</s>", "<unk>"}), "<pad>"]
    there = folder / "hf"
    there.mkdir()
    for name in ("source", "target"):
        (folder / f"{name}.model").rename(there / f"{name}.spm")
    (there / "vocab.json").write_text(json.dumps({word: i for i, word in enumerate(words)}))
    tokenizer = transformers.MarianTokenizer(
        str(there / "source.spm"),
        str(there / "target.spm"),
        str(there / "vocab.json"),
        source_lang="en",
        target_lang="de",
    )
    tokenizer.save_pretrained(there)
    pad = len(words) - 1
    config = transformers.MarianConfig(
        vocab_size=len(words),
        pad_token_id=pad,
        eos_token_id=0,
        decoder_start_token_id=pad,
        **SIZES,
    )
    torch.manual_seed(1)
    model = transformers.MarianMTModel(config).eval()
    model.save_pretrained(there)
    out = folder / "ct2"
    converter = ctranslate2.converters.TransformersConverter(str(there), copy_files=["source.spm", "target.spm"])
    converter.convert(str(out))

    def theirs(text):
        ids = tokenizer(text, return_tensors="pt")
        found = model.generate(**ids, num_beams=1, do_sample=False, max_new_tokens=31, bad_words_ids=[[pad], [1]])
        return tokenizer.decode(found[0], skip_special_tokens=True).strip()

    return out, theirs


def test_texts_come_back_in_order_as_transformers_writes_them(opus, monkeypatch):
    folder, theirs = opus
    monkeypatch.setattr(ctranslate2_folder, "MOST", 30)  # random weights find no end
    monkeypatch.setattr(ctranslate2_folder, "BEAMS", 1)  # and beams that have none are cut differently
    ours, told = CTranslate2(folder), []
    assert ours.layout.kind == "opus-mt"
    texts = [SAID[0], "", SAID[1], "  ", SAID[2], SAID[0]]
    found = ours.translate(texts, progress=lambda done, of: told.append((done, of)))
    assert found[1] == found[3] == "" and found[0] == found[5] and told[-1] == (3, 3)
    assert [found[i] for i in (0, 2, 4)] == [theirs(texts[i]) for i in (0, 2, 4)]
    assert ours.translate([SAID[2]]) == [found[4]]  # whatever stands beside it
    with pytest.raises(BadValue, match="a text of .* pieces, of 480 at most; cut it"):
        ours.translate(["window " * 500])
