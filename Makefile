# The single door. Needs python3 (3.11 or newer) and make; everything else is brought into .venv.
PYTHON ?= python3
bin := .venv/bin

# Stamps: an install is repeated when what it was made from changed.
pins := pyproject.toml constraints.txt .ci/venv.py
runtime := .venv/.runtime
dev := .venv/.dev
programs := .venv/.programs

# What every test of the last run came to.
results := .venv/results.xml

.DELETE_ON_ERROR:
.PHONY: help run test check guarantees bench faults servers servers-stop pins clean

help: ## Say what there is
	@sed -n 's/^\([a-z-]*\):.*## /  make \1\t/p' Makefile | expand -t 20

run: $(runtime) ## Set up and run the demo: two days of real flights (ARGS="--json" and others go to it)
	@$(bin)/tidings demo $(ARGS)

# Most tests wait most of the time, for servers, leases and the dead: two files of them run side by side. They begin in
# the order of their names, for the longest would be the last ones otherwise, and one of them run beside nothing.
test: check $(programs) ## Set up and run every test
	$(bin)/pytest --numprocesses=2 --dist=loadfile --no-loadscope-reorder --ignore=tests/shape --junitxml=$(results)
	$(bin)/python -m tests.proofs --check $(results)

# lint-imports keeps no cache: it would not see that a module which was missing is there now.
check: $(dev) ## Lint, types, import directions and the shape of the tree
	$(bin)/ruff check
	$(bin)/ruff format --check
	$(bin)/mypy
	$(bin)/basedpyright
	$(bin)/lint-imports --no-logo --no-cache
	$(bin)/pytest -q tests/shape

guarantees: $(results) ## Write into docs/guarantees.md what the last `make test` has proven
	$(bin)/python -m tests.proofs $(results)

bench: $(dev) ## Measure against bare loops and peers, in one run
	$(bin)/python -m benchmarks $(ARGS)

faults: $(dev) $(programs) ## The long fault campaign: ten thousand kills, three thousand simulations
	TIDINGS_KILLS=10000 TIDINGS_SEEDS=3000 $(bin)/pytest --timeout=0 tests/faults tests/scenarios/test_simulation.py

servers: $(dev) ## Start Kafka, RabbitMQ, SNS/SQS and PostgreSQL, to try them: eval "$(make -s servers)"
	@$(bin)/python -m tests.servers.background start

servers-stop: ## Stop them, and forget what they kept
	@$(PYTHON) -m tests.servers.background stop

# Not after an install: the pins may be what keeps it from succeeding.
pins: ## Renew constraints.txt; it holds names and versions, and no address
	$(PYTHON) .ci/venv.py --pins

clean: servers-stop ## Remove what the other targets made
	rm -rf .servers.* .venv build dist .hypothesis .*_cache
	find src tests examples benchmarks -name __pycache__ -prune -exec rm -rf {} +

$(runtime): $(pins)
	@$(PYTHON) .ci/venv.py
	@touch $@

$(dev): $(pins)
	@$(PYTHON) .ci/venv.py --group setup --group dev
	@touch $(runtime) $@

$(programs): .ci/debian.sh $(dev)
	@.ci/debian.sh
	@touch $@
