package sharedir

import (
	"errors"
	"io"
	"strings"
	"syscall"
	"testing"

	"testbox-imaging/internal/durable"
	"testbox-imaging/internal/faults"
	"testbox-imaging/internal/image"
)

func TestBackupRefusesImages(t *testing.T) {
	for name, files := range map[string]map[string]string{
		"ours": setFiles(armingA, "", "sda"), "older script's": {"sdb.gz": "anonymous"}, "sidecar in the way": {"sda.json": "notes"},
	} {
		t.Run(name, func(t *testing.T) {
			v := folderWith(t, files)
			if err := backup(openFolder(t, v), armingC, None, "sda"); !errors.Is(err, ErrImages) {
				t.Errorf("error is %v", err)
			}
			if d := differ(contents(t, v), files); d != "" {
				t.Error(d)
			}
		})
	}
}

// TestAdminsJSON: JSON that belongs to no image is neither kept nor in the way.
func TestAdminsJSON(t *testing.T) {
	files := map[string]string{"rack.json": `{"slot": 7}`, "last-action.json": "{}", "testbox-info.json": "{}", "Commit.json": "{}"}
	v := folderWith(t, files)
	must(t, backup(openFolder(t, v), armingA, None, "sda"))
	if d := differ(contents(t, v), merged(files, setFiles(armingA, "", "sda"))); d != "" {
		t.Error(d)
	}
	must(t, backup(openFolder(t, v), armingB, Retire, "sda"))
	if d := differ(contents(t, v), merged(files, setFiles(armingA, oldExt, "sda"), setFiles(armingB, "", "sda"))); d != "" {
		t.Error(d)
	}
}

func TestSetMisuse(t *testing.T) {
	f := openFolder(t, newArea(t))
	if _, err := f.Begin("../etc"); err == nil {
		t.Error("begin with a wrong arming id")
	}
	s, err := f.Begin(armingA)
	must(t, err)
	for _, name := range []string{"", "../sda", "a/b", "sda.raw", "commit", "last-action", "testbox-info", "TESTBOX-INFO", ".",
		strings.Repeat("x", 33)} {
		if _, err := s.Create(name); err == nil {
			t.Errorf("image %q is created", name)
		}
	}
	if s.Commit(None) == nil {
		t.Error("commit without an image")
	}
	w, err := s.Create("sda")
	must(t, err)
	if _, err := s.Create("sda"); err == nil {
		t.Error("created twice")
	}
	_, err = w.Write([]byte("data"))
	must(t, err)
	if err := s.Commit(None); err == nil || !strings.Contains(err.Error(), "sda is not finished") {
		t.Errorf("commit of an image that is not finished: %v", err)
	}
	wrongArming, wrongName, wrongSize := factsOf(armingB, "sda", []byte("data")), factsOf(armingA, "sdb", []byte("data")),
		factsOf(armingA, "sda", []byte("dat"))
	noHash := factsOf(armingA, "sda", []byte("data"))
	noHash.BLAKE3 = ""
	for _, facts := range []*image.Facts{wrongArming, wrongName, wrongSize, noHash} {
		if s.Finish("sda", facts) == nil {
			t.Error("finished with facts that are not the image's")
		}
	}
	must(t, s.Finish("sda", factsOf(armingA, "sda", []byte("data"))))
	if s.Finish("sda", factsOf(armingA, "sda", []byte("data"))) == nil {
		t.Error("finished twice")
	}
	must(t, s.Commit(None))
	s.Abort()
	if s.Commit(Retire) == nil {
		t.Error("committed twice")
	}
	es, err := f.Images()
	if err != nil || len(es) != 1 {
		t.Errorf("images %v, %v", es, err)
	}
}

func TestAbortRemovesItsFiles(t *testing.T) {
	v := newArea(t)
	f := openFolder(t, v)
	s, err := f.Begin(armingA)
	must(t, err)
	_, err = s.Create("sda")
	must(t, err)
	w, err := s.Create("sdb")
	must(t, err)
	_, err = w.Write([]byte("data"))
	must(t, errors.Join(err, s.Finish("sdb", factsOf(armingA, "sdb", []byte("data")))))
	s.Abort()
	s.Abort()
	if d := differ(contents(t, v), nil); d != "" {
		t.Error(d)
	}
	if _, err := s.Create("sdc"); err == nil {
		t.Error("created after abort")
	}
}

