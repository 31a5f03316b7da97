package sharedir

import (
	"errors"
	"io/fs"
	"slices"
	"strings"
	"testing"
	"time"

	"testbox-imaging/internal/box"
	"testbox-imaging/internal/durable"
	"testbox-imaging/internal/faults"
	"testbox-imaging/internal/image"
)

func TestOpenWantsTheMarker(t *testing.T) {
	v := faults.NewVolatile()
	must(t, v.MkdirAll(root, 0o755))
	_, err := Open(v, root)
	if !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), "share init") {
		t.Errorf("error is %v", err)
	}
	must(t, v.MkdirAll(root+"/"+Marker, 0o755))
	if _, err := Open(v, root); err == nil {
		t.Error("a folder is taken for the marker")
	}
}

func TestBoxWantsAnAddress(t *testing.T) {
	area, err := Open(newArea(t), root)
	must(t, err)
	if _, err := area.Box(box.Addr{}); err == nil {
		t.Error("a folder without an address")
	}
}

func TestImages(t *testing.T) {
	files := merged(others, setFiles(armingA, "", "nvme0n1"), setFiles(armingB, oldExt, "sda"),
		map[string]string{"sda.gz": "anonymous", "sdb.raw.gz": "by hand", "rack.json": "{}", "sdc.gz.old": "older",
			"sdd.raw.gz.aaaaaaaaaaaaaaaa.new": "x", "0.gz": "no image's name"})
	f := openFolder(t, folderWith(t, files))
	es, err := f.Images()
	must(t, err)
	checkEntries(t, es, "nvme0n1+", "sda", "sdb")
	if es[0].Facts.Arming != armingA || es[0].Size != es[0].Facts.FileSize {
		t.Errorf("facts are %+v", es[0].Facts)
	}
	if data, err := durable.ReadFile(f.fsys, es[1].Path, 100); string(data) != "anonymous" {
		t.Errorf("path leads to %q, %v", data, err)
	}
	es, err = f.OldImages()
	must(t, err)
	checkEntries(t, es, "sda+", "sdc")
}

// checkEntries wants these names; '+' says that the facts are known.
func checkEntries(t *testing.T, es []Entry, want ...string) {
	t.Helper()
	var got []string
	for _, e := range es {
		name := e.Name
		if e.Facts != nil {
			name += "+"
		}
		got = append(got, name)
	}
	if strings.Join(got, " ") != strings.Join(want, " ") {
		t.Errorf("images are %v, want %v", got, want)
	}
}

func TestImagesErrors(t *testing.T) {
	good := setFiles(armingA, "", "sda")
	tests := map[string]struct {
		files map[string]string
		says  string
	}{
		"two forms":          {map[string]string{"sdb.gz": "a", "sdb.raw.gz": "b"}, "remove or rename"},
		"two forms, facts":   {merged(setFiles(armingA, "", "sdb"), map[string]string{"sdb.gz": "a"}), "remove or rename"},
		"sidecar unreadable": {map[string]string{"sdb.raw.gz": "b", "sdb.json": "{"}, "sdb.json"},
		"sidecar of another": {map[string]string{"sdb.raw.gz": good["sda.raw.gz"], "sdb.json": good["sda.json"]},
			"give both files that name"},
		"image cut":              {merged(setFiles(armingA, "", "sdb"), map[string]string{"sdb.raw.gz": "cut"}), "it is cut"},
		"image gone":             {map[string]string{"sdb.json": setFiles(armingA, "", "sdb")["sdb.json"]}, "missing"},
		"image gone, other form": {map[string]string{"sdb.gz": "x", "sdb.json": setFiles(armingA, "", "sdb")["sdb.json"]}, "missing"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			es, err := openFolder(t, folderWith(t, merged(good, test.files))).Images()
			if err == nil || !strings.Contains(err.Error(), test.says) {
				t.Errorf("error is %v", err)
			}
			checkEntries(t, es, "sda+")
		})
	}
}

// TestImagesOfUnfinishedCommit: while it is not known which images are the
// box's, none are listed.
func TestImagesOfUnfinishedCommit(t *testing.T) {
	f := openFolder(t, folderWith(t, merged(setFiles(armingA, "", "sda"), setFiles(armingB, oldExt, "sda"),
		map[string]string{planName: "{}"})))
	for what, list := range map[string]func() ([]Entry, error){"images": f.Images, "old images": f.OldImages} {
		if es, err := list(); !errors.Is(err, ErrUnfinished) || len(es) > 0 {
			t.Errorf("%s: %v, %v", what, es, err)
		}
	}
}

func TestCommitted(t *testing.T) {
	tests := map[string]struct {
		files map[string]string
		want  bool
	}{
		"none":          {nil, false},
		"this":          {setFiles(armingA, "", "sda", "sdb"), true},
		"another":       {setFiles(armingB, "", "sda"), false},
		"mixed":         {merged(setFiles(armingA, "", "sda"), setFiles(armingB, "", "sdb")), false},
		"one anonymous": {merged(setFiles(armingA, "", "sda"), map[string]string{"sdb.gz": "x"}), false},
		"only old":      {setFiles(armingA, oldExt, "sda"), false},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			if got, err := openFolder(t, folderWith(t, test.files)).Committed(armingA); err != nil || got != test.want {
				t.Errorf("committed: %v, %v", got, err)
			}
		})
	}
}

