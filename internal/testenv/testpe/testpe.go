// Package testpe makes signed UEFI programs for tests: a shim and a GRUB that nothing can
// run, but that look like the real ones to whoever checks them. Test only.
package testpe

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"debug/pe"
	"encoding/asn1"
	"encoding/binary"
	"encoding/pem"
	"fmt"
	"math/big"
	"time"

	"golang.org/x/crypto/cryptobyte"
	cbasn1 "golang.org/x/crypto/cryptobyte/asn1"
)

// Key signs programs.
type Key struct {
	Cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

// CA makes the key of a root. Its dates are long over, since nobody may look at them.
func CA(name string) *Key { return issue(nil, name) }

// Issue makes a key of a signer below k.
func (k *Key) Issue(name string) *Key { return issue(k, name) }

func issue(by *Key, name string) *Key {
	key := must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
	plan := &x509.Certificate{SerialNumber: must(rand.Int(rand.Reader, big.NewInt(1<<62))), Subject: pkix.Name{CommonName: name},
		NotBefore: time.Unix(0, 0), NotAfter: time.Unix(1, 0), BasicConstraintsValid: true, IsCA: by == nil,
		KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature}
	parent, signer := plan, key
	if by != nil {
		parent, signer = by.Cert, by.key
	}
	der := must(x509.CreateCertificate(rand.Reader, plan, parent, key.Public(), signer))
	return &Key{must(x509.ParseCertificate(der)), key}
}

// PEM is the certificate as a text.
func (k *Key) PEM() []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: k.Cert.Raw})
}

// Section is a part of a program.
type Section struct {
	Name string
	Data []byte
}

const (
	headers = 1024 // bytes, with the tables of sections
	align   = 512
	optSize = 240
)

// Build makes a program that is not signed.
func Build(machine uint16, sections ...Section) []byte {
	// The table of names longer than 8 bytes comes behind the sections. COFF has it behind a table of symbols, which
	// has none.
	var table, body, long bytes.Buffer
	for _, s := range sections {
		size := (len(s.Data) + align - 1) / align * align
		h := pe.SectionHeader32{VirtualSize: uint32(len(s.Data)), SizeOfRawData: uint32(size), PointerToRawData: uint32(headers + body.Len())}
		name := s.Name
		if len(name) > len(h.Name) {
			name = fmt.Sprintf("/%d", 4+long.Len())
			long.WriteString(s.Name + "\x00")
		}
		copy(h.Name[:], name)
		binary.Write(&table, binary.LittleEndian, h)
		body.Write(s.Data)
		body.Write(make([]byte, size-len(s.Data)))
	}
	var head bytes.Buffer
	dos := make([]byte, 64)
	copy(dos, "MZ")
	dos[0x3c] = 64
	head.Write(dos)
	head.WriteString("PE\x00\x00")
	put := func(v any) { binary.Write(&head, binary.LittleEndian, v) }
	put(pe.FileHeader{Machine: machine, NumberOfSections: uint16(len(sections)), SizeOfOptionalHeader: optSize,
		PointerToSymbolTable: uint32(headers + body.Len())})
	put(pe.OptionalHeader64{Magic: 0x20b, SizeOfHeaders: headers, FileAlignment: align, SectionAlignment: 4096, NumberOfRvaAndSizes: 16})
	head.Write(table.Bytes())
	head.Write(make([]byte, headers-head.Len()))
	binary.Write(&body, binary.LittleEndian, uint32(4+long.Len()))
	body.Write(long.Bytes())
	body.Write(make([]byte, -body.Len()&7))
	return append(head.Bytes(), body.Bytes()...)
}

// Where the fields are that are not signed.
const (
	checksumAt = 64 + 4 + 20 + 64
	entryAt    = 64 + 4 + 20 + 144
)

// Sign adds a signature to a program of Build.
func (k *Key) Sign(program []byte, more ...*Key) []byte {
	p := bytes.Clone(program)
	table := binary.LittleEndian.Uint32(p[entryAt:])
	end := len(p)
	if table != 0 {
		end = int(table)
	}
	h := sha256.New()
	h.Write(p[:checksumAt])
	h.Write(p[checksumAt+4 : entryAt])
	h.Write(p[entryAt+8 : end])
	blob := k.pkcs7(h.Sum(nil), more)
	entry := binary.LittleEndian.AppendUint32(nil, uint32(8+len(blob)))
	entry = append(entry, 0, 2, 2, 0)
	entry = append(entry, blob...)
	entry = append(entry, make([]byte, -len(entry)&7)...)
	p = append(p, entry...)
	binary.LittleEndian.PutUint32(p[entryAt:], uint32(end))
	binary.LittleEndian.PutUint32(p[entryAt+4:], uint32(len(p)-end))
	return p
}

