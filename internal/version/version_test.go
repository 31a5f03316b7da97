package version

import (
	"runtime/debug"
	"testing"
)

func TestText(t *testing.T) {
	stamped := func(version, revision, modified string) *debug.BuildInfo {
		return &debug.BuildInfo{Main: debug.Module{Version: version}, Settings: []debug.BuildSetting{
			{Key: "-trimpath", Value: "true"}, {Key: "vcs.revision", Value: revision}, {Key: "vcs.modified", Value: modified}}}
	}
	alone := func(version string) *debug.BuildInfo { return &debug.BuildInfo{Main: debug.Module{Version: version}} }
	for _, c := range []struct {
		release, commit string
		info            *debug.BuildInfo
		want            string
	}{
		{"", "4185e110", nil, "unreleased, commit 4185e110"},
		{"v1.2", "4185e110", nil, "v1.2, commit 4185e110"},
		{"", "4185e110+changes", alone("(devel)"), "unreleased, commit 4185e110 with changes"},
		{"", "", nil, "unreleased, unknown commit"},
		{"", "", alone("(devel)"), "unreleased, unknown commit"},
		{"", "", alone(""), "unreleased, unknown commit"},
		{"", "", stamped("v0.0.0-20261127090005-4185e1104575", "4185e1104575fc2b", "false"), "unreleased, commit 4185e1104575fc2b"},
		{"", "", stamped("v0.0.0-20261127090005-4185e1104575+dirty", "4185e1104575fc2b", "true"),
			"unreleased, commit 4185e1104575fc2b with changes"},
		{"", "", stamped("v1.2.0", "4185e1104575fc2b", "false"), "v1.2.0, commit 4185e1104575fc2b"},
		{"", "", stamped("", "", "true"), "unreleased, unknown commit"},
		{"", "", alone("v0.0.0-20261127090005-4185e1104575"), "unreleased, commit 4185e1104575"},
		{"", "", alone("v1.2.3"), "v1.2.3, unknown commit"},
	} {
		if got := text(c.release, c.commit, c.info); got != c.want {
			t.Errorf("text(%q, %q, %v) is %q, want %q", c.release, c.commit, c.info, got, c.want)
		}
	}
}
