# What each target needs and is not there is installed by the scripts it calls:
# system packages with apt-get, Go tools at pinned versions into .tools/bin.

VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)
LDFLAGS := -s -w -X main.version=$(VERSION)
# The same for builds, tests and checks, so that what one has compiled the next finds.
export GOFLAGS := $(GOFLAGS) -buildvcs=false -trimpath -tags=urfave_cli_no_docs
export CGO_ENABLED ?= 0

export PATH := $(CURDIR)/.tools/bin:$(PATH)

.PHONY: help build demo test test-matrix test-moto lint fuzz bench soak tools clean

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 14

build: ## build bin/lifeboat, static, for this machine
	go build -ldflags '$(LDFLAGS)' -o bin/lifeboat ./cmd/lifeboat

demo: ## the whole story on a scratch server and a directory
	@scripts/packages certs postgresql
	@$(MAKE) --no-print-directory build
	bin/lifeboat demo

test: ## everything that must hold before a commit is pushed
	@scripts/packages certs postgresql zstd python3 openssl cc chromium systemd shellcheck npm zsh fish
	@scripts/tools
	@scripts/test

test-matrix: ## the tests with servers, on PostgreSQL 16, 17 and 18
	@scripts/packages certs postgresql zstd npm
	@scripts/tools versitygw age
	@scripts/test-matrix

test-moto: ## the calls to Amazon RDS against moto's server, in a Debian trixie; needs root
	@scripts/test-moto

lint: ## the checks of "test" that run no tests
	@scripts/tools staticcheck govulncheck
	@scripts/test lint

fuzz: ## every fuzz target for FUZZTIME (30s)
	@scripts/fuzz

bench: ## Lifeboat against pgBackRest, as a table: BENCH is flags
	@scripts/packages certs postgresql zstd pgbackrest
	@scripts/tools versitygw
	@$(MAKE) --no-print-directory build
	@scripts/bench $(BENCH)

soak: ## hours of load, faults and restores: SOAK is how long (1h)
	@scripts/packages certs postgresql zstd
	@scripts/tools versitygw
	@scripts/soak

tools: ## the Go tools and the S3 server, at pinned versions, into .tools/bin
	@scripts/tools

clean: ## remove what was built; .tools stays
	rm -rf bin dist bench-work
