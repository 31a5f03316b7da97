package maintenance

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"testbox-imaging/internal/bootcfg"
	"testbox-imaging/internal/kmod"
	"testbox-imaging/internal/problem"
)

func testParts() *parts {
	return &parts{
		kernel:  &kernel{release: "6.1.0-99-amd64", image: []byte("kernel")},
		modules: &selection{table: kmod.Table{Modules: []kmod.Module{{Name: "nfs"}}}},
	}
}

func TestPublish(t *testing.T) {
	opt := Options{TFTP: t.TempDir()}
	first, err := publish(opt, testParts(), []byte("initrd"))
	if err != nil || first.Existed || first.Size != 12 || !strings.HasPrefix(first.Version.Version, "ram-6.1.0-99-amd64-") {
		t.Fatalf("%+v, %v", first, err)
	}
	dir := filepath.Join(opt.TFTP, bootcfg.MaintDir, first.Version.Version)
	for name, want := range map[string]string{"vmlinuz": "kernel", "initrd.img": "initrd"} {
		data, err := os.ReadFile(filepath.Join(dir, name))
		st, _ := os.Stat(filepath.Join(dir, name))
		if err != nil || string(data) != want || st.Mode().Perm() != 0o644 {
			t.Errorf("%s: %q, %v, %v", name, data, st.Mode(), err)
		}
	}
	again, err := publish(opt, testParts(), []byte("initrd"))
	if err != nil || !again.Existed || again.Version != first.Version {
		t.Errorf("%+v, %v", again, err)
	}
	other, err := publish(opt, testParts(), []byte("other initrd"))
	if err != nil || other.Existed || other.Version.Version == first.Version.Version {
		t.Errorf("%+v, %v", other, err)
	}
	os.WriteFile(filepath.Join(dir, "initrd.img"), []byte("Initrd"), 0o644)
	if _, err := publish(opt, testParts(), []byte("initrd")); err == nil || !strings.Contains(err.Error(), "remove the folder") {
		t.Errorf("a damaged version gave %v", err)
	}
	noTemp(t, opt.TFTP)
}

// A crash leaves a folder with another name; the next build starts anew.
func TestPublishAfterCrash(t *testing.T) {
	opt := Options{TFTP: t.TempDir()}
	name := versionName("6.1.0-99-amd64", []byte("kernel"), []byte("initrd"))
	left := filepath.Join(opt.TFTP, bootcfg.MaintDir, name+".tmp")
	os.MkdirAll(left, 0o755)
	os.WriteFile(filepath.Join(left, "old"), nil, 0o644)
	if _, err := publish(opt, testParts(), []byte("initrd")); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(opt.TFTP, bootcfg.MaintDir, name, "old")); err == nil {
		t.Error("a left-over became part of the version")
	}
	noTemp(t, opt.TFTP)
}

func TestWriteFolderFails(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "v")
	if err := writeFolder(dir, func(string) ([]file, error) { return []file{{"a", nil}, {"no/such/folder", nil}}, nil }); err == nil {
		t.Error("no error")
	}
	if left, _ := filepath.Glob(dir + "*"); len(left) != 0 {
		t.Errorf("left %v", left)
	}
}

func noTemp(t *testing.T, tftp string) {
	t.Helper()
	if left, _ := filepath.Glob(filepath.Join(tftp, bootcfg.MaintDir, "*.tmp")); len(left) != 0 {
		t.Errorf("left %v", left)
	}
}

// Whatever keeps a build from its end, the area is as it was.
func TestBuildFailsEarly(t *testing.T) {
	bin := t.TempDir()
	script, static, object := filepath.Join(bin, "script"), filepath.Join(bin, "static"), filepath.Join(bin, "object")
	os.WriteFile(script, []byte("#!/bin/sh\n"), 0o755)
	elf := fakeModule("depends=")
	os.WriteFile(object, elf, 0o755)
	elf[16] = 2 // ET_EXEC
	os.WriteFile(static, elf, 0o755)
	tftp := t.TempDir()
	for says, opt := range map[string]Options{
		"cannot be read":       {TFTP: tftp, Agent: "/nonexistent"},
		"is no program":        {TFTP: tftp, Agent: script},
		"no program for amd64": {TFTP: tftp, Agent: object},
		"needs shared":         {TFTP: tftp, Agent: "/bin/sh"},
		"name the folder that has the areas, or make them with `testbox share init`": {TFTP: filepath.Join(tftp, "none"), Agent: static},
		"no apt source below ": {TFTP: tftp, Agent: static, Etc: t.TempDir()},
	} {
		opt.Cache = t.TempDir()
		_, err := Build(context.Background(), opt)
		var input *problem.Error
		if err == nil || !strings.Contains(err.Error(), says) || !errors.As(err, &input) || input.Kind != problem.Wrong {
			t.Errorf("%v, want wrong input and %q", err, says)
		}
		if left, _ := filepath.Glob(filepath.Join(opt.Cache, workPrefix+"*")); len(left) != 0 {
			t.Errorf("left %v", left)
		}
	}
	if es, _ := os.ReadDir(tftp); len(es) != 0 {
		t.Errorf("the area has %v", es)
	}
}

func TestCache(t *testing.T) {
	c, err := openCache(t.Context(), t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer c.close()
	const abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad" // SHA-256 of "abc"
	p := pkg{Name: "pci.ids", Version: "1:0.0~2023", SHA256: abc}
	file := filepath.Join(t.TempDir(), "x.deb")
	os.WriteFile(file, []byte("abd"), 0o644)
	if err := c.keep(p, file); err == nil || c.has(p) {
		t.Errorf("a wrong file was taken: %v", err)
	}
	os.WriteFile(file, []byte("abc"), 0o644)
	if err := c.keep(p, file); err != nil || !c.has(p) {
		t.Errorf("%v", err)
	}
	os.WriteFile(c.path(p), []byte("damaged"), 0o644)
	if c.has(p) {
		t.Error("a damaged file is taken")
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if _, err := openCache(ctx, c.dir); err == nil {
		t.Error("two builds have the cache")
	}
}
