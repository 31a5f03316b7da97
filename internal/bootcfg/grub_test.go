package bootcfg

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"testbox-imaging/internal/testenv"
)

var sampleLoaders = []LocalLoader{
	{"1A2B-3C4D", "/EFI/debian/shimx64.efi", "debian"},
	{"00FF-0000", "/EFI/Red Hat/grub.efi", "Red Hat (old)"},
	{"00FF-0000", "/loader.efi", ""},
}

// scriptCheck lets GRUB's parser read a script.
func scriptCheck(t *testing.T, text []byte) error {
	t.Helper()
	file := filepath.Join(t.TempDir(), "script")
	if err := os.WriteFile(file, text, 0o644); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("grub-script-check", file).CombinedOutput(); err != nil {
		return fmt.Errorf("%w: %s", err, out)
	}
	return nil
}

// TestGRUBReadsIt: GRUB's parser accepts what this package writes for it.
func TestGRUBReadsIt(t *testing.T) {
	testenv.Tools(t, "grub-script-check")
	b := sample(t)
	b.Args = `acpi_osi="Windows 2012" pci=nomsi,noaer acpi_osi=!* x="a"`
	boot, err := Generate(b)
	if err != nil {
		t.Fatal(err)
	}
	loaders, _ := MarshalLoaders(sampleLoaders)
	for name, text := range map[string][]byte{
		"grub.cfg": GRUBConfig(), "a boot file": boot, "the default boot file": DefaultConfig(), "a file of loaders": loaders,
	} {
		if err := scriptCheck(t, text); err != nil {
			t.Errorf("%s: %v\n%s", name, err, text)
		}
	}
	if scriptCheck(t, []byte("if true; then\n")) == nil {
		t.Error("a script that is cut off was accepted, so this test shows nothing")
	}
}

// commands returns the lines of grub.cfg without comments.
func commands() (lines []string) {
	for line := range strings.Lines(string(GRUBConfig())) {
		if !strings.HasPrefix(line, "#") {
			lines = append(lines, strings.TrimSpace(line))
		}
	}
	return lines
}

// TestGRUBConfig: grub.cfg uses nothing that Debian's signed network GRUB lacks or
// that waits for somebody, and it ends in a restart.
func TestGRUBConfig(t *testing.T) {
	lines := commands()
	for _, line := range lines {
		words := strings.FieldsFunc(line, func(r rune) bool { return strings.ContainsRune(" \t;{}", r) })
		for _, no := range []string{"insmod", "tr", "eval", "read", "exit", "configfile", "normal", "halt", "--interruptible"} {
			if slices.Contains(words, no) && !strings.HasPrefix(line, "echo ") {
				t.Errorf("it uses %s: %s", no, line)
			}
		}
	}
	if end := lines[len(lines)-3:]; !slices.Equal(end, []string{"local_boot", "sleep 20", "reboot"}) {
		t.Errorf("it ends in %q", end)
	}
	text := strings.Join(lines, "\n")
	for i := range 256 {
		if want := fmt.Sprintf(" %d:%02X", i, i); !strings.Contains(text, want) {
			t.Errorf("the table of numbers has no %s", want)
		}
	}
	if !strings.HasPrefix(text, "set default=0\nset timeout=10\nmenuentry ") {
		t.Error("the entry that starts when the file is cut off does not come first")
	}
	if !strings.Contains(text, `[ -n "$strange" -o -n "$error_label" -a "$whole" != y ]`) {
		t.Error("a boot file that is cut off starts what it says so far")
	}
	if !strings.Contains(text, grubPath.String()) {
		t.Error("it takes other paths than Generate")
	}
}

