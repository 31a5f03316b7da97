package bootcfg

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path"
	"strings"
	"time"
)

// The boot files of a maintenance system are in MaintDir/<version>/ below the
// TFTP area. They are complete when VersionFile is there, and are never
// replaced.
const (
	MaintDir    = "maintenance-boot"
	KernelFile  = "vmlinuz"
	InitrdFile  = "initrd.img"
	VersionFile = "version.json"
	RootName    = "root.squashfs" // the debian form's root as one file, for server mode
)

// Form is how a maintenance system runs.
type Form string

// The forms.
const (
	FormRAM    Form = "ram"    // the agent is /init; does every action but rescue
	FormDebian Form = "debian" // a Debian root, over NFS or in memory; does every action
)

// VersionFormat is the number of the version file's format.
const VersionFormat = 1

// MaxVersion is the size in bytes above which a version file is refused.
const MaxVersion = 64 << 10

// Version is what VersionFile says about the kernel and initrd beside it.
type Version struct {
	Format  int       `json:"format"`  // VersionFormat
	Version string    `json:"version"` // the folder's name
	Form    Form      `json:"form"`    //
	Kernel  string    `json:"kernel"`  // the kernel's release, "6.1.0-37-amd64"
	Built   time.Time `json:"built"`   // decides which version is Latest
	// Root is what RootName has beside the kernel, in the debian form. It is zero in
	// the ram form, and if there is no such file.
	Root RootSum `json:"root,omitzero"`
	// NoNFS says that there is no root for NFS, so that only a server of ours can boot
	// boxes with this version.
	NoNFS bool `json:"noNFS,omitempty"`
}

// RootSum is what a root as one file must be.
type RootSum struct {
	Size   int64  `json:"size"` // bytes
	SHA256 string `json:"sha256"`
}

// IsZero reports whether there is no such file.
func (r RootSum) IsZero() bool { return r == RootSum{} }

// ParseVersion reads a version file. Anything that it does not understand, or
// that cannot be true, is an error.
func ParseVersion(data []byte) (*Version, error) {
	if len(data) > MaxVersion {
		return nil, fmt.Errorf("version file is larger than %d bytes", MaxVersion)
	}
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.DisallowUnknownFields()
	var v Version
	if err := dec.Decode(&v); err != nil {
		if built := wrongTime(data); built != "" {
			return nil, fmt.Errorf("version file has the time of building %s; it is written as in \"2026-11-27T10:04:00Z\"", built)
		}
		return nil, fmt.Errorf("version file is not readable: %w", err)
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("version file has something after its end")
	}
	if err := v.check(); err != nil {
		return nil, err
	}
	return &v, nil
}

// wrongTime returns the time of building in a version file if it is no time. The
// error of the JSON decoder does not say which value it means.
func wrongTime(data []byte) string {
	var file struct {
		Built json.RawMessage `json:"built"`
	}
	if json.Unmarshal(data, &file) == nil && file.Built != nil && json.Unmarshal(file.Built, new(time.Time)) != nil {
		return string(file.Built)
	}
	return ""
}

func (v *Version) check() error {
	switch {
	case v.Format != VersionFormat:
		return fmt.Errorf("version file has format %d, this program reads format %d", v.Format, VersionFormat)
	case !ValidVersion(v.Version):
		return fmt.Errorf("version file names the version %q", v.Version)
	case v.Form != FormRAM && v.Form != FormDebian:
		return fmt.Errorf("version file has form %q; the forms are %s and %s", v.Form, FormRAM, FormDebian)
	case v.Kernel == "" || len(v.Kernel) > maxWord || !plain(v.Kernel):
		return fmt.Errorf("version file has kernel %q", v.Kernel)
	case v.Built.IsZero():
		return errors.New("version file has no time of building")
	case !v.Root.IsZero() && (v.Form != FormDebian || v.Root.Size <= 0 || !validHash(v.Root.SHA256)):
		return fmt.Errorf("version file has the root %+v", v.Root)
	case v.NoNFS && v.Root.IsZero():
		return errors.New("version file says that there is no root for NFS, and has no other")
	}
	return nil
}

// Marshal is the version file's text.
func (v *Version) Marshal() ([]byte, error) {
	if err := v.check(); err != nil {
		return nil, err
	}
	b, err := json.MarshalIndent(v, "", "  ")
	return append(b, '\n'), err
}

// KernelPath is the kernel's path below the TFTP area.
func (v *Version) KernelPath() string { return path.Join(MaintDir, v.Version, KernelFile) }

// InitrdPath is the initrd's path below the TFTP area.
func (v *Version) InitrdPath() string { return path.Join(MaintDir, v.Version, InitrdFile) }

// RootFile is the path of the root as one file below the TFTP area.
func (v *Version) RootFile() string { return path.Join(MaintDir, v.Version, RootName) }

// Latest stands for the newest complete version.
const Latest = "latest"

// ValidVersion reports whether s can name a version and its folder. It allows
// at most 64 letters, digits, '.', '_', '+', '~' and '-', with a letter or digit
// at the start.
func ValidVersion(s string) bool {
	const alnum = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
	return s != "" && len(s) <= 64 && s != Latest && strings.Trim(s, alnum+"._+~-") == "" && strings.Contains(alnum, s[:1])
}
