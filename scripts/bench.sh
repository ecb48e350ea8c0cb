#!/usr/bin/env bash
# What requests cost: the real program next to its peers, in one go on this machine.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

require_toolchain
MISSING=()
has wrk || MISSING+=(wrk)
has taskset || MISSING+=(util-linux)
if ((${#MISSING[@]} > 0)); then
  step "Install ${MISSING[*]}" "apt said why above; install them by hand, then try again." \
    install_packages "${MISSING[@]}"
fi
# Both sides as they are shipped.
step "Build the program and the load runs as they are shipped" "Mend what the compiler names above." \
  cargo build --quiet --profile dist -p quarterdeck -p quarterdeck-bench
export QUARTERDECK_BIN=${QUARTERDECK_BIN:-$TARGET_DIR/dist/quarterdeck}
say "GET /auth/me next to a bare handler"
"$TARGET_DIR/dist/quarterdeck-bench"
say "A flood of sign-ins"
"$TARGET_DIR/dist/quarterdeck-bench" flood
say "What the limits cost"
"$TARGET_DIR/dist/quarterdeck-bench" limits
