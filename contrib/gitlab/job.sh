# Read by the other scripts. It names the run after the job, by the file in which the runner
# says what GitLab has said, since a job can set its variables to whatever it likes.
# shellcheck shell=bash
TESTBOX_RUN=gitlab-$(python3 -c 'import json, sys; print(int(json.load(open(sys.argv[1]))["id"]))' "$JOB_RESPONSE_FILE") || {
	echo "testbox: the runner does not say in JOB_RESPONSE_FILE which job this is" >&2
	exit "$SYSTEM_FAILURE_EXIT_CODE"
}
TESTBOX_RUN+=${TESTBOX_SITE:+-$TESTBOX_SITE} # of runners of several GitLab servers
export TESTBOX_RUN
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
PATH=$here:$here/../shell:$PATH
