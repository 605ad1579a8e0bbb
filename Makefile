# execlet. `make help` lists what there is to do.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

# For which nodes it is built: amd64 or arm64. It is built, and tested, on amd64.
ARCH ?= amd64
ifeq ($(ARCH),amd64)
TARGET := x86_64-unknown-linux-gnu
BINARY := target/image/execlet
PLUGIN := target/plugin/kubectl-execlet
SBOM := target/sbom
else ifeq ($(ARCH),arm64)
TARGET := aarch64-unknown-linux-gnu
BINARY := target/image/arm64/execlet
PLUGIN := target/plugin/arm64/kubectl-execlet
SBOM := target/sbom/arm64
else
$(error ARCH is $(ARCH): it may be amd64 or arm64)
endif
# Namespace and release of the installation.
NAMESPACE ?= execlet
RELEASE ?= execlet
CRD := execrequests.execlet.dev.yaml
BATCH_CRD := execbatches.execlet.dev.yaml
# Neither the folder of the sources nor that of the crates is in the binary: it is the same wherever it is built.
REMAP := --remap-path-prefix=$(CURDIR)=/src --remap-path-prefix=$(or $(CARGO_HOME),$(HOME)/.cargo)=/cargo

# How long each target is fuzzed. The shell has a SECONDS of its own, which does not count.
FUZZ_SECONDS := $(if $(filter command line,$(origin SECONDS)),$(SECONDS),600)

include tests/cluster/cluster.mk

# The test cluster, unless KUBECONFIG names one of your own.
ifdef KUBECONFIG
# An image that the nodes of your cluster can pull.
IMAGE ?=
# An image with a shell, for the demo's pod.
DEMO_IMAGE ?= busybox:1.36
CLUSTER_DEPS :=
IMAGE_DEPS := need-image
WITH_CLUSTER := true
else
IMAGE ?= execlet:dev
CLUSTER_DEPS := cluster-up
IMAGE_DEPS := image
WITH_CLUSTER := eval "$$($(CLUSTER) env)"
endif

.PHONY: help
help: ## List the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sort | awk -F ':.*## ' '{printf "  make %-15s %s\n", $$1, $$2}'

.PHONY: demo
demo: $(CLUSTER_DEPS) install ## Cluster, installation, one request, its result (6 to 15 min on a new machine, then less than 30 s)
	@$(WITH_CLUSTER); DEMO_IMAGE=$(DEMO_IMAGE) scripts/demo

.PHONY: build
build: ## Build for development
	cargo build --locked

.PHONY: binary
binary: ## Build the static release binary, target/image/execlet; with ARCH=arm64 target/image/arm64/execlet (4 min on a new machine)
	@scripts/toolchain $(ARCH)
	RUSTFLAGS="$(REMAP) -C target-feature=+crt-static" cargo build --release --locked --target $(TARGET) --bin execlet
	@install -D -m 0755 target/$(TARGET)/release/execlet $(BINARY)

.PHONY: plugin
plugin: ## Build the static kubectl plugin, target/plugin/kubectl-execlet; ARCH as above (4 min on a new machine)
	@scripts/toolchain $(ARCH)
	RUSTFLAGS="$(REMAP) -C target-feature=+crt-static" cargo build --release --locked --target $(TARGET) --bin kubectl-execlet
	@install -D -m 0755 target/$(TARGET)/release/kubectl-execlet $(PLUGIN)

# Where the plugin goes: a folder bin/ of this one, which must be on the PATH.
PREFIX ?= $(HOME)/.local
.PHONY: install-plugin
install-plugin: plugin ## Install the kubectl plugin and its completion into PREFIX/bin (~/.local/bin)
	@install -D -m 0755 $(PLUGIN) $(PREFIX)/bin/kubectl-execlet
	@ln -sfn kubectl-execlet $(PREFIX)/bin/kubectl_complete-execlet
	@echo "kubectl execlet is in $(PREFIX)/bin"

.PHONY: reproducible
reproducible: ## Build both binaries twice, in two folders, and compare; ARCH as above (15 min)
	@scripts/toolchain $(ARCH)
	@scripts/reproducible $(ARCH) $(BINARY) $(PLUGIN)

.PHONY: advisories
advisories: ## Look for known weaknesses of the crates; fetches the advisory database from GitHub
	@scripts/toolchain cargo-deny
	cargo deny check advisories