func TestLast(t *testing.T) {
	f := openFolder(t, newArea(t))
	if last, err := f.Last(); last != nil || err != nil {
		t.Errorf("no action yet: %v, %v", last, err)
	}
	many := make([]image.Range, 100000)
	want := LastAction{Arming: armingA, Action: box.Restore, Outcome: "done", Time: time.Date(2026, 11, 22, 8, 0, 0, 0, time.UTC),
		Receipts: []image.Receipt{{Image: "sda", Disk: "sdb", Read: 7, Bad: many}}}
	must(t, f.SetLast(want))
	if len(want.Receipts[0].Bad) != 100000 {
		t.Error("the caller's receipt is changed")
	}
	last, err := f.Last()
	must(t, err)
	if last.Arming != armingA || last.Action != box.Restore || !last.Time.Equal(want.Time) || last.Receipts[0].Read != 7 ||
		len(last.Receipts[0].Bad) != maxRanges {
		t.Errorf("record is %+v", last)
	}
	if f.SetLast(LastAction{Arming: "x", Action: box.Restore}) == nil || f.SetLast(LastAction{Arming: armingB, Action: "sleep"}) == nil {
		t.Error("a record that cannot be is written")
	}
	const record = `{"format":1,"arming":"aaaaaaaaaaaaaaaa","action":"restore","outcome":"done","time":"2026-11-22T08:00:00Z"}`
	for text, good := range map[string]bool{
		record: true, "": false, "{": false, record[:len(record)-1]: false, record + "x": false,
		strings.Replace(record, ":1", ":2", 1): false, strings.Replace(record, "time", "times", 1): false,
		strings.Replace(record, "}", `,"restored":{"arming":"aaaaaaaaaaaaaaaa","time":"2026-11-22T08:00:00Z","from":"10.0.0.1"}}`, 1):  true,
		strings.Replace(record, "}", `,"restored":{"arming":"\u001b[2J","time":"2026-11-22T08:00:00Z"}}`, 1):                           false,
		strings.Replace(record, "}", `,"restored":{"arming":"aaaaaaaaaaaaaaaa","time":"2026-11-22T08:00:00Z","from":"\u001b[2J"}}`, 1): false,
	} {
		must(t, f.WriteFile(lastName, []byte(text)))
		if last, err := f.Last(); (last != nil && last.Arming == armingA) != good || (err == nil) != good {
			t.Errorf("record %s: %v, %v", text, last, err)
		}
	}
}

func TestClock(t *testing.T) {
	v := newArea(t)
	f := openFolder(t, v)
	for _, ahead := range []time.Duration{0, time.Hour, -20 * 365 * 24 * time.Hour} {
		v.SetClock(func() time.Time { return time.Now().Add(ahead) })
		got, err := f.Clock()
		if err != nil || (got-ahead).Abs() > time.Second {
			t.Errorf("ahead by %v, want %v (%v)", got, ahead, err)
		}
	}
	if d := differ(contents(t, v), nil); d != "" {
		t.Error(d)
	}
}

func TestSetNames(t *testing.T) {
	v := folderWith(t, others)
	f := openFolder(t, v)
	names := func() string {
		return strings.Join(imageless(contents(t, v)), " ")
	}
	for _, step := range []struct{ host, want string }{
		{"web1.lab", "0A28292A web1.lab"}, {"web1.lab", "0A28292A web1.lab"}, {"db", "0A28292A db"}, {"unknown", "0A28292A"}, {"", "0A28292A"},
		{"sdb", "0A28292A sdb"},
	} {
		must(t, f.SetNames(step.host))
		if got := names(); got != step.want {
			t.Errorf("host %q: files are %q, want %q", step.host, got, step.want)
		}
	}
}

// imageless is the sorted names that are not among others.
func imageless(files map[string]string) []string {
	var names []string
	for name := range files {
		if _, known := others[name]; !known {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

func TestSetNamesTouchesNothingElse(t *testing.T) {
	files := merged(others, setFiles(armingA, "", "sda"),
		map[string]string{"readme": "of the admin", "empty": "", "big": strings.Repeat(findText, 100)})
	for _, host := range []string{"readme", "big", "sda.raw.gz", "sda.json", "sda.gz.old", "maintenance.log", "disk-devices.lst",
		"commit.json", "x.tmp", "../x", "a/b", ".", "..", "backups", "Backup-Writer", "-rf", "a\nb", strings.Repeat("a", 300)} {
		v := folderWith(t, files)
		if err := openFolder(t, v).SetNames(host); err == nil {
			t.Errorf("host %q is no error", host)
		}
		got := contents(t, v)
		delete(got, "0A28292A")
		if d := differ(got, files); d != "" {
			t.Errorf("host %q: %s", host, d)
		}
	}
	v := folderWith(t, files)
	must(t, openFolder(t, v).SetNames("empty"))
	if got := contents(t, v)["empty"]; !strings.HasPrefix(got, findText) {
		t.Errorf("the empty file of an older script has %q", got)
	}
}
