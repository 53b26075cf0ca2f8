"""--dry-run over the combinations of flags: AWS's own description of each call accepts what is printed.

Every two values of two flags occur together in some run (pairwise), with flags that exclude one another left out.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

import botocore.session
import pytest
from botocore.model import OperationModel
from botocore.validate import ParamValidator

from deploy.endpoint import main
from deploy.package import BUNDLED_WEIGHTS

ROLE = ["--role-arn", "arn:aws:iam::123456789012:role/service-role/SageMaker"]
IMAGE = "123456789012.dkr.ecr.us-east-1.amazonaws.com/viseme:1.0-cu130"
FILE = str(BUNDLED_WEIGHTS[0])
TOPIC = "arn:aws:sns:us-east-1:123456789012:topic"
# The values of each flag, the first one being the default; a value is a list of arguments.
FLAGS: dict[str, list[list[str]]] = {
    "action": [[], ["--update"], ["--delete"]],
    "mode": [[], ["--mode", "async"], ["--mode", "serverless"]],
    "place": [[], ["--in-place"]],
    "image": [[], ["--image-uri", IMAGE]],
    "data": [[], ["--model-data", "s3://models/model.tar.gz"]],
    "weights": [[], ["--weights", "hub"], ["--weights", "hf://SilentSpeak/LipCoordNet"], ["--weights", FILE]],
    "checkpoint": [[], ["--checkpoint", "s3://models/wav2lip.pth", "--checkpoint", "starter"]],
    "landmarks": [[], ["--landmarks", "dlib"]],
    "instance": [[], ["--instance-type", "ml.c7i.xlarge"], ["--instance-type", "ml.g6.2xlarge,ml.g5.xlarge"]],
    "ami": [[], ["--inference-ami-version", "al2-ami-sagemaker-inference-gpu-3-1"]],
    "region": [[], ["--region", "eu-west-1"]],
    "bucket": [[], ["--bucket", "my-models"]],
    "environment": [[], ["--env", "VISEME_PRECISION=f16", "--env", "SAGEMAKER_MODEL_SERVER_WORKERS=3"]],
    "least": [[], ["--min-capacity", "0"], ["--min-capacity", "2"]],
    "most": [[], ["--max-capacity", "1"], ["--max-capacity", "4"]],
    "output": [[], ["--async-output", "s3://videos/results"], ["--async-output", "s3://videos"]],
    "failure": [[], ["--async-failure", "s3://videos/failures/"]],
    "topics": [[], ["--success-topic", f"{TOPIC}-ok", "--error-topic", f"{TOPIC}-bad"]],
    "logs": [[], ["--log-days", "90"]],
    "smoke": [[], ["--no-smoke-test"]],
    "memory": [[], ["--memory-mb", "3072", "--max-concurrency", "7"]],
    "tags": [[], ["--tag", "team=speech", "--tag", "cost centre=4:2"]],
    "vpc": [[], ["--subnet", "subnet-0a", "--subnet", "subnet-0b", "--security-group", "sg-0c"]],
    "key": [[], ["--kms-key", "alias/viseme"]],
    "isolated": [[], ["--network-isolation"]],
    "patch": [[], ["--endpoint-config-json", "PATCH"]],
}
NOT_SERVERLESS = ("instance", "ami", "least", "most", "vpc", "isolated", "place")
PATCH = {"MetricsConfig": {"EnableEnhancedMetrics": True}, "ProductionVariants": [{"InitialVariantWeight": 1.0}]}
Combination = tuple[int, ...]
NAMES = list(FLAGS)


def is_possible(chosen: dict[str, list[str]]) -> bool:
    """Return whether the flags do not exclude one another; flags that are not chosen yet exclude nothing."""
    mode = (chosen["mode"] or ["--mode", "realtime"])[1] if "mode" in chosen else None
    least, most = chosen.get("least", [])[1:], chosen.get("most", [])[1:]
    weights = chosen.get("weights", [])[1:]
    is_async = mode == "async" or any(chosen.get(name) for name in ("output", "failure", "topics")) or least == ["0"]
    is_serverless = mode == "serverless" or bool(chosen.get("memory"))
    is_fetched = chosen.get("checkpoint") or chosen.get("landmarks") or weights not in ([], [FILE])
    excluded = (
        is_async and (mode not in (None, "async") or is_serverless),
        is_serverless and (mode not in (None, "serverless") or any(chosen.get(name) for name in NOT_SERVERLESS)),
        is_serverless and chosen.get("image") == [],
        chosen.get("place") and chosen.get("action", ["--update"]) != ["--update"],
        chosen.get("isolated") and is_fetched,
        chosen.get("data") and weights == [FILE],
        least == ["2"] and most == ["1"],
    )
    return not any(excluded)


def combinations() -> list[Combination]:
    """Return runs in which every possible pair of values occurs. Greedy: each adds as many new ones as it can."""
    missing = {
        ((a, i), (b, j))
        for a, b in itertools.combinations(NAMES, 2)
        for i, j in itertools.product(range(len(FLAGS[a])), range(len(FLAGS[b])))
        if is_possible({a: FLAGS[a][i], b: FLAGS[b][j]})
    }
    runs = []
    while missing:
        chosen = dict(min(missing))
        for name in NAMES:
            if name not in chosen:
                chosen[name] = max(range(len(FLAGS[name])), key=lambda i, name=name: gain(chosen, name, i, missing))
        covered = set(itertools.combinations([(name, chosen[name]) for name in NAMES], 2))
        assert missing & covered
        missing -= covered
        runs.append(tuple(chosen[name] for name in NAMES))
    return runs


def gain(chosen: dict[str, int], name: str, value: int, missing: set) -> int:
    """Return how many missing pairs a value adds; -1 if it is impossible beside those chosen."""
    if not is_possible({one: FLAGS[one][i] for one, i in (chosen | {name: value}).items()}):
        return -1
    pairs = [tuple(sorted([(one, i), (name, value)], key=lambda p: NAMES.index(p[0]))) for one, i in chosen.items()]
    return sum(pair in missing for pair in pairs)


RUNS = combinations()


def arguments_of(run: Combination, patch: Path) -> list[str]:
    flags = [FLAGS[name][i] for name, i in zip(NAMES, run, strict=True)]
    words = [str(patch) if word == "PATCH" else word for word in itertools.chain(*flags)]
    return ["--endpoint-name", "viseme", *ROLE, *words, "--dry-run"]


@lru_cache
def operation(service: str, name: str) -> OperationModel:
    return botocore.session.get_session().get_service_model(service).operation_model(name)


def faults_of(lines: list[dict]) -> Iterator[str]:
    """Yield what botocore's validator finds in the printed calls. A placeholder for bytes is text, which is allowed."""
    for line in lines:
        shape = operation(line["service"], line["operation"]).input_shape
        report = ParamValidator().validate(line["parameters"], shape)
        if report.has_errors():
            yield f"{line['operation']}: {report.generate_report()}"


