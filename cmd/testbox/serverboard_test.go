package main

import (
	"bytes"
	"fmt"
	"os"
	"strings"
	"testing"

	"testbox-imaging/internal/api"
	"testbox-imaging/internal/box"
	"testbox-imaging/internal/job"
	"testbox-imaging/internal/wire"
)

// TestBoard: at a terminal, what has ended stays and all else is taken away; no line is
// longer than the terminal's, and no text from a box is obeyed.
func TestBoard(t *testing.T) {
	f, err := os.CreateTemp(t.TempDir(), "")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var jobs []api.Job
	for i := range 5 {
		jobs = append(jobs, api.Job{ID: fmt.Sprint("j", i), Box: fmt.Sprint("10.0.0.", i), Action: box.Backup, State: job.Queued})
	}
	var out bytes.Buffer
	b := newBoard(printer{out: &out, err: &out}, false, jobs)
	b.term, b.width, b.height = f, 60, 4
	for i := range jobs {
		j := jobs[i]
		j.State, j.Progress = job.Running, &api.Progress{Step: wire.StepRead, Text: "read \x1b[31m and\nmore " + strings.Repeat("ü", 30)}
		b.tell(j)
	}
	ended := jobs[1]
	ended.State, ended.Outcome, ended.Settled = job.Ended, box.Done, true
	b.tell(ended)
	b.tell(ended)
	b.tell(api.Job{ID: "other"})
	b.end()
	if got := out.String(); got != "10.0.0.1: backup, job j1: done\n" {
		t.Errorf("what stays is %q", got)
	}
	text, err := os.ReadFile(f.Name())
	if err != nil {
		t.Fatal(err)
	}
	if s := string(text); strings.Contains(s, "\x1b[31m") || !strings.Contains(s, "and 2 more\x1b[K\n") ||
		!strings.HasSuffix(s, "\x1b[4A\r\x1b[J") {
		t.Errorf("the terminal got %q", s)
	}
	// After the end of j1 the others alone are drawn.
	if s := string(text); strings.Contains(s[strings.Index(s, "\x1b[4A\r\x1b[J10"):], "10.0.0.1:") {
		t.Errorf("what has ended is drawn again: %q", s)
	}
	for line := range strings.Lines(string(text)) {
		line = line[strings.LastIndex(line, "\r")+1:]
		line = strings.TrimPrefix(strings.TrimSuffix(line, "\x1b[K\n"), "\x1b[J")
		if n := len([]rune(line)); n > 60 {
			t.Errorf("a line has %d characters: %q", n, line)
		}
	}
	if last := b.jobs()[1]; last.Outcome != box.Done {
		t.Errorf("%+v", last)
	}
}

// TestBoardOfRoom: of boxes that get chunks from each other it is said how they go on together, and each trouble is said once
// where lines stay.
func TestBoardOfRoom(t *testing.T) {
	restoring := func(n int, faults ...api.RoomFault) api.Job {
		return api.Job{ID: fmt.Sprint("j", n), Box: fmt.Sprint("10.0.0.", n), Action: box.Restore, State: job.Running, Backup: "10.0.0.9@b1",
			Progress: &api.Progress{Step: wire.StepWrite, Text: "write 50 %", Left: 90},
			Room:     &api.Room{Boxes: 2, FromServer: 1 << 30, FromPeers: 2 << 30, Faults: faults}}
	}
	bad := api.RoomFault{Fault: "garbage", Boxes: 1, Text: "1 other box says that this one sends wrong bytes \x1b[2J."}
	var out bytes.Buffer
	b := newBoard(printer{out: &out, err: &out}, false, []api.Job{restoring(1), restoring(2)})
	b.tell(restoring(1, bad))
	b.tell(restoring(2))
	b.roomAt = b.roomAt.Add(-plainEvery)
	b.tell(restoring(2))
	b.end()
	const line = "write 50 %, 2.00 GiB came from other boxes, 1.00 GiB from the server\n"
	want := "10.0.0.1: restore, job j1: at work: " + line + "10.0.0.1: 1 other box says that this one sends wrong bytes ?[2J.\n" +
		"Of 2 boxes 2 write. All are done in about 1:30; the last is 10.0.0.1. 4.00 GiB came from other boxes, 2.00 GiB from the server.\n" +
		"10.0.0.2: restore, job j2: at work: " + line
	if got := out.String(); got != want {
		t.Errorf("what stays is %s\nwant %s", got, want)
	}
	f, err := os.CreateTemp(t.TempDir(), "")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	b = newBoard(printer{out: &out, err: &out}, false, []api.Job{restoring(1), restoring(2), restoring(3)})
	b.term, b.width, b.height = f, 100, 6
	b.tell(restoring(1, bad))
	text, err := os.ReadFile(f.Name())
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"10.0.0.1: restore", "10.0.0.2: restore", "and 1 more", "Of 3 boxes 3 write.",
		"All are done in about 1:30"} {
		if !strings.Contains(string(text), want) {
			t.Errorf("the terminal does not get %q: %q", want, text)
		}
	}
	if n := strings.Count(string(text), "\n"); n > 6 {
		t.Errorf("%d lines are drawn", n)
	}
}
