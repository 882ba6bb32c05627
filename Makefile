# hotpair: what one types. `make` alone lists it.
#
# Every cargo command works on the whole workspace and on nothing else: a smaller selection would
# give the dependencies other features, and build them once more.

SHELL := /bin/bash
.DEFAULT_GOAL := help
.PHONY: help demo test check deny fix simulate bench soak fuzz planted install-test-needs cargo-present

CARGO ?= cargo
TARGET := $(or $(CARGO_TARGET_DIR),target)
HOST = $(shell rustc -vV | sed -n "s/^host: //p")
INSTALL := crates/lab/scripts/install.sh
DENY := 0.20.2
SEEDS ?= 100000
SECONDS ?= 60
ARGS ?=

# A test that waits in vain many times a second must not walk the stack each time.
export RUST_LIB_BACKTRACE ?= 0

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*##/ { printf "make %-18s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: cargo-present ## a pair on a real ZooKeeper, broken in every way it knows; ARGS are passed on
	$(INSTALL) zookeeper
	$(CARGO) build --locked --release --workspace --bins
	$(TARGET)/release/hotpair demo $(ARGS)

test: cargo-present install-test-needs planted ## all tests, with real ZooKeeper servers, networks and tools
	$(CARGO) build --locked --workspace --bins
	$(CARGO) test --locked -p hotpair-simulator --features planted-bugs --test planted_bugs --test tables
	$(CARGO) test --locked --workspace --no-fail-fast

check: cargo-present deny ## format, lints, documentation, supply chain, rings, house rules
	$(CARGO) fmt --all -- --check
	$(CARGO) clippy --locked --workspace --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --locked --workspace --no-deps
	$(CARGO) test --locked --workspace --test rings --test tidy

# The version is pinned: a later one may want other rules, and a build must not fail for that.
deny: cargo-present ## licences, bans and sources of all dependencies
	@command -v cargo-deny >/dev/null || test -x $(TARGET)/tools/bin/cargo-deny || \
	  CARGO_PROFILE_DEV_DEBUG=0 $(CARGO) install cargo-deny --version $(DENY) --locked --debug --no-default-features \
	    --root $(TARGET)/tools --target-dir $(TARGET)/tools/build --quiet
	PATH="$$PATH:$(TARGET)/tools/bin" cargo-deny --locked check licenses bans sources

fix: cargo-present ## format, and let clippy repair what it can
	$(CARGO) fmt --all
	$(CARGO) clippy --workspace --all-targets --fix --allow-dirty --allow-staged

simulate: cargo-present ## SEEDS=100000 storms, from seed 0
	$(CARGO) build --locked --release --workspace --bins
	$(TARGET)/release/hotpair simulate --seeds $(SEEDS) $(ARGS)

bench: cargo-present ## the benchmarks, with a JSON report; ARGS are passed on
	$(INSTALL) zookeeper postgresql
	$(CARGO) build --locked --release --workspace --bins
	$(TARGET)/release/hotpair bench $(ARGS)

soak: cargo-present install-test-needs planted ## the long tests as well: a real systemd, every fault many times, 200 fault runs
	$(INSTALL) nspawn
	$(CARGO) build --locked --workspace --bins
	HOTPAIR_SOAK=1 $(CARGO) test --locked --workspace --test '*' -- --nocapture --test-threads=1

# libFuzzer's feedback, with a compiler that anybody has.
FUZZ_FLAGS := -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
  -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
  -Cllvm-args=-sanitizer-coverage-trace-compares -Cdebug-assertions -Cpanic=abort

fuzz: cargo-present ## every parser of bytes from outside, for SECONDS=60 each; FUZZ=NAME for one of them
	$(INSTALL) fuzzing
	RUSTFLAGS="$(FUZZ_FLAGS)" $(CARGO) build --locked --release --target-dir $(TARGET)/fuzz \
	  --target $(HOST) -p hotpair-fuzz --features libfuzzer
	crates/fuzz/run.sh $(TARGET)/fuzz/$(HOST)/release/hotpair-fuzz $(SECONDS) $(FUZZ)

# In the same folder, so that only our own crates are compiled a second time. The build that follows
# puts the product's binary back in its place.
planted: cargo-present ## the binary with known bugs for the tests that must find them, as hotpair-planted
	$(CARGO) build --locked --workspace --bin hotpair --features hotpair-node/planted-bugs
	cp $(TARGET)/debug/hotpair $(TARGET)/debug/hotpair-planted.new
	mv $(TARGET)/debug/hotpair-planted.new $(TARGET)/debug/hotpair-planted
	$(CARGO) build --locked --workspace --bin hotpair

install-test-needs: ## what the tests need from outside, only where missing (apt-get, root)
	$(INSTALL) zookeeper namespaces systemd python prometheus openssl postgresql zeromq

cargo-present:
	@command -v $(CARGO) >/dev/null || { \
	  echo "$(CARGO) is missing: install Rust $$(sed -n 's/^rust-version = "\(.*\)"/\1/p' Cargo.toml) or later with rustup"; exit 1; }
	@command -v cc >/dev/null || { \
	  echo "cc is missing, and Rust links with it: install gcc and libc6-dev"; exit 1; }