@pytest.mark.parametrize("run", RUNS, ids=lambda run: "-".join(map(str, run)))
def test_aws_accepts_the_calls_of_every_combination(
    run: Combination, capsys: pytest.CaptureFixture[str], tmp_path: Path
):
    patch = tmp_path / "patch.json"
    patch.write_text(json.dumps(PATCH))
    assert main(arguments_of(run, patch)) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert lines
    assert list(faults_of(lines)) == []
    made = {line["operation"] for line in lines}
    chosen = {name: FLAGS[name][i] for name, i in zip(NAMES, run, strict=True)}
    asked = {"InvokeEndpoint", "InvokeEndpointAsync"} & made
    if chosen["action"] == ["--delete"]:
        assert "DeleteEndpoint" in made
        assert not asked
        return
    assert ("UpdateEndpoint" if chosen["action"] and not chosen["place"] else "CreateEndpoint") in made
    expected = {"InvokeEndpointAsync" if chosen["mode"] == ["--mode", "async"] else "InvokeEndpoint"}
    assert asked == (set() if chosen["smoke"] else expected)


@pytest.mark.parametrize(
    ("a", "b"),
    [
        (FLAGS["least"][2], FLAGS["most"][1]),
        (FLAGS["data"][1], FLAGS["weights"][3]),
        *((FLAGS[name][1], []) for name in ("output", "failure", "topics", "least")),
    ],
)
def test_what_excludes_one_another_is_refused(a: list[str], b: list[str], capsys: pytest.CaptureFixture[str]):
    assert main(["--endpoint-name", "viseme", *ROLE, *a, *b, "--dry-run"]) == 2
    assert capsys.readouterr().out == ""


def test_secrets_are_not_printed(capsys: pytest.CaptureFixture[str]):
    secrets = ["--env", "HF_TOKEN=hf_xyzzy", "--env", "AWS_SECRET_ACCESS_KEY=xyzzy"]
    assert main(["--endpoint-name", "viseme", *ROLE, *secrets, "--env", "VISEME_PRECISION=f16", "--dry-run"]) == 0
    printed = capsys.readouterr()
    assert "xyzzy" not in printed.out + printed.err
    [model] = [one for one in map(json.loads, printed.out.splitlines()) if one["operation"] == "CreateModel"]
    shown = model["parameters"]["PrimaryContainer"]["Environment"]
    assert (shown["HF_TOKEN"], shown["AWS_SECRET_ACCESS_KEY"], shown["VISEME_PRECISION"]) == (
        "<secret>",
        "<secret>",
        "f16",
    )


def test_the_validator_finds_a_wrong_call():
    wrong = {"service": "sagemaker", "operation": "CreateModel", "parameters": {"ModelNmae": "x"}}
    assert len(list(faults_of([wrong]))) == 1
