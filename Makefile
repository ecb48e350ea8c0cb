# Two commands matter: `make run` and `make test`. `make` alone lists the rest.
.DEFAULT_GOAL := help
.PHONY: help run test test-e2e lint fix web bench clean

# The work is in scripts/; what needs shared steps is a script, what is one command stands here.

help: ## Show this list
	@echo "Quarterdeck. Needs Rust and Node 20.19+; make test brings the rest with apt."
	@sed -n 's/^\([a-z0-9-]*\):.*## \(.*\)/  make \1|\2/p' $(MAKEFILE_LIST) | while IFS='|' read -r name text; do printf '%-16s %s\n' "$$name" "$$text"; done

run: ## Build pages and server and serve (ARGS="--port 4000"; quick dev build, PROFILE=release for a fast server)
	@PROFILE=$(or $(PROFILE),dev) scripts/run.sh $(ARGS)

test: ## Prove everything: format, lints, licences, Rust on two databases, web, a real browser, a questioned server
	@scripts/test.sh

test-e2e: ## Run the browser tests alone
	@scripts/web.sh --with-e2e
	@cargo build --quiet --bin quarterdeck
	@scripts/e2e.sh

lint: ## Check formats, lints, types and licences
	@scripts/web.sh
	@scripts/lint.sh

fix: ## Put all sources into their format
	@cargo fmt --all
	@npm --prefix web run fix

web: ## Build the pages the server carries
	@scripts/web.sh

bench: web ## Measure what requests, tasks and WebSockets cost, next to their peers
	@scripts/bench.sh

clean: ## Remove everything that was built or installed here
	@cargo clean
	@rm -rf web/dist web/node_modules e2e/node_modules bench/peers/node_modules
