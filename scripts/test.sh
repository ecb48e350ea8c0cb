#!/usr/bin/env bash
# The whole proof: everything CI runs. Installs what is missing, starts private servers, removes them at the end.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
. "$(dirname "${BASH_SOURCE[0]}")/postgres.sh"

NEXTEST_VERSION=0.9.143

SCRATCH=$(mktemp -d "${TMPDIR:-/tmp}/quarterdeck-test.XXXXXX")
clean_up() {
  stop_postgres
  rm -rf "$SCRATCH"
}
trap clean_up EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

# One line per thing the tests need that apt can bring: is it there? its package.
missing_packages() {
  postgres_bin >/dev/null || echo postgresql
  has redis-server || echo redis-server
  has nats-server || echo nats-server
  [[ -n $CHROMIUM ]] || echo chromium
  has shellcheck || echo shellcheck
  has curl || echo curl
  python3 -c 'import ensurepip' 2>/dev/null || echo python3-venv
}

require_toolchain
find_chromium
mapfile -t MISSING < <(missing_packages)
if ((${#MISSING[@]} > 0)); then
  step "Install ${MISSING[*]}" "apt said why above; install them by hand, then try again." \
    install_packages "${MISSING[@]}"
  find_chromium
fi
has cargo-nextest || step "Build cargo-nextest $NEXTEST_VERSION (once)" "Check that Cargo reaches its registry." \
  cargo_tool cargo-nextest "$NEXTEST_VERSION"

# What fails fastest comes first.
scripts/web.sh --with-e2e
step "Run the web unit tests" "Mend what Vitest names above." npm --prefix web run --silent test
scripts/lint.sh

# Tests and program in one go, so that they share every dependency.
step "Build the program and its tests" "Mend what the compiler names above." \
  cargo build --quiet --workspace --bins --tests
say "Start a private PostgreSQL"
start_postgres "$SCRATCH"
step "Run the doc tests" "Mend the examples named above." cargo test --quiet --workspace --doc
scripts/e2e.sh
scripts/schemathesis.sh
step "Run the Rust tests" "Mend what nextest names above; \`cargo nextest run NAME\` runs one alone." \
  cargo nextest run --workspace --profile ci
say "Everything passed in $SECONDS s"
