.DEFAULT_GOAL := help
.PHONY: help setup proto lab lab-down test check bench soak
VENV := .venv/bin
ONLY ?=
TOPOLOGY ?= flat

help: ## show the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

setup: ## packages, virtual environment, CNI plugin, generated gRPC code
	@scripts/setup

proto: ## generate the gRPC code again
	@scripts/setup proto

lab: setup ## a real fabric, running, with a tour; TOPOLOGY=racks or domains for another
	@$(VENV)/weft-lab tour --topology $(TOPOLOGY)

lab-down: ## take the lab down
	@$(VENV)/weft-lab down

check: setup ## format, lint, types, import direction, unit tests: no root needed
	@$(VENV)/ruff format --check .
	@$(VENV)/ruff check .
	@$(VENV)/mypy
	@$(VENV)/lint-imports --no-logo
	@$(VENV)/hadolint docker/Dockerfile
	@sh -n docker/run
	@$(VENV)/pytest -q -n 2 -m "not soak" tests/unit

test: check ## everything, against real etcd, kernel and routers
	@$(VENV)/pytest -q -n 4 --dist loadgroup -m "not soak" tests/functional tests/fv

bench: setup ## measure beside the rivals; ONLY=name for one
	@$(VENV)/python -m tests.bench $(ONLY)

soak: setup ## the checks that take minutes
	@$(VENV)/pytest -q -m soak tests
