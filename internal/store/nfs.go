package store

import (
	"bufio"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// ErrLocalLocks says that the lock of a folder keeps only this machine's
// processes out.
var ErrLocalLocks = errors.New("the folder is on NFS, and is mounted so that locks do not reach the server (nolock, local_lock): " +
	"another machine that writes there would not be kept out; mount it without these options, with vers=4.1 if the server has no lock service")

// sharedLocks gives ErrLocalLocks for a folder whose locks other machines that
// have it cannot see. What it cannot find out is no error.
func sharedLocks(path string) error {
	abs, err := filepath.Abs(path)
	if err == nil {
		abs, err = filepath.EvalSymlinks(abs)
	}
	mounts, openErr := os.Open("/proc/self/mountinfo")
	if openErr != nil {
		return nil
	}
	defer mounts.Close()
	if err == nil && localLocks(bufio.NewScanner(mounts), abs) {
		return ErrLocalLocks
	}
	return nil
}

// localLocks looks for the mount of a path in the kernel's list (proc(5),
// /proc/pid/mountinfo).
func localLocks(lines *bufio.Scanner, path string) (local bool) {
	longest := -1
	for lines.Scan() {
		before, after, ok := strings.Cut(lines.Text(), " - ")
		what, how := strings.Fields(before), strings.Fields(after)
		if !ok || len(what) < 6 || len(how) < 3 {
			continue
		}
		point := unescape(what[4])
		if !strings.HasPrefix(path+"/", strings.TrimSuffix(point, "/")+"/") || len(point) < longest {
			continue
		}
		longest, local = len(point), false // a later mount covers an earlier one
		if how[0] == "nfs" || how[0] == "nfs4" {
			options := strings.Split(how[2], ",")
			local = slices.ContainsFunc(options, func(o string) bool {
				return o == "nolock" || o == "local_lock=all" || o == "local_lock=flock"
			})
		}
	}
	return local
}

// unescape reads a path of that list: "\040" is a space.
func unescape(s string) string {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+3 < len(s) {
			if n, err := strconv.ParseUint(s[i+1:i+4], 8, 8); err == nil {
				b.WriteByte(byte(n))
				i += 3
				continue
			}
		}
		b.WriteByte(s[i])
	}
	return b.String()
}