// TestSecondAgent: a machine with the box's address begins while the box is at
// work. The later one wins, the first says why it failed.
func TestSecondAgent(t *testing.T) {
	for _, second := range []struct {
		name string
		run  func(f *Folder) error
	}{
		{"begins", func(f *Folder) error { _, err := f.Begin(armingB); return err }},
		{"begins by the same boot file", func(f *Folder) error { _, err := f.Begin(armingA); return err }},
		{"only recovers", (*Folder).Recover},
		{"is done", func(f *Folder) error { return backup(f, armingB, None, "sda") }},
	} {
		t.Run(second.name, func(t *testing.T) {
			v := newArea(t)
			f := openFolder(t, v)
			first, err := f.Begin(armingA)
			must(t, err)
			w, err := first.Create("sda")
			must(t, err)
			_, err = w.Write([]byte("data"))
			must(t, errors.Join(err, first.Finish("sda", factsOf(armingA, "sda", []byte("data")))))
			must(t, second.run(openFolder(t, v)))
			before := contents(t, v)
			if err := first.Commit(Retire); !errors.Is(err, ErrSecondAgent) {
				t.Errorf("first agent's commit: %v", err)
			}
			first.Abort()
			if d := differ(contents(t, v), before); d != "" {
				t.Error(d)
			}
		})
	}
}

// TestSecondAgentSameNames: the first one's Abort leaves the second one's files.
func TestSecondAgentSameNames(t *testing.T) {
	v := newArea(t)
	f := openFolder(t, v)
	first, err := f.Begin(armingA)
	must(t, err)
	_, err = first.Create("sda")
	must(t, err)
	second, err := openFolder(t, v).Begin(armingA)
	must(t, err)
	w, err := second.Create("sda")
	must(t, err)
	_, err = w.Write([]byte("data"))
	must(t, errors.Join(err, second.Finish("sda", factsOf(armingA, "sda", []byte("data")))))
	first.Abort()
	must(t, second.Commit(None))
}

// TestSecondAgentBeganBefore: the first one makes its files after the second
// one began, so all of them are there when it would commit.
func TestSecondAgentBeganBefore(t *testing.T) {
	v := newArea(t)
	first, err := openFolder(t, v).Begin(armingA)
	must(t, err)
	_, err = openFolder(t, v).Begin(armingB)
	must(t, err)
	w, err := first.Create("sda")
	must(t, err)
	_, err = w.Write([]byte("data"))
	must(t, errors.Join(err, first.Finish("sda", factsOf(armingA, "sda", []byte("data")))))
	if err := first.Commit(None); !errors.Is(err, ErrSecondAgent) {
		t.Errorf("the first one's commit: %v", err)
	}
	if es, err := openFolder(t, v).Images(); err != nil || len(es) > 0 {
		t.Errorf("there are images: %v, %v", es, err)
	}
}

// TestCutMeanwhile: a file that is not what was written is not committed.
func TestCutMeanwhile(t *testing.T) {
	for _, file := range []string{"sda.raw.gz", "sda.json"} {
		v := newArea(t)
		s, err := openFolder(t, v).Begin(armingA)
		must(t, err)
		w, err := s.Create("sda")
		must(t, err)
		_, err = w.Write([]byte("data"))
		must(t, errors.Join(err, s.Finish("sda", factsOf(armingA, "sda", []byte("data")))))
		must(t, durable.WriteFile(v, s.path(file), []byte("cut"), fileMode))
		if err := s.Commit(None); err == nil || !strings.Contains(err.Error(), "has 3 bytes instead of") {
			t.Errorf("%s was cut, and the commit says %v", file, err)
		}
		if es, err := openFolder(t, v).Images(); err != nil || len(es) > 0 {
			t.Errorf("there are images: %v, %v", es, err)
		}
	}
}

