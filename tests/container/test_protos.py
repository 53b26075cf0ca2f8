"""The .proto file: its services, messages and field numbers are those of the older clients."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from support.grpc_stubs import NAMES, PROTOS, ROOT, make_if_missing, make_stubs

KINDS = descriptor_pb2.FieldDescriptorProto
CALLS = {
    "GenerateInference",
    "GenerateBatchInference",
    "GenerateBatchWithAudio",
    "StreamInference",
    "LoadPackage",
    "GetStats",
    "ListModels",
    "HealthCheck",
    "GetVideoFrame",
    "GetModelMetadata",
}
OUR_CALLS = {"StreamVisemes"}  # behind those of older clients
OUR_MESSAGES = {"VisemeAudio", "VisemeResponse", "VisemeFrame", "VisemeSegment"}


@pytest.fixture(scope="module")
def pb2() -> ModuleType:
    make_if_missing()
    from container.protos import optimized_lipsyncsrv_pb2

    return optimized_lipsyncsrv_pb2


@pytest.fixture(scope="module")
def golden(shared: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((shared / "golden" / "protocol.json").read_text())["proto"]
    return found


def test_the_stubs_match_the_proto(pb2: ModuleType, tmp_path: Path):
    make_stubs(tmp_path)
    for name in NAMES:
        assert (PROTOS / name).read_text() == (tmp_path / "container" / "protos" / name).read_text()


def test_an_invalid_proto_stops_the_build(tmp_path: Path):
    for name in ("setup.py", "container/protos/optimized_lipsyncsrv.proto"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text((ROOT / name).read_text().replace("int32 frame_id = 2;", "int32 frame_id = 1;"))
    run = subprocess.run(
        [sys.executable, "setup.py", "-q", "build_stubs"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert run.returncode == 1
    assert "protoc failed" in run.stderr
    assert not list(tmp_path.rglob("*_pb2.py"))


def test_the_calls_and_which_of_them_stream(pb2: ModuleType):
    service = pb2.DESCRIPTOR.services_by_name["OptimizedLipSyncService"]
    assert service.full_name == "optimized_lipsyncsrv.OptimizedLipSyncService"
    names = [call.name for call in service.methods]
    assert (set(names[:10]), set(names[10:])) == (CALLS, OUR_CALLS)
    streams = {call.name for call in service.methods if call.client_streaming or call.server_streaming}
    assert streams == {"StreamInference"} | OUR_CALLS


def test_bytes_worked_out_by_hand(pb2: ModuleType):
    request = pb2.OptimizedInferenceRequest(model_name="ab", frame_id=300)
    assert request.SerializeToString() == bytes([1 << 3 | 2, 2]) + b"ab" + bytes([2 << 3 | 0, 0xAC, 0x02])
    chunks = pb2.BatchInferenceWithAudioRequest(start_frame_id=1, frame_count=2, audio_chunks=[b"\1", b""])
    assert chunks.SerializeToString() == bytes([2 << 3, 1, 3 << 3, 2, 4 << 3 | 2, 1, 1, 4 << 3 | 2, 0])
    failed = pb2.OptimizedInferenceResponse(success=False, error="")
    assert failed.SerializeToString() == bytes([8 << 3 | 2, 0])  # `error` is present although empty; `success` is not


def test_every_field_matches_the_old_clients(pb2: ModuleType, golden: dict[str, Any]):
    ours = pb2.DESCRIPTOR.message_types_by_name
    assert set(ours) == set(golden["messages"]) | OUR_MESSAGES
    for name, fields in golden["messages"].items():
        found = {field.name: field for field in ours[name].fields}
        assert set(found) == {field["name"] for field in fields}
        for field in fields:
            one = found[field["name"]]
            assert one.number == field["number"]
            kind = one.message_type.name if one.message_type else KINDS.Type.Name(one.type)[5:].lower()
            assert kind == field["type"]
            assert one.is_repeated == field["repeated"]
            assert bool(one.containing_oneof) == field["optional"]
    calls = golden["services"]["OptimizedLipSyncService"]
    assert {call["rpc"] for call in calls} == CALLS
    for call in calls:
        one = pb2.DESCRIPTOR.services_by_name["OptimizedLipSyncService"].methods_by_name[call["rpc"]]
        assert (one.input_type.name, one.output_type.name) == (call["request"], call["response"])
        assert (one.client_streaming, one.server_streaming) == (call["client_streaming"], call["server_streaming"])


def as_values(fields: dict[str, Any]) -> dict[str, Any]:
    def of(value: Any) -> Any:
        if isinstance(value, list):
            return [of(one) for one in value]
        return bytes.fromhex(value[4:]) if isinstance(value, str) and value.startswith("hex:") else value

    return {name: of(value) for name, value in fields.items()}


def test_recorded_messages_round_trip_byte_for_byte(pb2: ModuleType, golden: dict[str, Any]):
    assert len(golden["wire_examples"]) == 8
    for example in golden["wire_examples"]:
        kind, recorded = getattr(pb2, example["message"]), bytes.fromhex(example["hex"])
        assert kind(**as_values(example["fields"])).SerializeToString() == recorded
        parsed = kind.FromString(recorded)
        assert parsed == kind(**as_values(example["fields"]))


def test_a_clients_own_proto_works_in_the_same_process(pb2: ModuleType):
    """An older client's stubs define the same names in another file; a separate pool avoids conflicts."""
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(pb2.DESCRIPTOR.serialized_pb)
    client_class = message_factory.GetMessageClass(
        pool.FindMessageTypeByName("optimized_lipsyncsrv.OptimizedInferenceRequest")
    )
    assert client_class(frame_id=3).SerializeToString() == pb2.OptimizedInferenceRequest(frame_id=3).SerializeToString()


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a copy of the sources of the package, without generated stubs."""
    folder = tmp_path_factory.mktemp("source")
    names = ["pyproject.toml", "setup.py", "requirements.txt", "README.md", "LICENSE", "NOTICE", "container"]
    for name in sorted(one for given in names for one in source_files(ROOT / given)):
        target = folder / name.relative_to(ROOT)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(name.read_bytes())
    return folder


def source_files(path: Path) -> Iterator[Path]:
    found = sorted(path.rglob("*")) if path.is_dir() else [path]
    yield from (one for one in found if one.is_file() and not re.search(r"_pb2|\.pyc$", one.name))


def pip(*arguments: str | Path) -> None:
    """Run pip without a network; the build requirements are those of this environment."""
    command = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", *map(str, arguments)]
    run = subprocess.run([*command, "--no-deps", "--no-build-isolation"], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr


def test_the_wheel_contains_the_stubs(source: Path, tmp_path: Path):
    pip("wheel", source, "--wheel-dir", tmp_path)
    [wheel] = tmp_path.glob("viseme-*.whl")
    inside = set(zipfile.ZipFile(wheel).namelist())
    assert {f"container/protos/{name}" for name in (*NAMES, "optimized_lipsyncsrv.proto")} <= inside


def test_an_editable_install_generates_the_stubs_beside_the_proto(source: Path, tmp_path: Path):
    pip("install", "--target", tmp_path, "--editable", source)
    assert {path.name for path in (source / "container" / "protos").glob("*_pb2*")} == set(NAMES)
