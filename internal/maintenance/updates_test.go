package maintenance

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"testbox-imaging/internal/testenv"
)

// aptKnows has apt of this process know these packages, by source. It asks nobody.
func aptKnows(t *testing.T, sources map[string][]string) {
	dir := t.TempDir()
	for _, name := range []string{"lists/partial", "cache/archives/partial", "etc/sources.d"} {
		if err := os.MkdirAll(filepath.Join(dir, name), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	write := func(path, text string) {
		t.Helper()
		os.MkdirAll(filepath.Dir(path), 0o755)
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for name, packages := range sources {
		text := ""
		for _, p := range packages {
			name, version, _ := strings.Cut(p, " ")
			text += fmt.Sprintf("Package: %s\nVersion: %s\nArchitecture: amd64\nFilename: ./x.deb\nSize: 1\nSHA256: %064d\n\n", name, version, 7)
		}
		write(filepath.Join(dir, name, "Packages"), text)
		write(filepath.Join(dir, "etc/sources.d", name+".list"), fmt.Sprintf("deb [trusted=yes] file:%s ./\n", filepath.Join(dir, name)))
	}
	write(filepath.Join(dir, "status"), "")
	conf := filepath.Join(dir, "apt.conf")
	write(conf, fmt.Sprintf(`#clear APT::Update;
APT::Architecture "amd64";
APT::Architectures { "amd64"; };
APT::Sandbox::User "root";
Dir::Etc::sourcelist "none";
Dir::Etc::sourceparts "%[1]s/etc/sources.d";
Dir::Etc::preferences "none";
Dir::Etc::preferencesparts "none";
Dir::State "%[1]s";
Dir::State::lists "%[1]s/lists";
Dir::State::status "%[1]s/status";
Dir::Cache "%[1]s/cache";
`, dir))
	t.Setenv("APT_CONFIG", conf)
	a := apt{conf: conf}
	if _, msg, err := a.run(t.Context(), dir, "apt-get", "-q", "update"); err != nil {
		t.Fatalf("%v: %s", err, msg)
	}
}

// TestUpdates has packages of a maintenance system compared with those that a real apt knows.
func TestUpdates(t *testing.T) {
	testenv.Tools(t, "apt-get", "apt-cache", "dpkg")
	aptKnows(t, map[string][]string{
		"debian":          {"linux-image-amd64 6.1.176-1", "libc6 2.36-9+deb12u14", "pci.ids 0.0~2023.04.11-1", "tool 1:1.0-1", "back 2.0-1"},
		"debian-security": {"linux-image-amd64 6.1.192-3", "libc6 2.36-9+deb12u7"},
	})
	dir := t.TempDir()
	manifest := func(text string) { os.WriteFile(filepath.Join(dir, manifestFile), []byte(text), 0o644) }
	manifest(`{"packages":[{"name":"pci.ids","version":"0.0~2023.04.11-1","sha256":"0"},{"name":"libc6","version":"2.36-9+deb12u9"},
		{"name":"linux-image-amd64","version":"6.1.176-1"},{"name":"linux-image-6.1.0-50-amd64","version":"6.1.176-1"},
		{"name":"tool","version":"9.0-1"},{"name":"back","version":"3.0-1"}],"modules":["x"]}`)
	c, err := Updates(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	want := []Update{
		{Name: "linux-image-amd64", Has: "6.1.176-1", Newer: "6.1.192-3", Security: true},
		{Name: "libc6", Has: "2.36-9+deb12u9", Newer: "2.36-9+deb12u14"},
		{Name: "tool", Has: "9.0-1", Newer: "1:1.0-1"},
	}
	if !slices.Equal(c.Updates, want) || c.Known != 5 || c.Packages != 6 {
		t.Errorf("%+v", c)
	}
	if c.Lists.After(time.Now()) {
		t.Errorf("the lists are of %v", c.Lists)
	}
	for text, want := range map[string]string{
		"{": "JSON", `{"packages":[]}`: "list of 0", `{"packages":[{"name":"-o","version":"1"}]}`: "-o",
		`{"packages":[{"name":"a","version":"1 2"}]}`: "1 2", strings.Repeat(" ", maxManifest+1): "larger",
	} {
		manifest(text)
		if _, err := Updates(t.Context(), dir); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.50s: %v", text, err)
		}
	}
	os.Remove(filepath.Join(dir, manifestFile))
	if _, err := Updates(t.Context(), dir); err == nil {
		t.Error("nothing was compared")
	}
}

func FuzzParsePolicy(f *testing.F) {
	f.Add([]byte("a:\n  Installed: (none)\n  Candidate: 1\n  Version table:\n *** 1 500\n        500 http://x y/main amd64 Packages\n"))
	f.Add([]byte(" \n *** \n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		for _, p := range parsePolicy(data) {
			if !validVersion(p.candidate) {
				t.Fatalf("%+v", p)
			}
		}
	})
}
