# Each target installs what it needs into .venv.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
# Reference clips, if they are beside the checkout.
CLIPS ?= $(wildcard ../shared/grid/eval.csv ../shared/grid/clips.csv)
GRID ?= $(patsubst %/,%,$(dir $(wildcard ../shared/grid/mouths)))
# Scripts that make inputs as people have them, if they are beside the checkout.
CASES ?= $(patsubst %/,%,$(dir $(wildcard ../shared/cases/_lib.sh)))
CLIP := $(or $(VIDEO),$(firstword $(sort $(wildcard ../shared/grid/eval/*.mpg))),out/bench.mp4)
TORCH := $(shell grep '^torch==' requirements.txt)
# Processes that share the tests: about one per core.
TEST_PROCESSES ?= 2
# Empty: the tests start hundreds of programs, which share what the first one compiles.
export PYTHONDONTWRITEBYTECODE :=

# Tools and SDKs whose pinned dependencies conflict with the project's, each in its own virtualenv.
CHECKOV := build/checkov-3.3.30
SAM := build/sam-1.170.0
SCHEMAS := build/schemas-1.37.0-keda-2.16.1-grafana-11.6
LIVE := $(shell sed -n 's/^sagemaker-live = \["\([^"]*\)"\].*/\1/p' pyproject.toml)
# A Python that AWS's HTTP/2 SDK runs on; empty without one.
LIVE_PYTHON ?= $(shell for one in python3.12 python3.13 python3.14 $$(pyenv root 2>/dev/null)/versions/3.12.*/bin/python; \
	do if $$one -c '' 2>/dev/null; then echo $$one; break; fi; done)
CORE := $(shell sed -n 's/^sagemaker-core = \["\([^"]*\)"\].*/\1/p' pyproject.toml)
SDK := $(shell sed -n 's/^sagemaker-sdk = \["\([^"]*\)"\].*/\1/p' pyproject.toml)

.PHONY: help setup demo test format check check-stack stack environments bench cases gpu-check image-check weights pictures images serve clean

help:
	@echo "make setup         create .venv with all dependencies, and download the face models"
	@echo "make demo          render a sentence and read it from the lips (TEXT='SET RED IN Q SIX SOON', SEED=5, or VIDEO=path)"
	@echo "make serve         run the HTTP server on port 8080"
	@echo "make test          run the tests"
	@echo "make format        format the code and fix what ruff can fix"
	@echo "make check         run ruff, mypy, cfn-lint, checkov and hadolint"
	@echo "make check-stack   run sam validate on the AWS stack (downloads about 300 MB first), and check the files for"
	@echo "                   Docker Compose, Kubernetes and Grafana by their schemas"
	@echo "make stack         run the services of infra/compose.yaml without Docker (PostgreSQL, Redis and Prometheus of Debian)"
	@echo "make environments  create the separate virtualenvs for the tests of the SageMaker SDK and the stock image"
	@echo "make bench         print the figures of docs/benchmarks.md (SLOW=1: also those that take from minutes to an hour)"
	@echo "                   with GRID=folder those of real clips, too; make -i bench goes on after an exceeded limit"
	@echo "make cases         try inputs that people really have (CASES=the folder of their scripts; needs ffmpeg)"
	@echo "make gpu-check     compare all networks on this machine's GPU with the CPU; writes out/gpu.json and out/gpu.md"
	@echo "make image-check   build the image for CPUs without Docker, run it and measure it (root on Debian; 20 minutes)"
	@echo "make weights       train the weights that ship (days on a CPU; TINY=1: smoke test in minutes, weights unusable)"
	@echo "make pictures      draw the images of the documentation again, those of the page in Chromium"
	@echo "make clean         delete .venv and build"

setup: $(READY)

# torch first: if pip finds a build of that version, it downloads no other one for what follows.
$(READY): pyproject.toml requirements.txt setup.py $(wildcard container/protos/*.proto)
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Viseme needs Python 3.11 or newer")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check "$(TORCH)"
	$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[test,check]'
	$(BIN)/viseme weights fetch mediapipe
	@touch $@

demo: $(READY)
	$(BIN)/python -m container.commands.demo $(if $(TEXT),--text "$(TEXT)") $(if $(SEED),--seed "$(SEED)") $(if $(VIDEO),--video "$(VIDEO)")

test: $(READY) environments
	$(BIN)/python -m pytest --numprocesses $(TEST_PROCESSES) --dist loadfile --no-loadscope-reorder

environments: build/sagemaker-sdk/.ready build/sagemaker-core/.ready build/stock-image/.ready build/aws-cli/.ready build/aws-cli-2/.ready $(if $(LIVE_PYTHON),build/sagemaker-live/.ready)
	@test -n "$(LIVE_PYTHON)" || echo "no Python 3.12 or newer: the tests of sessions over SageMaker are skipped"

# Only the SDK: it brings boto3, which is all that deploy/ needs besides.
build/sagemaker-sdk/.ready: pyproject.toml
	$(PYTHON) -m venv --clear build/sagemaker-sdk
	build/sagemaker-sdk/bin/pip install --quiet --disable-pip-version-check --no-compile "$(SDK)"
	@touch $@

# SDK 3, whose packages have the names of SDK 2's.
build/sagemaker-core/.ready: pyproject.toml
	$(PYTHON) -m venv --clear build/sagemaker-core
	build/sagemaker-core/bin/pip install --quiet --disable-pip-version-check --no-compile "$(CORE)"
	@touch $@

build/stock-image/.ready: tests/deploy/stock_image.txt
	$(PYTHON) -m venv --clear build/stock-image
	build/stock-image/bin/pip install --quiet --disable-pip-version-check --no-compile "$(TORCH)"
	build/stock-image/bin/pip install --quiet --disable-pip-version-check --no-compile -r tests/deploy/stock_image.txt
	@touch $@

# Version 1 of the AWS CLI, which names one botocore.
build/aws-cli/.ready:
	$(PYTHON) -m venv --clear build/aws-cli
	build/aws-cli/bin/pip install --quiet --disable-pip-version-check --no-compile awscli==1.45.11
	@touch $@

# Version 2, which is no package of the index itself: one of AWS's own has its Linux programs, for a Lambda layer.
build/aws-cli-2/.ready:
	rm -rf build/aws-cli-2
	$(PYTHON) -m pip download --quiet --disable-pip-version-check --no-deps --dest build/aws-cli-2 aws-cdk-asset-awscli-v2==2.0.198
	$(PYTHON) -m zipfile -e build/aws-cli-2/*.whl build/aws-cli-2/wheel
	tar -xzf build/aws-cli-2/wheel/aws_cdk/asset_awscli_v2/_jsii/*.tgz -C build/aws-cli-2 package/lib/layer.zip
	$(PYTHON) -m zipfile -e build/aws-cli-2/package/lib/layer.zip build/aws-cli-2/layer
	mv build/aws-cli-2/layer/awscli/v2/*/dist build/aws-cli-2/bin
	chmod +x build/aws-cli-2/bin/aws
	rm -rf build/aws-cli-2/*.whl build/aws-cli-2/wheel build/aws-cli-2/package build/aws-cli-2/layer
	@touch $@

# A client of live avatars with AWS's HTTP/2 SDK: no engines. h2 is for the stand-in of SageMaker.
build/sagemaker-live/.ready: pyproject.toml requirements.txt
	$(LIVE_PYTHON) -m venv --clear build/sagemaker-live
	build/sagemaker-live/bin/pip install --quiet --disable-pip-version-check --no-compile h2==4.4.1 "$(LIVE)" \
		$$(grep -E '^(numpy|opencv-python-headless|av|pydantic|typer|boto3|websockets)==' requirements.txt) \
		$$(grep '^rich' requirements.txt | tr -d ' ')
	@touch $@

format: $(READY)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

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

check-stack: $(SAM)/bin/sam $(SCHEMAS)/.ready
	$(SCHEMAS)/bin/check-jsonschema --builtin-schema vendor.compose-spec infra/compose.yaml infra/compose.gpu.yaml
	$(SCHEMAS)/bin/kubernetes-validate --strict $$(find infra/kubernetes -name '*.yaml' ! -name kustomization.yaml)
	$(SCHEMAS)/bin/python tests/infra/check_keda.py infra/kubernetes/base/autoscaling.yaml
	$(SCHEMAS)/bin/python tests/infra/check_dashboard.py infra/grafana/viseme.json
	SAM_CLI_TELEMETRY=0 $(SAM)/bin/sam validate --lint --region us-east-1 --template infra/template.yaml

# kubernetes-validate names KEDA's objects as unchecked: their schemas are in a package of their own, as is the form of
# Grafana's dashboards.
$(SCHEMAS)/.ready:
	$(PYTHON) -m venv --clear $(SCHEMAS)
	$(SCHEMAS)/bin/pip install --quiet --disable-pip-version-check --no-compile kubernetes-validate==1.37.0 check-jsonschema==0.39.0 \
		cloudcoil-models-keda==2.16.1.0 cloudcoil==0.6.0 'grafana-foundation-sdk==1769699379!11.6.0'
	@touch $@

stack: $(READY)
	$(BIN)/python -m bench.stack

$(SAM)/bin/sam:
	$(PYTHON) -m venv --clear $(SAM)
	$(SAM)/bin/pip install --quiet --disable-pip-version-check --no-compile aws-sam-cli==$(SAM:build/sam-%=%)

bench: $(READY) | $(CLIP)
	$(BIN)/python -m bench.speed "$(CLIP)"
	$(BIN)/python -m bench.memory "$(CLIP)"
	$(BIN)/python -m bench.cold_start "$(CLIP)"
	$(BIN)/python -m bench.rendered
	$(BIN)/python -m bench.long_read
	$(BIN)/python -m bench.throughput
	$(BIN)/python -m bench.job_queue --jobs 3000
	$(BIN)/python -m bench.avatar
	$(BIN)/python -m bench.sync
	$(BIN)/python -m bench.sync_memory
	$(BIN)/python -m bench.live
	$(BIN)/python -m bench.livekit
	$(BIN)/python -m bench.page
	$(BIN)/python -m bench.say
	$(BIN)/python -m bench.visemes $(if $(KOKORO_HELD),--kokoro $(KOKORO_HELD))
	$(if $(CLIPS),$(BIN)/python -m bench.accuracy $(CLIPS) --phrases 20)
	$(if $(CLIPS),$(BIN)/python -m bench.robustness $(CLIPS))
	$(if $(GRID),$(BIN)/python -m bench.joined $(GRID)/eval.csv $(GRID)/eval_words.csv)
	$(if $(SLOW),$(BIN)/python -m bench.active_speaker $(GRID:%=--grid %))
	$(if $(SLOW),$(BIN)/python -m bench.sync_quality $(GRID:%=--grid %))
	$(if $(SLOW),$(BIN)/python -m bench.sync_quality --reference each $(GRID:%=--grid %))
	$(if $(and $(SLOW),$(GRID)),$(BIN)/python -m bench.video_detail --grid $(GRID) --clips 4)
	$(if $(SLOW),$(BIN)/python -m bench.avatar_quality starter --voices 7 $(GRID:%=--clips %/clips.csv))
	$(if $(SLOW),$(BIN)/python -m bench.long_read --precision int8)
	$(if $(SLOW),$(BIN)/python -m bench.long_read --precision f32 --rounds 2)
	$(if $(SLOW),$(BIN)/python -m bench.webrtc --seconds 600)
	$(if $(SLOW),$(BIN)/python -m bench.soak --minutes 60)
	$(if $(SLOW),$(BIN)/python -m bench.drain --rounds 1)
	$(if $(SLOW),$(BIN)/python -m bench.job_kills)
	$(if $(SLOW),$(BIN)/python -m bench.load)
	$(if $(SLOW),$(BIN)/python -m bench.attack)
	$(if $(SLOW),$(BIN)/python -m bench.fuzz --files 10000 --seed 1)
	$(if $(and $(SLOW),$(GRID)),$(BIN)/python -m bench.precisions $(GRID)/eval.csv $(GRID)/clips.csv)
	$(if $(and $(SLOW),$(GRID)),$(BIN)/python -m bench.calibration $(GRID)/clips.csv $(GRID)/words.csv \
		--check $(GRID)/eval.csv $(GRID)/eval_words.csv --leave-out s2 s4 s5 s31)

cases: $(READY)
	$(BIN)/python -m bench.cases $(CASES)

out/bench.mp4: $(READY)
	mkdir -p out
	$(BIN)/viseme render "BIN BLUE AT F TWO NOW" -o $@

gpu-check: $(READY)
	$(BIN)/python -m bench.gpu_check

image-check: $(READY)
	$(BIN)/python -m bench.image_check

weights: $(READY)
	$(BIN)/python -m training.make_weights $(RECIPES) -o build/weights $(if $(GRID),--grid $(GRID)) \
		$(if $(KOKORO),--kokoro $(KOKORO)) $(if $(START),--start $(START)) $(if $(TINY),--tiny)

images: pictures

pictures: $(READY)
	$(BIN)/python docs/images/draw.py
	$(BIN)/python docs/images/page.py

serve: $(READY)
	$(BIN)/viseme serve

clean:
	rm -rf $(VENV) build *.egg-info