.PHONY: sbom
sbom: ## Write what is in each binary, as CycloneDX: target/sbom/*.cdx.json; with ARCH=arm64 target/sbom/arm64/*.cdx.json
	@scripts/toolchain cargo-cyclonedx
	@scripts/sbom $(TARGET) $(SBOM)

.PHONY: release
release: ## Write binaries and their contents for amd64 and arm64, and SHA256SUMS: target/dist/ (20 min)
	@for arch in amd64 arm64; do $(MAKE) binary plugin sbom ARCH=$$arch; done
	@scripts/release

.PHONY: crds
crds: ## Write crds/ and the chart's copy from the Rust types
	@mkdir -p target crds charts/execlet/files/crds
	cargo run --locked --quiet -- crds > target/$(CRD)
	cargo run --locked --quiet -- crds execbatches > target/$(BATCH_CRD)
	@for crd in $(CRD) $(BATCH_CRD); do install -m 0644 target/$$crd crds/$$crd; \
		install -m 0644 target/$$crd charts/execlet/files/crds/$$crd; done

.PHONY: image
image: binary $(CLUSTER_DEPS) ## Build the image and load it on every node of the test cluster
	@test $(ARCH) = amd64 || { echo "the nodes of the test cluster are amd64: build an image for others with docker build --platform linux/$(ARCH)" >&2; exit 2; }
	@scripts/load-image $(IMAGE)

.PHONY: need-image
need-image:
	@test -n "$(IMAGE)" || { echo "IMAGE is not set: build and push an image that your cluster can pull (docker build -t REGISTRY/execlet:TAG . && docker push REGISTRY/execlet:TAG), then: make $(MAKECMDGOALS) IMAGE=REGISTRY/execlet:TAG" >&2; exit 2; }

.PHONY: install
install: $(IMAGE_DEPS) ## Install or upgrade the chart
	@$(WITH_CLUSTER); NAMESPACE=$(NAMESPACE) RELEASE=$(RELEASE) scripts/install $(IMAGE)

.PHONY: test
test: ## Run everything: lint, unit, engine, chart and end-to-end tests (80 min on a new machine, then about 40 min)
	@scripts/test

.PHONY: test-unit
test-unit: ## Run the tests that need neither engine nor cluster
	@scripts/toolchain rust
	cargo test --locked --lib --bins --test layering --test manipulations --test programs --test sim

.PHONY: test-arm64
test-arm64: ## Run the unit tests and both programs for arm64, under QEMU (Linux 6.7, or QEMU registered with the kernel)
	@scripts/toolchain arm64
	@scripts/toolchain qemu
	@scripts/test-arm64

.PHONY: sim
sim: ## Simulate a million requests with faults on each of two engines, and 200,000 batches (REQUESTS, BATCHES, SEED; 3 min to build, then about 20 min)
	@scripts/toolchain rust
	EXECLET_SIM_REQUESTS=$(or $(REQUESTS),1000000) EXECLET_SIM_BATCHES=$(or $(BATCHES),200000) EXECLET_SIM_SEED=$(or $(SEED),1) \
		cargo test --release --locked --test sim every -- --nocapture

.PHONY: test-engine
test-engine: cluster-up ## Run the tests against a real Docker Engine
	@# Some kill an engine: that of another node if it is of this kind, else this one, when the rest is done.
	read -r node other _ < <(for node in $$($(CLUSTER) nodes); do \
		[[ $$($(CLUSTER) engine $$node) != docker* ]] || echo -n "$$node "; done; echo); \
	export EXECLET_TEST_ENGINE=$$($(CLUSTER) socket $${node:?no node has a Docker Engine}); \
	if [ -n "$$other" ]; then EXECLET_TEST_ENGINE_NODE=$$other cargo test --locked --test engine -- --skip containerd::; \
	else cargo test --locked --test engine -- --skip containerd:: --skip restart::; \
		EXECLET_TEST_ENGINE_NODE=$$node cargo test --locked --test engine restart::; \
	fi

.PHONY: test-containerd
test-containerd: ## Run what is about containerd, and what holds on every engine, on containerds that the tests start
	EXECLET_TEST_ENGINE=containerd cargo test --locked --test engine -- both:: containerd::

.PHONY: test-vm
test-vm: ## Run the engine tests in a virtual machine with Linux 6.1 and cgroup v2, on both engines (VM_ENGINE: docker or containerd), and test-vm-cluster
	@scripts/toolchain rust
	tests/vm/vm test $(VM_ENGINE)
	@$(MAKE) test-vm-cluster

