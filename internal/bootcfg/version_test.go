package bootcfg

import (
	"strings"
	"testing"
	"time"
)

func TestVersion(t *testing.T) {
	v := Version{Format: VersionFormat, Version: "12.5-1", Form: FormRAM, Kernel: "6.1.0-37-amd64",
		Built: time.Date(2026, 11, 22, 8, 0, 0, 0, time.UTC)}
	text, err := v.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	got, err := ParseVersion(text)
	if err != nil || *got != v {
		t.Errorf("got %+v, %v", got, err)
	}
	if got.KernelPath() != "maintenance-boot/12.5-1/vmlinuz" || got.InitrdPath() != "maintenance-boot/12.5-1/initrd.img" {
		t.Error(got.KernelPath(), got.InitrdPath())
	}
	for from, to := range map[string]string{
		`"format": 1`: `"format": 2`, `"12.5-1"`: `"../x"`, `"ram"`: `"tape"`, "6.1.0-37-amd64": "", "2026": "yesterday", "}": `,"more":1}`,
		"}\n": "}{}",
	} {
		if v, err := ParseVersion([]byte(strings.Replace(string(text), from, to, 1))); err == nil {
			t.Errorf("%s for %s gave %+v", to, from, v)
		}
	}
	v.Form, v.Root = FormDebian, RootSum{Size: 5, SHA256: strings.Repeat("0a", 32)}
	if text, err = v.Marshal(); err != nil {
		t.Fatal(err)
	}
	if got, err := ParseVersion(text); err != nil || *got != v || got.RootFile() != "maintenance-boot/12.5-1/root.squashfs" {
		t.Errorf("got %+v, %v", got, err)
	}
	for from, to := range map[string]string{"0a0a": "0A0A", `"size": 5`: `"size": 0`, `"debian"`: `"ram"`, `"size"`: `"bytes"`} {
		if v, err := ParseVersion([]byte(strings.Replace(string(text), from, to, 1))); err == nil {
			t.Errorf("%s for %s gave %+v", to, from, v)
		}
	}
	for _, built := range []string{`"soon"`, "1764490000"} {
		text := `{"format":1,"version":"1","form":"ram","kernel":"6.1.0","built":` + built + `}`
		want := "version file has the time of building " + built + `; it is written as in "2026-11-27T10:04:00Z"`
		if _, err := ParseVersion([]byte(text)); err == nil || err.Error() != want {
			t.Errorf("built %s: %v", built, err)
		}
	}
	if _, err := (&Version{Version: Latest}).Marshal(); err == nil {
		t.Error("an impossible version was written")
	}
}

func FuzzParseVersion(f *testing.F) {
	f.Add([]byte(`{"format":1,"version":"1","form":"debian","kernel":"6.1.0","built":"2026-11-22T08:00:00Z"}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		v, err := ParseVersion(data)
		if err != nil {
			return
		}
		text, err := v.Marshal()
		if err != nil {
			t.Fatal(err)
		}
		if again, err := ParseVersion(text); err != nil || !again.Built.Equal(v.Built) || again.Version != v.Version ||
			again.Kernel != v.Kernel || again.Form != v.Form {
			t.Fatalf("%q became %q: %v", data, text, err)
		}
	})
}
