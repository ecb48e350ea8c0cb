#!/usr/bin/env bash
# Builds the pages the server carries into web/dist, if they are not newer than what they are made of.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

newer_sources() {
  find web -newer web/dist/index.html -type f -not -path '*/node_modules/*' -not -path '*/dist/*' -print -quit
}

build() {
  [[ -f web/dist/index.html && -z $(newer_sources) ]] || npm --prefix web run --silent build -- --logLevel warn
}

require_toolchain
step "Install the web packages" "npm said why above; check that it reaches its registry." \
  install_node_packages web
[[ ${1:-} != --with-e2e ]] ||
  step "Install the browser driver" "npm said why above; check that it reaches its registry." \
    install_node_packages e2e
step "Build the web pages" "Mend what Vite names above." build
