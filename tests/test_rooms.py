"""The plan of the house, held by a test: who may import whom, and who may touch the outside."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FLOORS = {
    "models": 0,
    "backends": 1,
    "media": 2,
    "audio": 2,
    "weights": 3,
    "faces": 4,
    "conversion": 5,
    "rendering": 5,
    "speaker": 6,
    "lip_reading": 6,
    "lip_sync": 6,
    "avatar": 6,
}
EDGES = ("container", "training", "bench")
CLOUD = ("lambdas", "deploy", "infra")
# Travels in the model archive, beside the engines: it is packed by `deploy`, and runs where they run.
PACKED = ROOT / "deploy" / "artifact"
# Modules at the top of `inference` that every room may import, and that import no room.
BELOW_ROOMS = {"errors", "atomic_write", "malloc_trim"}
# Values and contracts at the top of `inference`: settings are for pipelines and above only.
ABOVE_PIPELINES = {"settings": 6, "stages": 6, "footprint": 6, "handler": 7, "requests": 7, "engines": 8}


def sources(*folders: str) -> list[Path]:
    return [path for folder in folders for path in sorted((ROOT / folder).rglob("*.py"))]


def imports_of(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module


def room_of(module: str) -> str:
    parts = module.split(".")
    return parts[1] if parts[0] == "inference" and len(parts) > 1 else ""


@pytest.mark.parametrize("path", sources("inference"), ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_point_down(path: Path):
    room = room_of(".".join(path.relative_to(ROOT).with_suffix("").parts))
    floor = FLOORS.get(room)
    for module in imports_of(path):
        top, other = module.split(".")[0], room_of(module)
        assert top not in EDGES + CLOUD, f"{path} imports {module}"
        if floor is None or other in ("", room) or other in BELOW_ROOMS:
            continue
        above = FLOORS.get(other, ABOVE_PIPELINES.get(other, -1))
        assert above <= floor, f"{room} imports {module}, which is above it"
        assert above < floor or other not in FLOORS, f"{room} imports {module}, which is beside it"


@pytest.mark.parametrize("name", sorted(BELOW_ROOMS))
def test_modules_below_the_rooms_import_none(name: str):
    for module in imports_of(ROOT / "inference" / f"{name}.py"):
        assert module.split(".")[0] != "inference", f"{name} imports {module}"


def test_models_import_torch_alone():
    for path in sources("inference/models"):
        for module in imports_of(path):
            is_ours = module.startswith("inference.models") or module == "inference.errors"
            assert is_ours or module.split(".")[0] in {"torch", "__future__", "collections", "typing", "math"}


def test_the_cloud_side_knows_no_engine():
    for path in sources(*CLOUD):
        if PACKED in path.parents:
            continue
        for module in imports_of(path):
            assert not module.startswith("deploy.artifact"), f"{path} imports {module}"
            assert module.split(".")[0] not in {"inference", "torch"}, f"{path} imports {module}"


def calls_in(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Attribute):
            yield ast.unparse(node)


OPENS_MEDIA = {"av.open", "cv2.VideoCapture", "cv2.imread", "cv2.imdecode", "cv2.imreadmulti"}


def names_from(path: Path, module: str) -> set[str]:
    """What a file takes out of a module by `from module import name`."""
    found = (n for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, ast.ImportFrom) and n.module == module)
    return {alias.name for node in found for alias in node.names}


def test_there_is_one_door_for_media():
    room = ROOT / "inference" / "media"
    door, out = room / "open.py", room / "encode.py"
    for path in sources("inference", "container"):
        opened = OPENS_MEDIA & set(calls_in(path))
        if path == out:  # what we write ourselves is not untrusted
            assert opened == {"av.open"}
            assert set(modes_of_open(path)) == {"w"}, f"{path} opens media to read"
            continue
        assert path == door or not opened, f"{path} opens media by {opened}"
        assert not {f"cv2.{name}" for name in names_from(path, "cv2")} & OPENS_MEDIA, path
        assert not names_from(path, "av"), f"{path}: import av whole, so that this test sees what is opened"
        if room not in path.parents:
            assert "av" not in {module.split(".")[0] for module in imports_of(path)}, f"{path} imports the decoder"
    assert "av.open" in set(calls_in(door))


def modes_of_open(path: Path) -> Iterator[object]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "av.open":
            mode = node.args[1] if len(node.args) > 1 else None
            yield mode.value if isinstance(mode, ast.Constant) else None


def test_settings_alone_reads_the_environment():
    reader = ROOT / "inference" / "settings.py"
    for path in sources("inference", "container"):
        read = {"os.environ", "os.getenv"} & set(calls_in(path))
        assert path == reader or not read, f"{path} reads {read}"


def test_tensors_are_loaded_as_data_only():
    for path in sources("inference", "container", "training", "bench"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "torch.load":
                given = {k.arg: ast.unparse(k.value) for k in node.keywords}
                assert given.get("weights_only") == "True", f"{path}:{node.lineno}"


def test_openvino_is_imported_without_its_telemetry():
    reader = ROOT / "inference" / "backends" / "telemetry.py"
    for path in sources("inference", "container", "training", "bench"):
        tree = ast.parse(path.read_text())
        for block in ast.walk(tree):
            if isinstance(block, ast.If) and ast.unparse(block.test) == "TYPE_CHECKING":
                block.body = [ast.Pass()]
        found = {name for node in ast.walk(tree) for name in names_of(node)}
        assert path == reader or "openvino" not in found, f"{path} imports OpenVINO"


def names_of(node: ast.AST) -> Iterator[str]:
    """Yield the packages that an import statement imports."""
    if isinstance(node, ast.Import):
        yield from (alias.name.split(".")[0] for alias in node.names)
    elif isinstance(node, ast.ImportFrom) and node.module:
        yield node.module.split(".")[0]


def test_importing_the_terminal_loads_no_heavy_library():
    check = "import sys, container.cli; print([m for m in ('torch', 'openvino', 'av', 'cv2') if m in sys.modules])"
    run = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, cwd=ROOT, check=True)
    assert run.stdout.strip() == "[]"
