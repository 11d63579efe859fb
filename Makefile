# aln-registry: `make help` lists what there is to type.
SHELL       := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c

VERSION  ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
LDFLAGS  := -s -w -X main.version=$(VERSION)
TOOLS    := $(CURDIR)/.cache/tools
FUZZTIME ?= 10s
BENCH    ?= .
SOAK     ?= EngineIsKilled|FaultsBetween

GOLANGCI_LINT := github.com/golangci/golangci-lint/v2/cmd/golangci-lint@v2.15.0
STATICCHECK   := honnef.co/go/tools/cmd/staticcheck@v0.8.2
GOVULNCHECK   := golang.org/x/vuln/cmd/govulncheck@v1.9.0

.PHONY: help run build test quick lint format vet cross windows fuzz bench soak model tools clean

help: ## list the targets
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 10

run: build ## build and serve on 127.0.0.1:8585, everything in ./data
	@exec bin/aln-registry serve

build: ## build bin/aln-registry, a static binary
	CGO_ENABLED=0 go build -trimpath -ldflags '$(LDFLAGS)' -o bin/aln-registry ./cmd/aln-registry

test: format vet ## everything, with the race detector, real cargo and real crates (installs what it needs; half an hour on two cores)
	go test -race -timeout 60m ./...

quick: ## all tests but integration's: no cargo and no crates, but PostgreSQL, MinIO and Ceph (installs what is missing)
	go test -race -timeout 20m $$(go list ./... | grep -v /integration)

lint: format vet cross tools ## gofmt, vet, all systems, staticcheck, golangci-lint (depguard), govulncheck where its data can be had
	$(TOOLS)/staticcheck ./...
	$(TOOLS)/golangci-lint run ./...
	@if out=$$($(TOOLS)/govulncheck ./... 2>&1); then echo "$$out"; \
	elif grep -qE 'dial tcp|no such host|connection refused|fetching vulnerabilities|Forbidden|proxyconnect' <<<"$$out"; then echo "govulncheck: its data cannot be had here"; \
	else echo "$$out"; exit 1; fi

format:
	@out=$$(gofmt -l $$(git ls-files -co --exclude-standard '*.go')); test -z "$$out" || { echo "not gofmt-ed:"; echo "$$out"; exit 1; }

vet:
	go vet ./...

# Every program and every test program, for every kind of system that clients have.
SYSTEMS := linux/amd64 darwin/arm64 windows/amd64

cross: ## vet, compile and link everything, tests too, for Linux, macOS and Windows
	@for system in $(SYSTEMS); do \
	  echo "$$system"; \
	  export GOOS=$${system%/*} GOARCH=$${system#*/}; \
	  rm -rf .cache/cross && mkdir -p .cache/cross/tests; \
	  go vet ./...; \
	  go build -o .cache/cross/ ./...; \
	  out=$$(go test -c -o .cache/cross/tests/ ./... 2>&1) || { echo "$$out"; exit 1; }; \
	done; rm -rf .cache/cross

# What is particular about Windows, and one life of a lab (portable.txtar). Not there:
# cargo, and what Wine cannot: UDP as Go wants it, renaming by the rules of POSIX, and
# access lists that files inherit from their folder.
WINDOWS := durable did storage storage/disk storage/catalog client client/cargoconfig
WINE_CANNOT := TestResolve|TestRealCargo|TestFindProject$$|TestAnOpenFileIsReplaced|TestReadersNeverSee|TestCatalogIsCopiedBeforeAMigration|TestFilesAreThePropertyOfTheirOwner

windows: ## the tests of files, keys and commands as Windows runs them, under Wine (gets it; needs root)
	@rm -rf .cache/windows && mkdir -p .cache/windows
	GOOS=windows GOARCH=amd64 CGO_ENABLED=0 go test -c -o .cache/windows/ $(addprefix ./,$(WINDOWS) cmd/aln-registry)
	@for package in $(WINDOWS); do \
	  echo "$$package"; \
	  timeout 300 integration/testbed/wine.sh $$package .cache/windows/$${package##*/}.test.exe -test.skip '$(WINE_CANNOT)' -test.timeout 4m; \
	done
	timeout 300 integration/testbed/wine.sh cmd/aln-registry .cache/windows/aln-registry.test.exe -test.run TestScripts/portable -test.timeout 4m

tools: $(TOOLS)/.done

$(TOOLS)/.done: Makefile
	@mkdir -p $(TOOLS)
	for tool in $(STATICCHECK) $(GOLANGCI_LINT) $(GOVULNCHECK); do GOBIN=$(TOOLS) go install $$tool; done
	@touch $@

fuzz: ## run each fuzz target for FUZZTIME (default 10s)
	@for package in $$(go list ./...); do \
	  for target in $$(go test -list '^Fuzz' $$package | grep '^Fuzz' || true); do \
	    echo "$$package $$target"; \
	    go test -run '^$$' -fuzz "^$$target\$$" -fuzztime $(FUZZTIME) -fuzzminimizetime 5x $$package; \
	  done; \
	done

bench: ## ratios against simpler servers, measured in turn; docs/PERFORMANCE.md (installs nginx and PostgreSQL, builds MinIO)
	@mkdir -p .cache
	go test -c -o .cache/bench.test ./integration
	cd integration && taskset -c 1-63 ../.cache/bench.test -test.run '^$$' -test.bench '$(BENCH)' -test.benchtime 1x -test.timeout 2h

model: ## check the order of a change with several replicas, exhaustively within bounds (installs spin and gcc)
	nice -n 5 model/run.sh

soak: ## the crash and fault tests for hours: 500 kills on each pair of engines, 50 rounds of faults; goes on where it was ended (docs/SOAK.md)
	@mkdir -p .cache/soak
	go test -race -c -o .cache/soak/soak.test ./integration
	cd integration && ../.cache/soak/soak.test -test.run '$(SOAK)' -soak ../.cache/soak -test.timeout 0

clean: ## remove what was built; data stays
	rm -rf bin .cache
