# The checks of this repository, one target each; `.ci/task` has the commands, and `.ci/run` runs them in a new environment.
#
#     make            # lint, types, default tests
#     make tier-fuzz  # one marked tier; `make tiers` lists them

.PHONY: all lint format types test tiers

all: lint types test

lint format types test tiers:
	@.ci/task $@

tier-%:
	@.ci/task $@
