# make demo   train a tiny model on generated street scenes, segment others with it, and look at the result
# make venv   install only, into .venv
# make test   run the tests (make test-slow: the slow ones too)
# make lint   ruff, mypy, and hadolint for the image
# make cluster        a Ray cluster of three nodes on this machine, with a bucket (cluster/local.sh)
# make cluster-demo   segment the bucket on it while a node dies, and prove the result; make cluster-down ends it
PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
DEMO ?= demo
PIP = $(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt

.PHONY: demo venv test test-slow lint format clean cluster cluster-down cluster-demo

demo: $(VENV)/installed
	$(BIN)/dinoidd data generate --output $(DEMO)/scenes --images 400 --splits train=0.9,val=0.1
	$(BIN)/dinoidd train --data $(DEMO)/scenes --recipe tiny --epochs 8 --output $(DEMO)/training
	$(BIN)/dinoidd segment --input $(DEMO)/scenes/leftImg8bit/val --output $(DEMO)/out \
		--checkpoint $(DEMO)/training/best.safetensors --restart
	$(BIN)/dinoidd verify $(DEMO)/out --all
	$(BIN)/dinoidd query $(DEMO)/out "SELECT status, count(*) AS images, round(avg(confidence), 3) AS confidence, round(avg(fraction.road), 3) AS road FROM images GROUP BY status"
	$(BIN)/dinoidd evaluate --data $(DEMO)/scenes --split val --predictions $(DEMO)/out --resolution native
	$(BIN)/dinoidd show $(DEMO)/out --grid 3x3 --to $(DEMO)/masks.png

venv: $(VENV)/installed

test: $(VENV)/installed-dev
	$(BIN)/python -m pytest -n 2 --dist loadfile

test-slow: $(VENV)/installed-dev
	$(BIN)/python -m pytest -n 2 --dist loadfile -m "not gpu"

lint: $(VENV)/installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/hadolint cluster/Dockerfile

format: $(VENV)/installed-dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

cluster: $(VENV)/installed
	PATH="$(abspath $(BIN)):$$PATH" cluster/local.sh up

cluster-down:
	cluster/local.sh down

cluster-demo: $(VENV)/installed
	PATH="$(abspath $(BIN)):$$PATH" cluster/local_demo.sh

clean:
	rm -rf $(DEMO) .cache .mypy_cache .pytest_cache .ruff_cache

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/installed: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(PIP) --editable .
	touch $@

$(VENV)/installed-dev: $(VENV)/installed
	$(PIP) --editable '.[test,lint]'
	touch $@
