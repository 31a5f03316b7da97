#!/usr/bin/env bash
# run_exec SCRIPT STAGE: runs a script of the job on the box, by ssh. TESTBOX_SSH is the command
# line before the name of the box.
set -uo pipefail
# shellcheck source=contrib/gitlab/job.sh
. "$(dirname "$0")/job.sh"
box=$(testbox-lease box) || exit "$SYSTEM_FAILURE_EXIT_CODE"
read -ra ssh <<<"${TESTBOX_SSH:-ssh -o BatchMode=yes -o ConnectTimeout=30 -l root}"
left=$(testbox-lease left) || left=0
if [ "$left" -le 0 ]; then
	echo "testbox: the time for which the box was reserved is over" >&2
	exit "$BUILD_FAILURE_EXIT_CODE"
fi
code=0
timeout --kill-after=15s "${left}s" "${ssh[@]}" "$box" bash <"$1" || code=$?
case $code in
0) ;;
255) # ssh itself failed
	echo "testbox: the box $box does not answer by ssh" >&2
	exit "$SYSTEM_FAILURE_EXIT_CODE"
	;;
*)
	[ -z "${BUILD_EXIT_CODE_FILE-}" ] || echo "$code" >"$BUILD_EXIT_CODE_FILE"
	exit "$BUILD_FAILURE_EXIT_CODE"
	;;
esac
