# Everything a newcomer or CI runs. `make help` lists it.

# tools/setup finds or installs a fitting Rust and links it here.
export PATH := $(CURDIR)/.deps/rust:$(PATH)
TARGET = $(or $(CARGO_TARGET_DIR),target)/debug

.DEFAULT_GOAL := help
.PHONY: help setup build demo test up fmt lint check-deps

help: ## List the targets.
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: ## Bring Rust, libtorch and the few system packages that the build needs.
	@tools/setup build

build: setup ## Compile everything.
	@cargo build --workspace --locked

demo: build ## Index example pictures through the whole mesh, and find them by words and by example.
	@python3 examples/demo.py --bin $(TARGET)/clipmesh

up: build ## Serve the whole mesh on this machine with the model that clipmesh brings, until Ctrl-C.
	@$(TARGET)/clipmesh up --model tiny

test: ## Run every test.
	@tools/setup test
	@cargo build --workspace --all-targets --locked
	@cargo test --workspace --locked
	@tools/check-deps

fmt: ## Format the code.
	@cargo fmt --all

lint: build ## Check format, lints and dependency rules.
	@cargo fmt --all -- --check
	@cargo clippy --workspace --all-targets --locked -- -D warnings
	@tools/check-deps

check-deps: build ## Check who may depend on whom, and what the binaries link.
	@tools/check-deps
