"""Starts Hugging Face's toolkit as the stock image does; run by the Python of that image's packages.

Arguments: `serve`, as SageMaker starts every container; a writable path for the server's configuration.

Source: huggingface/build_artifacts/inference/mms-entrypoint.py of aws/deep-learning-containers, the image's ENTRYPOINT.
This process is made what process 1 of a container is: orphans become its children, and other processes are hidden.
"""

from __future__ import annotations

import ctypes
import subprocess
import sys

import psutil
from sagemaker_huggingface_inference_toolkit import mms_model_server, serving
from sagemaker_inference import model_server

PR_SET_CHILD_SUBREAPER = 36  # linux/prctl.h


def main() -> None:
    if ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl")
    psutil.process_iter = lambda *_: iter(psutil.Process().children(recursive=True))
    # /etc/sagemaker-mms.properties in the image.
    model_server.MMS_CONFIG_FILE = mms_model_server.MMS_CONFIG_FILE = sys.argv[2]
    serving.main()
    subprocess.call(["tail", "-f", "/dev/null"])  # "prevent docker exit", says the entry point


if __name__ == "__main__":
    main()
