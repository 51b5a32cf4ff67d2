# make demo   plays the whole story        make test        runs every test (Python, and Solidity where node is)
# make demo CHAIN=anvil  plays it on a node of its own, and keeps the chain in runs/chain.json
# make lint   checks style, types, imports  make artifacts  recompiles the contracts that the package ships
# make seeded-bugs  plants bugs, and insists that a test notices each (contract-bugs: in the contracts)
# make coverage  insists on what the contracts' tests reach, 98 % of lines and 95 % of branches   make halmos  proves what fuzzing can only try
# make bench  measures, and writes docs/benchmarks.md
# make experiments  steals marked models, for about ten hours; resumes; writes docs/watermark-results.md
# make exact  trains exactly on one setting after the other; make exact-gpu  compares a GPU with the digests that left
# make test-ipfs  tests the IPFS store against a real node: the one at AIARENA_IPFS_API, or js-ipfs, which it installs
PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt
CONTRACTS := chain/contracts
IPFS := tests/ipfs
# numpy beside two workers on two cores: more threads would only wait for each other
PYTEST := OPENBLAS_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses 2
FORGE := node_modules/.bin/forge
NODE := $(shell command -v node 2>/dev/null)

.PHONY: install demo test test-slow test-contracts test-ipfs seeded-bugs contract-bugs coverage halmos bench experiments experiments-quick exact exact-gpu lint artifacts clean

install: .venv/installed

.venv/installed: pyproject.toml constraints.txt
	@echo "installing AIArena into .venv (the first time takes a few minutes)"
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or newer is needed: make PYTHON=python3.11"; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@$(PIP) --editable '.[demo]'
	@touch $@

.venv/installed-dev: .venv/installed
	@echo "installing what the tests and the linters need"
	@$(PIP) --editable '.[dev]'
	@touch $@

$(CONTRACTS)/node_modules/.installed: $(CONTRACTS)/package.json $(CONTRACTS)/package-lock.json
	@echo "installing the contracts' compiler and test runner"
	@cd $(CONTRACTS) && npm ci --no-audit --no-fund --loglevel=error
	@touch $@

$(IPFS)/node_modules/.installed: $(IPFS)/package.json $(IPFS)/package-lock.json
	@echo "installing an IPFS node for the tests (this takes a few minutes)"
	@cd $(IPFS) && npm ci --no-audit --no-fund --loglevel=error
	@touch $@

demo: .venv/installed
	@$(BIN)/arena demo $(if $(CHAIN),--chain $(CHAIN))

ifdef NODE
test: .venv/installed-dev $(CONTRACTS)/node_modules/.installed test-contracts
	@$(PYTEST) -m "not slow and not ipfs"
else ifdef AIARENA_REQUIRE_NODE
test:
	@echo "node is missing, and AIARENA_REQUIRE_NODE does not allow to leave the contracts' own tests out"; exit 1
else
test: .venv/installed-dev
	@$(PYTEST) -m "not slow and not node and not ipfs"
	@echo "LEFT OUT: the contracts' own tests (forge, and recompiling the shipped artifacts), because node is missing"
endif

test-slow: .venv/installed-dev
	@$(BIN)/python -m pytest -m slow

test-ipfs: .venv/installed-dev $(if $(AIARENA_IPFS_API),,$(IPFS)/node_modules/.installed)
	@$(BIN)/python -m pytest -m ipfs $(IPFS)

seeded-bugs: .venv/installed-dev
	@$(BIN)/python tests/seeded_bugs.py

contract-bugs: .venv/installed-dev $(CONTRACTS)/node_modules/.installed
	@$(BIN)/python tests/contract_bugs.py

# without the optimiser, which these measure and the limit on code size needs
coverage: $(CONTRACTS)/node_modules/.installed
	@cd $(CONTRACTS) && mkdir -p out && $(FORGE) coverage --no-match-coverage '^test/' --no-match-contract '^(Gas|SettlementGas)Test$$' \
		--no-match-test CodeSizeLimit --report summary --report lcov --report-file out/lcov.info
	@$(PYTHON) $(CONTRACTS)/tools/coverage.py $(CONTRACTS)/out/lcov.info

$(CONTRACTS)/.halmos/installed:
	@echo "installing a symbolic prover for the contracts, in an environment of its own"
	@$(PYTHON) -m venv $(CONTRACTS)/.halmos
	@$(CONTRACTS)/.halmos/bin/python -m pip install --quiet --disable-pip-version-check halmos==0.3.3 cvc5==1.4.2
	@touch $@

halmos: $(CONTRACTS)/.halmos/installed $(CONTRACTS)/node_modules/.installed
	@cd $(CONTRACTS) && PATH="$$PWD/node_modules/.bin:$$PATH" FOUNDRY_TEST=test/proofs FOUNDRY_OUT=.halmos/out \
		FOUNDRY_CACHE_PATH=.halmos/cache .halmos/bin/halmos --forge-build-out .halmos/out \
		--solver-timeout-assertion 5m --solver-command "$$PWD/.halmos/bin/python $$PWD/tools/prove.py"

bench: .venv/installed-dev
	@$(BIN)/python -m experiments.overhead.run
	@$(BIN)/python -m experiments.verification.run
	@$(BIN)/python -m experiments.gas.run
	@$(BIN)/python -m experiments.page

experiments: .venv/installed-dev
	@$(BIN)/python -m experiments.stolen_model.run

experiments-quick: .venv/installed-dev
	@$(BIN)/python -m experiments.table1.run --quick
	@$(BIN)/python -m experiments.stolen_model.run --quick

exact: .venv/installed-dev
	@$(BIN)/python -m experiments.exact.run
	@$(BIN)/python -m experiments.exact.accuracy
	@$(BIN)/python -m experiments.exact.speed
	@$(BIN)/python -m experiments.page

exact-gpu: .venv/installed-dev
	@$(BIN)/python -m experiments.exact.run --device cuda; differs=$$?; test $$differs -eq 0 -o $$differs -eq 2 && \
	$(BIN)/python -m experiments.exact.speed cuda && $(BIN)/python -m experiments.page && exit $$differs

test-contracts: $(CONTRACTS)/node_modules/.installed
	@cd $(CONTRACTS) && $(FORGE) test

lint: .venv/installed-dev
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports

artifacts: $(CONTRACTS)/node_modules/.installed
	@$(PYTHON) $(CONTRACTS)/tools/artifacts.py

clean:
	rm -rf .venv runs experiments/stolen_model/scratch $(CONTRACTS)/node_modules $(IPFS)/node_modules $(CONTRACTS)/out $(CONTRACTS)/cache
