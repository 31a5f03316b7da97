package authenticode

import (
	"bytes"
	"crypto/x509"
	"debug/pe"
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"strings"
	"testing"

	"testbox-imaging/internal/testenv/testpe"
)

func program(t testing.TB) (data []byte, ca, by *testpe.Key) {
	t.Helper()
	ca = testpe.CA("a CA")
	by = ca.Issue("a signer")
	return by.Sign(testpe.Build(pe.IMAGE_FILE_MACHINE_AMD64, testpe.Section{Name: ".text", Data: bytes.Repeat([]byte("code"), 300)},
		testpe.Section{Name: ".data", Data: []byte("data")})), ca, by
}

func TestParse(t *testing.T) {
	data, ca, by := program(t)
	second := testpe.CA("another CA").Issue("another signer")
	for n, data := range [][]byte{data, second.Sign(data)} {
		f, err := Parse(data)
		if err != nil || len(f.Signatures) != n+1 || !f.Signatures[0].Signer.Equal(by.Cert) {
			t.Fatalf("%+v, %v", f, err)
		}
		if got, ok := f.Section(".data"); !ok || string(got) != "data" {
			t.Errorf(".data is %q", got)
		}
		if _, ok := f.Section(".none"); ok {
			t.Error("there is a section .none")
		}
	}
	f, err := Parse(data)
	if err != nil {
		t.Fatal(err)
	}
	chain, err := f.Signatures[0].Chain(ca.Cert.Equal, ca.Cert)
	if err != nil || len(chain) != 2 || !chain[1].Equal(ca.Cert) {
		t.Errorf("%v, %v", chain, err)
	}
	if _, err := f.Signatures[0].Chain(second.Cert.Equal, ca.Cert); err == nil || !strings.Contains(err.Error(), `signed by "a signer"`) {
		t.Errorf("trusted: %v", err)
	}
	// A CA of the same name with another key has not signed it.
	if _, err := f.Signatures[0].Chain(func(c *x509.Certificate) bool { return !c.Equal(by.Cert) }, testpe.CA("a CA").Cert); err == nil {
		t.Error("a certificate of the same name was taken for the CA")
	}
}

// TestRefused has what a file can be besides right.
func TestRefused(t *testing.T) {
	good, _, by := program(t)
	start := int(binary.LittleEndian.Uint32(good[64+4+20+144:]))
	plain := good[:start]
	change := func(at int, b ...byte) []byte {
		d := bytes.Clone(good)
		copy(d[at:], b)
		return d
	}
	text := bytes.Clone(plain)
	clear(text[64+4+20+144 : 64+4+20+152])
	moved := bytes.Clone(text)
	moved[64+4+20+240+20] += 16 // .text begins later, so 16 bytes before it are not signed
	tooMany := text
	for range maxSignatures + 1 {
		tooMany = by.Sign(tooMany)
	}
	for name, c := range map[string]struct {
		data []byte
		says string
	}{
		"nothing":         {nil, "no PE file"},
		"text":            {bytes.Repeat([]byte("#!/bin/sh\n"), 200), "no PE file"},
		"not signed":      {text, "not signed"},
		"cut":             {good[:len(good)-8], "cut off"},
		"half":            {good[:len(good)/2], "cut off"},
		"cut before":      {plain, "cut off or added to"},
		"longer":          {append(bytes.Clone(good), make([]byte, 8)...), "added to"},
		"code changed":    {change(1100, 'X'), "the file was changed"},
		"header changed":  {change(200, 'X'), "the file was changed"},
		"a gap":           {by.Sign(moved), "not all of it would be signed"},
		"many":            {tooMany, "more than 8 signatures"},
		"of another file": {append(bytes.Clone(plain[:len(plain)-1]), append([]byte{1}, good[start:]...)...), "the file was changed"},
		"other revision":  {change(start+4, 0, 1), "revision"},
		"zeros":           {make([]byte, 4096), "no PE file"},
		"large":           {make([]byte, MaxSize+1), "more than"},
	} {
		if _, err := Parse(c.data); err == nil || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := Parse(text); !errors.Is(err, ErrUnsigned) {
		t.Error(err)
	}
}

// unseen are the places of a file where a changed bit makes no difference to anybody: the checksum of PE, which
// firmware does not look at, and in a signature what is neither signed nor read.
func unseen(f *File, at int) bool {
	head := int(binary.LittleEndian.Uint32(f.data[0x3c:])) + 24
	return at >= head+64 && at < head+68
}

// TestFlips: whatever bit flips, it is noticed.
func TestFlips(t *testing.T) {
	data, ca, _ := program(t)
	f, err := Parse(data)
	if err != nil {
		t.Fatal(err)
	}
	var missed []int
	for at := range data {
		for bit := range 8 {
			data[at] ^= 1 << bit
			g, err := Parse(data)
			if err == nil {
				_, err = g.Signatures[0].Chain(ca.Cert.Equal, ca.Cert)
			}
			if data[at] ^= 1 << bit; err == nil && !unseen(f, at) {
				missed = append(missed, at)
				break
			}
		}
	}
	start := int(binary.LittleEndian.Uint32(data[64+4+20+144:]))
	for _, at := range missed {
		if at < start {
			t.Errorf("a flip at %d of the program is not noticed", at)
		}
	}
	// In a signature these are the versions, and a list of algorithms that repeats what is said elsewhere.
	if len(missed) > 40 {
		t.Errorf("flips at %d places of the signature are not noticed: %v, it begins at %d", len(missed), missed, start)
	}
}

// TestCuts: a file that was cut anywhere is refused.
func TestCuts(t *testing.T) {
	data, _, _ := program(t)
	for n := range data {
		if _, err := Parse(data[:n]); err == nil {
			t.Fatalf("a file of %d bytes, cut to %d, is taken", len(data), n)
		}
	}
}

func FuzzParse(f *testing.F) {
	data, ca, _ := program(f)
	f.Add(data)
	f.Add(data[:len(data)-100])
	r := rand.New(rand.NewPCG(1, 2))
	for range 20 {
		d := bytes.Clone(data)
		d[r.IntN(1024)] ^= 1 << r.IntN(8)
		f.Add(d)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		p, err := Parse(data)
		if err != nil {
			return
		}
		for _, s := range p.Signatures {
			s.Chain(ca.Cert.Equal, ca.Cert)
		}
		for _, name := range []string{".text", ".data", ""} {
			p.Section(name)
		}
	})
}
