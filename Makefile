# Each target sets up what it needs in .venv.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
# Reference clips, where they lie beside the checkout.
CLIPS ?= $(wildcard ../shared/grid/eval.csv)
GRID ?= $(patsubst %/,%,$(dir $(wildcard ../shared/grid/mouths)))
CLIP := $(or $(VIDEO),$(firstword $(sort $(wildcard ../shared/grid/eval/*.mpg))),out/bench.mp4)
TORCH := $(shell grep '^torch==' requirements.txt)

# Tools and stand-ins whose pins clash with ours, each in an environment of its own.
CHECKOV := build/checkov-3.3.30
SAM := build/sam-1.170.0
SDK := $(shell sed -n 's/^sagemaker-sdk = \["\([^"]*\)"\].*/\1/p' pyproject.toml)

.PHONY: help setup demo test check check-stack environments bench gpu-check weights serve clean

help:
	@echo "make demo   have a sentence said and read it from the lips (TEXT='SET RED IN Q SIX SOON', SEED=5, or VIDEO=path)"
	@echo "make test   run the tests"
	@echo "make check  ruff, mypy, cfn-lint, checkov, hadolint"
	@echo "make check-stack  sam validate of the AWS stack (it fetches some 300 MB first)"
	@echo "make environments  those of their own that some tests need: SageMaker's SDK, its stock image"
	@echo "make bench  speed, memory, accuracy and robustness, side by side"
	@echo "make gpu-check  whether lip reading on this machine's GPU says what it says on the CPU"
	@echo "make weights    train the weights that ship, by their recipes (days on a CPU; TINY=1: minutes, to no use)"
	@echo "make setup  only prepare .venv and the face models"
	@echo "make serve  the HTTP server on port 8080"

setup: $(READY)

# torch goes first: where a build of that version is at hand, nothing newer is fetched after it.
$(READY): pyproject.toml requirements.txt setup.py $(wildcard container/protos/*.proto)
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Viseme needs Python 3.11 or newer")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check "$(TORCH)"
	$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[test,check]'
	$(BIN)/viseme weights fetch mediapipe
	@touch $@

demo: $(READY)
	$(BIN)/python -m container.demo $(if $(TEXT),--text "$(TEXT)") $(if $(SEED),--seed "$(SEED)") $(if $(VIDEO),--video "$(VIDEO)")

test: $(READY) environments
	$(BIN)/python -m pytest

environments: build/sagemaker-sdk/.ready build/stock-image/.ready

# The SDK alone: what deploy/ needs besides, boto3, it brings.
build/sagemaker-sdk/.ready: pyproject.toml
	$(PYTHON) -m venv --clear build/sagemaker-sdk
	build/sagemaker-sdk/bin/pip install --quiet --disable-pip-version-check --no-compile "$(SDK)"
	@touch $@

build/stock-image/.ready: tests/deploy/stock_image.txt
	$(PYTHON) -m venv --clear build/stock-image
	build/stock-image/bin/pip install --quiet --disable-pip-version-check --no-compile "$(TORCH)"
	build/stock-image/bin/pip install --quiet --disable-pip-version-check --no-compile -r tests/deploy/stock_image.txt
	@touch $@

check: $(READY) $(CHECKOV)/bin/checkov
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/cfn-lint --include-checks I -- infra/template.yaml
	$(CHECKOV)/bin/checkov --file infra/template.yaml --framework cloudformation --compact --quiet --skip-download
	$(BIN)/hadolint container/Dockerfile

$(CHECKOV)/bin/checkov:
	$(PYTHON) -m venv --clear $(CHECKOV)
	$(CHECKOV)/bin/pip install --quiet --disable-pip-version-check --no-compile checkov==$(CHECKOV:build/checkov-%=%)

check-stack: $(SAM)/bin/sam
	SAM_CLI_TELEMETRY=0 $(SAM)/bin/sam validate --lint --region us-east-1 --template infra/template.yaml

$(SAM)/bin/sam:
	$(PYTHON) -m venv --clear $(SAM)
	$(SAM)/bin/pip install --quiet --disable-pip-version-check --no-compile aws-sam-cli==$(SAM:build/sam-%=%)

bench: $(READY) | $(CLIP)
	$(BIN)/python -m bench.speed "$(CLIP)"
	$(BIN)/python -m bench.memory "$(CLIP)"
	$(BIN)/python -m bench.rendered
	$(BIN)/python -m bench.avatar
	$(BIN)/python -m bench.sync
	$(BIN)/python -m bench.sync_memory
	$(BIN)/python -m bench.live
	$(if $(CLIPS),$(BIN)/python -m bench.accuracy $(CLIPS))
	$(if $(CLIPS),$(BIN)/python -m bench.robustness $(CLIPS))

out/bench.mp4: $(READY)
	mkdir -p out
	$(BIN)/viseme render "BIN BLUE AT F TWO NOW" -o $@

gpu-check: $(READY)
	$(BIN)/python -m bench.gpu_check

weights: $(READY)
	$(BIN)/python -m training.make_weights $(RECIPES) -o build/weights $(if $(GRID),--grid $(GRID)) $(if $(TINY),--tiny)

serve: $(READY)
	$(BIN)/viseme serve

clean:
	rm -rf $(VENV) build *.egg-info
