package maintenance

import (
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

const oneLine = `# the mirror
deb [ arch=amd64 signed-by=/usr/share/keyrings/debian-archive-keyring.gpg ] http://deb.example/debian bookworm main contrib # comment
deb-src http://deb.example/debian bookworm main
deb	http://deb.example/debian-security	bookworm-security	main
deb cdrom:[Debian]/ bookworm main
deb http://deb.example/flat ./
`

const stanzas = `# the mirror
Types: deb deb-src
URIs: http://deb.example/debian cdrom:/
# in the middle
Suites: bookworm bookworm-updates
Components: main
Signed-By:
 -----BEGIN PGP PUBLIC KEY BLOCK-----
 .
 mDMEYCQjIxYJ

Types: deb
URIs: http://deb.example/off
Suites: bookworm
Components: main
Enabled: no

types: deb
uris: https://packages.example/node
suites: nodistro
components: contrib
`

func TestBuildSources(t *testing.T) {
	lines, err := parseLines([]byte(strings.Replace(oneLine, "cdrom:[Debian]/", "cdrom:/", 1)))
	if err != nil {
		t.Fatal(err)
	}
	found, err := parseStanzas([]byte(stanzas))
	if err != nil {
		t.Fatal(err)
	}
	got := string(marshalSources(buildSources(append(lines, found...))))
	want := `signed-by: /usr/share/keyrings/debian-archive-keyring.gpg
Suites: bookworm
Types: deb
URIs: http://deb.example/debian
Components: main non-free-firmware
Architectures: amd64
Targets: Packages

Suites: bookworm-security
Types: deb
URIs: http://deb.example/debian-security
Components: main non-free-firmware
Architectures: amd64
Targets: Packages

Suites: bookworm bookworm-updates
Signed-By: 
 -----BEGIN PGP PUBLIC KEY BLOCK-----
 .
 mDMEYCQjIxYJ
Types: deb
URIs: http://deb.example/debian
Components: main non-free-firmware
Architectures: amd64
Targets: Packages
`
	if got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

// What a third party left must not keep the Debian sources from being used.
func TestHostSourcesPassesOver(t *testing.T) {
	dir := t.TempDir()
	os.Mkdir(filepath.Join(dir, "sources.list.d"), 0o755)
	for name, text := range map[string]string{
		"sources.list":                "deb http://deb.example/debian bookworm main\n",
		"sources.list.d/bad.list":     "dep http://x y z\n",
		"sources.list.d/bad.sources":  "Types deb\n",
		"sources.list.d/good.sources": "Types: deb\nURIs: http://deb.example/s\nSuites: bookworm-security\nComponents: main\n",
		"sources.list.d/off.disabled": "deb http://off.example/debian bookworm main\n",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	sources, notes := hostSources(dir)
	if len(sources) != 2 || len(notes) != 2 || !strings.Contains(notes[0], "bad.list") || !strings.Contains(notes[1], "bad.sources") {
		t.Errorf("%v\n%v", sources, notes)
	}
}

func TestParseSourcesRefuses(t *testing.T) {
	for _, line := range []string{"deb", "deb http://x", "deb [a=b http://x y z", "deb [a b] http://x y z", "rpm http://x y z",
		`deb "http://x" y z`} {
		if s, err := parseLines([]byte(line)); err == nil {
			t.Errorf("%q gave %v", line, s)
		}
	}
	for _, text := range []string{" goes on", "Types", "Types: deb\nTypes: deb", "Ty pes: deb", "a: \x00"} {
		if s, err := parseStanzas([]byte(text)); err == nil {
			t.Errorf("%q gave %v", text, s)
		}
	}
}

// What a build makes of any sources, it can read again, and it says what is
// meant: apt must not be led to read something else.
func checkBuildSources(t *testing.T, found []source) {
	use := buildSources(found)
	text := marshalSources(use)
	if len(text) > maxSources {
		return
	}
	again, err := parseStanzas(text)
	if err != nil {
		t.Fatalf("%v\n%q", err, text)
	}
	if len(again) != len(use) {
		t.Fatalf("%d sources became %d\n%q", len(use), len(again), text)
	}
	for i := range again {
		for _, f := range use[i].fields {
			if got := again[i].get(f.name); !reflect.DeepEqual(strings.Fields(got), strings.Fields(f.value)) {
				t.Fatalf("%s is %q, was %q", f.name, got, f.value)
			}
		}
		if again[i].get("Types") != "deb" || again[i].get("Architectures") != "amd64" || strings.Contains(again[i].get("URIs"), "cdrom:/") {
			t.Fatalf("%+v", again[i])
		}
	}
}

func FuzzSourcesList(f *testing.F) {
	f.Add([]byte(oneLine))
	f.Add([]byte("deb [trusted=yes Types=x] http://x y main"))
	f.Fuzz(func(t *testing.T, data []byte) {
		found, err := parseLines(data)
		if err == nil {
			checkBuildSources(t, found)
		}
	})
}

func FuzzSourcesStanzas(f *testing.F) {
	f.Add([]byte(stanzas))
	f.Fuzz(func(t *testing.T, data []byte) {
		found, err := parseStanzas(data)
		if err == nil {
			checkBuildSources(t, found)
		}
	})
}
