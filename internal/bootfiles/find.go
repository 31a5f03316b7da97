package bootfiles

import (
	"os"
	"path/filepath"
	"strings"

	"testbox-imaging/internal/bootcfg"
	"testbox-imaging/internal/durable"
	"testbox-imaging/internal/problem"
)

// Find finds the folder of boot files. It is dir, or if dir is "" the first of
// the usual places. A folder without `default` does not count, because a box
// that is not armed must find its way to its own disk.
func Find(fsys durable.FS, dir string, usual []string) (*Folder, error) {
	tried := usual
	if dir != "" {
		tried = []string{dir}
	}
	for _, d := range tried {
		if st, err := os.Stat(filepath.Join(d, bootcfg.DefaultName)); err == nil && st.Mode().IsRegular() {
			abs, err := filepath.Abs(d)
			return New(fsys, abs), err
		}
	}
	if dir == "" {
		return nil, problem.Wrongf("no folder of boot files was found (with a file `default` in it): none of %s; "+
			"name it with -c, or make it with `testbox share init`", strings.Join(tried, ", "))
	}
	if _, err := os.Stat(filepath.Join(dir, bootcfg.ConfigDir, bootcfg.DefaultName)); err == nil {
		return nil, problem.Wrongf("%s has no file `default`; %s is meant", dir, filepath.Join(dir, bootcfg.ConfigDir))
	}
	if _, err := os.Stat(dir); err != nil {
		return nil, problem.Wrongf("the folder of boot files is not there: %w; is the area mounted?", err)
	}
	return nil, problem.Wrongf("%s has no file `default`; it is not a folder of boot files, or `testbox share init` has to repair it", dir)
}
