package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"testbox-imaging/internal/disk"
	"testbox-imaging/internal/form"
	"testbox-imaging/internal/image"
	"testbox-imaging/internal/parttab"
)

// addRaw adds the flag that makes a command use the bytes of a file as they
// are.
func addRaw(cmd *cobra.Command, raw *bool) {
	cmd.Flags().BoolVar(raw, "raw", false, "take the bytes of a file for those of a disk, whatever they look like and whatever its name is")
}

// wantDisks refuses files that do not hold the raw bytes of a disk. The
// arguments are [NAME=]PATH. It accepts every device. It also accepts a file
// that cannot be read, since opening it later gives a better error.
func wantDisks(args []string, raw bool) error {
	for _, a := range args {
		_, path := splitNamed(a)
		f, err := formOf(path)
		if err != nil {
			return err
		}
		if f != nil && !raw {
			return notRaw(path, f)
		}
	}
	return nil
}

func notRaw(path string, f *form.Form) error {
	return wrong("%s is not the raw bytes of a disk: it is %s (--raw takes it as it is)", path, f)
}

// formOf returns the form of a file. It returns nil for the raw bytes of a
// disk, and for everything that is not a file.
func formOf(path string) (*form.Form, error) {
	file, err := openStill(path)
	if err != nil {
		return nil, nil
	}
	defer file.Close()
	st, err := file.Stat()
	if err != nil || !st.Mode().IsRegular() {
		return nil, nil
	}
	f, err := form.Of(file, st.Size())
	if disk.IsMedium(err) { // a backup finds that the disk is failing, and may be told to accept that
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return f, nil
}

// wantTargets is wantDisks for what a command writes to. A new file gets raw
// bytes, so its name must not promise another form.
func wantTargets(targets []string, raw bool) error {
	if raw {
		return nil
	}
	for _, t := range targets {
		_, path := splitNamed(t)
		if _, err := os.Stat(path); err == nil {
			continue
		}
		if of := formOfName(path); of != "" {
			return wrong("%s would hold the raw bytes of a disk, but is named as %s; name it as in disk.img, or say --raw", path, of)
		}
	}
	return wantDisks(targets, false)
}

// wantSource is wantDisks for a file that a command reads. It also refuses a
// file whose name promises another form than its bytes have, unless it has a
// partition table.
func wantSource(path string, raw bool) error {
	if f, err := formOf(path); err != nil || raw {
		return err
	} else if f != nil {
		return notRaw(path, f)
	}
	if of := formOfName(path); of != "" && !hasTable(path) {
		return wrong("%s is named as %s, but is none; it may be damaged (--raw takes it as it is)", path, of)
	}
	return nil
}

// wantNames refuses files that are named like partitions, unless the argument
// gives a name for the image. Otherwise the file would be used as a disk.
func wantNames(args []string) error {
	for _, a := range args {
		name, path := splitNamed(a)
		st, err := os.Stat(path)
		stem, _, _ := strings.Cut(filepath.Base(path), ".")
		if name == "" && err == nil && st.Mode().IsRegular() && image.NamesPartition(stem) {
			return wrong("%s has the name of a partition; if it holds a whole disk, give it a name, as in sda=%s", path, path)
		}
	}
	return nil
}

// hasTable reports whether a file begins with a partition table. It is true for
// anything that is not a file.
func hasTable(path string) bool {
	f, err := openStill(path)
	if err != nil {
		return true // opening it again gives a better error
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil || !st.Mode().IsRegular() || st.Size() == 0 {
		return true
	}
	_, err = parttab.Read(f, st.Size(), parttab.GuessSector(f, st.Size()))
	return err == nil
}

// formEndings are the endings of files of other forms. Any other ending is one
// of raw bytes, such as .img, .raw, .bin, .dd, .iso, or none.
var formEndings = byEnding(map[string]string{
	"a gzip file":              "gz",
	"a tar archive":            "tgz taz tzst txz tbz tbz2 tar",
	"a compressed file":        "z",
	"a zstd file":              "zst zstd",
	"an xz file":               "xz",
	"a bzip2 file":             "bz2 bz",
	"an lz4 file":              "lz4",
	"an lzma file":             "lzma",
	"an lzip file":             "lz",
	"an lzop file":             "lzo",
	"an lrzip file":            "lrz",
	"a brotli file":            "br",
	"a snappy file":            "sz",
	"a zip archive":            "zip jar",
	"a 7z archive":             "7z",
	"a rar archive":            "rar",
	"a cpio archive":           "cpio",
	"a cab archive":            "cab",
	"a Debian package":         "deb",
	"an rpm package":           "rpm",
	"a qcow2 image":            "qcow2 qcow3",
	"a qcow image":             "qcow",
	"a cow image":              "cow",
	"a QED image":              "qed",
	"a VMDK image":             "vmdk",
	"a VHD image":              "vhd vpc avhd",
	"a VHDX image":             "vhdx avhdx vhds",
	"a VDI image":              "vdi",
	"a Parallels image":        "hdd hds parallels",
	"a Bochs image":            "bochs",
	"a cloop image":            "cloop",
	"a DMG image":              "dmg",
	"a disk image of macOS":    "sparseimage sparsebundle",
	"an Android sparse image":  "simg",
	"a CHD image":              "chd",
	"an appliance (OVA)":       "ova",
	"an appliance (OVF)":       "ovf",
	"an appliance (XVA)":       "xva",
	"a backup of Proxmox":      "vma",
	"a backup of Veeam":        "vbk",
	"an EWF image":             "e01 ex01 l01 s01 ewf",
	"an AFF image":             "aff afd",
	"an AFF4 image":            "aff4",
	"a WIM image":              "wim esd swm",
	"a Ghost image":            "gho ghs v2i",
	"an Acronis image":         "tib tibx",
	"a Macrium image":          "mrimg mrimgx",
	"a Drive Image file":       "pqi",
	"an archive of fsarchiver": "fsa",
	"an archive of dar":        "dar",
	"an image of partclone":    "pcl",
	"a squashfs":               "squashfs sqfs sqsh",
	"a JSON file":              "json",
	"a text file":              "txt log",
	"a web page":               "html htm",
	"an XML file":              "xml",
})

// byEnding turns a map from forms to endings into one from endings to forms.
func byEnding(forms map[string]string) map[string]string {
	out := map[string]string{}
	for of, ends := range forms {
		for _, end := range strings.Fields(ends) {
			out[end] = of
		}
	}
	return out
}

// formOfName returns the form that the ending of a file's name promises, or ""
// if the ending is not known. It ignores the .old of a previous backup's file.
func formOfName(path string) string { return formEndings[ending(strings.TrimSuffix(path, ".old"))] }

// ending returns what follows the last dot of a file's name, in lower case.
func ending(path string) string {
	return strings.ToLower(strings.TrimPrefix(filepath.Ext(filepath.Base(path)), "."))
}
