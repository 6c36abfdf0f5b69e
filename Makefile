# Every target installs what it needs first, on any machine with Python 3.11 and make.
# With conda: make lab VENV=$CONDA_PREFIX
PYTHON ?= python3.11
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
INSTALL = $(BIN)/python -m pip install --quiet --disable-pip-version-check

# CPU=1: PyTorch without what only NVIDIA's GPUs need, 3 GB less, on Linux; what an environment was made with is kept
CPU ?= $(shell cat $(STAMP) 2>/dev/null)

# what `make reproduce` runs; each can be set on the command line
CORPUS ?= demo
ROOT ?=
RUN ?= $(CORPUS)
FOLDS ?= all
SEEDS ?= 111
PROFILE ?= demo
GRID ?=
OPTIONS ?=
FUZZ ?= 1
# address of your repository, for `make book`: https://github.com/YOU/REPO; without it, the book has no links to it
REPOSITORY ?=

SETTINGS = --corpus $(CORPUS) --root "$(ROOT)" --run $(RUN) --folds $(FOLDS) --seeds $(SEEDS) --profile $(PROFILE)

# outputs, counts, what editors add, the empty cell that Shift+Enter leaves behind the last one, VS Code's kernel name
EDITORS = version codemirror_mode file_extension mimetype nbconvert_exporter pygments_lexer
STRIP = $(BIN)/nbstripout --keep-id --unix-newlines --drop-empty-cells --extra-keys \
  "$(EDITORS:%=metadata.language_info.%) $(addprefix cell.metadata.,execution editable slideshow vscode)"
KERNEL = sed -E "s/^(   \"display_name\": \")[^\"]*/\1Python 3 (ipykernel)/"

.PHONY: setup tidy lab reproduce report book doctor test test-browser test-campaign fuzz benchmark gpu-check notebooks system lint lock clean

setup: $(STAMP) tidy

$(STAMP): requirements.lock pyproject.toml
	@command -v $(PYTHON) >/dev/null || { echo "$(PYTHON) not found; install Python 3.11 or later and call make PYTHON=python3"; exit 1; }
	@echo "installing $(if $(CPU),2,5) GB of packages into $(VENV), once: about three minutes on a fast line"
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(if $(CPU),PATH="$(abspath $(BIN)):$$PATH" .binder/postBuild,$(INSTALL) --requirement requirements.lock)
	$(if $(CPU),,$(INSTALL) --no-deps --editable .)
	echo $(CPU) > $(STAMP)

# Git sees notebooks without what stepping through them adds (notebooks/.gitattributes). It takes a file of another
# size for changed without asking the filter, so notebooks that differ in nothing else are added again, as they are.
# A filter or a Python that has gone passes everything on; a folder that is no checkout, such as an unpacked zip, stays as it is.
tidy:
	@! git ls-files --error-unmatch Makefile >/dev/null 2>&1 || { \
	  git config filter.nbstripout.clean 'test -x $(BIN)/python -a -x $(BIN)/nbstripout || exec cat; $(KERNEL) | $(STRIP)'; \
	  git ls-files --modified 'notebooks/*.ipynb' | while read -r file; do \
	    [ "$$(git hash-object "$$file")" != "$$(git rev-parse ":$$file")" ] || git add "$$file"; done; }

# A kernel named python3 in somebody's home must not be taken instead of the project's own. notebooks/labconfig shows
# pages as they are read, and not their source.
lab: setup
	JUPYTER_PREFER_ENV_PATH=1 JUPYTER_CONFIG_PATH="$(CURDIR)/notebooks$${JUPYTER_CONFIG_PATH:+:$$JUPYTER_CONFIG_PATH}" \
	  $(BIN)/jupyter lab --config=notebooks/jupyter_config.py notebooks/README.md

reproduce: setup
	$(BIN)/serkit reproduce $(if $(GRID),--grid $(GRID) --root "$(ROOT)",$(SETTINGS)) $(OPTIONS)

report: setup
	$(BIN)/serkit report $(RUN) $(OPTIONS)

