package sharedir

import (
	"strings"

	"testbox-imaging/internal/box"
	"testbox-imaging/internal/image"
)

// Files of a box's folder beside images and those that package box names.
const (
	outputName = "maintenance-output.log"
	lastName   = "last-action.json"
	planName   = "commit.json"
	writerName = "backup-writer"
)

// Endings of image files. Those with gzip are images: rawgzExt with a sidecar
// beside them if this program made them, gzExt by older scripts. The previous
// backup's files have oldExt after that.
const (
	rawgzExt   = ".raw.gz"
	gzExt      = ".gz"
	sidecarExt = ".json"
	oldExt     = ".old"
	newExt     = ".new"
)

// ValidName reports whether s can name an image in the area: image.ValidName,
// and its sidecar is not one of our other files.
func ValidName(s string) bool {
	switch strings.ToLower(s) + sidecarExt {
	case lastName, planName, box.InfoJSON:
		return false
	}
	return image.ValidName(s)
}

// splitFile takes the name of an image file or sidecar apart ("sda.raw.gz" is
// "sda" and rawgzExt). Such a name has no separator and leads nowhere else.
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
