# What is done to Cronclave. `make ci` is the gate; all else is a part of it, or for people.
#
#   make demo                        three servers and an agent on this machine, and a table
#   make demo-kill                   the same, and its leader is killed now and then
#   make sim SEED=7 N=100            simulated clusters, N of them from SEED on
#   make hunt MINUTES=30             seed after seed, under every fault; 2 runs at a time
#   make lattice                     every crash set, partition and lost disk: docs/quorum.md
#   make mutants                     planted faults, each of which a checker has to find
#   make fuzz T=node_inputs S=60     one fuzz target for S seconds (needs cargo-fuzz)
#   make bench                       what a write costs; bench-peers: beside etcd; bench-failover

CARGO ?= cargo
SEED ?= 1
N ?= 20
T ?= node_inputs
S ?= 60
MINUTES ?= 30
JOBS ?= 2
DEMO = $(CARGO) run --locked -q --bin cronclave -- demo
SIM = $(CARGO) run --locked --release -q -p cronclave-sim --features sim --
CHECKED = $(CARGO) build --locked --profile checked -q -p cronclave-sim --features sim
TARGETS := node_inputs wire_decode log_recover schedule_parse
WASM := wasm32-unknown-unknown
# An optimised build of the fuzz targets must not share a directory with the sanitizer's.
FUZZ_DIR ?= fuzz/target
# A run begins with both, and writes what it finds of interest into the first, which is not committed.
SEEDS = fuzz/found/$(T) fuzz/corpus/$(T)
HOST := $(shell rustc -vV | sed -n 's/^host: //p')

.PHONY: ci fmt lint core test sim hunt lattice mutants doc shipped fuzz fuzz-asan corpus demo demo-kill bench bench-failover bench-peers

# Offline after `cargo fetch`. Warnings are denied by flags and never by RUSTFLAGS, which would
# replace the flags of .cargo/config.toml. Cargo.lock is the one that ships: a build that would
# change it fails.
ci: export CARGO_INCREMENTAL ?= 0
ci:
	$(CARGO) fetch --locked
	$(MAKE) fmt shipped core lint doc
	$(MAKE) test
	@echo "ci: all is well"

fmt:
	$(CARGO) fmt --all --check

lint:
	$(CARGO) clippy --locked --workspace --all-targets --features cronclave-sim/sim -- -D warnings

# The pure half alone: a module that reaches for the shell does not compile here. Only with -p,
# because features are unified over the workspace. For wasm too, where its target is installed.
core:
	$(CARGO) check --locked -p cronclave --lib --no-default-features
	@if rustup target list --installed 2>/dev/null | grep -q $(WASM); then \
	  set -x; $(CARGO) check --locked -p cronclave --lib --no-default-features --target $(WASM); \
	else echo "core: $(WASM) is not installed and was not checked"; fi

# Everything: units, real processes, the corpus of the fuzzers, and simulated clusters on a fixed
# set of seeds. It is the command that the README promises.
test:
	$(CARGO) test --locked --features sim

sim:
	CRONCLAVE_SIM_SEED=$(SEED) CRONCLAVE_SIM_COUNT=$(N) $(CARGO) test --locked -p cronclave-sim \
	  --features sim --test seeds

# Half of the seeds are run by a build with debug assertions too.
hunt:
	$(CHECKED)
	$(SIM) hunt --minutes $(MINUTES) --jobs $(JOBS) --checked target/checked/cronclave-sim

lattice:
	$(SIM) lattice --jobs $(JOBS) --page docs/quorum.md

mutants:
	$(SIM) mutants --jobs $(JOBS)

# Private items are documented too, so a link to one leads somewhere.
doc:
	RUSTDOCFLAGS="--cfg madsim -D warnings -A rustdoc::private-intra-doc-links" \
	  $(CARGO) doc --locked --no-deps --document-private-items

# What ships has never heard of the simulator.
shipped:
	@if $(CARGO) tree --locked -p cronclave -e normal --prefix none | grep -w madsim; then \
	  echo "shipped: the binary depends on madsim, which only sim/ may"; exit 1; \
	else echo "shipped: no madsim in the binary"; fi

# On the stable toolchain. What a fuzzer finds is written to fuzz/artifacts: copy it into
# fuzz/corpus/$(T) under a name that says what it is, and `cargo test --test corpus` replays it.
fuzz: | fuzz/found/$(T)
	$(CARGO) fuzz run --sanitizer none --target-dir $(FUZZ_DIR) $(T) $(SEEDS) -- \
	  -max_total_time=$(S) -timeout=20 -max_len=4096

# The same with the address sanitizer, which the stable compiler has but does not show.
fuzz-asan: | fuzz/found/$(T)
	RUSTC_BOOTSTRAP=1 $(CARGO) fuzz run --sanitizer address --target $(HOST) \
	  --target-dir $(FUZZ_DIR)-asan $(T) $(SEEDS) -- -max_total_time=$(S) -timeout=60 -max_len=4096

fuzz/found/$(T):
	mkdir -p $@

# Makes the corpora smaller without losing what they reach.
corpus:
	for target in $(TARGETS); do \
	  $(CARGO) fuzz cmin --sanitizer none --target-dir $(FUZZ_DIR) $$target || exit 1; done

demo:
	$(DEMO)

demo-kill:
	$(DEMO) --kill-leader

# What a write costs: three servers, real sockets, real syncs. On a machine with nothing else to do.
bench:
	$(CARGO) bench --locked -p cronclave --bench writes

# The same for etcd in the same run. Installs it from Debian if it is not there.
bench-peers:
	@command -v etcd >/dev/null || { \
	  as_root=; [ "$$(id -u)" = 0 ] || as_root=sudo; \
	  { [ -z "$$as_root" ] || command -v sudo >/dev/null; } && command -v apt-get >/dev/null \
	    && $$as_root apt-get update -q \
	    && $$as_root apt-get install -q -y --no-install-recommends etcd-server; } \
	  || { echo "bench-peers: etcd is not here, and Debian's package etcd-server cannot be" \
	    "installed: that takes apt-get, and root or sudo"; exit 1; }
	$(CARGO) bench --locked -p cronclave --bench writes -- --only load --peers

# How long no write is taken after a leader was killed.
bench-failover:
	$(CARGO) bench --locked -p cronclave --bench failover
