#!/usr/bin/env bash
# config_exec of a GitLab runner with the custom executor. docs/schedulers.md explains it.
# The box is restored for each job, so nothing of another job is in its folders.
set -euo pipefail
builds=${TESTBOX_BUILDS:-/tmp/builds}
cat <<END
{"builds_dir": "$builds", "cache_dir": "$builds/cache", "builds_dir_is_shared": false,
 "driver": {"name": "testbox", "version": "1"}}
END
