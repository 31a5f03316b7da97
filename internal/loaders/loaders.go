// Package loaders knows what UEFI machines load from a server before anything of
// ours: shim and, by shim, GRUB. It checks that firmware will take the one, and
// that the other is what shim takes. If shim gets a GRUB that it does not take, it
// waits for a key, and the machine is lost until somebody comes.
package loaders

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"crypto/x509"
	"debug/pe"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"strconv"
	"strings"

	"testbox-imaging/internal/authenticode"
)

// MaxSize is the size in bytes above which a loader is refused.
const MaxSize = authenticode.MaxSize

// Kind is a kind of firmware.
type Kind struct {
	Arch       string // as Debian's packages name it: "x64"
	Shim, GRUB string // the files in the area of the boot files
	machine    uint16
}

// The kinds of firmware. The names are those that shim itself asks for.
var (
	X64  = Kind{"x64", "shimx64.efi", "grubx64.efi", pe.IMAGE_FILE_MACHINE_AMD64}
	IA32 = Kind{"ia32", "shimia32.efi", "grubia32.efi", pe.IMAGE_FILE_MACHINE_I386}
	AA64 = Kind{"aa64", "shimaa64.efi", "grubaa64.efi", pe.IMAGE_FILE_MACHINE_ARM64}
)

// Kinds has all of them.
var Kinds = []Kind{X64, IA32, AA64}

// Pair is a shim and a GRUB that were found right.
type Pair struct {
	Kind       Kind
	Shim, GRUB string // their versions, such as "16.1" and "2.12-9+deb13u4"; "" if they do not tell
	By         string // who signed shim, for boxes that have Secure Boot switched on
	HTTP       bool   // GRUB can load by HTTP
}

func (p Pair) String() string {
	over := "TFTP"
	if p.HTTP {
		over += " and HTTP"
	}
	return fmt.Sprintf("UEFI %s: shim %s, and GRUB %s, which loads by %s", p.Kind.Arch, cmp.Or(p.Shim, "?"), cmp.Or(p.GRUB, "?"), over)
}

// microsoft has the keys of the certificates that firmware with Secure Boot comes with, as SHA-256 of
// SubjectPublicKeyInfo. shim's signatures bring the certificates themselves.
var microsoft = map[string]string{
	"2c627ccbb690409550ad6e2d46a03eb10aa6d62d272a5dc3c86a8863ae19b2bb": "Microsoft Corporation UEFI CA 2011",
	"f0f6d23f74457473749a72d5aa55b9efe491dd0bc3068905b019940abe8b5cc3": "Microsoft UEFI CA 2023",
}

// Check says whether a machine with Secure Boot would start GRUB by shim. own are the certificates of a
// site that has keys of its own in its firmware.
func Check(k Kind, shim, grub []byte, own []*x509.Certificate) (*Pair, error) {
	s, err := parse(k, shim)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", k.Shim, err)
	}
	isOwn := func(c *x509.Certificate) bool { return has(own, c) }
	p := &Pair{Kind: k}
	if p.By, err = signed(s, func(c *x509.Certificate) bool { return microsoft[keyOf(c)] != "" || isOwn(c) }, own); err != nil {
		return nil, fmt.Errorf("%s: %w, so no firmware would start it", k.Shim, err)
	}
	vendor, err := vendors(s)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", k.Shim, err)
	}
	g, err := parse(k, grub)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", k.GRUB, err)
	}
	if _, err := signed(g, func(c *x509.Certificate) bool { return has(vendor, c) || isOwn(c) }, append(vendor, own...)); err != nil {
		return nil, fmt.Errorf("%s: %w, so shim would not start it and wait for a key", k.GRUB, err)
	}
	if err := current(s, g); err != nil {
		return nil, fmt.Errorf("%s: %w, so shim would not start it and wait for a key", k.GRUB, err)
	}
	p.Shim, p.GRUB = version(s, "shim"), version(g, "grub")
	p.HTTP = hasModule(g, "http")
	return p, nil
}

func parse(k Kind, data []byte) (*authenticode.File, error) {
	f, err := authenticode.Parse(data)
	if err == nil && f.Machine != k.machine {
		err = fmt.Errorf("it is for machines of type %#x and not for %s", f.Machine, k.Arch)
	}
	return f, err
}

// signed returns who is trusted and has signed a file.
func signed(f *authenticode.File, trusted authenticode.Trust, more []*x509.Certificate) (by string, err error) {
	var all []string
	for _, s := range f.Signatures {
		chain, e := s.Chain(trusted, more...)
		if e != nil {
			err = e
			continue
		}
		all = append(all, chain[len(chain)-1].Subject.CommonName)
	}
	if len(all) == 0 {
		return "", err
	}
	return strings.Join(all, ", "), nil
}

func has(all []*x509.Certificate, c *x509.Certificate) bool {
	for _, o := range all {
		if o.Equal(c) {
			return true
		}
	}
	return false
}

