"""Generates the gRPC stubs when the package is built; all other settings are in pyproject.toml.

`pip install .` puts the stubs into the wheel. `pip install --editable .` writes them beside the .proto files, where git
ignores them. After changing a .proto file, run `python setup.py build_stubs` to write them again.
"""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from setuptools import Command, setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).parent
PROTOS = "container/protos"


def make_stubs(folder: Path) -> None:
    """Compile every .proto file into messages, type stubs and services, at the same relative path under the folder."""
    from grpc_tools import protoc

    protos = [str(path) for path in sorted((ROOT / PROTOS).glob("*.proto"))]
    outputs = [f"--{kind}_out={folder}" for kind in ("python", "pyi", "grpc_python")]
    folder.mkdir(parents=True, exist_ok=True)
    if protoc.main(["protoc", f"--proto_path={ROOT}", *outputs, *protos]) != 0:
        raise RuntimeError(f"{', '.join(protos)}: protoc failed; see its output")


class BuildWithStubs(build_py):
    """Builds the Python files, with the gRPC stubs beside them."""

    def run(self) -> None:
        super().run()
        make_stubs(ROOT if self.editable_mode else Path(self.build_lib))


class BuildStubs(Command):
    """Writes only the gRPC stubs, into the source tree."""

    user_options: ClassVar[list[tuple[str, str, str]]] = []

    def initialize_options(self) -> None: ...

    def finalize_options(self) -> None: ...

    def run(self) -> None:
        make_stubs(ROOT)


if __name__ == "__main__":
    setup(cmdclass={"build_py": BuildWithStubs, "build_stubs": BuildStubs})
