package image

import (
	"testing"
	"time"
)

// TestLabels: a sidecar and a record give the same label for the same image.
func TestLabels(t *testing.T) {
	at, id := time.Date(2026, 11, 22, 8, 0, 0, 0, time.UTC), Identity{Serial: "S1", Size: 1 << 20, SectorSize: 512}
	facts := Facts{Name: "sda", Disk: id, Time: at}
	record := Record{Time: at, Disks: []RecordedDisk{{Name: "sdb"}, {Name: "sda", Disk: id}}}
	want := Label{"sda", id, at}
	if labels := record.Labels(); facts.Label() != want || len(labels) != 2 || labels[1] != want {
		t.Errorf("labels are %v and %v, want %v", facts.Label(), labels, want)
	}
}