// TestGRUBKnowsDirectives: every directive that changes what a boot file starts is
// a function of grub.cfg, so that GRUB never passes over one.
func TestGRUBKnowsDirectives(t *testing.T) {
	text := strings.Join(commands(), "\n")
	functions := map[string]bool{}
	for _, m := range regexp.MustCompile(`(?m)^function ([A-Z0-9]+) {`).FindAllStringSubmatch(text, -1) {
		functions[m[1]] = true
	}
	need := []string{"LABEL", "MENU", "INCLUDE", "TEXT"}
	for key := range fileWide {
		need = append(need, key)
	}
	for _, key := range []string{"KERNEL", "LINUX", "BOOT", "BSS", "PXE", "FDIMAGE", "COMBOOT", "COM32", "CONFIG", "INITRD", "APPEND",
		"IPAPPEND", "SYSAPPEND", "LOCALBOOT"} {
		if err := (&Label{}).set(key, "1"); err != nil {
			t.Fatalf("%s is no directive: %v", key, err)
		}
		need = append(need, key)
	}
	for _, key := range need {
		if !functions[key] {
			t.Errorf("grub.cfg has no function %s", key)
		}
	}
}

// TestGRUBTakesNothing: whatever the site's arguments and the names of disks are, a
// boot file that is written has only words that GRUB passes on as they are, or it is
// refused. What is no word of such characters is refused.
func TestGRUBTakesNothing(t *testing.T) {
	const alphabet = "ab=\" $\\'{}|&;<>()#*?/[]!~^%@:,.`"
	plainWord := regexp.MustCompile(`^[a-zA-Z0-9=*?\[\]!~^%@:,./_+#-]+$`)
	quoted := regexp.MustCompile(`^[a-zA-Z0-9*?\[\]!~^%@:,./_+#-]+="[a-zA-Z0-9=*?\[\]!~^%@:,./_+# -]*"$`)
	random := rand.New(rand.NewPCG(1, 2))
	word := func() string {
		var b strings.Builder
		for range 1 + random.IntN(5) {
			b.WriteByte(alphabet[random.IntN(len(alphabet))])
		}
		return b.String()
	}
	var all bytes.Buffer
	written := 0
	for range 20000 {
		b := sample(t)
		b.Args = word() + " " + word()
		b.Cmdline.Disks = []string{strings.NewReplacer(" ", "", ",", "", `"`, "").Replace(word()) + "x"}
		text, err := Generate(b)
		if err != nil {
			continue
		}
		written++
		cfg, err := Parse(text)
		if err != nil {
			t.Fatal(err)
		}
		for _, w := range splitWords(cfg.Labels[0].Append) {
			if !plainWord.MatchString(w) && !quoted.MatchString(w) || w[0] == '#' || w[0] == '*' || w[0] == '/' && strings.ContainsAny(w, "*?") {
				t.Fatalf("%s reaches GRUB from %q", w, b.Args)
			}
		}
		all.Write(text)
	}
	if written < 100 {
		t.Errorf("only %d boot files were written, so this shows little", written)
	}
	if _, err := exec.LookPath("grub-script-check"); err == nil {
		if err := scriptCheck(t, all.Bytes()); err != nil {
			t.Error(err)
		}
	}
}

func TestGenerateRefusesForGRUB(t *testing.T) {
	for says, change := range map[string]func(*BootFile){
		"kernel argument memmap=64M$1G has '$'": func(b *BootFile) { b.Args = "nosmt memmap=64M$1G" },
		`kernel argument a\b has '\\'`:          func(b *BootFile) { b.Args = `a\b` },
		"around a whole value":                  func(b *BootFile) { b.Args = `a=b"c d"` },
		"begins with '*'":                       func(b *BootFile) { b.Args = "*x" },
		"begins with '#'":                       func(b *BootFile) { b.Args = "#x" },
		"begins with '/'":                       func(b *BootFile) { b.Args = "/*" },
		"testbox-disks=a;b has ';'":             func(b *BootFile) { b.Cmdline.Disks = []string{"a;b"} },
		"loader of UEFI machines does not take": func(b *BootFile) { b.Kernel = "a:b" },
	} {
		b := sample(t)
		change(&b)
		if text, err := Generate(b); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("want an error with %q, got %v and\n%s", says, err, text)
		}
	}
}

