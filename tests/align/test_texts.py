"""Where `moejax align` and `moejax enroll` find what is said."""

import numpy as np
import soundfile

from moejax.enrolment import folder


def test_the_nearest_text_counts(tmp_path):
    audio = tmp_path / "audio"
    audio.mkdir()
    for name in "ab":
        soundfile.write(audio / f"{name}.wav", np.zeros(160), 16000)
    recordings = [audio / "a.wav", audio / "b.wav"]
    assert folder.texts(recordings) is None
    (tmp_path / "metadata.csv").write_text("file,text\naudio/a.wav,above\naudio/b.wav,above\n")
    assert folder.texts(recordings) == ["above", "above"]
    (audio / "a.txt").write_text("beside")
    assert folder.texts(recordings) == ["beside", "above"]
    (audio / "metadata.csv").write_text("file,text\na.wav,here\n")
    assert folder.texts(recordings) == ["here", "above"]
