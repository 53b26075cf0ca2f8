"""deploy.lipcoordnet takes the five options of its users' own document."""

from __future__ import annotations

import json

import pytest
from support.endpoint_calls import FIVE

from deploy import endpoint, lipcoordnet


@pytest.mark.parametrize("more", [[], ["--update"], ["--update", "--tag", "team=speech", "--weights", "hub"]])
def test_it_makes_the_calls_of_deploy_endpoint(capsys: pytest.CaptureFixture[str], more: list[str]):
    printed = []
    for module in (lipcoordnet, endpoint):
        assert module.main([*FIVE, *more, "--dry-run"]) == 0
        printed.append(capsys.readouterr().out)
    assert printed[0] == printed[1]
    made = [json.loads(line)["operation"] for line in printed[0].splitlines()]
    assert ("UpdateEndpoint" if more else "CreateEndpoint") in made


def test_its_help_shows_the_five_options(capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit):
        lipcoordnet.main(["--help"])
    shown = capsys.readouterr().out
    for option in ("--endpoint-name", "--role-arn", "--instance-type", "--region", "--update"):
        assert option in shown
    assert "--weights" not in shown
