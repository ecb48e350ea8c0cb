#!/usr/bin/env bash
# What requests cost: the real program next to its peers, in one go on this machine.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

# Where Debian keeps nginx.
PATH=$PATH:/usr/sbin
require_toolchain
MISSING=()
has wrk || MISSING+=(wrk)
has taskset || MISSING+=(util-linux)
[[ -e /usr/lib/nginx/modules/ngx_nchan_module.so ]] || MISSING+=(nginx libnginx-mod-nchan)
if ((${#MISSING[@]} > 0)); then
  step "Install ${MISSING[*]}" "apt said why above; install them by hand, then try again." \
    install_packages "${MISSING[@]}"
fi
step "Install the packages of the Node peer" "npm said why above; check that it reaches its registry." \
  install_node_packages bench/peers
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
say "Creating tasks, and listing up to a million of them"
"$TARGET_DIR/dist/quarterdeck-bench" tasks
say "WebSocket fan-out and idle connections next to nginx nchan and node ws"
# Thousands of sockets; the most one may have is enough if the wish is refused.
ulimit -n 65536 2>/dev/null || ulimit -n "$(ulimit -Hn)"
"$TARGET_DIR/dist/quarterdeck-bench" realtime