func TestOriginOfGRUB(t *testing.T) {
	ours := GRUBConfig()
	for what, c := range map[string]struct {
		text []byte
		want GRUBOrigin
	}{
		"ours":                  {ours, GRUBCurrent},
		"that of a version":     {markGRUB([]byte("reboot\n")), GRUBOlder},
		"cut off":               {ours[:len(ours)-1], GRUBDamaged},
		"cut off in its mark":   {ours[:10], GRUBDamaged},
		"empty":                 {nil, GRUBDamaged},
		"edited":                {bytes.Replace(ours, []byte("sleep 20"), []byte("sleep 21"), 1), GRUBDamaged},
		"somebody else's":       {[]byte("set timeout=5\n"), GRUBForeign},
		"ours without its mark": {grubConfig, GRUBForeign},
	} {
		if got := OriginOfGRUB(c.text); got != c.want {
			t.Errorf("%s: origin %d, want %d", what, got, c.want)
		}
	}
}

func TestLoaders(t *testing.T) {
	text, left := MarshalLoaders(sampleLoaders)
	want := "LOADER 1A2B-3C4D '/EFI/debian/shimx64.efi' 'debian'\nLOADER 00FF-0000 '/EFI/Red Hat/grub.efi' 'Red Hat (old)'\n" +
		"LOADER 00FF-0000 '/loader.efi' ''\n"
	if string(text) != want || len(left) > 0 {
		t.Errorf("written as\n%s%v", text, left)
	}
	if got, err := ParseLoaders(text); err != nil || !reflect.DeepEqual(got, sampleLoaders) {
		t.Errorf("read as %+v, %v", got, err)
	}
	for _, l := range []LocalLoader{
		{"1A2B", "/a", ""}, {"1A2B-3C4G", "/a", ""}, {"", "/a", ""}, {"1A2B-3C4D", "", ""}, {"1A2B-3C4D", "a", ""}, {"1A2B-3C4D", "/a'", ""},
		{"1A2B-3C4D", "/a$b", ""}, {"1A2B-3C4D", "/a\nreboot", ""}, {"1A2B-3C4D", "/../a", ""}, {"1A2B-3C4D", `\EFI\a`, ""},
		{"1A2B-3C4D", "/*", ""}, {"1A2B-3C4D", "/" + strings.Repeat("a", 300), ""}, {"1A2B-3C4D", "/ä", ""},
	} {
		text, left := MarshalLoaders([]LocalLoader{l, sampleLoaders[0]})
		if len(left) != 1 || strings.Count(string(text), "LOADER") != 1 {
			t.Errorf("%+v was written as\n%s%v", l, text, left)
		}
	}
	text, left = MarshalLoaders([]LocalLoader{{"1a2b-3c4d", "/a", "a'b\n$c "}})
	if string(text) != "LOADER 1A2B-3C4D '/a' 'abc'\n" || left != nil {
		t.Errorf("%s%v", text, left)
	}
	text, left = MarshalLoaders(slices.Repeat(sampleLoaders[:1], maxLoaders+2))
	if got, err := ParseLoaders(text); err != nil || len(got) != maxLoaders || len(left) != 2 {
		t.Errorf("of too many %d are read, %v, %v", len(got), err, left)
	}
	for _, bad := range []string{"x", "LOADER 1A2B-3C4D '/a' ''", "LOADER 1A2B-3C4D '/a'\n", "LOADER 1A2B-3C4D '/a' '' ;reboot\n",
		"LOADER 1a2b-3c4d '/a' ''\n", "LOADER 1A2B-3C4D '/a;b' ''\n", "\n", strings.Repeat("LOADER 1A2B-3C4D '/a' ''\n", maxLoaders+1),
		strings.Repeat("x", MaxGRUB+1)} {
		if got, err := ParseLoaders([]byte(bad)); err == nil {
			t.Errorf("%.80q was read as %+v", bad, got)
		}
	}
}

func FuzzParseLoaders(f *testing.F) {
	text, _ := MarshalLoaders(sampleLoaders)
	f.Add(text)
	f.Fuzz(func(t *testing.T, data []byte) {
		all, err := ParseLoaders(data)
		if err != nil {
			return
		}
		again, left := MarshalLoaders(all)
		if back, err := ParseLoaders(again); err != nil || len(left) > 0 || !slices.Equal(back, all) {
			t.Fatalf("%q became %q: %v, %v", data, again, err, left)
		}
	})
}
