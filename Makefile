# Everything a newcomer or CI runs. `make help` lists it.

# tools/setup finds or installs a fitting Rust and links it here.
export PATH := $(CURDIR)/.deps/rust:$(PATH)
TARGET = $(or $(CARGO_TARGET_DIR),target)/debug

.DEFAULT_GOAL := help
.PHONY: help setup build demo test test-real up fmt lint check-deps bench-embedder bench-gpu bench-search soak

# The profile that everything else is built with, so that nothing is compiled twice.
BENCH = cargo bench --workspace --locked --profile dev --bench
# `make bench-gpu DEVICE=cpu` tries the same where there is no GPU. TORCH_PYTHON has PyTorch.
DEVICE ?= cuda
TORCH_PYTHON ?= python3

help: ## List the targets.
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-15s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

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

test-real: setup ## Run the suite of the stores on a real server (QDRANT_URL=http://localhost:6334).
	@[ -n "$(QDRANT_URL)" ] || { echo "QDRANT_URL has to name a Qdrant server" >&2; exit 64; }
	@CLIPMESH_TEST_QDRANT_URL=$(QDRANT_URL) cargo test --workspace --locked --lib -- on_a_real_server

bench-embedder: ## Measure what the embedder serves, next to the bare model and to decoding.
	@tools/setup test
	@$(BENCH) embedder -- serve
	@$(BENCH) decode_over_pillow

bench-gpu: build ## Measure the embedder on a GPU, next to PyTorch.
	@$(BENCH) embedder -- tower --device $(DEVICE) --dtypes f32,f16,bf16 \
	  --batches 1,2,4,8,16,32,64,128,256 --python $(TORCH_PYTHON)
	@$(BENCH) embedder -- serve --device $(DEVICE) --callers 256 --set BATCH__MAX_SIZE=256 \
	  --batches 1,16,64,256

bench-search: build ## Measure search at scale: recall, latency, filters, writing, caches (N=100000).
	@$(BENCH) search -- --vectors $(or $(N),100000) $(if $(QDRANT_URL),--qdrant-url $(QDRANT_URL))

soak: build ## Watch the embedder's memory over 100,000 requests, good and bad.
	@$(BENCH) embedder -- soak

fmt: ## Format the code.
	@cargo fmt --all

lint: build ## Check format, lints and dependency rules.
	@cargo fmt --all -- --check
	@cargo clippy --workspace --all-targets --locked -- -D warnings
	@tools/check-deps

check-deps: build ## Check who may depend on whom, and what the binaries link.
	@tools/check-deps
