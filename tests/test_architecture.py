"""The layout of the code, held by tests.

Imports point down the layers and form no circle, one module has each dangerous call, and a class name occurs once.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PRODUCT = ("inference", "container", "deploy", "lambdas")
CODE = (*PRODUCT, "training", "bench")
GENERATED = ("_pb2.py", "_pb2_grpc.py")
CLOUD = ("deploy", "lambdas", "infra")
# Packed into the model archive by `deploy`; it runs beside the engines.
PACKED = "deploy/artifact/"
# Each Lambda function is deployed alone and has settings of its own.
MAY_REPEAT = {"Settings"}

# From the bottom up. A file belongs to the longest prefix; those of one layer do not import one another.
INFERENCE_LAYERS = (
    (
        "inference/dimensions",
        "inference/errors",
        "inference/atomic_write",
        "inference/locked_folders",
        "inference/malloc_trim",
        "inference/matrix_product",
        "inference/memory_usage",
    ),
    (
        "inference/models",
        "inference/media_types",
        "inference/stage_timer",
        "inference/tracing",
        "inference/error_responses",
        "inference/multi_model_server",
    ),
    ("inference/backends", "inference/media", "inference/audio", "inference/run_ahead"),
    ("inference/weights",),
    ("inference/faces", "inference/settings"),
    ("inference/rendering",),
    ("inference/lip_reading", "inference/lip_sync", "inference/avatar", "inference/speaker", "inference/visemes"),
    ("inference/requests", "inference/conversion"),
    ("inference/engines",),
    ("inference/handler",),
)
CONTAINER_LAYERS = (
    (
        "container/logs",
        "container/http",
        "container/visuals",
        "container/protos",
        "container/rejections",
        "container/extra_requirements",
    ),
    ("container/speech",),
    ("container/worker", "container/live"),
    ("container/jobs",),
    ("container/live/legacy", "container/sagemaker_stream"),
    ("container/client", "container/stream", "container/rpc", "container/openapi"),
    ("container/app", "container/speech_recording"),
    ("container/server", "container/voice_agents"),
    ("deploy",),  # imports neither container nor inference
    ("container/commands",),
    ("container/cli",),
)
LAYERS = {prefix: i for i, layer in enumerate((*INFERENCE_LAYERS, *CONTAINER_LAYERS)) for prefix in layer}
PACKAGE_FILES = {"inference/__init__.py", "container/__init__.py"}


def sources(*folders: str) -> list[Path]:
    found = (path for folder in folders for path in sorted((ROOT / folder).rglob("*.py")))
    return [path for path in found if not path.name.endswith(GENERATED)]


def relative(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def nodes_of(path: Path) -> Iterator[ast.AST]:
    return ast.walk(ast.parse(path.read_text()))


def imported_modules(path: Path) -> Iterator[str]:
    """Yield what a file imports, anywhere in it: also in functions and for type checkers."""
    for node in nodes_of(path):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            # `from package import name` takes a module, or what a module defines.
            names = [f"{node.module}.{alias.name}" for alias in node.names]
            yield from (name if file_of(name) else node.module for name in names)


def file_of(module: str) -> Path | None:
    base = ROOT.joinpath(*module.split("."))
    return next((path for path in (base.with_suffix(".py"), base / "__init__.py") if path.is_file()), None)


def imported_files(path: Path) -> set[str]:
    files = (file_of(module) for module in imported_modules(path) if module.split(".")[0] in CODE)
    return {relative(file) for file in files if file and not file.name.endswith(GENERATED)} - {relative(path)}


def layer_of(file: str) -> tuple[str, int]:
    """Return the package or module of LAYERS that a file belongs to, and its layer."""
    parts = file.removesuffix(".py").removesuffix("/__init__").split("/")
    for n in range(len(parts), 0, -1):
        if (prefix := "/".join(parts[:n])) in LAYERS:
            return prefix, LAYERS[prefix]
    raise AssertionError(f"{file}: in no layer; add it to LAYERS")


@pytest.mark.parametrize("path", sources("inference", "container"), ids=relative)
def test_imports_point_down(path: Path):
    if relative(path) in PACKAGE_FILES:
        assert not imported_files(path)
        return
    package, layer = layer_of(relative(path))
    for other in imported_files(path) - PACKAGE_FILES:
        target, target_layer = layer_of(other)
        assert target == package or target_layer < layer, f"{package} imports {other}, which is not below it"


def test_no_files_import_one_another_in_a_circle():
    # A package's __init__.py hands on names of its modules, which import one another directly.
    graph = {relative(path): imported_files(path) for path in sources(*CODE) if path.name != "__init__.py"}
    try:
        TopologicalSorter({path: found & graph.keys() for path, found in graph.items()}).prepare()
    except CycleError as err:
        pytest.fail(f"files that import one another: {' -> '.join(err.args[1])}")


def test_a_class_name_occurs_once():
    places = defaultdict(list)
    for path in sources(*PRODUCT):
        for node in nodes_of(path):
            if isinstance(node, ast.ClassDef) and node.name not in MAY_REPEAT:
                places[node.name].append(relative(path))
    assert {name: found for name, found in places.items() if len(found) > 1} == {}


STANDARD_OF_MODELS = ("collections", "functools", "math", "typing")


def test_models_import_torch_alone():
    for path in sources("inference/models"):
        for module in imported_modules(path):
            is_ours = module.startswith(("inference.models", "inference.dimensions")) or module == "inference.errors"
            assert is_ours or module.split(".")[0] in {"torch", "__future__", *STANDARD_OF_MODELS}


def test_the_cloud_side_imports_no_engine():
    for path in sources(*CLOUD):
        if relative(path).startswith(PACKED):
            continue
        for module in imported_modules(path):
            assert not module.startswith("deploy.artifact"), f"{path} imports {module}"
            assert module.split(".")[0] not in {"inference", "torch"}, f"{path} imports {module}"


def test_inference_imports_nothing_above_it():
    for path in sources("inference"):
        tops = {module.split(".")[0] for module in imported_modules(path)}
        assert not tops & {"container", "training", "bench", *CLOUD}, path


def attributes_of(path: Path) -> set[str]:
    return {ast.unparse(node) for node in nodes_of(path) if isinstance(node, ast.Attribute)}


OPENS_MEDIA = {"av.open", "cv2.VideoCapture", "cv2.imread", "cv2.imdecode", "cv2.imreadmulti"}


def names_from(path: Path, module: str) -> set[str]:
    """Return what a file takes out of a module by `from module import name`."""
    found = (node for node in nodes_of(path) if isinstance(node, ast.ImportFrom) and node.module == module)
    return {alias.name for node in found for alias in node.names}


def test_one_module_opens_media():
    package = ROOT / "inference" / "media"
    opener, writer = package / "open.py", package / "encode.py"
    for path in sources("inference", "container"):
        opened = OPENS_MEDIA & attributes_of(path)
        if path == writer:  # what we write ourselves is not untrusted
            assert opened == {"av.open"}
            assert set(modes_of_open(path)) == {"w"}, f"{path} opens media to read"
            continue
        assert path == opener or not opened, f"{path} opens media by {opened}"
        assert not {f"cv2.{name}" for name in names_from(path, "cv2")} & OPENS_MEDIA, path
        assert not names_from(path, "av"), f"{path}: import av whole, so that this test sees what is opened"
        if package not in path.parents:
            assert "av" not in {module.split(".")[0] for module in imported_modules(path)}, f"{path} imports av"
    assert "av.open" in attributes_of(opener)


def modes_of_open(path: Path) -> Iterator[object]:
    for node in nodes_of(path):
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "av.open":
            mode = node.args[1] if len(node.args) > 1 else None
            yield mode.value if isinstance(mode, ast.Constant) else None


def test_only_settings_reads_the_environment():
    for path in sources("inference", "container"):
        assert relative(path) == "inference/settings.py" or not reads_environment(path), f"{path} reads the environment"


def reads_environment(path: Path) -> bool:
    """Return whether a file uses os.environ for more than to set variables, which libraries read when loaded."""
    found = [node for node in nodes_of(path) if isinstance(node, ast.Attribute | ast.Subscript)]
    names = [ast.unparse(node) for node in found if isinstance(node, ast.Attribute)]
    return names.count("os.environ") + names.count("os.getenv") > sum(map(sets_variables, found))


def sets_variables(node: ast.AST) -> bool:
    if isinstance(node, ast.Subscript):
        return isinstance(node.ctx, ast.Store) and ast.unparse(node.value) == "os.environ"
    return isinstance(node, ast.Attribute) and ast.unparse(node) == "os.environ.update"


def test_setting_a_variable_is_not_reading(tmp_path: Path):
    path = tmp_path / "file.py"
    path.write_text("import os\nos.environ['A'] = '1'\nos.environ.update({})\n")
    assert not reads_environment(path)
    for read in ("os.environ['A']", "os.environ.get('A')", "dict(os.environ)", "os.getenv('A')"):
        path.write_text(f"import os\nos.environ['A'] = '1'\nx = {read}\n")
        assert reads_environment(path)


def test_tensors_are_loaded_as_data_only():
    for path in sources("inference", "container", "training", "bench"):
        for node in nodes_of(path):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "torch.load":
                given = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
                assert given.get("weights_only") == "True", f"{path}:{node.lineno}"


def test_openvino_is_imported_without_its_telemetry():
    for path in sources("inference", "container", "training", "bench"):
        tree = ast.parse(path.read_text())
        for block in ast.walk(tree):
            if isinstance(block, ast.If) and ast.unparse(block.test) == "TYPE_CHECKING":
                block.body = [ast.Pass()]
        found = {name for node in ast.walk(tree) for name in packages_of(node)}
        assert relative(path) == "inference/backends/telemetry.py" or "openvino" not in found, path


def packages_of(node: ast.AST) -> Iterator[str]:
    """Yield the packages that an import statement imports."""
    if isinstance(node, ast.Import):
        yield from (alias.name.split(".")[0] for alias in node.names)
    elif isinstance(node, ast.ImportFrom) and node.module:
        yield node.module.split(".")[0]


def test_importing_the_command_line_loads_no_heavy_library():
    check = "import sys, container.cli; print([m for m in ('torch', 'openvino', 'av', 'cv2') if m in sys.modules])"
    run = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, cwd=ROOT, check=True)
    assert run.stdout.strip() == "[]"
