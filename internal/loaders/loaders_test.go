package loaders

import (
	"bytes"
	"crypto/x509"
	"debug/pe"
	"encoding/binary"
	"errors"
	"io/fs"
	"path/filepath"
	"strings"
	"testing"

	"testbox-imaging/internal/durable"
	"testbox-imaging/internal/faults"
	"testbox-imaging/internal/testenv/testpe"
)

const amd64 = pe.IMAGE_FILE_MACHINE_AMD64

func TestCheck(t *testing.T) {
	site := testpe.NewSite()
	own := []*x509.Certificate{site.Firmware.Cert}
	shim, grub := site.Shim(amd64, "5"), site.GRUB(amd64, "2.12-9", "7", "tftp", "http")
	flip := func(b []byte, at int) []byte {
		b = bytes.Clone(b)
		b[at] ^= 1
		return b
	}
	stranger := testpe.NewSite()
	lists := testpe.Build(amd64, testpe.Section{Name: ".vendor_cert", Data: testpe.VendorCert(append(signatureList(stranger.Vendor.Cert.Raw),
		signatureList(site.Vendor.Cert.Raw)...))})
	bare := testpe.Build(amd64, testpe.Section{Name: ".sbat", Data: []byte("grub,9\n")})
	for name, c := range map[string]struct {
		shim, grub []byte
		own        []*x509.Certificate
		says       string // "" is right
	}{
		"right":               {shim, grub, own, ""},
		"a list in shim":      {site.Firmware.Issue("x").Sign(lists), grub, own, ""},
		"GRUB by firmware":    {shim, site.Firmware.Issue("x").Sign(bare), own, ""},
		"strange firmware":    {shim, grub, nil, `whose certificate is of "Firmware CA", and that is nobody who is trusted, so no`},
		"strange shim":        {stranger.Shim(amd64, "5"), grub, own, "shimx64.efi: signed by"},
		"strange GRUB":        {shim, stranger.GRUB(amd64, "2", "7"), own, "so shim would not start it and wait for a key"},
		"other machine":       {shim, site.GRUB(pe.IMAGE_FILE_MACHINE_I386, "2", "7"), own, "it is for machines of type 0x14c and not for x64"},
		"shim is GRUB":        {grub, grub, append(own, site.Vendor.Cert), "so it is no shim"},
		"damaged shim":        {flip(shim, 1500), grub, own, "shimx64.efi: signature 1: it is for a file of digest"},
		"damaged GRUB":        {shim, flip(grub, 1500), own, "grubx64.efi: signature 1: it is for a file of digest"},
		"cut GRUB":            {shim, grub[:len(grub)-1], own, "cut off"},
		"GRUB is a text":      {shim, bytes.Repeat([]byte("<html>"), 100), own, "grubx64.efi: it is no PE file"},
		"unsigned GRUB":       {shim, testpe.Build(amd64), own, "grubx64.efi: it is not signed"},
		"revoked GRUB":        {shim, site.GRUB(amd64, "2", "4"), own, "it is revoked, since its generation of grub is 4 and shim wants 5"},
		"GRUB without number": {shim, site.Vendor.Issue("y").Sign(testpe.Build(amd64)), own, "no table SBAT"},
	} {
		p, err := Check(X64, c.shim, c.grub, c.own)
		if c.says == "" && err != nil || c.says != "" && (err == nil || !strings.Contains(err.Error(), c.says)) {
			t.Errorf("%s: %+v, %v", name, p, err)
		}
	}
	p, err := Check(X64, shim, grub, own)
	if err != nil || !p.HTTP || p.GRUB != "2.12-9" || p.Shim != "16.1" || p.By != "Firmware CA" {
		t.Errorf("%+v, %v", p, err)
	}
	if want := "UEFI x64: shim 16.1, and GRUB 2.12-9, which loads by TFTP and HTTP"; p != nil && p.String() != want {
		t.Errorf("%v", p)
	}
	if p, err := Check(X64, shim, site.GRUB(amd64, "2.06", "5", "tftp", "httpx"), own); err != nil || p.HTTP {
		t.Errorf("%+v, %v", p, err)
	}
}

// signatureList is a list with one certificate, as firmware has it.
func signatureList(cert []byte) []byte {
	b := bytes.Clone(x509GUID)
	for _, n := range []int{28 + 16 + len(cert), 0, 16 + len(cert)} {
		b = binary.LittleEndian.AppendUint32(b, uint32(n))
	}
	return append(append(b, make([]byte, 16)...), cert...)
}

func TestOwn(t *testing.T) {
	a, b := testpe.CA("a").PEM(), testpe.CA("b").PEM()
	for name, c := range map[string]struct {
		text []byte
		n    int
		says string
	}{
		"two":     {append(append([]byte("the first\n"), a...), b...), 2, ""},
		"none":    {[]byte("\n"), 0, "no certificate"},
		"no PEM":  {[]byte("x"), 0, "no certificate in PEM"},
		"a key":   {[]byte("-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"), 0, "PRIVATE KEY"},
		"damaged": {bytes.Replace(a, []byte("MII"), []byte("MIX"), 1), 0, "certificate"},
		"more":    {append(bytes.Clone(a), "and so on"...), 0, "no certificate in PEM"},
	} {
		all, err := ParseOwn(c.text)
		if len(all) != c.n || (err == nil) != (c.says == "") || err != nil && !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %d, %v", name, len(all), err)
		}
	}
}

