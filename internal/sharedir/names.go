package sharedir

import (
	"strings"

	"testbox-imaging/internal/box"
	"testbox-imaging/internal/image"
)

// Files of a box's folder besides the images and those that package box names.
const (
	outputName = "maintenance-output.log"
	lastName   = "last-action.json"
	planName   = "commit.json"
	writerName = "backup-writer"
)

// Extensions of image files. This program makes images with rawgzExt and a
// sidecar with sidecarExt. Older scripts make images with gzExt. The files of
// the previous backup have oldExt after that.
const (
	rawgzExt   = ".raw.gz"
	gzExt      = ".gz"
	sidecarExt = ".json"
	oldExt     = ".old"
	newExt     = ".new"
)

// ValidName reports whether s can name an image in the area. It must be valid
// for image.ValidName, and its sidecar must not have the name of another file
// of ours.
func ValidName(s string) bool {
	switch strings.ToLower(s) + sidecarExt {
	case lastName, planName, box.InfoJSON:
		return false
	}
	return image.ValidName(s)
}

// splitFile splits the name of an image file or sidecar. For "sda.raw.gz" it
// gives "sda" and rawgzExt. Such a name has no path separator.
func splitFile(file string) (name, ext string, ok bool) {
	for _, ext := range []string{rawgzExt, gzExt, sidecarExt} {
		if name, found := strings.CutSuffix(file, ext); found {
			return name, ext, ValidName(name)
		}
	}
	return "", "", false
}

// newFile is the name of an image file while a backup is being written.
func newFile(file string, arming box.Arming) string {
	return file + "." + string(arming) + newExt
}

// isNewFile reports whether file is one that newFile made, of any arming.
func isNewFile(file string) bool {
	file, found := strings.CutSuffix(file, newExt)
	dot := strings.LastIndexByte(file, '.')
	if !found || dot < 0 {
		return false
	}
	_, err := box.ParseArming(file[dot+1:])
	_, _, ok := splitFile(file[:dot])
	return err == nil && ok
}
