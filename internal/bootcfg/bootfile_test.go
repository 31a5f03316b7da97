package bootcfg

import (
	"reflect"
	"strings"
	"testing"
	"time"
)

func sample(t testing.TB) BootFile {
	c := full(t)
	c.BootIF = nil
	return BootFile{Cmdline: c, Kernel: "maintenance-boot/1.0/vmlinuz", Initrd: "maintenance-boot/1.0/initrd.img"}
}

func TestGenerate(t *testing.T) {
	b := sample(t)
	b.Cmdline.Disks, b.Cmdline.Fault = nil, ""
	b.Args, b.LocalBoot = "nomodeset  mitigations=off", "-1"
	text, err := Generate(b)
	if err != nil {
		t.Fatal(err)
	}
	want := `PATH bios
DEFAULT maintenance
PROMPT 0
TOTALTIMEOUT 600
ONTIMEOUT local-boot
ONERROR local-boot
LABEL maintenance
  MENU LABEL Testbox maintenance: restore of 10.40.41.42
  KERNEL maintenance-boot/1.0/vmlinuz
  APPEND initrd=maintenance-boot/1.0/initrd.img ` + b.Cmdline.Words() + ` panic=30 console=ttyS0,115200 console=tty0 boot=nfs root=/dev/nfs ro noresume raid=noautodetect systemd.gpt_auto=0 luks=no fsck.mode=skip nomodeset mitigations=off
  IPAPPEND 2
LABEL local-boot
  LOCALBOOT -1
`
	if string(text) != want {
		t.Errorf("got\n%s\nwant\n%s", text, want)
	}
	c, kernel, initrd, err := ParseBootFile(text)
	if err != nil || kernel != b.Kernel || initrd != b.Initrd || !reflect.DeepEqual(*c, b.Cmdline) {
		t.Errorf("read as %+v %s %s %v", c, kernel, initrd, err)
	}
}

// TestGenerateRAM: nothing of the form debian is in a boot file of the form ram.
func TestGenerateRAM(t *testing.T) {
	b := sample(t)
	b.Cmdline.Root = NFSPath{}
	text, err := Generate(b)
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(text), "nfs ") || strings.Contains(string(text), "root=") {
		t.Errorf("%s", text)
	}
}

// TestGenerateServer: the boot file of server mode has the server, and no area.
func TestGenerateServer(t *testing.T) {
	b := BootFile{Cmdline: fullServer(t), Kernel: "maintenance-boot/1.0/vmlinuz", Initrd: "maintenance-boot/1.0/initrd.img"}
	b.Cmdline.BootIF = nil
	text, err := Generate(b)
	if err != nil {
		t.Fatal(err)
	}
	c, _, _, err := ParseBootFile(text)
	if err != nil || !reflect.DeepEqual(*c, b.Cmdline) || strings.Contains(string(text), "testbox-tftp") ||
		strings.Contains(string(text), "nfs") || !strings.Contains(string(text), " boot=testbox ro noresume ") {
		t.Errorf("read as %+v, %v", c, err)
	}
}

// TestStartedAgreesWithFile: what each loader makes of a boot file agrees with it.
func TestStartedAgreesWithFile(t *testing.T) {
	text, err := Generate(sample(t))
	if err != nil {
		t.Fatal(err)
	}
	cfg, err := Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	file, _, _, err := ParseBootFile(text)
	if err != nil {
		t.Fatal(err)
	}
	_, words, _ := strings.Cut(cfg.Labels[0].Append, " ")
	kernel := cfg.Labels[0].Kernel
	for _, line := range []string{
		"BOOT_IMAGE=" + kernel + " " + cfg.Labels[0].Append + " BOOTIF=01-88-99-aa-bb-cc-dd", // PXELINUX
		// GRUB leaves initrd= out, and moves quotation marks.
		"BOOT_IMAGE=(tftp,10.77.0.1)/" + kernel + ` "acpi_osi=Windows 2012" ` + words + " BOOTIF=01-88-99-aa-bb-cc-dd",
		"BOOT_IMAGE=(http,10.77.0.1:8080)/" + kernel + " " + words + " BOOTIF=01-88-99-aa-bb-cc-dd",
	} {
		started, err := ParseCmdline(line)
		if err != nil {
			t.Fatal(err)
		}
		if err := Agree(started, file); err != nil || started.BootIF == nil {
			t.Error(err, started.BootIF)
		}
	}
}

func TestGenerateTruncatesExpiry(t *testing.T) {
	b := sample(t)
	b.Cmdline.Expires = time.Date(2026, 11, 22, 9, 0, 0, 123, time.FixedZone("CET", 3600))
	text, err := Generate(b)
	if err != nil || !strings.Contains(string(text), "testbox-expires=2026-11-22T08:00:00Z ") {
		t.Errorf("%v\n%s", err, text)
	}
}

// TestLongestCommandLine: what the loader makes of a boot file is never cut off by the kernel.
func TestLongestCommandLine(t *testing.T) {
	b := sample(t)
	for err := error(nil); err == nil; b.Args += "x" {
		var text []byte
		if text, err = Generate(b); err != nil {
			continue
		}
		cfg, perr := Parse(text)
		if perr != nil {
			t.Fatal(perr)
		}
		booted := "BOOT_IMAGE=(http,255.255.255.255:65535)/" + b.Kernel + " " + cfg.Labels[0].Append + " " + "BOOTIF=01-88-99-aa-bb-cc-dd"
		if len(booted) > 2000 {
			t.Fatalf("%d bytes are written", len(booted))
		}
	}
	if len(b.Args) < 1000 {
		t.Errorf("no room for %d bytes more", len(b.Args))
	}
}

