package copier

import (
	"io"

	"testbox-imaging/internal/image"
)

// salvageStep is how much of a piece with a bad sector is read at a time at
// first; what fails again is read sector by sector.
const salvageStep = 64 << 10

// readPiece fills b, and where the disk has bad sectors, with zeros; these it
// names. Any other error is given back.
func readPiece(src Source, b []byte, off int64, opt Options) ([]image.Range, error) {
	err := readFull(src, b, off)
	if err == nil || !opt.Medium(err) {
		return nil, err
	}
	var bad []image.Range
	for at := 0; at < len(b); at += salvageStep {
		part := b[at:min(at+salvageStep, len(b))]
		err := readFull(src, part, off+int64(at))
		opt.Alive()
		if err == nil {
			continue
		} else if !opt.Medium(err) {
			return nil, err
		}
		if bad, err = readSectors(src, part, off+int64(at), opt, bad); err != nil {
			return nil, err
		}
	}
	return bad, nil
}

// readSectors is readPiece's last resort.
func readSectors(src Source, b []byte, off int64, opt Options, bad []image.Range) ([]image.Range, error) {
	for at := 0; at < len(b); at += opt.SectorSize {
		sector := b[at:min(at+opt.SectorSize, len(b))]
		err := readFull(src, sector, off+int64(at))
		opt.Alive()
		if err == nil {
			continue
		}
		if !opt.Medium(err) {
			return nil, err
		}
		clear(sector)
		bad = appendRange(bad, image.Range{Off: off + int64(at), Len: int64(len(sector))})
	}
	return bad, nil
}

// pieces gives the slots of a range of the disk, cut at multiples of a piece.
func pieces(from, to int64) func(*slot) error {
	return func(s *slot) error {
		if from >= to {
			return io.EOF
		}
		s.at(image.Data, image.Range{Off: from, Len: min(pieceSize-from%pieceSize, to-from)})
		from += s.n
		return nil
	}
}