# a site of all pages, the executed notebooks of a run and the package's functions; it needs no network. Two notebooks
# that belong to no run are executed for it. A link that leads nowhere is a warning, and a warning ends it.
BOOK = runs/$(RUN)/book
ALONE = $(addprefix runs/$(RUN)/notebooks/,08_predict.ipynb 09_own_corpus.ipynb)

book: runs/$(RUN)/report.html setup $(ALONE)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --requirement book/requirements.txt
	rm -rf $(BOOK)
	RUN=$(RUN) REPOSITORY=$(REPOSITORY) $(BIN)/python -m sphinx --quiet --fresh-env --fail-on-warning --keep-going \
	  --conf-dir book --doctree-dir book/doctrees . $(BOOK)
	cp $(BOOK)/README.html $(BOOK)/index.html
	@echo "the book of the run $(RUN): $(BOOK)/index.html"

runs/$(RUN)/report.html:
	@echo "the run $(RUN) has no report yet, so there is nothing to make a book of: call make reproduce report RUN=$(RUN)"; exit 1

.DELETE_ON_ERROR:
$(ALONE): runs/$(RUN)/notebooks/%.ipynb: notebooks/%.ipynb runs/$(RUN)/report.html | setup
	JUPYTER_PREFER_ENV_PATH=1 $(BIN)/papermill --no-progress-bar $< $@ -p run $(if $(findstring predict,$@),$(RUN),mine)

doctor: setup
	$(BIN)/serkit doctor

# three files of tests at a time, with a thread each: on two cores, one of them often waits for a process it started
test: setup
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses 3 --dist loadfile --no-loadscope-reorder $(OPTIONS)

# every notebook in JupyterLab and the Chromium of this machine; OPTIONS=--screenshots keeps pictures of them
test-browser: setup
	$(INSTALL) --requirement tests/browser/requirements.txt
	$(BIN)/python -m pytest -m browser tests/browser $(OPTIONS)

# a kernel, a worker or the driver is killed in the middle of its jobs, a step between any two of its files; every file
# of a finished fold is damaged in every way; the disk is full
test-campaign: setup
	$(BIN)/python -m pytest -m campaign $(OPTIONS)

# fifty times as many inputs of strangers, disks and typing errors as in make test; FUZZ=4 tries four times as many
fuzz: setup
	FUZZ=$(FUZZ) OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses 2 --timeout 0 tests/fuzz $(OPTIONS)

# a corpus of IEMOCAP's shape, whole; OPTIONS='--share 0.1' for a quick look
benchmark: setup
	$(BIN)/python tests/benchmarks/benchmark.py $(OPTIONS)

# steps, memory and resuming on a real GPU, in ten minutes; OPTIONS=--rehearse tries the code on a CPU
gpu-check: setup
	$(BIN)/python tests/gpu_check.py $(OPTIONS)

notebooks: setup
	$(BIN)/python tests/colab_cell.py notebooks/*.ipynb
	$(STRIP) notebooks/*.ipynb
	$(BIN)/ruff check notebooks
	$(BIN)/ruff format notebooks

# the picture of the whole system at the top of README.md
system: setup
	$(BIN)/python figures/make_system.py > serkit/figures/system.svg

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

# exact versions of what is installed; packages that only Linux has get a marker, those of book and browser tests stay out
lock: setup
	@test -z "$(CPU)" || { echo "make lock needs all packages, and this environment was made with CPU=1; call make lock CPU= VENV=.venv-all"; exit 1; }
	{ echo "# Exact versions for every way of installing; made by 'make lock'."; \
	  $(BIN)/python -m pip freeze --exclude-editable \
	  | grep -ivxF -f tests/browser/requirements.txt -f book/requirements.txt \
	  | sed -E "s/^((nvidia|cuda)-.*|triton==.*)$$/\1 ; sys_platform == 'linux' and platform_machine == 'x86_64'/; s/^((pexpect|ptyprocess)==.*)$$/\1 ; sys_platform != 'win32'/"; \
	  echo "appnope==0.1.4 ; sys_platform == 'darwin'"; } > requirements.lock.new
	mv requirements.lock.new requirements.lock

clean:
	rm -rf .venv build *.egg-info .pytest_cache .ruff_cache .hypothesis
