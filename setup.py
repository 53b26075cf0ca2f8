"""Makes the gRPC stubs where the package is built; everything else about it is in pyproject.toml.

`pip install .` puts them into the wheel. `pip install --editable .` writes them beside the .proto, where git is told
to leave them alone, and so does `python setup.py build_stubs`, after a change of the .proto.
"""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from setuptools import Command, setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).parent
PROTOS = "container/protos"


def make_stubs(folder: Path) -> None:
    """Compile every .proto into messages, their types and the service, at the same place under that folder."""
    from grpc_tools import protoc

    protos = [str(path) for path in sorted((ROOT / PROTOS).glob("*.proto"))]
    outputs = [f"--{kind}_out={folder}" for kind in ("python", "pyi", "grpc_python")]
    folder.mkdir(parents=True, exist_ok=True)
    if protoc.main(["protoc", f"--proto_path={ROOT}", *outputs, *protos]) != 0:
        raise RuntimeError(f"{', '.join(protos)}: protoc refused them; what it printed says why")


class BuildWithStubs(build_py):
    """Python files, and stubs beside them."""

    def run(self) -> None:
        super().run()
        make_stubs(ROOT if self.editable_mode else Path(self.build_lib))


class BuildStubs(Command):
    """The stubs alone, in the source tree."""

    user_options: ClassVar[list[tuple[str, str, str]]] = []

    def initialize_options(self) -> None: ...

    def finalize_options(self) -> None: ...

    def run(self) -> None:
        make_stubs(ROOT)


if __name__ == "__main__":
    setup(cmdclass={"build_py": BuildWithStubs, "build_stubs": BuildStubs})
