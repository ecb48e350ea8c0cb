#!/usr/bin/env bash
# Builds the pages and the server, then serves. Arguments go to `quarterdeck serve`.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

scripts/web.sh
PROFILE=${PROFILE:-dev}
step "Build the server (profile $PROFILE; the first time takes a few minutes)" "Mend what the compiler names above." \
  cargo build --quiet --bin quarterdeck --profile "$PROFILE"
exec "$TARGET_DIR/${PROFILE/#dev/debug}/quarterdeck" serve "$@"
