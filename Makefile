# make install   everything into .venv, from requirements.txt (exact versions and hashes); instant when done before
# make demo      the main job on the drawn demo data, offline on a CPU, and its table
# make pull      the demo's results without running it (EXPERIMENT=rsicd_lite: another one's): docs/sharing.md
# make publish   runs the demo and stores its results in published/, to be committed, where make pull finds them
# make bench     what training steps cost, on CLIP's towers and small ones: docs/efficiency.md
# make test      style, spelling, types, import layers, tests
# make mutants   mutation testing (MUTANTS="cmer.losses*": of one package): docs/testing.md
# make lock      new requirements.txt from pyproject.toml (make lock UPGRADE=--upgrade: newest versions)
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:
.PHONY: install demo pull publish bench test mutants lock

# Programs of .venv are started by a shell that reads the folder's path, as is the shell of the workflow's steps.
ifneq (,$(strip $(foreach sign,$$ ` " \,$(findstring $(sign),$(CURDIR)))))
$(error The path of this folder contains $$, `, " or \: move or rename the folder)
endif

PYTHON ?= python3.11
INSTALLED := .venv/.installed
export VIRTUAL_ENV := $(CURDIR)/.venv
export PATH := $(VIRTUAL_ENV)/bin:$(PATH)

install: $(INSTALLED)

# pip installs uv as the lock names it; uv installs the rest, faster. Compiled, for every step imports torch anew: where
# Python may not write bytecode (containers, read-only folders), uncompiled that takes three times as long.
$(INSTALLED): requirements.txt pyproject.toml
	$(PYTHON) -m venv .venv
	awk '/^[a-z]/ {kept = /^uv==/} kept' requirements.txt > .venv/uv.txt
	python -m pip install --quiet --disable-pip-version-check --require-hashes -r .venv/uv.txt
	uv pip install --require-hashes --compile-bytecode -r requirements.txt
	uv pip install --quiet --no-deps --no-build-isolation --editable .
	touch $@

demo: install
	@python scripts/quietly logs/demo.log snakemake --cores all
	cmer show results/table1.csv
	@echo "Report: results/report.html. Table: results/table1.csv. Metrics, checkpoints, embeddings: results/."

EXPERIMENT := demo

pull: install
	scripts/pull $(EXPERIMENT)

publish: install
	@test -z "$$(git status --porcelain -- . ':!dvc.lock' ':!published')" || \
	  { echo "Commit your changes first: what is published must be what a commit makes."; exit 1; }
	dvc repro demo
	rm -rf published/files
	dvc push --remote published $$(scripts/published)
	du -sh --apparent-size published
	@echo "Commit dvc.lock and published/: whoever clones that commit gets these results with \`make pull\`."

bench: install
	snakemake --cores all --configfile=config/bench.yaml results/bench/table3.csv
	cmer bench results/bench/efficiency/*.json --out results/efficiency/bench.json
	@echo "Rows and ratios: results/efficiency/bench.json. Chart: results/efficiency/bench.png. What they mean: docs/efficiency.md."

test: install
	ruff check .
	ruff format --check .
	snakefmt --check Snakefile workflow
	codespell
	mypy
	lint-imports
	pytest -n auto --dist loadfile

MUTANTS :=

# One torch thread each: mutants run side by side. Results are kept in mutants/, so that a run can be interrupted.
mutants: export OMP_NUM_THREADS := 1
mutants: install
	mutmut run $(foreach name,$(MUTANTS),"$(name)")
	mutmut results

lock:
	uv pip compile pyproject.toml --all-extras --group dev --group build --universal --python-version 3.11 \
	  --generate-hashes --no-emit-index-url --quiet $(UPGRADE) -o requirements.txt