// TestPublish: whenever the power is cut, a machine finds a pair that works, or no shim.
func TestPublish(t *testing.T) {
	site, other := testpe.NewSite(), testpe.NewSite()
	trust := append(site.Firmware.PEM(), other.Firmware.PEM()...)
	type pair struct{ shim, grub []byte }
	old := pair{site.Shim(amd64, "4"), site.GRUB(amd64, "2.06", "4")}
	for name, next := range map[string]pair{
		"GRUB first": {site.Shim(amd64, "7"), site.GRUB(amd64, "2.12", "7")},
		"shim first": {site.Shim(amd64, "3"), site.GRUB(amd64, "2.02", "3")},
		"other keys": {other.Shim(amd64, "4"), other.GRUB(amd64, "2.12", "4")},
	} {
		for _, start := range []*pair{&old, nil} {
			k := 1
			for hit := true; hit; k++ {
				v := faults.NewVolatile()
				must(t, durable.WriteFile(v, "/"+TrustFile, trust, 0o644))
				if start != nil {
					must(t, durable.WriteFile(v, "/"+X64.GRUB, start.grub, 0o644))
					must(t, durable.WriteFile(v, "/"+X64.Shim, start.shim, 0o644))
				}
				kth := &faults.Kth{FS: v, K: k, Manner: faults.Dies}
				_, err := Publish(kth, "/", X64, next.shim, next.grub)
				if hit = kth.Failed() != ""; !hit {
					must(t, err)
				}
				for _, keep := range []bool{true, false} {
					after := v.Crash(func() bool { return keep })
					p, err := Read(after, "/", X64)
					if err != nil && (!errors.Is(err, fs.ErrNotExist) || !hit) {
						t.Errorf("%s, dead from %q on, unsynced is kept %v: %v", name, kth.Failed(), keep, err)
					}
					if !hit && p != nil && p.GRUB == "2.06" {
						t.Errorf("%s: %v is still there", name, p)
					}
				}
			}
			if k < 10 {
				t.Errorf("%s: only %d operations", name, k)
			}
		}
	}
	v := faults.NewVolatile()
	must(t, durable.WriteFile(v, "/"+TrustFile, trust, 0o644))
	for n, want := range []bool{true, false} {
		if changed, err := Publish(v, "/", X64, old.shim, old.grub); err != nil || changed != want {
			t.Errorf("publishing number %d: changed %v, %v", n+1, changed, err)
		}
	}
	must(t, durable.WriteFile(v, "/"+X64.GRUB, old.grub[:2000], 0o644))
	if _, err := Read(v, "/", X64); err == nil || errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a half GRUB: %v", err)
	}
	must(t, durable.Remove(v, "/"+X64.GRUB))
	if _, err := Read(v, "/", X64); err == nil || errors.Is(err, fs.ErrNotExist) {
		t.Errorf("shim alone: %v", err)
	}
}

// TestWrong: what was found is found again when a file changes, and else not looked for.
func TestWrong(t *testing.T) {
	dir, site := t.TempDir(), testpe.NewSite()
	put := func(name string, data []byte) {
		must(t, durable.WriteFile(durable.OS{}, filepath.Join(dir, name), data, 0o644))
	}
	for _, step := range []struct {
		name string
		data []byte
		says string // "" is right
	}{
		{TrustFile, site.Firmware.PEM(), ""},
		{X64.GRUB, site.GRUB(amd64, "2", "7"), ""}, // nobody is sent to it without a shim
		{X64.Shim, site.Shim(amd64, "5"), ""},
		{X64.GRUB, nil, "(x64) in " + dir + ": grubx64.efi: it is no PE file"},
		{X64.GRUB, site.GRUB(amd64, "2", "7"), ""},
		{IA32.Shim, []byte("x"), "grubia32.efi cannot be read"},
	} {
		put(step.name, step.data)
		for range 2 {
			if err := Wrong(dir); (err == nil) != (step.says == "") || err != nil && !strings.Contains(err.Error(), step.says) {
				t.Errorf("after %s of %d bytes: %v", step.name, len(step.data), err)
			}
		}
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func FuzzCheck(f *testing.F) {
	site := testpe.NewSite()
	own := []*x509.Certificate{site.Firmware.Cert}
	f.Add(testpe.VendorCert(site.Vendor.Cert.Raw), testpe.SBATLevel("sbat,1\ngrub,5\n"), testpe.Modules("http"), []byte("grub,5,x,y,1\n"))
	f.Add(testpe.VendorCert(signatureList(site.Vendor.Cert.Raw)), []byte{0, 0, 0, 0, 200}, testpe.Modules("x")[:40], []byte("a,b\n,,,"))
	f.Fuzz(func(t *testing.T, cert, level, mods, sbat []byte) {
		// What is in them is hostile, although somebody who is trusted has signed it.
		shim := site.Firmware.Issue("s").Sign(testpe.Build(amd64, testpe.Section{Name: ".vendor_cert", Data: cert},
			testpe.Section{Name: ".sbatlevel", Data: level}))
		grub := site.Vendor.Issue("g").Sign(testpe.Build(amd64, testpe.Section{Name: "mods", Data: mods},
			testpe.Section{Name: ".sbat", Data: sbat}))
		Check(X64, shim, grub, own)
	})
}

func FuzzParseOwn(f *testing.F) {
	f.Add(testpe.CA("a").PEM())
	f.Fuzz(func(t *testing.T, text []byte) { ParseOwn(text) })
}
