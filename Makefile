# The recipes people and CI share. `make run` and `make test` need git, make and a Rust toolchain;
# scripts/setup.sh installs the rest.

.DEFAULT_GOAL := help
.PHONY: help run build test check bench venv clean

help: ## This list
	@sed -n 's/^\([a-z]*\):.*## /\1\t/p' Makefile | expand -t 10

run: build ## Build for this CPU, serve on 127.0.0.1:16000 (ARGS="--data DIR ..." are passed on)
	@scripts/run.sh $(ARGS)

build: ## Build in release mode for this CPU
	@scripts/setup.sh build
	cargo build --release --locked

# One cargo profile and one set of flags for test and check, so that nothing is built twice.
test: ## All tests, Rust and Python, with their set-up
	@scripts/setup.sh test
	@scripts/test.sh

check: ## Format, lints, dependency policy, house rules, documentation
	@scripts/setup.sh build
	cargo fmt --check
	cargo clippy --locked --all-targets -- -D warnings
	scripts/deny.sh
	cargo test --locked --test tidy
	RUSTDOCFLAGS="-D warnings" cargo doc --locked --no-deps

bench: ## Load, recall, QPS and latency of the release build, in bench-results/
	@scripts/setup.sh build
	cargo run --release --locked -- bench

venv: ## The Python environment of tests and examples, in .venv
	@scripts/setup.sh test

clean: ## Remove what was built; data folders stay
	cargo clean
	rm -rf .venv
