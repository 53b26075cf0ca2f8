"""Packages inside the archive: a container that may make no call over the network starts with them."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest
from support.stock_layer import Layer
from support.stock_server import stock_server

from deploy.errors import DeployError
from deploy.package import build_archive, make_requirements
from deploy.smoke_test import CLIP, CLIP_WORDS
from deploy.wheels import STOCK_INTERPRETER, Interpreter, list_packages, list_wheel

# A client that runs inside the namespace: no other process reaches its ports.
REQUEST = """
import sys, urllib.request
body = open(sys.argv[2], "rb").read()
headers = {"Content-Type": "video/mp4", "Accept": "text/plain"}
print(urllib.request.urlopen(urllib.request.Request(sys.argv[1], body, headers), timeout=120).read().decode())
"""
ISOLATED = ["unshare", "--net", "--map-root-user", "sh", "-c", 'ip link set lo up && exec "$@"', "sh"]


def test_a_wheel_is_placed_as_an_installer_does(tmp_path: Path):
    """By the specification of wheels: purelib and platlib are site-packages, scripts and headers are elsewhere."""
    wheel = tmp_path / "one-1.0-py3-none-any.whl"
    names = ["one/__init__.py", "one-1.0.dist-info/METADATA", "one-1.0.data/platlib/one/x.so"]
    names += ["one-1.0.data/purelib/two.py", "one-1.0.data/scripts/one", "one-1.0.data/data/share/x"]
    with zipfile.ZipFile(wheel, "w") as packed:
        packed.mkdir("one")
        for name in names:
            packed.writestr(name, name)
    assert {str(path): contents.decode() for path, contents in list_wheel(wheel)} == {
        "one/__init__.py": names[0],
        "one-1.0.dist-info/METADATA": names[1],
        "one/x.so": names[2],
        "two.py": names[3],
    }


def test_a_package_that_does_not_exist():
    with pytest.raises(DeployError, match="the packages for --network-isolation cannot be fetched"):
        list(list_packages("viseme-has-no-such-package==1.0\n", STOCK_INTERPRETER))


def test_the_packages_for_the_stock_images_python():
    """Compiled for Python 3.12, whatever runs here; numpy and torch are the image's own."""
    try:
        found = {str(path) for path, _ in list_packages(make_requirements(), STOCK_INTERPRETER)}
    except DeployError as err:
        pytest.skip(f"no package index can be reached: {err}")
    versions = {match[1] for path in found if (match := re.search(r"\.cpython-(\d+)-x86_64-linux-gnu\.so$", path))}
    assert versions == {"312"}
    top = {path.partition("/")[0] for path in found}
    assert {"av", "openvino", "pydantic", "tenacity", "pysubs2", "typing_extensions.py"} <= top
    assert any(name.startswith("_dlib_pybind11.cpython-312") for name in top)
    assert not {"numpy", "torch"} & top


@pytest.fixture(scope="module")
def isolated(weights_cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return an unpacked archive with the packages for the Python that runs here."""
    folder = tmp_path_factory.mktemp("isolated")
    here = Interpreter(f"{sys.version_info.major}.{sys.version_info.minor}", STOCK_INTERPRETER.platforms)
    try:
        build_archive(folder / "model.tar.gz", with_packages=True, interpreter=here)
    except DeployError as err:
        pytest.skip(f"no package index can be reached: {err}")
    with tarfile.open(folder / "model.tar.gz") as packed:
        packed.extractall(folder / "model", filter="data")
    (folder / "model.tar.gz").unlink()
    return folder / "model"


@pytest.fixture
def layer(stock_python: Path, tmp_path: Path) -> Layer:
    """Return a layer of its own: other tests install the requirements on theirs."""
    if shutil.which("java") is None:
        pytest.skip("Multi Model Server needs Java: apt-get install default-jre-headless")
    if subprocess.run([*ISOLATED, "true"], capture_output=True, check=False).returncode != 0:
        pytest.skip("no network namespace can be made here")
    return Layer.on_top_of(stock_python, tmp_path / "layer")


def test_without_a_network_the_stock_image_reads_a_clip(isolated: Path, layer: Layer):
    """Under the image's own server, with its packages only, in a network namespace that has nothing but loopback."""
    assert not (isolated / "code" / "requirements.txt").exists()  # the image would install them, and end
    assert "openvino" not in layer.installed()
    with stock_server(layer, isolated, ISOLATED, PYTHONPATH=str(isolated / "code" / "lib")) as server:
        server.wait_until_loaded()
        inside = ["nsenter", f"--target={server.process.pid}", "--user", "--preserve-credentials", "--net"]
        url = f"http://127.0.0.1:{server.port}/invocations"
        command = [*inside, sys.executable, "-c", REQUEST, url, str(CLIP)]
        run = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
        assert run.returncode == 0, run.stderr + server.log()[-3000:]
        assert run.stdout.strip().upper() == CLIP_WORDS
        outside = [*inside, sys.executable, "-c", REQUEST, "http://192.0.2.1/", str(CLIP)]
        refused = subprocess.run(outside, capture_output=True, text=True, check=False, timeout=60)
        assert "Network is unreachable" in refused.stderr
