// Package version says which source a program was built from.
package version

import (
	"runtime/debug"
	"strings"
)

// The Makefile sets both when it links a program. scripts/version says how they
// are found. If only the Go tool built the program, what that tool noted is
// used instead.
var (
	release string // a tag of the commit, "v1.2"
	commit  string // its hash, with "+changes" behind it if the source had uncommitted changes
)

// String returns the release and the commit, for people.
func String() string {
	info, _ := debug.ReadBuildInfo()
	return text(release, commit, info)
}

func text(release, commit string, info *debug.BuildInfo) string {
	if commit == "" && info != nil {
		release, commit = built(info)
	}
	if release == "" {
		release = "unreleased"
	}
	hash, changed := strings.CutSuffix(commit, "+changes")
	switch {
	case hash == "":
		return release + ", unknown commit"
	case changed:
		return release + ", commit " + hash + " with changes"
	}
	return release + ", commit " + hash
}

// built returns what the Go tool noted in the program. A pseudo-version such as
// v0.0.0-20261127090005-4185e1104575 says no more than the commit does, so it
// is no release.
func built(info *debug.BuildInfo) (release, commit string) {
	for _, s := range info.Settings {
		switch {
		case s.Key == "vcs.revision":
			commit = s.Value + commit
		case s.Key == "vcs.modified" && s.Value == "true":
			commit += "+changes"
		}
	}
	if commit == "+changes" {
		commit = ""
	}
	version, _, _ := strings.Cut(info.Main.Version, "+")
	if part := strings.Split(version, "-"); len(part) >= 3 && len(part[len(part)-1]) == 12 {
		if commit == "" {
			commit = part[len(part)-1] // of `go install MODULE@COMMIT`
		}
		return "", commit
	}
	if version == "(devel)" {
		version = ""
	}
	return version, commit
}