var (
	oidSHA256   = asn1.ObjectIdentifier{2, 16, 840, 1, 101, 3, 4, 2, 1}
	oidSigned   = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 7, 2}
	oidIndirect = asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 311, 2, 1, 4}
	oidImage    = asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 311, 2, 1, 15}
	oidECDSA    = asn1.ObjectIdentifier{1, 2, 840, 10045, 4, 3, 2}
	oidType     = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 9, 3}
	oidDigest   = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 9, 4}
)

const seq, set = cbasn1.SEQUENCE, cbasn1.SET

func algorithm(b *cryptobyte.Builder, oid asn1.ObjectIdentifier) {
	b.AddASN1(seq, func(b *cryptobyte.Builder) {
		b.AddASN1ObjectIdentifier(oid)
		if !oid.Equal(oidECDSA) {
			b.AddASN1NULL()
		}
	})
}

// pkcs7 signs the digest of a program, as Authenticode does.
func (k *Key) pkcs7(digest []byte, more []*Key) []byte {
	var content cryptobyte.Builder
	content.AddASN1(seq, func(b *cryptobyte.Builder) {
		b.AddASN1ObjectIdentifier(oidImage)
		b.AddASN1(seq, func(b *cryptobyte.Builder) { b.AddASN1BitString(nil) })
	})
	content.AddASN1(seq, func(b *cryptobyte.Builder) {
		algorithm(b, oidSHA256)
		b.AddASN1OctetString(digest)
	})
	signed := content.BytesOrPanic()
	sum := sha256.Sum256(signed)
	attributes := func(b *cryptobyte.Builder) {
		b.AddASN1(seq, func(b *cryptobyte.Builder) {
			b.AddASN1ObjectIdentifier(oidType)
			b.AddASN1(set, func(b *cryptobyte.Builder) { b.AddASN1ObjectIdentifier(oidIndirect) })
		})
		b.AddASN1(seq, func(b *cryptobyte.Builder) {
			b.AddASN1ObjectIdentifier(oidDigest)
			b.AddASN1(set, func(b *cryptobyte.Builder) { b.AddASN1OctetString(sum[:]) })
		})
	}
	var whole cryptobyte.Builder
	whole.AddASN1(set, attributes)
	sum = sha256.Sum256(whole.BytesOrPanic())
	signature := must(ecdsa.SignASN1(rand.Reader, k.key, sum[:]))
	sum = sha256.Sum256(signed)

	tag := cbasn1.Tag(0).ContextSpecific().Constructed()
	var b cryptobyte.Builder
	b.AddASN1(seq, func(b *cryptobyte.Builder) {
		b.AddASN1ObjectIdentifier(oidSigned)
		b.AddASN1(tag, func(b *cryptobyte.Builder) {
			b.AddASN1(seq, func(b *cryptobyte.Builder) {
				b.AddASN1Int64(1)
				b.AddASN1(set, func(b *cryptobyte.Builder) { algorithm(b, oidSHA256) })
				b.AddASN1(seq, func(b *cryptobyte.Builder) {
					b.AddASN1ObjectIdentifier(oidIndirect)
					b.AddASN1(tag, func(b *cryptobyte.Builder) {
						b.AddASN1(seq, func(b *cryptobyte.Builder) { b.AddBytes(signed) })
					})
				})
				b.AddASN1(tag, func(b *cryptobyte.Builder) {
					for _, k := range append([]*Key{k}, more...) {
						b.AddBytes(k.Cert.Raw)
					}
				})
				b.AddASN1(set, func(b *cryptobyte.Builder) {
					b.AddASN1(seq, func(b *cryptobyte.Builder) {
						b.AddASN1Int64(1)
						b.AddASN1(seq, func(b *cryptobyte.Builder) {
							b.AddBytes(k.Cert.RawIssuer)
							b.AddASN1BigInt(k.Cert.SerialNumber)
						})
						algorithm(b, oidSHA256)
						b.AddASN1(tag, attributes)
						algorithm(b, oidECDSA)
						b.AddASN1OctetString(signature)
					})
				})
			})
		})
	})
	return b.BytesOrPanic()
}