func TestStorageFull(t *testing.T) {
	for _, full := range []error{syscall.ENOSPC, syscall.EDQUOT} {
		v := newArea(t)
		kth := &faults.Kth{FS: v, Err: full}
		f := openFolder(t, kth)
		s, err := f.Begin(armingA)
		must(t, err)
		w, err := s.Create("sda")
		must(t, err)
		kth.K = kth.Count() + 1
		_, err = w.Write([]byte("data"))
		if !errors.Is(err, full) || !strings.Contains(err.Error(), "storage server is full") ||
			!strings.Contains(err.Error(), "image sda of box 10.40.41.42") {
			t.Errorf("error is %v", err)
		}
		if _, again := w.Write([]byte("data")); again == nil {
			t.Error("a write after a failed one is taken")
		}
		if s.Finish("sda", factsOf(armingA, "sda", []byte("data"))) == nil || s.Commit(None) == nil {
			t.Error("an image of which a write failed is finished or committed")
		}
		s.Abort()
		if d := differ(contents(t, v), nil); d != "" {
			t.Error(d)
		}
	}
}

// TestRecoverKeepsWhatItCannotPlace: a plan whose files somebody took away.
func TestRecoverKeepsWhatItCannotPlace(t *testing.T) {
	files := setFiles(armingA, "", "sda")
	for name, plan := range map[string]string{
		"files nowhere": string((&commitPlan{planFormat, armingB, []planFile{{"sdb.raw.gz", 9}, {"sdb.json", 9}},
			[]string{"sda.raw.gz", "sda.json"}, []string{}}).marshal()),
		"files gone": string((&commitPlan{planFormat, armingB, []planFile{{"sda.raw.gz", 9}, {"sda.json", 9}},
			[]string{"sda.raw.gz", "sda.json"}, []string{}}).marshal()),
		"not a plan": "{}\n",
		"empty":      "",
	} {
		t.Run(name, func(t *testing.T) {
			before := merged(files, map[string]string{planName: plan, "sda.raw.gz.bbbbbbbbbbbbbbbb.new": "cut"})
			v := folderWith(t, before)
			f := openFolder(t, v)
			if err := f.Recover(); err == nil || !strings.Contains(err.Error(), planName) {
				t.Errorf("error is %v", err)
			}
			if _, err := f.Images(); !errors.Is(err, ErrUnfinished) {
				t.Errorf("images: %v", err)
			}
			if _, err := f.Begin(armingC); err == nil {
				t.Error("a backup begins")
			}
			if d := differ(contents(t, v), before); d != "" {
				t.Error(d)
			}
		})
	}
}

func TestRecoverLeavesWhatIsNotOurs(t *testing.T) {
	mine := map[string]string{"sda.raw.gz.new": "?", "notes.new": "?", "sda.raw.gz.12345678.new": "?",
		"sda.raw.gz.aaaaaaaaaaaaaaaa.old": "?", "x.aaaaaaaaaaaaaaaa.new": "?"}
	v := folderWith(t, merged(mine, map[string]string{"sda.raw.gz.aaaaaaaaaaaaaaaa.new": "left", "sda.json.bbbbbbbbbbbbbbbb.new": "left",
		"commit.json.tmp": "left"}))
	must(t, openFolder(t, v).Recover())
	if d := differ(contents(t, v), mine); d != "" {
		t.Error(d)
	}
}

var _ io.Writer = (*ImageFile)(nil)
var _ durable.FS = (*faults.Kth)(nil)

// TestReplaceNeedsSuccessors: an image is not replaced by nothing.
func TestReplaceNeedsSuccessors(t *testing.T) {
	for _, before := range []map[string]string{setFiles(armingB, "", "sda", "sdb"), {"sda.gz": "of an older script"}} {
		v := folderWith(t, before)
		if backup(openFolder(t, v), armingC, Replace, "sda") == nil {
			t.Error("an image without a successor is replaced")
		}
		if d := differ(contents(t, v), before); d != "" {
			t.Error(d)
		}
	}
}
