"""The process of one function: a JSON event a line on stdin, a JSON answer a line on stdout; its logs go to stderr.

    python -m deploy.dev.function_runtime CODE_FOLDER MODULE.FUNCTION

It ends when stdin does. Nothing of Viseme is imported but the function, from the folder that is deployed.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import traceback
from importlib import import_module


def main(code: str, handler: str) -> None:
    """Answer the events until stdin ends."""
    # What the function prints must not be taken for an answer.
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    logging.basicConfig(format="%(name)s: %(message)s")
    sys.path.insert(0, code)
    module, _, name = handler.rpartition(".")
    function = getattr(import_module(module), name)
    for line in sys.stdin:
        try:
            answer = {"result": function(json.loads(line), None)}
        except Exception as err:  # noqa: BLE001 - Lambda's runtime reports every exception to the caller
            traceback.print_exc()
            answer = {"error": {"errorType": type(err).__name__, "errorMessage": str(err)}}
        answers.write(json.dumps(answer, default=str) + "\n")
        answers.flush()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
