#!/usr/bin/env bash
# Tests the pages in a real browser against the built program.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

find_chromium
[[ -n $CHROMIUM ]] || die "There is no Chromium. Install it, or name a browser in CHROMIUM, then try again."
step "Run the browser tests" "Mend what is named above; \`make test-e2e\` runs them alone." \
  env "QUARTERDECK_BIN=${QUARTERDECK_BIN:-$TARGET_DIR/debug/quarterdeck}" npm --prefix e2e run --silent test
