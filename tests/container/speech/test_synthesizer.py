"""Speech by espeak-ng, and by a program that behaves like it."""

from __future__ import annotations

import asyncio
import io
import json
import shutil
import subprocess
import wave
from pathlib import Path
from typing import Any, get_args

import numpy as np
import psutil
import pytest
from support.fake_espeak import write_fake_espeak

from container.speech import synthesizer as module
from container.speech.requests import Language, SpeechRequest
from container.speech.synthesizer import (
    MAX_RUNNING,
    MAX_WAITING,
    VOICES,
    SpeechSynthesizer,
    arguments_of,
    escape_phonemes,
    run_program,
)
from inference.errors import DeadlineExceeded, InvalidRequest, MediaTooLarge, Overloaded, SpeechUnavailable, WorkerDied

ESPEAK = shutil.which("espeak-ng")
needs_espeak = pytest.mark.skipif(ESPEAK is None, reason="espeak-ng is not installed")


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(write_fake_espeak(tmp_path_factory.mktemp("a folder")))


def speak(program: str, text: str, timeout_s: float = 60.0, **fields: Any) -> bytes:
    return asyncio.run(SpeechSynthesizer(program, timeout_s).synthesize(SpeechRequest(text=text, **fields)))


def samples_of(audio: bytes) -> tuple[int, bytes]:
    """Return the rate and the samples of 16-bit mono."""
    with wave.open(io.BytesIO(audio)) as file:
        assert (file.getnchannels(), file.getsampwidth()) == (1, 2)
        assert len(audio) == 44 + 2 * file.getnframes()  # the header has the true length
        return file.getframerate(), file.readframes(file.getnframes())


def test_the_text_is_no_argument_and_the_environment_is_not_passed_on(program: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    rate, samples = samples_of(speak(program, "--version -w /tmp/x é", language="fr", rate=120))
    found = json.loads(samples)
    assert (rate, len(samples)) == (22_050, 44_100)
    assert found["arguments"] == ["--stdin", "-b", "1", "--stdout", "-s", "120", "-v", "fr-fr"]
    assert found["text"] == "--version -w /tmp/x é"
    assert set(found["environment"]) <= {"PATH", "LANG", "LC_CTYPE", "ESPEAK_DATA_PATH"}
    assert found["memory"] == 512 << 20


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        ("endless", MediaTooLarge, "longer than 300 s"),
        ("crash", WorkerDied, "ended with 3"),
        ("silent", WorkerDied, "0 bytes"),
        ("broken", WorkerDied, "no WAV file"),
    ],
)
def test_a_program_that_misbehaves_is_reported(program: str, text: str, error: type[Exception], message: str):
    before = psutil.Process().children()  # other tests' servers
    with pytest.raises(error, match=message):
        speak(program, text)
    assert psutil.Process().children() == before


def test_a_program_that_hangs_is_killed(program: str):
    before = psutil.Process().children()
    with pytest.raises(DeadlineExceeded, match=r"not done after 0\.5 s"):
        speak(program, "hang", timeout_s=0.5)
    assert psutil.Process().children() == before


def test_its_message_is_passed_on(program: str):
    command = [program, *arguments_of(SpeechRequest(text="a"))[:-1], "unknown"]
    with pytest.raises(WorkerDied, match="ended with 1: Error: The specified espeak-ng voice does not exist"):
        asyncio.run(run_program(command, b"a"))


def test_few_programs_run_and_few_texts_wait(program: str, monkeypatch: pytest.MonkeyPatch):
    running, most = 0, 0

    async def run(_command: list[str], _text: bytes) -> bytes:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0)
        running -= 1
        raise WorkerDied("done")

    async def flood() -> list[BaseException]:
        synthesizer, request = SpeechSynthesizer(program), SpeechRequest(text="a")
        n = MAX_RUNNING + MAX_WAITING + 1
        found = await asyncio.gather(*(synthesizer.synthesize(request) for _ in range(n)), return_exceptions=True)
        with pytest.raises(WorkerDied):  # places are free again
            await synthesizer.synthesize(request)
        return [one for one in found if isinstance(one, Overloaded)]

    monkeypatch.setattr(module, "run_program", run)
    assert len(asyncio.run(flood())) == 1
    assert most == MAX_RUNNING


def test_without_the_program_the_error_names_it(tmp_path: Path):
    missing = str(tmp_path / "espeak-ng")
    assert not SpeechSynthesizer(missing).is_available
    with pytest.raises(SpeechUnavailable, match="espeak-ng is not installed"):
        speak(missing, "a")


def test_espeak_has_no_voices_to_name(program: str):
    with pytest.raises(InvalidRequest, match='"voice": found af_heart; expected none'):
        speak(program, "a", voice="af_heart")


def test_no_text_names_phonemes():
    for text in ("[[h@l'oU]]", "[[[x", "[[[[x"):
        assert "[[" not in escape_phonemes(text)


@needs_espeak
def test_espeak_speaks():
    assert ESPEAK is not None
    rate, samples = samples_of(speak(ESPEAK, "Good morning, how are you?"))
    loudness = np.abs(np.frombuffer(samples, np.int16).astype(np.float32))
    assert 0.8 < len(loudness) / rate < 4
    assert loudness.max() > 3000
    _, slow = samples_of(speak(ESPEAK, "Good morning, how are you?", rate=90))
    assert len(slow) > 1.4 * len(samples)
    _, german = samples_of(speak(ESPEAK, "Good morning, how are you?", language="de"))
    assert german != samples


@needs_espeak
def test_espeak_has_every_language():
    lines = subprocess.run(["espeak-ng", "--voices"], capture_output=True, text=True, check=True).stdout.splitlines()
    names = {line.split()[1] for line in lines[1:]}
    assert {VOICES.get(one, one) for one in get_args(Language)} <= names
