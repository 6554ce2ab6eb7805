"""A small LLaMA learns from lines of text, and its folder is one of Hugging Face."""

import numpy as np
import pytest
import tiny_whisper

from moejax.convert import hf_llama
from moejax.errors import AlreadyThere, BadValue, NotThere
from moejax.nn import functional
from moejax.text.llama_tokenizer import LlamaTokenizer
from moejax.training import small_llama

RECIPE = small_llama.Recipe(layers=2, width=32, heads=2, vocabulary=90, steps=100, batch=16, learning_rate=1e-2)


def texts(seed=0, count=300):
    """Of two languages, with a line break: a word decides what follows."""
    rng = np.random.default_rng(seed)
    who, does = ("the boy", "a girl", "she"), ("sees", "hears")
    german = {"the boy": "der Junge", "a girl": "ein Mädchen", "she": "sie", "sees": "sieht", "hears": "hört"}
    drawn = [(str(rng.choice(who)), str(rng.choice(does)), rng.integers(10, 99)) for _ in range(count)]
    return [f"{one} {two} {n}\nauf Deutsch: {german[one]} {german[two]} {n}" for one, two, n in drawn]


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    folder = tmp_path_factory.mktemp("small") / "llama"
    return folder, small_llama.write(texts(), folder, RECIPE, say=lambda line: None)


