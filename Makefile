# Everything runs in .venv, which the first target that needs it sets up. `make` lists the targets.
SHELL := /bin/bash
PYTHON ?= python3
RUN := .venv/bin/python
READY := .venv/ready
PYTEST := OMP_NUM_THREADS=1 $(RUN) -m pytest -n 2 --dist worksteal
GRID ?= full
TASK ?= needle bbc
MINUTES ?= 9
export HF_HUB_OFFLINE ?= 1
export TOKENIZERS_PARALLELISM ?= false

.PHONY: help env demo test check wheel versions types compare budgets tune figures scaling speed planted peers between growth retrieval predict recall big-data stale results confirm rfcs gpu gpu-kit pages docs clean

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## /  make \1\t/p' Makefile

env: $(READY) ## set up .venv

$(READY): pyproject.toml constraints.txt shtopk/backends/tournament.c shtopk/backends/tournament.h shtopk/backends/pool.h shtopk/backends/clusters.h
	@$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed, this is " + sys.version.split()[0] + "; make PYTHON=python3.11" if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv .venv
	rm -rf build shtopk/backends/_tournament.*
	$(RUN) -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[test,bench]'
	@touch $@

demo: $(READY) ## fine-tune on BBC News, evaluate, write pages that show what was kept
	$(RUN) train.py --config configs/bbc.yaml --overwrite true
	@echo "Open runs/bbc/document_0.html (and _1, _2) to see which tokens were kept; all figures: runs/bbc/all_results.json"

test: $(READY) ## run the tests but for the slow ones, in a few minutes
	$(PYTEST) -m "not slow"

check: $(READY) ## format, lint, types, the documentation, all tests; BESIDE=wheel: that, too
	$(RUN) -m ruff format --check .
	$(RUN) -m ruff check .
	$(MAKE) --jobs 2 --output-sync types docs $(BESIDE)
	$(PYTEST)
	$(RUN) benchmarks/stale.py --short

wheel: ## build the sdist and the wheel, install that into an empty environment, and try every command there
	PYTHON=$(PYTHON) tests/wheel.sh build/wheel

versions: ## the tests with the oldest and the newest versions that pyproject.toml allows; VERSIONS=oldest-alone: one of four
	PYTHON=$(PYTHON) tests/versions.sh build/versions $(VERSIONS)

types: $(READY) ## check the types of everything that is installed
	rm -rf build/types && mkdir -p build/types/shtopk
	ln -s $(CURDIR)/shtopk/* $(CURDIR)/models $(CURDIR)/tasks $(CURDIR)/training build/types/shtopk/
	MYPYPATH=build/types $(RUN) -m mypy

compare: $(READY) ## all ways to pool side by side; TASK=docstrings: summaries; benchmarks/results/
	$(RUN) benchmarks/compare.py --tasks $(TASK)

budgets: $(READY) ## one training with k drawn for each update beside one for each k; benchmarks/results/
	$(RUN) benchmarks/budgets.py

tune: $(READY) ## choose the settings that compare uses; benchmarks/results/
	$(RUN) benchmarks/tune.py

figures: $(READY) ## the paper's evaluation beside ours: time and nCCS; GRID=small takes two minutes
	$(RUN) benchmarks/paper.py --grid $(GRID)

scaling: $(READY) ## what pooling saves as documents grow, a training step and a summary
	$(RUN) benchmarks/scaling.py

speed: $(READY) ## time and memory against hard top-k and the others, side by side
	$(RUN) benchmarks/speed.py

planted: $(READY) ## does the gradient teach? planted tokens, every way to pool
	$(RUN) benchmarks/planted.py
	$(RUN) benchmarks/planted.py --size large

peers: $(READY) ## what people would take instead, side by side; pip install -e '.[peers]' first; AUTHORS=folder LAPSUM=folder
	$(RUN) benchmarks/peers.py $(if $(AUTHORS),--authors $(AUTHORS)) $(if $(LAPSUM),--lapsum $(LAPSUM))

between: $(READY) ## what pooling between the encoder's layers saves, and what it costs
	OMP_NUM_THREADS=1 $(RUN) benchmarks/between.py
	OMP_NUM_THREADS=1 $(RUN) benchmarks/between.py --speed

growth: $(READY) ## how an update's time and memory grow with documents, k, batch and processes
	OMP_NUM_THREADS=1 $(RUN) benchmarks/growth.py

retrieval: $(READY) ## what an index of k vectors a document still finds, against Ward clusters
	OMP_NUM_THREADS=1 $(RUN) benchmarks/retrieval.py

predict: $(READY) ## what answering many texts takes: memory, speed, the first answer
	$(RUN) benchmarks/predict.py

recall: $(READY) ## facts that a language model recalls from pooled prompts, all ways; a model from scratch, hours on a CPU
	$(RUN) benchmarks/prompt_recall.py

big-data: $(READY) ## what 1 GiB of text takes in training: memory, and time to the first update; five minutes, 5 GiB of disk
	OMP_NUM_THREADS=1 $(RUN) benchmarks/big_data.py --mib 1024 --documents 800000 --small 4

stale: $(READY) ## which results are out of date, and why
	$(RUN) benchmarks/stale.py

results: $(READY) ## measure what is out of date, the README's first; goes on where it stopped; PARTS="needle bbc": some
	$(RUN) benchmarks/renew.py $(PARTS)

confirm: $(READY) ## make a sample of PARTS again, which changed code made out of date; the same figures count as up to date
	$(RUN) benchmarks/confirm.py $(PARTS)

rfcs: ## fetch the RFCs that tasks/rfc.py summarises into data/rfc, 160 MB; on Debian, without installing anything
	sh tasks/fetch_rfcs.sh data/rfc

gpu: $(if $(GPU_PYTHON),,$(READY)) ## all that is measured on a GPU, in 9 minutes; GPU_PYTHON=python3: without .venv
	$(or $(GPU_PYTHON),$(RUN)) benchmarks/gpu.py --minutes $(MINUTES)

gpu-kit: $(READY) ## pack what make gpu needs on a machine without network into gpu-kit/, at most 64 MiB
	$(RUN) benchmarks/kit.py

pages: $(READY) ## put the figures of benchmarks/results/ into README.md and docs/, and draw their pictures
	$(RUN) benchmarks/fill_pages.py

docs: $(READY) ## build the documentation site, to be opened in a browser
	NO_MKDOCS_2_WARNING=1 $(RUN) -m mkdocs build --strict --quiet
	@echo "Open build/site/index.html; with search: .venv/bin/python -m http.server --directory build/site"

clean: ## remove .venv, caches and runs
	rm -rf .venv .pytest_cache .ruff_cache .mypy_cache .hypothesis benchmarks/.cache runs build shtopk.egg-info shtopk/backends/_tournament.*
