package maintenance

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"testbox-imaging/internal/durable"
	"testbox-imaging/internal/loaders"
	"testbox-imaging/internal/testenv"
)

func TestSourcesOfLoaders(t *testing.T) {
	host, err := parseStanzas([]byte("Types: deb\nURIs: http://deb.debian.org/debian\nSuites: bookworm bookworm-updates bookworm-backports\n" +
		"Components: main contrib\n\nTypes: deb\nURIs: http://deb.debian.org/debian-security\nSuites: bookworm-security\nComponents: main\n\n" +
		"Types: deb\nURIs: http://mirror/debian\nSuites: forky\nComponents: main\n"))
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, s := range sourcesOfLoaders(buildSources(host)) {
		got = append(got, s.get("Suites"))
		if s.get("Components") != "main" || s.get("Architectures") != "amd64 i386" {
			t.Errorf("%q", marshalSources([]source{s}))
		}
	}
	want := []string{"bookworm bookworm-updates bookworm-backports trixie trixie-updates", "bookworm-security trixie-security", "forky"}
	if !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

// testLoaders publishes the loaders of Debian's packages into a folder.
func testLoaders(t *testing.T, tftp string) *Result {
	t.Helper()
	testenv.Root(t)
	testenv.Tools(t, "apt-get", "dpkg-deb")
	opt, err := Options{TFTP: tftp, Say: t.Logf}.complete()
	if err != nil {
		t.Fatal(err)
	}
	a, err := openApt(t.Context(), opt)
	if err != nil {
		t.Fatal(err)
	}
	defer a.close()
	r := &Result{}
	if err := r.addLoaders(t.Context(), a); err != nil {
		t.Fatal(err)
	}
	return r
}

// TestLoaders takes the real ones: host's apt sources and those of Debian 13 -> packages -> TFTP area.
func TestLoaders(t *testing.T) {
	tftp := t.TempDir()
	r := testLoaders(t, tftp)
	if len(r.Loaders) == 0 || r.Loaders[0].Kind != loaders.X64 {
		t.Fatalf("got %v, notes %q", r.Loaders, r.Notes)
	}
	for _, l := range r.Loaders {
		t.Log(l)
		got, err := loaders.Read(durable.OS{}, tftp, l.Kind)
		if err != nil || *got != l {
			t.Errorf("published %v, read %v, %v", l, got, err)
		}
	}
	first := r.Loaders[0]
	if !strings.HasPrefix(first.GRUB, "2.") || first.Shim == "" || !strings.Contains(first.By, "Microsoft") {
		t.Errorf("got %+v", first)
	}
	if st, err := os.Stat(filepath.Join(tftp, first.Kind.Shim)); err != nil || st.Mode().Perm() != 0o644 {
		t.Errorf("%v, %v", st, err)
	}
}