def test_it_learns_what_follows_and_asks_about_lines_that_it_has_not_read(written):
    folder, found = written
    asked = set(texts()[-len(texts()) // small_llama.HELD_OUT :])
    assert found.lines == sum(text not in asked for text in texts()) < len(texts())
    assert found.untrained > 40 and found.trained < 0.1 * found.untrained
    assert found.untrained < 2 * found.tokenizer.vocab_size  # of nobody who knows anything: about the vocabulary


def test_the_same_seed_gives_the_same_numbers_and_another_one_others():
    few = {**vars(RECIPE), "layers": 1, "width": 16, "steps": 2}
    one, same, other = (small_llama.learn(texts(), small_llama.Recipe(**{**few, "seed": seed})) for seed in (0, 0, 1))
    assert one.trained == same.trained != other.trained
    assert not any(tiny_whisper.changed(one.params, same.params).values())
    assert all(tiny_whisper.changed(one.params, other.params).values())
    assert one.trained > 0.1 * one.untrained  # two steps are not what the test above asks for


def test_the_folder_is_read_as_it_was_written(written):
    folder, found = written
    config, params = hf_llama.load(folder)
    assert config == found.config
    assert not any(tiny_whisper.changed(params, found.params).values())
    tokenizer, text = LlamaTokenizer.from_folder(folder), texts(1)[0]
    assert tokenizer.encode(text) == found.tokenizer.encode(text)
    assert (tokenizer.bos, tokenizer.eot) == (found.tokenizer.bos, found.tokenizer.eot)


def test_transformers_opens_the_folder_and_says_the_same(written):
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    folder, found = written
    theirs = transformers.LlamaForCausalLM.from_pretrained(folder, attn_implementation="eager").eval()
    words = transformers.AutoTokenizer.from_pretrained(folder)
    text = texts(1)[0]
    ids = [found.tokenizer.bos, *found.tokenizer.encode(text)]
    assert words(text, add_special_tokens=False)["input_ids"] == ids[1:]
    assert words.decode(ids, skip_special_tokens=True) == text
    assert (words.bos_token_id, words.eos_token_id) == (found.tokenizer.bos, found.tokenizer.eot)
    graphdef, _ = functional.abstract(lambda: small_llama.Llama(found.config, init=small_llama.Init(0)))
    ours = functional.merge(graphdef, found.params)(np.asarray([ids]))
    with torch.no_grad():
        want = theirs(torch.tensor([ids])).logits.numpy()
    assert np.abs(np.asarray(ours) - want).max() <= 1e-4 and np.abs(want).max() > 1


def test_only_what_stands_behind_the_mark_is_learnt():
    tokenizer = LlamaTokenizer.train(texts(), 90)
    tokens_NL, mask_NL = small_llama._rows(tokenizer, texts(1, 5), small_llama.Recipe(after="Deutsch:"))
    for text, tokens_L, mask_L in zip(texts(1, 5), tokens_NL, mask_NL, strict=True):
        learnt = tokens_L[mask_L].tolist()
        assert tokenizer.decode(learnt) == text.split("Deutsch: ")[1] and learnt[-1] == tokenizer.eot
        whole = tokens_L[: int(mask_L.nonzero()[0].max()) + 1].tolist()
        assert whole == [tokenizer.bos, *tokenizer.encode(text), tokenizer.eot]  # cut at a space: the same ids


def test_texts_joined_by_a_space_are_the_ids_of_both():
    tokenizer = LlamaTokenizer.train(texts(), 90)
    one, two = texts(1, 2)
    assert tokenizer.encode(f"{one} {two}") == tokenizer.encode(one) + tokenizer.encode(two)
    assert tokenizer.decode(tokenizer.encode(one)) == one
    assert tokenizer.decode(tokenizer.encode("the ☃ boy")) == "the  boy"  # not in the texts
    assert LlamaTokenizer.train(texts(), 90).encode(one) == tokenizer.encode(one)


def test_a_file_has_a_text_on_each_line(tmp_path):
    file = tmp_path / "lines.txt"
    file.write_text("a line\n\n  two\\nin one \n", encoding="utf-8")
    assert small_llama.read(file) == ["a line", "two\nin one"]
    file.write_bytes(b"M\xe4dchen\n")
    with pytest.raises(BadValue, match=r"lines\.txt: not UTF-8 \(.* at byte 1\)"):
        small_llama.read(file)
    with pytest.raises(NotThere, match=r"nowhere\.txt: there is no such file"):
        small_llama.read(tmp_path / "nowhere.txt")


@pytest.mark.parametrize(
    ("lines", "changes", "words"),
    [
        (["a b"] * 60, {}, "60 texts, too few of them different; take 50 at least"),
        (None, {"vocabulary": 20}, r"a vocabulary of 20 tokens; these texts need \d\d"),
        (None, {"tokens": 8}, r"the line '.*' has \d+ tokens; tokens = 8 are taken"),
        (None, {"after": "ASSISTANT:"}, r"the line '.*' has no 'ASSISTANT:', behind which"),
        (None, {"heads": 5}, "d_model = 32 does not divide by heads = 5"),
    ],
)
def test_what_cannot_be_learnt_is_refused(lines, changes, words):
    with pytest.raises(BadValue, match=words):
        small_llama.learn(lines or texts(), small_llama.Recipe(**{**vars(RECIPE), **changes}))


@pytest.mark.parametrize(("name", "value"), [("layers", 0), ("learning_rate", 0.0), ("seed", -1)])
def test_recipes_have_limits(name, value):
    with pytest.raises(BadValue, match=f"{name} is {value}"):
        small_llama.Recipe(**{name: value})


def test_the_command_says_in_one_line_what_is_wrong(tmp_path, monkeypatch):
    monkeypatch.setattr("sys.argv", ["small_llama", str(tmp_path / "nowhere.txt"), str(tmp_path / "llama")])
    with pytest.raises(SystemExit, match=r"^python -m moejax\.training\.small_llama: .*nowhere\.txt: there is no such"):
        small_llama.main()
    assert not list(tmp_path.iterdir())


def test_other_files_are_left_alone_before_any_work(tmp_path):
    (tmp_path / "thesis.tex").write_text("mine")
    with pytest.raises(AlreadyThere, match=r"holds thesis\.tex, not only a model"):
        small_llama.write(["no", "texts"], tmp_path, RECIPE)
    assert [file.name for file in tmp_path.iterdir()] == ["thesis.tex"]
