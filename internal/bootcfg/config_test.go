package bootcfg

import (
	"fmt"
	"strings"
	"testing"
)

type configCase struct{ name, text, says string }

// localConfigs lead to the box's own disk; styles as they are found in labs.
var localConfigs = []configCase{
	{name: "ours", text: string(DefaultConfig())},
	{name: "numbers", text: "default disk\nlabel disk\n\tlocalboot 0x80\n"},
	{name: "prompt", text: "SERIAL 0 115200\nPROMPT 1\nTIMEOUT 50\nDEFAULT disk now\r\nSAY hello\nLABEL disk\n LOCALBOOT -1\nLABEL " +
		"memtest\n KERNEL memtest86\n"},
	{name: "chain", text: "# older firmware\nDEFAULT disk\nLABEL disk\nTEXT HELP\nKERNEL in a help text\nENDTEXT\nMENU LABEL " +
		"^Disk\nCOM32 bios/chain.c32\nAPPEND hd0 0\n"},
	{name: "ontimeout", text: "DEFAULT a\nONTIMEOUT b\nONERROR a\nLABEL a\nLOCALBOOT\nLABEL b\nLOCALBOOT 0\n"},
}

// strandedConfigs do not, or not surely.
var strandedConfigs = []configCase{
	{"empty", "", "no DEFAULT"},
	{"installer", "DEFAULT install\nLABEL install\nKERNEL linux\nAPPEND initrd=x\nLABEL local\nLOCALBOOT 0\n", "DEFAULT install does not"},
	{"menu", "UI menu.c32\nDEFAULT local\nLABEL local\nLOCALBOOT 0\n", "UI menu.c32"},
	{"no label", "DEFAULT local\n", "DEFAULT local does not"},
	{"case", "DEFAULT Local\nLABEL local\nLOCALBOOT\n", "DEFAULT Local does not"},
	{"include", "DEFAULT local\nLABEL local\nLOCALBOOT\nINCLUDE more\n", "includes more"},
	{"menu include", "DEFAULT local\nLABEL local\nLOCALBOOT\nMENU INCLUDE more\n", "includes more"},
	{"waits", "PROMPT 1\nDEFAULT local\nLABEL local\nLOCALBOOT\n", "key press"},
	{"time-out", "DEFAULT local\nONTIMEOUT other\nLABEL local\nLOCALBOOT\nLABEL other\nKERNEL x\n", "ONTIMEOUT other"},
	{"chain on error", "DEFAULT a\nONERROR b\nLABEL a\nLOCALBOOT\nLABEL b\nKERNEL chain.c32\nAPPEND hd0\n", "ONERROR b does not"},
	{"chain to no disk", "DEFAULT a\nLABEL a\nKERNEL chain.c32\nAPPEND hdfoo\n", "DEFAULT a does not"},
	{"menu default", "DEFAULT local\nLABEL local\nLOCALBOOT\nLABEL other\nKERNEL x\nMENU DEFAULT\n", "MENU DEFAULT"},
}

func TestIsLocalBoot(t *testing.T) {
	for _, c := range append(localConfigs, strandedConfigs...) {
		cfg, err := Parse([]byte(c.text))
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		err = cfg.IsLocalBoot()
		if c.says == "" && err != nil || c.says != "" && (err == nil || !strings.Contains(err.Error(), c.says)) {
			t.Errorf("%s: got %v, want %q", c.name, err, c.says)
		}
	}
}

func TestModules(t *testing.T) {
	const chain = "LABEL a\nKERNEL chain.c32\nAPPEND hd1,2\n"
	for text, want := range map[string]string{
		string(DefaultConfig()): "[]",
		"DEFAULT a\n" + chain:   "[[chain.c32] [libutil.c32] [libcom32.c32]]",
		"PATH bios:x/y\nDEFAULT a now\n" + chain: "[[chain.c32 bios/chain.c32 x/y/chain.c32] [libutil.c32 bios/libutil.c32 x/y/libutil.c32] " +
			"[libcom32.c32 bios/libcom32.c32 x/y/libcom32.c32]]",
		"DEFAULT b\nLABEL b\nLOCALBOOT 0\n" + chain:              "[]",
		"DEFAULT b\nONTIMEOUT a\nLABEL b\nLOCALBOOT 0\n" + chain: "[[chain.c32] [libutil.c32] [libcom32.c32]]",
	} {
		cfg, err := Parse([]byte(text))
		if err != nil {
			t.Fatal(err)
		}
		if got := fmt.Sprint(cfg.Modules()); got != want {
			t.Errorf("%q needs %s, want %s", text, got, want)
		}
	}
}

func TestParseRefuses(t *testing.T) {
	for text, says := range map[string]string{
		"DEFALT x":                         "line 1: DEFALT",
		"\nKERNEL x":                       "line 2: KERNEL",
		"LABEL a\nLABEL a":                 "twice",
		"LABEL a b":                        "not one word",
		"LABEL a\nKERNEL x\nLINUX y":       "two things",
		"LABEL a\nKERNEL x\nLOCALBOOT":     "two things",
		"LABEL a\nLOCALBOOT\nKERNEL x":     "two things",
		"LABEL a\nLOCALBOOT yes":           "not a number",
		"LABEL a\nAPPEND x\nAPPEND y":      "twice",
		"PATH a\nLABEL a\nPATH b":          "twice",
		"PROMPT on":                        "not a number",
		"TIMEOUT -1":                       "not a number",
		"DEFAULT":                          "without a value",
		"SAY a\x1b[2Jb":                    "control character 0x1b",
		"TEXT HELP\nDEFAULT x":             "without ENDTEXT",
		"SAY " + strings.Repeat("x", 3000): "longer",
		strings.Repeat("\n", MaxConfig+1):  "larger",
		strings.Repeat("LABEL a\n", 2):     "twice",
		"LABEL a\nLOCALBOOT 0xfffffffff":   "not a number",
		"LABEL a\nFOO":                     "FOO is not a directive",
		"MENU":                             "MENU without",
		"IPAPPEND 2\nIPAPPEND 2":           "twice",
		"LABEL a\nKERNEL":                  "without a file",
	} {
		if cfg, err := Parse([]byte(text)); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%.40q gave %+v, %v; want an error with %q", text, cfg, err, says)
		}
	}
}

func TestParseOwner(t *testing.T) {
	o, ok := ParseOwner("01-88-99-AA-BB-CC-DD")
	if !ok || o.MAC.String() != "88:99:aa:bb:cc:dd" {
		t.Errorf("%+v %v", o, ok)
	}
	if o, ok = ParseOwner("20-00-11-22-33-44-55-66-77"); !ok || o.MAC != nil || o.UUID != "" {
		t.Errorf("other hardware: %+v %v", o, ok)
	}
	for _, name := range []string{"default", "0A28292A", "0A28", "01-88-99", "site.conf", "b8945908-d6a6-41a9-611d", "01-88-99-aa-bb-cc-dg"} {
		if o, ok := ParseOwner(name); ok {
			t.Errorf("%s is taken for the name of %+v", name, o)
		}
	}
}
