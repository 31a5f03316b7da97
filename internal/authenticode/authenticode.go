// Package authenticode reads the signatures of PE files, as UEFI firmware and shim
// do before they start one. What is signed is told by Microsoft's "Windows
// Authenticode Portable Executable Signature Format" and by the UEFI specification,
// 32.2.4 "Signed images".
package authenticode

import (
	"bytes"
	"crypto/sha256"
	"crypto/x509"
	"debug/pe"
	"encoding/asn1"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"github.com/smallstep/pkcs7"
	"golang.org/x/crypto/cryptobyte"
	cbasn1 "golang.org/x/crypto/cryptobyte/asn1"
)

// MaxSize is the size in bytes above which a file is refused. Boot loaders have some
// megabytes.
const MaxSize = 32 << 20

const (
	maxSections   = 96      // as in the specification of PE
	maxTable      = 1 << 20 // bytes of all signatures
	maxSignatures = 8
	maxDepth      = 32 // of nested ASN.1
	maxCerts      = 16 // in a signature
	maxChain      = 5  // certificates from the signer to the one that is trusted
)

// File is a PE file that has signatures, and all of them are right.
type File struct {
	Machine    uint16      // as debug/pe names them
	Signatures []Signature // at least one
	Digest     [32]byte    // of what is signed

	data     []byte
	sections []*pe.Section
}

// Signature is one signature of a file. It was made with the key of Signer.
type Signature struct {
	Signer *x509.Certificate
	Others []*x509.Certificate // the other certificates that came with it; nobody has checked them
}

// ErrUnsigned says that a file has no signature.
var ErrUnsigned = errors.New("it is not signed")

// Parse reads a file and checks its signatures. It does not say whether the signers are
// to be trusted.
func Parse(data []byte) (*File, error) {
	f, table, err := layout(data)
	if err != nil {
		return nil, err
	}
	for len(table) > 0 {
		if len(f.Signatures) == maxSignatures {
			return nil, fmt.Errorf("it has more than %d signatures", maxSignatures)
		}
		var blob []byte
		if blob, table, err = next(table); err != nil {
			return nil, err
		}
		s, err := readSignature(blob, f.Digest)
		if err != nil {
			return nil, fmt.Errorf("signature %d: %w", len(f.Signatures)+1, err)
		}
		f.Signatures = append(f.Signatures, *s)
	}
	return f, nil
}

// layout reads the headers and returns the table of signatures. Everything before the table is
// signed, except for the checksum and the place of the table. The specification signs the
// headers, then section by section, then what is left, which is the same if the sections lie one
// behind the other. Files with gaps are refused, because what is in a gap is not signed.
func layout(data []byte) (f *File, table []byte, err error) {
	if len(data) > MaxSize {
		return nil, nil, fmt.Errorf("it has %d bytes, more than %d", len(data), MaxSize)
	}
	exe, err := pe.NewFile(bytes.NewReader(data))
	if err == nil && string(data[:2]) != "MZ" {
		err = errors.New("its first bytes are not MZ")
	}
	if err != nil {
		return nil, nil, fmt.Errorf("it is no PE file, or was cut off: %w", err)
	}
	// debug/pe has read the optional header at this place.
	head := int64(binary.LittleEndian.Uint32(data[0x3c:])) + 4 + int64(binary.Size(exe.FileHeader))
	var headers, tables uint32
	var place pe.DataDirectory
	var entry int64
	switch o := exe.OptionalHeader.(type) {
	case *pe.OptionalHeader32:
		headers, tables, place, entry = o.SizeOfHeaders, o.NumberOfRvaAndSizes, o.DataDirectory[pe.IMAGE_DIRECTORY_ENTRY_SECURITY], head+128
	case *pe.OptionalHeader64:
		headers, tables, place, entry = o.SizeOfHeaders, o.NumberOfRvaAndSizes, o.DataDirectory[pe.IMAGE_DIRECTORY_ENTRY_SECURITY], head+144
	default:
		return nil, nil, errors.New("it is a PE file without the header of a program")
	}
	if tables <= pe.IMAGE_DIRECTORY_ENTRY_SECURITY || place.Size == 0 {
		return nil, nil, ErrUnsigned
	}
	at, size := int64(place.VirtualAddress), int64(place.Size)
	switch {
	case at+size != int64(len(data)):
		return nil, nil, fmt.Errorf("its signatures are at byte %d and have %d bytes, but it has %d bytes, so it was cut off or added to",
			at, size, len(data))
	case at%8 != 0 || size > maxTable:
		return nil, nil, fmt.Errorf("its signatures are at byte %d and have %d bytes, which cannot be", at, size)
	case len(exe.Sections) > maxSections:
		return nil, nil, fmt.Errorf("it has %d sections, more than %d", len(exe.Sections), maxSections)
	}
	end := int64(headers)
	if first := head + int64(exe.SizeOfOptionalHeader) + 40*int64(len(exe.Sections)); end < first || end < entry+8 || end > at {
		return nil, nil, fmt.Errorf("its headers end at byte %d, which cannot be", end)
	}
	sections := slices.Clone(exe.Sections)
	slices.SortStableFunc(sections, func(a, b *pe.Section) int { return int(int64(a.Offset) - int64(b.Offset)) })
	for _, s := range sections {
		if s.Size == 0 {
			continue
		}
		if int64(s.Offset) != end {
			return nil, nil, fmt.Errorf("its section %.16q is at byte %d and not at %d, so not all of it would be signed", s.Name, s.Offset, end)
		}
		if end += int64(s.Size); end > at {
			return nil, nil, fmt.Errorf("its section %.16q ends at byte %d, in the signatures", s.Name, end)
		}
	}
	h := sha256.New()
	h.Write(data[:head+64])
	h.Write(data[head+68 : entry])
	h.Write(data[entry+8 : at])
	f = &File{Machine: exe.Machine, data: data, sections: exe.Sections}
	h.Sum(f.Digest[:0])
	return f, data[at:], nil
}

