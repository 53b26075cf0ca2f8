"""A program that behaves as espeak-ng 1.51 does with `--stdin --stdout`.

It reads all text, then writes a header whose lengths are 0x7FFFF024 and 0x7FFFF000, because they are not known yet, and
16-bit mono samples at 22,050 Hz. An unknown voice ends it with 1 and a message.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

PROGRAM = """#!{python}
import json, os, resource, struct, sys, time
text = sys.stdin.buffer.read().decode()
if "unknown" in sys.argv:
    sys.exit("Error: The specified espeak-ng voice does not exist.")
head = struct.pack("<4sI4s4sIHHIIHH4sI", b"RIFF", 0x7FFFF024, b"WAVE", b"fmt ", 16, 1, 1, 22050, 44100, 2, 16, b"data",
                   0x7FFFF000)
out = sys.stdout.buffer
out.write(b"no header, no sample" if "broken" in text else head)
if "hang" in text:
    time.sleep(600)
while "endless" in text:
    out.write(bytes(1 << 20))
if "crash" in text:
    sys.exit(3)
if "silent" not in text:
    said = json.dumps({{"arguments": sys.argv[1:], "text": text, "environment": dict(os.environ),
                       "memory": resource.getrlimit(resource.RLIMIT_AS)[0]}})
    out.write(said.encode().ljust(44100, b" "))
"""


def write_fake_espeak(folder: Path) -> Path:
    """Write the program as `espeak-ng`; the samples that it writes are its arguments, text and environment as JSON."""
    path = folder / "espeak-ng"
    path.write_text(PROGRAM.format(python=os.path.realpath(sys.executable)))
    path.chmod(0o755)
    return path
