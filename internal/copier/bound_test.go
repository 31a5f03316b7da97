package copier

import (
	"strings"
	"testing"

	"testbox-imaging/internal/conform"
	"testbox-imaging/internal/faults"
)

func TestBoundText(t *testing.T) {
	for _, c := range []struct {
		processors, fetch, write float64
		want                     string
	}{
		{0.9, 1, 1, "the processors bound"}, {0.5, 1, 0.9, "the disk bound"}, {0.5, 0.9, 0.3, "the store of the image bound"},
		{0.5, 0.5, 0.5, "nothing bound"},
	} {
		if got := boundText(c.processors, c.fetch, c.write); !strings.HasPrefix(got, c.want) {
			t.Errorf("%v: %s", c, got)
		}
	}
}

// TestSaysWhatBound: every restore that writes says what limited its speed.
func TestSaysWhatBound(t *testing.T) {
	disk := conform.Disks(6 * mib)["noise"]
	for name, job := range map[string]Job{
		"store": mustSave(t, disk).job(t, "sda", faults.NewDisk(old(len(disk)))),
		"share": mustBackup(t, disk).job("sda", faults.NewDisk(old(len(disk)))),
	} {
		var opt RestoreOptions
		log := logOf(&opt)
		_, err := Restore(t.Context(), []Job{job}, opt)
		must(t, err)
		if !strings.Contains(strings.Join(*log, "\n"), "bound the writing") {
			t.Errorf("%s: the log is %q", name, *log)
		}
	}
}
