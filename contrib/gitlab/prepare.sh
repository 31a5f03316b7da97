#!/usr/bin/env bash
# prepare_exec: takes a box, restores it and waits until it is up. The arguments are those of
# `testbox-lease take`, as in prepare_args = ["--for", "2h", "--wait", "30m", "web-1", "web-2"].
set -uo pipefail
# shellcheck source=contrib/gitlab/job.sh
. "$(dirname "$0")/job.sh"
# Not `exec`: each code of ours must become one that the runner knows.
box=$(testbox-lease take --why "GitLab job ${TESTBOX_RUN#gitlab-}" "$@") || exit "$SYSTEM_FAILURE_EXIT_CODE"
echo "The box is $box."
