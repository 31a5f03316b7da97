package lab

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// dirPrefix begins the names of lab folders in the folder for temporary files.
const dirPrefix = "testbox-lab-"

// ownerFile is a file in a lab's folder that says which process uses the lab.
// The lab's processes and networks end with that process, so only the folder
// can be left over.
const ownerFile = "lab.json"

// owner is a process. The kernel uses process numbers again, so the start time
// counts too.
type owner struct {
	PID   int    `json:"pid"`
	Start string `json:"start"` // clock ticks since the machine booted
}

func writeOwner(dir string) error {
	start, err := startTime(os.Getpid())
	if err != nil {
		return err
	}
	data, err := json.Marshal(owner{os.Getpid(), start})
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, ownerFile), append(data, '\n'), 0o644)
}

func readOwner(path string) (o owner, err error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return o, err
	}
	if err := json.Unmarshal(data, &o); err != nil {
		return o, fmt.Errorf("%s: %w", path, err)
	}
	return o, nil
}

func (o owner) alive() bool {
	start, err := startTime(o.PID)
	return err == nil && start == o.Start
}

// startTime is field 22 of /proc/PID/stat (proc(5)). The fields are counted
// from behind the program's name, which may have blanks in it.
func startTime(pid int) (string, error) {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return "", err
	}
	text := string(data)
	fields := strings.Fields(text[strings.LastIndexByte(text, ')')+1:])
	if len(fields) < 20 {
		return "", fmt.Errorf("/proc/%d/stat: too short", pid)
	}
	return fields[19], nil
}

// Clean removes the folders of labs whose process is gone, and returns these
// folders. It looks in dir, or in os.TempDir if dir is "".
func Clean(dir string) ([]string, error) {
	if dir == "" {
		dir = os.TempDir()
	}
	marks, err := filepath.Glob(filepath.Join(dir, dirPrefix+"*", ownerFile))
	if err != nil {
		return nil, err
	}
	var gone []string
	var errs []error
	for _, mark := range marks {
		o, err := readOwner(mark)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, err)
		}
		if err != nil || o.alive() {
			continue
		}
		if err := os.RemoveAll(filepath.Dir(mark)); err != nil {
			errs = append(errs, err)
			continue
		}
		gone = append(gone, filepath.Dir(mark))
	}
	return gone, errors.Join(errs...)
}
