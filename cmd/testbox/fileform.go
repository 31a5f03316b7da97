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

// addRaw adds the flag for who means the bytes of a file.
func addRaw(cmd *cobra.Command, raw *bool) {
	cmd.Flags().BoolVar(raw, "raw", false, "take the bytes of a file for those of a disk, whatever they look like and whatever its name is")
}

// wantDisks refuses files that do not hold the raw bytes of a disk but another
// form of it, or none. Arguments are [NAME=]PATH. A device is what it is. A file
// that cannot be read is for those to tell who open it.
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

// formOf is the form of a file; nil for the raw bytes of a disk, and for
// whatever is no file.
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
	if disk.IsMedium(err) { // who backs it up finds that it is failing, and may take it all the same
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return f, nil
}

// wantTargets is wantDisks of what is written to. A file that is to be made
// gets raw bytes, so it must not be called as if it had another form.
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

// wantSource is wantDisks of a file that is read, and refuses one whose name
// promises another form than its bytes have, unless they have a partition
// table.
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

// wantNames refuses files that are named as partitions are and have no name for
// their image: they would be taken for a disk.
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

// hasTable reports whether a file begins with a partition table. Whatever is no
// file is not asked.
func hasTable(path string) bool {
	f, err := openStill(path)
	if err != nil {
		return true // which opening it again tells better
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil || !st.Mode().IsRegular() || st.Size() == 0 {
		return true
	}
	_, err = parttab.Read(f, st.Size(), parttab.GuessSector(f, st.Size()))
	return err == nil
}

// formEndings are how files of other forms end. All else is taken for a name of raw
// bytes: .img, .raw, .bin, .dd, .iso, none, and whatever people think of.
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

// byEnding turns forms and their endings around.
func byEnding(forms map[string]string) map[string]string {
	out := map[string]string{}
	for of, ends := range forms {
		for _, end := range strings.Fields(ends) {
			out[end] = of
		}
	}
	return out
}

// formOfName is the form that the end of a file's name promises; "" is none
// that is known. A previous backup's file has .old after that.
func formOfName(path string) string { return formEndings[ending(strings.TrimSuffix(path, ".old"))] }

// ending is what follows the last dot of a file's name, in small letters.
func ending(path string) string {
	return strings.ToLower(strings.TrimPrefix(filepath.Ext(filepath.Base(path)), "."))
}
