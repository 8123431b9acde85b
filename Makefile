# The checks of this repository, one target each. `.ci/run` runs all of them in a new environment, by these targets.
#
#     make            # lint, types, default tests
#     make tier-fuzz  # one marked tier; `make tiers` lists them

PYTEST = python -m pytest
TIERS = oracle browser ray runtime2 fuzz kills dry real operators

.PHONY: all lint format types test tiers

all: lint types test

lint:
	ruff check .
	ruff format --check .

format:
	ruff check --fix .
	ruff format .

types:
	.ci/mypy

test:
	$(PYTEST)

tiers:
	@echo $(TIERS)

# 5: no test carries this mark.
tier-%:
	$(PYTEST) -q -o addopts="--strict-markers --import-mode=importlib -ra" -m "$*" || [ $$? -eq 5 ]
