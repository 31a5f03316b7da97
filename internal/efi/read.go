package efi

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"
)

// maxFiles is how many variables of a folder are looked at. Firmware has some hundred.
const maxFiles = 4096

// maxValue is how many bytes of a variable's value a state keeps.
const maxValue = 16

// kept are the variables that a state has beside the boot entries. What is true for
// value has no secret, and is kept if it is short. The signature databases are long,
// and only their hash is kept. A variable that is not here is not read at all.
var kept = []struct {
	name, vendor string
	value        bool
}{
	{"Timeout", Global, true}, {"OsIndications", Global, true}, {"OsIndicationsSupported", Global, true},
	{"SecureBoot", Global, true}, {"SetupMode", Global, true}, {"AuditMode", Global, true}, {"DeployedMode", Global, true},
	{"VendorKeys", Global, true}, {"BootOptionSupport", Global, true}, {"PlatformLang", Global, true},
	{"PK", Global, false}, {"KEK", Global, false}, {"db", imageSecurity, false}, {"dbx", imageSecurity, false},
	{"dbt", imageSecurity, false}, {"dbr", imageSecurity, false},
	{"MokListRT", shim, false}, {"MokListXRT", shim, false}, {"SbatLevelRT", shim, false}, {"MokSBStateRT", shim, true},
}

// Vendors of variables.
const (
	imageSecurity = "d719b2cb-3d3a-4596-a3bc-dad00e67656f" // EFI_IMAGE_SECURITY_DATABASE_GUID
	shim          = "605dab50-e046-4300-abb6-3dd810dd8b23" // SHIM_LOCK_GUID
)

// State reads the state of the firmware from its variables. It never fails, but names in
// Problems what cannot be read.
func (d Dir) State() *State {
	s := &State{Kind: UEFI}
	s.SecureBoot = d.secureBoot()
	s.Current, s.Next = d.number("BootCurrent"), d.number("BootNext")
	var err error
	if s.Order, err = d.Order(); err != nil {
		s.problem(err)
	}
	numbers, err := d.numbers()
	if err != nil {
		s.problem(err)
	}
	for _, n := range numbers {
		b, err := d.Read("Boot"+n.String(), Global)
		if err != nil {
			s.problem(err)
			continue
		}
		e, err := parseOption(n, b)
		if err != nil {
			s.problem(err)
		}
		s.Entries = append(s.Entries, e)
	}
	for _, k := range kept {
		if v, ok := d.variable(k.name, k.vendor, k.value); ok {
			s.Variables = append(s.Variables, v)
		}
	}
	s.fit()
	return s
}

func (s *State) problem(err error) {
	if len(s.Problems) < maxProblems {
		s.Problems = append(s.Problems, clean(err.Error(), maxLine))
	}
}

// numbers lists the boot entries that there are, sorted.
func (d Dir) numbers() (list []Number, err error) {
	f, err := os.Open(string(d))
	if err != nil {
		return nil, fmt.Errorf("the UEFI variables: %w", bare(err))
	}
	defer f.Close()
	names, err := f.Readdirnames(maxFiles)
	if err != nil {
		return nil, fmt.Errorf("the UEFI variables: %w", bare(err))
	}
	for _, name := range names {
		name, global := strings.CutSuffix(name, "-"+Global)
		if n, ok := numberOf(name); ok && global {
			list = append(list, n)
		}
	}
	slices.Sort(list)
	if len(list) > MaxEntries {
		return list[:MaxEntries], fmt.Errorf("there are %d boot entries, and only the first %d are read", len(list), MaxEntries)
	}
	return list, nil
}

// Order reads BootOrder. Firmware without one has an empty order.
func (d Dir) Order() ([]Number, error) {
	b, err := d.Read("BootOrder", Global)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, nil
	case err != nil:
		return nil, err
	case len(b)%2 != 0 || len(b) > 2*MaxEntries:
		return nil, fmt.Errorf("the UEFI variable BootOrder has %d bytes, which cannot be", len(b))
	}
	var order []Number
	for ; len(b) > 0; b = b[2:] {
		order = append(order, Number(binary.LittleEndian.Uint16(b)))
	}
	return order, nil
}

func (d Dir) number(name string) *Number {
	b, err := d.Read(name, Global)
	if err != nil || len(b) != 2 {
		return nil
	}
	n := Number(binary.LittleEndian.Uint16(b))
	return &n
}

func (d Dir) secureBoot() string {
	on, err := d.Read("SecureBoot", Global)
	if err != nil || len(on) != 1 {
		return "" // firmware without it has no such variable
	}
	state := "off"
	if on[0] == 1 {
		state = "on"
	}
	if setup, err := d.Read("SetupMode", Global); err == nil && len(setup) == 1 && setup[0] == 1 {
		state += ", setup mode"
	}
	return state
}

func (d Dir) variable(name, vendor string, value bool) (v Variable, ok bool) {
	b, err := d.Read(name, vendor)
	if err != nil {
		return v, false
	}
	sum := sha256.Sum256(b)
	v = Variable{Name: name, Vendor: vendor, Size: len(b), SHA256: hex.EncodeToString(sum[:])}
	if value && len(b) <= maxValue {
		v.Value = hex.EncodeToString(b)
	}
	return v, true
}
