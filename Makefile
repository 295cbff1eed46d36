# The commands of a checkout, for people and CI. Each calls cargo or a script of config/local; no logic here.
# `make` alone lists them.

SHELL := bash
# A build that checks queries (sqlx macros) must not ask whatever database DATABASE_URL points to.
export SQLX_OFFLINE := true

WITH_SERVICES := . .local/env &&

.DEFAULT_GOAL := help
.PHONY: help demo test test-long chaos fuzz bench test-models stop build lint clean-data

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: ## real texts through Kafka and the model into Postgres, with figures and SQL
	@config/local/demo/run

# The faults restart the servers, so they run alone, after everything else.
CHAOS := cargo test --locked --test integration -- --ignored --nocapture chaos

test: ## unit and integration tests against a real broker and database, and 90 seconds of faults
	@config/local/prepare tests
	@$(WITH_SERVICES) cargo test --locked
	@$(WITH_SERVICES) ALBERTINE_CHAOS_SECONDS=$${ALBERTINE_CHAOS_SECONDS:-90} ALBERTINE_CHAOS_SEED=$${ALBERTINE_CHAOS_SEED:-0} $(CHAOS)

test-long: test ## the tests that take minutes, in addition
	@$(WITH_SERVICES) cargo test --locked -- --ignored --skip chaos --skip soak

chaos: ## 100 seeded runs with kills, zombies, restarts and lost offsets, compared record by record
	@config/local/prepare tests
	@$(WITH_SERVICES) ALBERTINE_CHAOS_RUNS=$${ALBERTINE_CHAOS_RUNS:-100} $(CHAOS)

fuzz: ## libFuzzer against decoding, mappings, windows and the configuration, a minute each
	@tests/fuzz/run

bench: ## speed, latency, growth and what each stage costs; an hour with nothing else running; see benches/README.md
	@config/local/prepare tests
	@$(WITH_SERVICES) cargo bench --locked --bench scheduler --bench pipeline

test-models: ## the Python that converts models, in an environment of its own; torch is large
	@config/local/test-models

stop: ## ends what demo and test started; the data stays
	@config/local/demo/stop
	@config/local/services down

build: ## the program, as demo and tests use it
	@config/local/prerequisites
	@cargo build --locked

lint: ## format, clippy, dependencies, documentation, the style of the Python
	cargo fmt --check
	cargo clippy --locked --all-targets -- -D warnings
	config/local/deny
	config/local/ruff
	RUSTDOCFLAGS=-Dwarnings cargo doc --locked --no-deps --document-private-items

clean-data: ## stops everything and removes the local data; downloads stay
	@config/local/demo/stop
	@config/local/services clean
