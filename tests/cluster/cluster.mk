# The test cluster, for the Makefile at the root to include.

CLUSTER ?= tests/cluster/cluster

.PHONY: cluster-up cluster-down cluster-status cluster-build

cluster-up: ## Bring the test cluster up, or mend the one that is up (NODES=1 to 5, else 2; N2=docker for another engine there, KUBE=1.32 for another Kubernetes)
	$(CLUSTER) up $(if $(NODES),--nodes $(NODES))

cluster-down: ## Take the test cluster down and leave nothing behind
	$(CLUSTER) down

cluster-status: ## Show what runs of the test cluster
	$(CLUSTER) status

cluster-build: ## Only build and cache the test cluster's programs
	$(CLUSTER) build