// next takes the first signature off a table, as PKCS #7.
func next(table []byte) (blob, rest []byte, err error) {
	const head = 8 // length, revision, type
	if len(table) < head {
		return nil, nil, errors.New("its table of signatures is cut off")
	}
	size := uint64(binary.LittleEndian.Uint32(table))
	revision, kind := binary.LittleEndian.Uint16(table[4:]), binary.LittleEndian.Uint16(table[6:])
	if size < head || size > uint64(len(table)) || revision != 0x200 || kind != 2 {
		return nil, nil, fmt.Errorf("its table of signatures has an entry of %d bytes, revision %#x and type %#x, which cannot be",
			size, revision, kind)
	}
	blob, rest = table[head:size], table[size:]
	fill := min(int(-size&7), len(rest))
	if len(bytes.Trim(rest[:fill], "\x00")) > 0 {
		return nil, nil, errors.New("its table of signatures has something between two signatures")
	}
	return blob, rest[fill:], nil
}

var (
	oidIndirectData = asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 311, 2, 1, 4}
	oidSHA256       = asn1.ObjectIdentifier{2, 16, 840, 1, 101, 3, 4, 2, 1}
)

// readSignature checks a signature against the digest of the file.
func readSignature(blob []byte, digest [32]byte) (*Signature, error) {
	// A few bytes after it fill it up to a multiple of 8.
	var whole cryptobyte.String
	rest := cryptobyte.String(blob)
	if !rest.ReadASN1Element(&whole, cbasn1.SEQUENCE) || len(rest) > 7 || len(bytes.Trim(rest, "\x00")) > 0 {
		return nil, errors.New("it is no PKCS #7, or was cut off")
	}
	// The library takes much that is not DER, and shim may not.
	if err := strict(whole, 0); err != nil {
		return nil, err
	}
	p7, err := pkcs7.Parse(whole)
	if err != nil {
		return nil, fmt.Errorf("it is not understood: %w", err)
	}
	if len(p7.Signers) != 1 || len(p7.Certificates) == 0 || len(p7.Certificates) > maxCerts {
		return nil, fmt.Errorf("it has %d signers and %d certificates", len(p7.Signers), len(p7.Certificates))
	}
	signed, err := signedDigest(whole, p7.Content)
	if err != nil {
		return nil, err
	}
	if !bytes.Equal(signed, digest[:]) {
		return nil, fmt.Errorf("it is for a file of digest %.16x, and this one has %.16x, so the file was changed", signed, digest)
	}
	// The library checks no content type. An attribute of it is signed.
	var kind asn1.ObjectIdentifier
	oidContentType := asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 9, 3}
	if err := p7.UnmarshalSignedAttribute(oidContentType, &kind); err != nil || !kind.Equal(oidIndirectData) {
		return nil, fmt.Errorf("it signs content of type %v, which is not that of a program (%v)", kind, err)
	}
	if alg := p7.Signers[0].DigestAlgorithm.Algorithm; !alg.Equal(oidSHA256) {
		return nil, fmt.Errorf("its digest is not SHA-256 but %v", alg)
	}
	if err := p7.Verify(); err != nil {
		return nil, fmt.Errorf("it does not fit its certificate: %w", err)
	}
	s := &Signature{Signer: p7.GetOnlySigner()}
	for _, c := range p7.Certificates {
		if c != s.Signer {
			s.Others = append(s.Others, c)
		}
	}
	return s, nil
}

