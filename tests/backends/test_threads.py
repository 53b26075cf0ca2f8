import os
import sys

import cv2
import pytest
import torch

from inference.backends.device import count_threads
from inference.backends.threads import limit_threads
from inference.settings import wanted_threads


@pytest.fixture(autouse=True)
def same_threads_afterwards(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    before = torch.get_num_threads(), cv2.getNumThreads()
    yield
    torch.set_num_threads(before[0])
    cv2.setNumThreads(before[1])


def test_a_limit_holds_for_all_libraries_and_for_later_processes(monkeypatch: pytest.MonkeyPatch):
    limit_threads(3)
    assert (torch.get_num_threads(), cv2.getNumThreads(), os.environ["OMP_NUM_THREADS"]) == (3, 3, "3")
    assert count_threads(wanted_threads()) == 3
    monkeypatch.delitem(sys.modules, "torch")
    assert count_threads(wanted_threads()) == 3


def test_no_limit_leaves_everything_as_it_is():
    before = torch.get_num_threads(), cv2.getNumThreads()
    limit_threads(None)
    assert (torch.get_num_threads(), cv2.getNumThreads(), os.environ["OMP_NUM_THREADS"]) == (*before, "7")
