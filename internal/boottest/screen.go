package boottest

import (
	"bytes"
	"errors"
	"fmt"
	"image/color"
	"image/png"
	"io"
	"os"
	"strconv"
	"strings"

	stdimage "image"

	"testbox-imaging/internal/image"
)

// maxShot bounds the picture that QEMU writes. Its guest has video memory for less.
const maxShot = 32 << 20

// shot is a picture of the screen.
type shot struct{ *stdimage.RGBA }

// parseShot reads a picture in the form PPM.
func parseShot(data []byte) (shot, error) {
	var w, h, most int
	n, err := fmt.Sscanf(string(data[:min(len(data), 32)]), "P6\n%d %d\n%d\n", &w, &h, &most)
	head := len(fmt.Sprintf("P6\n%d %d\n%d\n", w, h, most))
	if err != nil || n != 3 || w <= 0 || h <= 0 || w > 4096 || h > 4096 || most != 255 || len(data) != head+w*h*3 {
		return shot{}, errors.New("the picture of the screen is none")
	}
	m := stdimage.NewRGBA(stdimage.Rect(0, 0, w, h))
	for i, p := 0, data[head:]; i < w*h; i++ {
		m.SetRGBA(i%w, i/w, color.RGBA{p[i*3], p[i*3+1], p[i*3+2], 255})
	}
	return shot{m}, nil
}

// text reports whether the screen is in text mode. Its characters are 8 or 9 by 16.
func (s shot) text() bool {
	return s.Rect.Dy() == 400 && (s.Rect.Dx() == 720 || s.Rect.Dx() == 640)
}

// oneColour reports whether nearly all of the screen has one colour, which also a
// console or an error screen has.
func (s shot) oneColour() bool {
	count := map[color.RGBA]int{}
	all := 0
	for y := 0; y < s.Rect.Dy(); y += 3 {
		for x := 0; x < s.Rect.Dx(); x += 3 {
			if c := s.RGBAAt(x, y); len(count) < 4096 || count[c] > 0 {
				count[c]++
			}
			all++
		}
	}
	for _, n := range count {
		if n*4 >= all*3 {
			return true
		}
	}
	return false
}

// png makes a picture that may be kept. It gets smaller until it fits.
func (s shot) png() []byte {
	for step := 1; step <= 16; step *= 2 {
		var b bytes.Buffer
		e := png.Encoder{CompressionLevel: png.BestCompression}
		if e.Encode(&b, s.smaller(step)) == nil && b.Len() <= image.MaxBootPicture {
			return b.Bytes()
		}
	}
	return nil
}

// smaller takes the mean of each square of pixels, in few colours, so that it packs well.
func (s shot) smaller(step int) stdimage.Image {
	w, h := max(s.Rect.Dx()/step, 1), max(s.Rect.Dy()/step, 1)
	m := stdimage.NewRGBA(stdimage.Rect(0, 0, w, h))
	for y := range h {
		for x := range w {
			var r, g, b, n int
			for dy := range step {
				for dx := range step {
					c := s.RGBAAt(x*step+dx, y*step+dy)
					r, g, b, n = r+int(c.R), g+int(c.G), b+int(c.B), n+1
				}
			}
			few := func(v int) uint8 { return uint8(v / n &^ 7) }
			m.SetRGBA(x, y, color.RGBA{few(r), few(g), few(b), 255})
		}
	}
	return m
}

// readShot reads what QEMU has written into a file by the descriptor to, and empties it for the next one.
func readShot(f, to *os.File) (shot, error) {
	st, err := f.Stat()
	if err != nil {
		return shot{}, err
	}
	data := make([]byte, min(st.Size(), maxShot))
	_, err = f.ReadAt(data, 0)
	// QEMU's descriptor is of the same open file, so its next picture begins at the start.
	_, e := to.Seek(0, io.SeekStart)
	if err = errors.Join(err, e, f.Truncate(0)); err != nil {
		return shot{}, err
	}
	return parseShot(data)
}

// cells are the bytes of the text screen: 25 lines of 80 characters, each with a colour.
const cells = 80 * 25 * 2

// parseText reads the answer of the monitor's command xp, as in
// "00000000000b8000: 0x54 0x07 ...".
func parseText(dump string) string {
	var raw []byte
	for line := range strings.Lines(dump) {
		_, rest, _ := strings.Cut(line, ":")
		for _, f := range strings.Fields(rest) {
			v, err := strconv.ParseUint(strings.TrimPrefix(f, "0x"), 16, 8)
			if err != nil || len(raw) >= cells {
				return ""
			}
			raw = append(raw, byte(v))
		}
	}
	var b strings.Builder
	for row := 0; (row+1)*160 <= len(raw); row++ {
		line := make([]byte, 80)
		for i := range line {
			if line[i] = raw[row*160+i*2]; line[i] < ' ' || line[i] > '~' {
				line[i] = ' '
			}
		}
		if text := strings.TrimRight(string(line), " "); text != "" {
			b.WriteString(text + "\n")
		}
	}
	return b.String()
}
