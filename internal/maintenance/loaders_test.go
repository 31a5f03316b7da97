package maintenance

import (
	"debug/pe"
	"encoding/binary"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"testbox-imaging/internal/durable"
	"testbox-imaging/internal/loaders"
	"testbox-imaging/internal/testenv"
	"testbox-imaging/internal/testenv/testpe"
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

// flips changes single bits of the real files: all that firmware reads of them is noticed. Not signed are the checksum of
// PE and, behind everything else, parts of the signatures, such as Microsoft's time stamp.
func flips(t *testing.T, dir string, k loaders.Kind) {
	t.Helper()
	read := func(name string) []byte {
		data, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		return data
	}
	shim, grub := read(k.Shim), read(k.GRUB)
	for _, data := range [][]byte{shim, grub} {
		head := int(binary.LittleEndian.Uint32(data[0x3c:])) + 24
		table := int(binary.LittleEndian.Uint32(data[head+144:]))
		var places []int
		for at := range 48 {
			places = append(places, 4*at, head+4*at, rand.IntN(table), rand.IntN(table))
		}
		for _, at := range append(places, table-1, table+4, table+6, head+144, head+148) {
			if at >= head+64 && at < head+68 {
				continue
			}
			bit := byte(1) << rand.IntN(8)
			data[at] ^= bit
			if _, err := loaders.Check(k, shim, grub, nil); err == nil {
				t.Errorf("bit %d of byte %d, of a file of %d bytes, is not noticed", bit, at, len(data))
			}
			data[at] ^= bit
		}
	}
	if _, err := loaders.Check(k, shim, grub, nil); err != nil {
		t.Error(err)
	}
}

// TestNoLoaders: machines with a BIOS need no loaders of UEFI machines, so that a build without them goes on, and says it.
// What is there stays.
func TestNoLoaders(t *testing.T) {
	testenv.Long(t, "6 seconds, in which apt tries again")
	testenv.Tools(t, "apt-get", "dpkg-deb")
	etc, tftp := t.TempDir(), t.TempDir()
	source := []byte("deb [trusted=yes] http://127.0.0.1:1/debian bookworm main\n")
	if err := os.WriteFile(filepath.Join(etc, "sources.list"), source, 0o644); err != nil {
		t.Fatal(err)
	}
	opt, err := Options{TFTP: tftp, Cache: t.TempDir(), Etc: etc, Say: t.Logf}.complete()
	if err != nil {
		t.Fatal(err)
	}
	a, err := openApt(t.Context(), opt)
	if err != nil {
		t.Fatal(err)
	}
	defer a.close()
	build := func(says string, n int) {
		t.Helper()
		r := &Result{}
		if err := r.addLoaders(t.Context(), a); err != nil || len(r.Loaders) != n {
			t.Errorf("%v, %v", r.Loaders, err)
		}
		if notes := strings.Join(r.Notes, "\n"); !strings.Contains(notes, says) || says == "" && notes != "" {
			t.Errorf("it says %q", notes)
		}
	}
	build("UEFI machines (x64) get no new loaders: package shim-signed:amd64: no apt source has it", 0)
	site := testpe.NewSite()
	for name, data := range map[string][]byte{loaders.TrustFile: site.Firmware.PEM(),
		"shimx64.efi": site.Shim(pe.IMAGE_FILE_MACHINE_AMD64, "5"), "grubx64.efi": site.GRUB(pe.IMAGE_FILE_MACHINE_AMD64, "2", "7")} {
		if err := os.WriteFile(filepath.Join(tftp, name), data, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	build("", 1) // they are the site's own
	if err := os.Truncate(filepath.Join(tftp, "grubx64.efi"), 100); err != nil {
		t.Fatal(err)
	}
	build("uefi-trust.pem is there, so they are your own: grubx64.efi: ", 0)
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
	flips(t, tftp, first.Kind)
	if st, err := os.Stat(filepath.Join(tftp, first.Kind.Shim)); err != nil || st.Mode().Perm() != 0o644 {
		t.Errorf("%v, %v", st, err)
	}
}
