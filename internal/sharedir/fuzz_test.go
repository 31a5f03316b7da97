package sharedir

import (
	"bytes"
	"encoding/json"
	"path/filepath"
	"strings"
	"testing"

	"testbox-imaging/internal/box"
	"testbox-imaging/internal/durable"
)

// FuzzCommitPlan: a plan that is read is one that this program writes, names
// nothing but image files of the folder, and carried out, by whatever state the
// folder is in, leaves all other files as they were.
func FuzzCommitPlan(f *testing.F) {
	good := commitPlan{planFormat, armingA, []planFile{{"sda.raw.gz", 3}, {"sda.json", 3}}, []string{"sda.raw.gz", "sdb.gz"},
		[]string{"sdc.json"}}
	f.Add(good.marshal())
	f.Add((&commitPlan{planFormat, armingA, []planFile{{"sda.raw.gz", 3}, {"sda.json", 3}}, []string{}, []string{}}).marshal())
	for _, hostile := range []string{"../../x", "maintenance.log", "last-action.json", "commit.json", "sda.raw.gz.old", "a/b.gz", "", "..gz"} {
		p := good
		p.Retire = []string{hostile}
		f.Add(p.marshal())
		p = good
		p.Drop = []string{hostile}
		f.Add(p.marshal())
		p = good
		p.New = []planFile{{hostile, 3}, {"sda.json", 3}}
		f.Add(p.marshal())
	}
	f.Add([]byte(`{}`))
	f.Add([]byte(`null`))
	f.Fuzz(func(t *testing.T, data []byte) {
		p, err := parsePlan(data)
		if err != nil {
			return
		}
		if !bytes.Equal(p.marshal(), data) {
			t.Fatal("parsed from another text than it is written as")
		}
		carryOutAnywhere(t, p)
	})
}

// carryOutAnywhere carries out a plan in a folder that has what it names, and
// in one that has not.
func carryOutAnywhere(t *testing.T, p *commitPlan) {
	named := map[string]bool{}
	for _, n := range p.New {
		named[n.Name], named[newFile(n.Name, p.Arming)] = true, true
	}
	for _, file := range append(append([]string{}, p.Retire...), p.Drop...) {
		named[file], named[file+oldExt] = true, true
	}
	precious := merged(others, map[string]string{lastName: "{}", box.InfoJSON: "{}", "zz.raw.gz": "not in the plan",
		"zz.json.old": "nor this"})
	for name := range precious {
		if named[name] {
			delete(precious, name)
		}
	}
	for _, there := range []bool{true, false} {
		v := folderWith(t, precious)
		must(t, durable.WriteFile(v, root+"/victim.gz", []byte("another box's"), 0o644))
		folder := openFolder(t, v)
		for _, n := range p.New {
			if n.Size > 1<<16 {
				return // files this large are not made here
			}
			if there {
				must(t, folder.WriteFile(newFile(n.Name, p.Arming), make([]byte, n.Size)))
			}
		}
		must(t, folder.WriteFile(planName, p.marshal()))
		if err := folder.Recover(); (err == nil) != there {
			t.Fatalf("files there: %v, recover: %v", there, err)
		}
		got := contents(t, v)
		for name, text := range precious {
			if got[name] != text {
				t.Errorf("%s has %q", name, got[name])
			}
		}
		if data, err := durable.ReadFile(v, root+"/victim.gz", 100); string(data) != "another box's" {
			t.Errorf("a file outside of the folder has %q, %v", data, err)
		}
	}
}

func FuzzLastAction(f *testing.F) {
	f.Add([]byte(`{"format":1,"arming":"aaaaaaaaaaaaaaaa","action":"restore","outcome":"done","time":"2026-11-22T08:00:00Z","receipts":[{"image":"sda","disk":"sda","identity":{"size":1,"sectorSize":512},"stages":null}]}`))
	f.Add([]byte(`{"format":1,"arming":"aaaaaaaaaaaaaaaa","action":"sleep"}`))
	f.Add([]byte(`{"format":1} {}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		a, err := parseLast(data)
		if err != nil {
			return
		}
		text, err := json.Marshal(a)
		if err != nil {
			t.Fatalf("cannot be written again: %v", err)
		}
		b, err := parseLast(text)
		if err != nil || b.Arming != a.Arming || b.Action != a.Action || b.Outcome != a.Outcome || !b.Time.Equal(a.Time) ||
			len(b.Receipts) != len(a.Receipts) {
			t.Errorf("%+v becomes %+v, %v", a, b, err)
		}
	})
}

// FuzzFileNames: what is taken for an image file, or for one of an unfinished
// backup, is a plain name in the folder that this program could have made.
func FuzzFileNames(f *testing.F) {
	for _, s := range []string{"sda.raw.gz", "sda.gz", "sda.json", "commit.json", "../x.gz", "sda.raw.gz.aaaaaaaaaaaaaaaa.new",
		"a/b.gz.aaaaaaaaaaaaaaaa.new", ".gz", "..json"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		name, ext, ok := splitFile(s)
		if ok && (name+ext != s || filepath.Base(s) != s || strings.HasPrefix(s, ".") || s == lastName || s == planName || s == box.InfoJSON) {
			t.Errorf("%q is taken for an image file", s)
		}
		if ok && isNewFile(s) {
			t.Errorf("%q is taken for both", s)
		}
		if isNewFile(s) && filepath.Base(s) != s {
			t.Errorf("%q is taken for a left-over", s)
		}
		if ok && !isNewFile(newFile(s, armingA)) {
			t.Errorf("the left-over of %q is not known", s)
		}
		if hostFile(s) && (ok || isNewFile(s) || filepath.Base(s) != s || durable.IsTemp(s)) {
			t.Errorf("a host named %q could make a file that means something", s)
		}
	})
}