func keyOf(c *x509.Certificate) string {
	h := sha256.Sum256(c.RawSubjectPublicKeyInfo)
	return hex.EncodeToString(h[:])
}

// vendors returns the certificates that are built into shim. Its section begins with two sizes and two
// offsets, of what is allowed and of what is not (struct cert_table in shim's cert.S). What is allowed is one
// certificate, or a list of them as firmware has it (EFI_SIGNATURE_LIST).
func vendors(shim *authenticode.File) ([]*x509.Certificate, error) {
	data, ok := shim.Section(".vendor_cert")
	if !ok {
		return nil, fmt.Errorf("it has no certificate of who signs GRUB, so it is no shim")
	}
	const head = 16
	if len(data) < head {
		return nil, fmt.Errorf("its section .vendor_cert has %d bytes", len(data))
	}
	size, at := uint64(binary.LittleEndian.Uint32(data)), uint64(binary.LittleEndian.Uint32(data[8:]))
	if at+size > uint64(len(data)) {
		return nil, fmt.Errorf("its section .vendor_cert has %d bytes at %d, but ends at %d", size, at, len(data))
	}
	list := data[at : at+size]
	if c, err := x509.ParseCertificate(list); err == nil {
		return []*x509.Certificate{c}, nil
	}
	return signatureLists(list)
}

// x509GUID is EFI_CERT_X509_GUID.
var x509GUID = []byte{0xa1, 0x59, 0xc0, 0xa5, 0xe4, 0x94, 0xa7, 0x4a, 0x87, 0xb5, 0xab, 0x15, 0x5c, 0x2b, 0xf0, 0x72}

// signatureLists reads lists of certificates, UEFI specification 32.4.1.
func signatureLists(data []byte) (all []*x509.Certificate, err error) {
	const head, owner = 28, 16
	for len(data) > 0 {
		if len(data) < head {
			return nil, fmt.Errorf("its list of certificates is cut off")
		}
		u32 := func(at int) uint64 { return uint64(binary.LittleEndian.Uint32(data[at:])) }
		size, header, each := u32(16), u32(20), u32(24)
		if size > uint64(len(data)) || head+header > size || each <= owner || (size-head-header)%each != 0 {
			return nil, fmt.Errorf("its list of certificates is not understood")
		}
		isCert := bytes.Equal(data[:16], x509GUID)
		for at := head + header; at < size; at += each {
			if !isCert {
				continue
			}
			c, err := x509.ParseCertificate(data[at+owner : at+each])
			if err != nil {
				return nil, fmt.Errorf("a certificate in it: %w", err)
			}
			all = append(all, c)
		}
		data = data[size:]
	}
	return all, nil
}

// sbat is the table by which old versions are revoked: for each component a number that grows
// (SBAT.md in shim's sources).
type sbat map[string]sbatLine

type sbatLine struct {
	generation int
	fields     []string
}

func parseSBAT(text []byte) sbat {
	text, _, _ = bytes.Cut(text, []byte{0})
	all := sbat{}
	for line := range strings.Lines(string(text)) {
		f := strings.Split(strings.TrimSpace(line), ",")
		if len(f) < 2 {
			continue
		}
		if n, err := strconv.Atoi(f[1]); err == nil {
			all[f[0]] = sbatLine{n, f}
		}
	}
	return all
}

func sbatOf(f *authenticode.File) sbat {
	text, _ := f.Section(".sbat")
	return parseSBAT(text)
}

// current says whether shim takes GRUB for too old. shim has two tables: one that it
// always applies, and one for those who ask for it. The section has a version, and the offsets of both.
func current(shim, grub *authenticode.File) error {
	level, _ := shim.Section(".sbatlevel")
	const begin = 4
	if len(level) < begin+8 {
		return nil // an older shim has no such tables
	}
	at := begin + uint64(binary.LittleEndian.Uint32(level[begin:]))
	if at > uint64(len(level)) {
		return nil
	}
	have := sbatOf(grub)
	for name, need := range parseSBAT(level[at:]) {
		if is, ok := have[name]; ok && name != "sbat" && is.generation < need.generation {
			return fmt.Errorf("it is revoked, since its generation of %.32s is %d and shim wants %d", name, is.generation, need.generation)
		}
	}
	if len(have) == 0 {
		return fmt.Errorf("it has no table SBAT")
	}
	return nil
}

// version finds the most exact version of a component.
func version(f *authenticode.File, component string) (v string) {
	for name, l := range sbatOf(f) {
		if (name == component || name == component+".debian") && len(l.fields) > 4 && (v == "" || name != component) {
			v = l.fields[4]
		}
	}
	return strings.Map(func(r rune) rune {
		if r < '!' || r > '~' {
			return -1
		}
		return r
	}, v[:min(len(v), 64)])
}
