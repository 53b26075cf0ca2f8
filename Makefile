# Each target sets up what it needs in .venv.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
# Reference clips, where they lie beside the checkout.
CLIPS ?= $(wildcard ../shared/grid/eval.csv)
VIDEO ?= $(firstword $(sort $(wildcard ../shared/grid/eval/*.mpg)))
TORCH := $(shell grep '^torch==' requirements.txt)

.PHONY: help setup demo test check check-stack bench serve clean

help:
	@echo "make demo   read a clip and show its words over time (VIDEO=path to choose one)"
	@echo "make test   run the tests"
	@echo "make check  ruff, mypy, cfn-lint, hadolint"
	@echo "make check-stack  sam validate and checkov of the AWS stack (they fetch some 600 MB first)"
	@echo "make bench  speed, memory, accuracy and robustness, side by side"
	@echo "make setup  only prepare .venv and the face models"
	@echo "make serve  the HTTP server on port 8080"

setup: $(READY)

# torch goes first: where a build of that version is at hand, nothing newer is fetched after it.
$(READY): pyproject.toml requirements.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Viseme needs Python 3.11 or newer")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check "$(TORCH)"
	$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[test,check]'
	$(BIN)/viseme weights fetch mediapipe
	@touch $@

demo: $(READY)
	$(BIN)/python -m container.demo $(if $(VIDEO),"$(VIDEO)")

test: $(READY)
	$(BIN)/python -m pytest

check: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/cfn-lint --include-checks I -- infra/template.yaml
	$(BIN)/hadolint container/Dockerfile

# Their pins clash with ours, so each lives in an environment of its own.
check-stack: build/sam/bin/sam build/checkov/bin/checkov
	SAM_CLI_TELEMETRY=0 build/sam/bin/sam validate --lint --region us-east-1 --template infra/template.yaml
	build/checkov/bin/checkov --file infra/template.yaml --framework cloudformation --compact --quiet --skip-download

build/sam/bin/sam:
	$(PYTHON) -m venv build/sam
	build/sam/bin/pip install --quiet --disable-pip-version-check aws-sam-cli==1.170.0

build/checkov/bin/checkov:
	$(PYTHON) -m venv build/checkov
	build/checkov/bin/pip install --quiet --disable-pip-version-check checkov==3.3.30

bench: $(READY)
	$(BIN)/python -m bench.speed "$(VIDEO)"
	$(BIN)/python -m bench.memory "$(VIDEO)"
	$(if $(CLIPS),$(BIN)/python -m bench.accuracy $(CLIPS))
	$(if $(CLIPS),$(BIN)/python -m bench.robustness $(CLIPS))

serve: $(READY)
	$(BIN)/viseme serve

clean:
	rm -rf $(VENV) build *.egg-info
