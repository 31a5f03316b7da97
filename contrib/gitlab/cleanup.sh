#!/usr/bin/env bash
# cleanup_exec: cancels what has not ended, and gives the box back. The runner calls it however
# the job has ended, and also between two tries of prepare_exec.
set -uo pipefail
# shellcheck source=contrib/gitlab/job.sh
. "$(dirname "$0")/job.sh"
testbox-lease give || exit "$SYSTEM_FAILURE_EXIT_CODE"
