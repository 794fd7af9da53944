# Slipway. `make up` and `make test` do all set-up by themselves on Debian or Ubuntu with Go, gcc, make, git and root.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

VERSION   ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)
KUBE      := v1.37.1
# One setting for binary and tests, so that they share what is compiled. runc alone needs cgo, and sets it.
export CGO_ENABLED := 0

LDFLAGS   := -s -w -X main.version=$(VERSION)
KUBE_LD   := -s -w -X k8s.io/component-base/version.gitVersion=$(KUBE)
KUBE_LD   += -X k8s.io/client-go/pkg/version.gitVersion=$(KUBE)
DATA      ?= /var/lib/slipway
SHOP      := build/images/shop.tar

export SLIPWAY_CORPUS ?= $(abspath ../shared/corpus)

.PHONY: help up down build bundle dist images tools test test-vm bench check lint clean

help: ## list the targets
	@if [ -t 1 ]; then b=$$'\033[1m' e=$$'\033[0m'; else b= e=; fi; \
	awk -v b="$$b" -v e="$$e" -F':.*## ' '/^[a-z-]+:.*## /{printf "  %s%-8s%s %s\n", b, $$1, e, $$2}' $(MAKEFILE_LIST)

up: build images ## build everything, start Slipway and deploy examples-repo (Ctrl-C ends it; containers stay)
	@exec bin/slipway up examples-repo --data-dir $(DATA) --images $(SHOP)

down: ## remove the containers, networks and rules that `make up` made (data stay; see slipway down --help)
	@bin/slipway down --data-dir $(DATA)

build: bin/slipway bundle ## build bin/slipway and the container runtime beside it

.PHONY: bin/slipway
bin/slipway:
	@echo "building slipway"
	@go build -ldflags "$(LDFLAGS)" -o bin/slipway ./cmd/slipway

bundle: bin/runtime/runc ## build containerd, runc and the shim into bin/runtime

BUNDLE_SOURCES := $(shell find nodeagent/runtime/bundle -type f)
bin/runtime/runc: $(BUNDLE_SOURCES)
	@echo "building containerd, runc and the shim (about a minute, once)"
	@pkg-config --exists libseccomp 2>/dev/null || { apt-get update -qq && apt-get install -y -qq gcc pkg-config libseccomp-dev >/dev/null; }
	@nodeagent/runtime/bundle/build.sh bin/runtime
	@touch $@

DIST_ARCHES ?= amd64 arm64

dist: ## pack dist/slipway-VERSION-linux-ARCH.tar.gz for machines without Go (amd64 and arm64; root)
	@mkdir -p dist
	@for arch in $(DIST_ARCHES); do \
		archive=dist/slipway-$(VERSION)-linux-$$arch.tar.gz; \
		echo "building $$archive (a few minutes, once)"; \
		cmd/slipway/release/build.sh $$arch build/dist/$$arch "$(LDFLAGS)"; \
		go run ./cmd/slipway/release -built build/dist/$$arch -time "$$(git log -1 --format=%ct)" -o $$archive; \
	done

images: $(SHOP) ## build the images of examples-repo, offline

$(SHOP): $(shell find examples-repo/src testing/images -name '*.go')
	@echo "building the shop's images"
	@mkdir -p $(@D)
	@go run ./testing/images/shop -o $@

tools: bin/kubectl bin/kubectl-1.20 ## build the pinned kubectl and fetch Debian's old one, for tests

bin/kubectl: testing/tools/go.mod testing/tools/go.sum
	@echo "building kubectl $(KUBE) (a minute or two, once)"
	@cd testing/tools && go build -ldflags "$(KUBE_LD)" -o ../../$@ k8s.io/kubernetes/cmd/kubectl

bin/kubectl-1.20:
	@testing/tools/debian-kubectl.sh $@

test: build images tools ## run every test, real containers included (root)
	@SLIPWAY_TEST_STRICT=1 go run ./testing/report

test-vm: bin/kubectl ## test the archive in a virtual machine: reboots, power cuts, cgroup v2, systemd (root, 10 minutes)
	@testing/vm/rootfs.sh build/vm
	@$(MAKE) --no-print-directory dist DIST_ARCHES=amd64
	@SLIPWAY_TEST_STRICT=1 go test -tags vm -count=1 -v -timeout 30m ./testing/vm

bench: build images ## print the measured figures beside the targets (root)
	@go run ./testing/bench

check: lint ## format, vet, structure and race tests, and a clean tree afterwards
	@test -z "$$(gofmt -l $$(git ls-files '*.go'))" || { gofmt -l $$(git ls-files '*.go'); echo "run gofmt -w"; exit 1; }
	@go vet ./...
	@go vet -tags vm ./testing/vm
	@go test ./testing/arch
	@CGO_ENABLED=1 go test -race ./apiserver/store/... ./reconciler/loop/... ./gitsource/...
	@test -z "$$(git status --porcelain)" || { git status --short; echo "the tree is not clean"; exit 1; }

lint: ## run golangci-lint with .golangci.yml
	@go run github.com/golangci/golangci-lint/v2/cmd/golangci-lint@v2.15.0 run --timeout 10m

clean: ## remove what was built
	@rm -rf bin build dist