// strict says whether all of s is DER in definite lengths.
func strict(s cryptobyte.String, depth int) error {
	if depth > maxDepth {
		return errors.New("it is nested too deeply")
	}
	for !s.Empty() {
		var in cryptobyte.String
		var tag cbasn1.Tag
		if !s.ReadAnyASN1(&in, &tag) {
			return errors.New("it is not in DER, or was cut off")
		}
		if tag&0x20 != 0 {
			if err := strict(in, depth+1); err != nil {
				return err
			}
		}
	}
	return nil
}

// signedDigest reads the digest of the file from the signed content. That content is the inside of
//
//	SpcIndirectDataContent ::= SEQUENCE { data SpcAttributeTypeAndOptionalValue, messageDigest DigestInfo }
func signedDigest(whole, content []byte) ([]byte, error) {
	var outer struct {
		Type    asn1.ObjectIdentifier
		Content struct {
			Version     int
			Algorithms  asn1.RawValue
			ContentInfo struct {
				Type    asn1.ObjectIdentifier
				Content asn1.RawValue `asn1:"explicit,tag:0"`
			}
			Rest asn1.RawValue `asn1:"optional"`
		} `asn1:"explicit,tag:0"`
	}
	if _, err := asn1.Unmarshal(whole, &outer); err != nil {
		return nil, fmt.Errorf("it is not understood: %w", err)
	}
	if !outer.Content.ContentInfo.Type.Equal(oidIndirectData) {
		return nil, fmt.Errorf("it signs content of type %v, which is not that of a program", outer.Content.ContentInfo.Type)
	}
	in := cryptobyte.String(content)
	var data, info, alg, digest cryptobyte.String
	var oid asn1.ObjectIdentifier
	if !in.ReadASN1(&data, cbasn1.SEQUENCE) || !in.ReadASN1(&info, cbasn1.SEQUENCE) || !in.Empty() ||
		!info.ReadASN1(&alg, cbasn1.SEQUENCE) || !alg.ReadASN1ObjectIdentifier(&oid) ||
		!info.ReadASN1(&digest, cbasn1.OCTET_STRING) || !info.Empty() {
		return nil, errors.New("what it signs is not understood")
	}
	if !oid.Equal(oidSHA256) || len(digest) != sha256.Size {
		return nil, fmt.Errorf("it signs a digest of %d bytes that is not SHA-256 but %v", len(digest), oid)
	}
	return digest, nil
}

// Section returns the bytes of a section, as they are in the file.
func (f *File) Section(name string) ([]byte, bool) {
	for _, s := range f.sections {
		if s.Name == name {
			size := s.Size
			if size == 0 {
				return nil, true
			}
			if s.VirtualSize != 0 {
				size = min(size, s.VirtualSize) // the rest fills it up
			}
			return f.data[s.Offset : int64(s.Offset)+int64(size)], true
		}
	}
	return nil, false
}

// Trust says of a certificate whether it is a root of trust.
type Trust func(*x509.Certificate) bool

// Chain returns the certificates from the signer to the first one that is trusted. As in firmware and
// shim, the clock does not matter: a box that has no date must start too.
func (s *Signature) Chain(trusted Trust, more ...*x509.Certificate) ([]*x509.Certificate, error) {
	all := slices.Concat(s.Others, more)
	chain := []*x509.Certificate{s.Signer}
	for {
		last := chain[len(chain)-1]
		if trusted(last) {
			return chain, nil
		}
		i := slices.IndexFunc(all, func(c *x509.Certificate) bool {
			return bytes.Equal(c.RawSubject, last.RawIssuer) && !slices.ContainsFunc(chain, c.Equal) && last.CheckSignatureFrom(c) == nil
		})
		if i < 0 || len(chain) == maxChain {
			return nil, fmt.Errorf("signed by %q, whose certificate is of %q, and that is nobody who is trusted",
				s.Signer.Subject.CommonName, last.Issuer.CommonName)
		}
		chain = append(chain, all[i])
	}
}