.PHONY: test-vm-cluster
test-vm-cluster: image ## Bring a cluster of one node up in it, with execlet, and run a few end-to-end tests there (VM_ENGINE: containerd or docker)
	tests/vm/vm cluster $(VM_ENGINE)

.PHONY: test-vm-short
test-vm-short: ## The quick part of the engine tests that depends on kernel and cgroups (2 min of a processor)
	@scripts/toolchain rust
	tests/vm/vm short

.PHONY: test-e2e
test-e2e: install ## Run the end-to-end tests on the cluster
	@# Most of their time is waiting: on our own cluster, two parts of them run beside each other.
ifdef KUBECONFIG
	@rm -f target/e2e/requests-*.jsonl
	@cargo test --locked --test e2e
	@scripts/audit-check
else
	@IMAGE=$(IMAGE) scripts/end-to-end
endif

.PHONY: faults
faults: install ## Kill agents, engines and the API server 300 times while requests run (30 min; ROUNDS, SEED)
	@$(WITH_CLUSTER); FAULT_ROUNDS=$(or $(ROUNDS),300) $(if $(SEED),FAULT_SEED=$(SEED)) \
		cargo test --locked --test faults -- --nocapture whatever verdict::
	@echo "taking the cluster down: engines that were killed leave containers behind, with addresses that others get"
	@$(MAKE) cluster-down

.PHONY: faults-short
faults-short: ## The same, 15 times (2 min)
	@$(MAKE) faults ROUNDS=15

.PHONY: faults-watched
faults-watched: install ## Kill the agent of a node with containerd 500 times under clients that are attached or follow the log (30 min; KILLS, SEED)
	@$(WITH_CLUSTER); $(if $(KILLS),FAULT_KILLS=$(KILLS)) $(if $(SEED),FAULT_SEED=$(SEED)) \
		cargo test --locked --test faults hundreds -- --ignored --nocapture

.PHONY: faults-batches
faults-batches: install ## Kill managers, agents and the API server during 50 batches of 200 targets (40 min; ROUNDS, TARGETS, SEED)
	@$(WITH_CLUSTER); FAULT_ROUNDS=$(or $(ROUNDS),50) FAULT_TARGETS=$(or $(TARGETS),200) $(if $(SEED),FAULT_SEED=$(SEED)) \
		cargo test --locked --test faults -- --nocapture whoever

.PHONY: flood
flood: install ## Ten thousand requests at once (15 min; FLOOD)
	@$(WITH_CLUSTER); $(if $(FLOOD),FLOOD=$(FLOOD)) cargo test --locked --test faults ten_thousand -- --ignored --nocapture

.PHONY: beside
beside: install ## Commands beside kubectl exec and probes in the same containers (10 min; MINUTES)
	@$(WITH_CLUSTER); $(if $(MINUTES),BESIDE_MINUTES=$(MINUTES)) cargo test --locked --test faults beside -- --ignored --nocapture

.PHONY: fleet
fleet: install ## A batch of 2,000 targets on nodes whose agents are simulated (3 min; TARGETS)
	@$(WITH_CLUSTER); $(if $(TARGETS),FLEET_TARGETS=$(TARGETS)) \
		cargo test --locked --test faults thousands -- --ignored --nocapture

.PHONY: bench
bench: install ## Latency, rate and throughput beside the engines alone and kubectl exec, memory of an agent, speed of a batch (25 min and a build; BENCH=exec, streams, batches or memory: that part)
	@$(if $(filter-out memory,$(BENCH)),,benches/memory)
	@$(if $(filter memory,$(BENCH)),,$(WITH_CLUSTER); cargo bench --locked --bench cost)

.PHONY: fuzz
fuzz: ## Fuzz each codec for 10 min (SECONDS); see fuzz/README.md
	@scripts/toolchain cargo-fuzz
	@for target in $$(cargo fuzz list); do \
		RUSTC_BOOTSTRAP=1 cargo fuzz run "$$target" -- -max_total_time=$(FUZZ_SECONDS); done

.PHONY: lint
lint: $(CLUSTER_DEPS) ## Format, clippy, licences, sources of dependencies, chart
	@scripts/toolchain rust
	cargo fmt --check
	cargo clippy --locked --all-targets -- -D warnings
	@scripts/toolchain cargo-deny
	cargo fetch --locked --quiet
	cargo deny --offline check licenses bans sources
	@$(WITH_CLUSTER); charts/check

.PHONY: clean
clean: ## Remove what was built
	cargo clean