// Site is a site that has keys of its own in its firmware, and a CA that shim trusts.
type Site struct {
	Firmware, Vendor *Key
	shim, grub       *Key
}

// NewSite makes the keys.
func NewSite() *Site {
	s := &Site{Firmware: CA("Firmware CA"), Vendor: CA("Vendor CA")}
	s.shim, s.grub = s.Firmware.Issue("shim signer"), s.Vendor.Issue("grub signer")
	return s
}

// Shim makes a shim that wants GRUB of a generation at least.
func (s *Site) Shim(machine uint16, generation string) []byte {
	return s.shim.Sign(Build(machine, Section{".text", []byte("shim")}, Section{".vendor_cert", VendorCert(s.Vendor.Cert.Raw)},
		Section{".sbatlevel", SBATLevel("sbat,1,2025021800\nshim,4\ngrub," + generation + "\n")},
		Section{".sbat", []byte("sbat,1,SBAT Version,sbat,1,url\nshim,4,UEFI shim,shim,1,url\nshim.debian,1,Debian,shim,16.1,url\n")}))
}

// GRUB makes a GRUB of a version and generation, with modules.
func (s *Site) GRUB(machine uint16, version, generation string, modules ...string) []byte {
	return s.grub.Sign(Build(machine, Section{".text", []byte("grub")}, Section{"mods", Modules(modules...)},
		Section{".sbat", []byte("sbat,1,SBAT Version,sbat,1,url\ngrub," + generation + ",FSF,grub,2.12,url\ngrub.debian,5,Debian,grub2," +
			version + ",url\n")}))
}

// VendorCert is what shim has in its section of that name.
func VendorCert(list []byte) []byte {
	b := binary.LittleEndian.AppendUint32(nil, uint32(len(list)))
	for _, v := range []uint32{0, 16, uint32(16 + len(list))} {
		b = binary.LittleEndian.AppendUint32(b, v)
	}
	return append(b, list...)
}

// SBATLevel is what shim has in its section of that name.
func SBATLevel(text string) []byte {
	b := binary.LittleEndian.AppendUint32(nil, 0)
	b = binary.LittleEndian.AppendUint32(b, 8)
	b = binary.LittleEndian.AppendUint32(b, uint32(8+len(text)+1))
	return append(append(append(b, text...), 0), "sbat,1,1\n\x00"...)
}

// Modules is what GRUB for 64-bit machines has in its section "mods".
func Modules(names ...string) []byte {
	const head = 24
	var all []byte
	for _, name := range names {
		m := module(name)
		all = binary.LittleEndian.AppendUint32(all, 0)
		all = binary.LittleEndian.AppendUint32(all, uint32(8+len(m)))
		all = append(all, m...)
	}
	b := binary.LittleEndian.AppendUint32(nil, 0x676d696d)
	b = binary.LittleEndian.AppendUint32(b, 0)
	b = binary.LittleEndian.AppendUint64(b, head)
	b = binary.LittleEndian.AppendUint64(b, uint64(head+len(all)))
	return append(b, all...)
}

// module is an ELF file of 64 bits with a section .modname.
func module(name string) []byte {
	names := "\x00.modname\x00.shstrtab\x00"
	text := append([]byte(name), 0)
	for len(text)%8 != 0 {
		text = append(text, 0)
	}
	at := uint64(64 + len(text))
	table := at + uint64(len(names)+(-len(names)&7))
	var b bytes.Buffer
	put := func(all ...any) {
		for _, v := range all {
			binary.Write(&b, binary.LittleEndian, v)
		}
	}
	b.WriteString("\x7fELF\x02\x01\x01")
	b.Write(make([]byte, 9))
	put(uint16(1), uint16(62), uint32(1), uint64(0), uint64(0), table, uint32(0),
		uint16(64), uint16(0), uint16(0), uint16(64), uint16(3), uint16(2))
	b.Write(text)
	b.WriteString(names)
	b.Write(make([]byte, -len(names)&7))
	b.Write(make([]byte, 64))
	put(uint32(1), uint32(1), uint64(0), uint64(0), uint64(64), uint64(len(name)+1), uint32(0), uint32(0), uint64(1), uint64(0))
	put(uint32(10), uint32(3), uint64(0), uint64(0), at, uint64(len(names)), uint32(0), uint32(0), uint64(1), uint64(0))
	return b.Bytes()
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}
