# `make demo` plays the main job, `make test` runs the tests. Both set everything up first.
.PHONY: demo test soak check bench mutants vectors strangers setup lock dist clean help
.DEFAULT_GOAL := help
VENV := .venv/bin
# The tests start the command line hundreds of times; Python keeps what it compiled, whatever the shell says.
unexport PYTHONDONTWRITEBYTECODE

help:  ## show this
	@grep -E '^[a-z]+:.*##' Makefile | sed 's/:.*## /\t/' | expand -t 12

setup:  ## install everything (the others do it themselves)
	@tools/setup

demo: setup  ## the main job, end to end, with the attack and the cheats (STORY=service: services)
	@$(VENV)/python tools/demo.py $(if $(STORY),--story $(STORY))

test: setup check  ## all tests, with real rooms; fails unless every promise and refusal held (FAST=1: minutes, no rooms)
	@$(VENV)/pytest -n 3 --dist loadfile --no-loadscope-reorder $(if $(FAST),--effort fast,--promises test)

soak: setup  ## the slow tests, all or PART=…: every value, strangers' programs in rooms, mutants (ARGS=--list)
	@$(VENV)/python -m tests.soak $(PART) $(ARGS)

check: setup  ## ruff, mypy, import-linter: seconds
	@$(VENV)/ruff check src tests tools
	@$(VENV)/ruff format --check -q src tests tools
	@$(VENV)/mypy
	@$(VENV)/lint-imports --no-logo 2>/dev/null || $(VENV)/lint-imports

bench: setup  ## measure, and print one table
	@$(VENV)/python -m tests.bench

mutants: setup  ## change the judging modules in 600 small ways, by a seed: tests must notice 97 % (ARGS=--help)
	@$(VENV)/python -m tests.mutants $(ARGS)

vectors: setup  ## recorded evidence of every TEE against its labels (VECTORS=DIR for another folder)
	@$(VENV)/python -m tests.vectors $(VECTORS)

strangers: setup  ## files as strangers have them against their right answers (STRANGERS=DIR for another folder)
	@$(VENV)/python -m tests.strangers $(STRANGERS)

lock: setup  ## write the lock files again
	@$(VENV)/uv pip compile -q pyproject.toml --all-extras --group dev --generate-hashes --no-header --no-annotate \
		--python-version 3.11 --python-platform x86_64-manylinux_2_36 --exclude-newer "7 days" -U -o locks/product.lock
	@for name in demo peers installer; do $(VENV)/uv pip compile -q locks/$$name.in --no-deps --generate-hashes --no-header \
		--no-annotate --python-version 3.11 --exclude-newer "7 days" -U -o locks/$$name.lock; done

dist: setup  ## what a release consists of, into dist/: wheel, sdist, Debian package, image of the broker (as root)
	@$(VENV)/python -m tools.release

clean:  ## remove what was built here (not the base's cache: `strongroom base clean`)
	@rm -rf .venv build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache .mutants
