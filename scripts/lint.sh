#!/usr/bin/env bash
# Everything that can be said about the sources without running them.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

DENY_VERSION=0.20.2

# Advisories come over the network, which not every machine has; the other checks need only the lock file.
check_dependencies() {
  cargo deny --log-level error check bans licenses sources
  if GIT_TERMINAL_PROMPT=0 timeout 15 git ls-remote --quiet --exit-code https://github.com/rustsec/advisory-db HEAD >/dev/null 2>&1; then
    cargo deny --log-level error check advisories
  else
    say "The advisory database cannot be reached: advisories are not checked on this machine"
  fi
}

has shellcheck || step "Install shellcheck" "apt said why above." install_packages shellcheck
has cargo-deny || step "Build cargo-deny $DENY_VERSION (once)" "Check that Cargo reaches its registry." \
  cargo_tool cargo-deny "$DENY_VERSION"

step "Check the shell scripts" "Mend what shellcheck names above." shellcheck -x -P SCRIPTDIR scripts/*.sh .ci/run
step "Check the Rust format" "Run \`make fix\`." cargo fmt --all --check
step "Check the web sources" "Run \`make fix\`, then mend what is still named." npm --prefix web run --silent check
step "Check the dependencies' licences and sources" "See deny.toml for what is allowed and why." check_dependencies
step "Run Clippy" "Mend what it names above." cargo clippy --quiet --workspace --all-targets -- -D warnings
