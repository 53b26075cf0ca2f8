"""Requests beside those of the main thread."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import ParamSpec, TypeVar

Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")


def run_in_background(
    function: Callable[Parameters, Result], *arguments: Parameters.args, **options: Parameters.kwargs
) -> Future[Result]:
    """Call a function in a thread of its own, which does not keep the process from ending if the user interrupts it.

    An executor waits for its threads, each for as long as a request may take.
    """
    future: Future[Result] = Future()

    def run() -> None:
        try:
            future.set_result(function(*arguments, **options))
        except BaseException as err:  # noqa: BLE001 - raised again by the one that takes the result
            future.set_exception(err)

    threading.Thread(target=run, daemon=True).start()
    return future