func TestGenerateRefuses(t *testing.T) {
	for says, change := range map[string]func(*BootFile){
		"at most 2000":           func(b *BootFile) { b.Args = strings.Repeat("x ", 1000) },
		"testbox-retry=1 is not": func(b *BootFile) { b.Args = "nosmt testbox-retry=1" },
		"ip=dhcp is not":         func(b *BootFile) { b.Args = "ip=dhcp" },
		"nfsroot=x is not":       func(b *BootFile) { b.Args = "nfsroot=x" },
		"BOOTIF=x is not":        func(b *BootFile) { b.Args = "BOOTIF=x" },
		"init=x is not":          func(b *BootFile) { b.Args = "init=x" },
		"root=x is not":          func(b *BootFile) { b.Args = "root=x" },
		"rw is not":              func(b *BootFile) { b.Args = "nosmt rw" },
		"resume=x is not":        func(b *BootFile) { b.Args = "resume=x" },
		"quiet is not":           func(b *BootFile) { b.Args = "quiet" },
		"panic=0 is not for":     func(b *BootFile) { b.Args = "panic=0" },
		"partner":                func(b *BootFile) { b.Args = `a="b` },
		"printable":              func(b *BootFile) { b.Args = "a\nLABEL x" },
		`LOCALBOOT "chain`:       func(b *BootFile) { b.LocalBoot = "chain.c32 hd0" },
		"BOOTIF":                 func(b *BootFile) { b.Cmdline.BootIF = []byte{1, 2, 3, 4, 5, 6} },
		"unknown action":         func(b *BootFile) { b.Cmdline.Action = "x" },
		"read as it was meant":   func(b *BootFile) { b.Cmdline.Retry = 1500 * time.Millisecond },
		"not a disk's name":      func(b *BootFile) { b.Cmdline.Disks = []string{"a", ""} },
		"instead of initrd=FILE": func(b *BootFile) { b.Initrd = "a,b" },
		"kernel \"/x \\\"\" and": func(b *BootFile) { b.Kernel = `/x "` },
		"is there twice":         func(b *BootFile) { b.Kernel = "x\n  KERNEL y" },
		"not an arming id":       func(b *BootFile) { b.Cmdline.Arming = "" },
		"server mode does not":   func(b *BootFile) { b.Cmdline.Mode = ServerMode },
		"share mode does not":    func(b *BootFile) { b.Cmdline.Secret = "1" },
	} {
		b := sample(t)
		change(&b)
		if text, err := Generate(b); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("want an error with %q, got %v and\n%s", says, err, text)
		}
	}
}

func TestParseBootFileRefuses(t *testing.T) {
	text, err := Generate(sample(t))
	if err != nil {
		t.Fatal(err)
	}
	for from, to := range map[string]string{
		"ONERROR local-boot\n":            "",
		"ONTIMEOUT local-boot\n":          "",
		"TOTALTIMEOUT 600\n":              "",
		"PROMPT 0":                        "PROMPT 1",
		"DEFAULT maintenance":             "DEFAULT local-boot",
		"  LOCALBOOT\n":                   "  KERNEL other\n",
		"PATH bios\n":                     "UI menu.c32\n",
		"APPEND initrd=":                  "APPEND ",
		"LABEL local-boot":                "INCLUDE other\nLABEL local-boot",
		"testbox-action-restore":          "testbox-action-destroy",
		"  IPAPPEND 2\n":                  "  INITRD other\n",
		"testbox-arming=0123456789abcdef": "",
	} {
		edited := strings.Replace(string(text), from, to, 1)
		if edited == string(text) {
			t.Fatalf("%q is not in the file", from)
		}
		if _, _, _, err := ParseBootFile([]byte(edited)); err == nil {
			t.Errorf("accepted with %q for %q", to, from)
		}
	}
}

func FuzzParseConfig(f *testing.F) {
	text, err := Generate(sample(f))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(text)
	f.Add(DefaultConfig())
	server := sample(f)
	server.Cmdline = fullServer(f)
	server.Cmdline.BootIF = nil
	if text, err = Generate(server); err != nil {
		f.Fatal(err)
	}
	f.Add(text)
	for _, s := range append(localConfigs, strandedConfigs...) {
		f.Add([]byte(s.text))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		cfg, err := Parse(data)
		if err != nil {
			return
		}
		again, err := Parse(cfg.Marshal())
		if err != nil || !reflect.DeepEqual(cfg, again) {
			t.Fatalf("%q became %q: %v", data, cfg.Marshal(), err)
		}
		if cfg.IsLocalBoot() == nil && !strings.Contains(strings.ToLower(string(data)), "localboot") &&
			!strings.Contains(string(data), "chain.c32") {
			t.Fatalf("%q was taken for local boot", data)
		}
		c, kernel, initrd, err := ParseBootFile(data)
		if err != nil {
			return
		}
		if cfg.IsLocalBoot() == nil {
			t.Fatalf("%q is both armed and local boot", data)
		}
		if c.BootIF != nil { // Generate leaves that to the loader
			return
		}
		ours, err := Generate(BootFile{Cmdline: *c, Kernel: kernel, Initrd: initrd, LocalBoot: cfg.label(LabelLocal).LocalArg})
		if err != nil && !strings.Contains(err.Error(), "reach it") && !strings.Contains(err.Error(), "UEFI machines") {
			t.Fatalf("%q cannot be written again: %v", data, err)
		}
		if back, _, _, err2 := ParseBootFile(ours); err == nil && (err2 != nil || !reflect.DeepEqual(c, back)) {
			t.Fatalf("%q became %q", data, ours)
		}
	})
}
