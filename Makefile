# Everything of this project starts here: `make help` lists the targets.
GO      ?= go
BIN     := bin
# Both are pinned, so that they say the same everywhere.
STATICCHECK := honnef.co/go/tools/cmd/staticcheck@v0.8.2
GOVULNCHECK := golang.org/x/vuln/cmd/govulncheck@v1.1.4
FUZZTIME ?= 30s
export CGO_ENABLED = 0
# scripts/version asks git, not the Go tool, which fails in a clone that belongs to another user.
export GOFLAGS := $(shell $(GO) env GOFLAGS 2>/dev/null) -buildvcs=false

.PHONY: help build deb test test-matrix demo demo-share bench screenshots mutants lint fuzz vuln deps go clean
help:
	@echo 'make build    the two programs, in $(BIN)/'
	@echo 'make deb      the Debian packages testbox and testbox-server, in dist/ (Debian 12)'
	@echo 'make test     install what is needed and run all tests (root, Debian 12)'
	@echo 'make test-matrix  each firmware, disk and network card in virtual machines (root); MATRIX=uefi-sb/nvme chooses some'
	@echo 'make demo     install what is needed; back up, wreck and restore a virtual testbox (root, Debian 12)'
	@echo 'make demo-share  the same in share mode, without a storage server of ours'
	@echo 'make bench    speed beside other tools (root, 60 GB, more than an hour)'
	@echo 'make screenshots  the pictures of docs/page.md, from a server with a made-up lab, in a real browser (root)'
	@echo 'make mutants  break the code on purpose, and see that tests notice (root, a quarter of an hour)'
	@echo 'make lint     gofmt, vet, staticcheck, package levels'
	@echo 'make fuzz     every fuzz test for FUZZTIME=$(FUZZTIME)'
	@echo 'make vuln     known vulnerabilities of what we import'
	@echo 'make clean    remove $(BIN)/ and dist/'

build: go
	$(GO) build -trimpath -ldflags "-s -w $$(scripts/version)" -o $(BIN)/ ./cmd/...

deb: go
	scripts/deb $(VERSION)

go:
	@scripts/needs-go $(GO)

deps: go
	scripts/deps

test: deps
	scripts/test

test-matrix: deps
	scripts/test-matrix $(MATRIX)

demo: deps build
	$(BIN)/testbox lab demo

demo-share: deps build
	$(BIN)/testbox lab demo --share

bench: deps build
	scripts/bench

screenshots: deps
	rm -f docs/screenshots/*.png
	TESTBOX_TEST=all TESTBOX_SCREENSHOTS=$(CURDIR)/docs/screenshots $(GO) test -count=1 -v -run '^TestPictures$$' ./internal/e2e/browser

mutants: deps
	$(GO) run ./internal/e2e/mutants $(MUTANTS)

lint: go
	@out=$$(gofmt -l cmd internal); [ -z "$$out" ] || { echo "gofmt: $$out"; exit 1; }
	$(GO) vet ./...
	$(GO) run $(STATICCHECK) ./...
	$(GO) test -count=1 ./internal

fuzz: go
	scripts/fuzz $(FUZZTIME)

vuln: go
	$(GO) run $(GOVULNCHECK) ./...

clean:
	rm -rf $(BIN) dist
