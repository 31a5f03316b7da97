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

// ErrLocalLocks says that the lock of a folder keeps out only processes of this
// machine.
var ErrLocalLocks = errors.New("the folder is on NFS, and is mounted so that locks do not reach the server (nolock, local_lock): " +
	"another machine that writes there would not be kept out; mount it without these options, with vers=4.1 if the server has no lock service")

// sharedLocks returns ErrLocalLocks for a folder on NFS that is mounted so that
// other machines do not see its locks. If it cannot find out, it returns nil.
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

// localLocks finds the mount of a path in the kernel's list of mounts (proc(5),
// /proc/pid/mountinfo), and reports whether its locks are local.
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

// unescape decodes a path of that list, where "\040" stands for a space.
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
