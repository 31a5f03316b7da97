package rawgz

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"

	"github.com/klauspost/compress/flate"

	"testbox-imaging/internal/image"
)

// usrPieces is what a disk holds: pieces of this machine's programs and
// documents.
func usrPieces(b *testing.B) [][]byte {
	b.Helper()
	var data []byte
	for _, pattern := range []string{"/usr/lib/*-linux-gnu/*.so*", "/usr/share/doc/*/*", "/usr/bin/*"} {
		files, _ := filepath.Glob(pattern)
		for limit := len(data) + 16<<20; len(files) > 0 && len(data) < limit; files = files[1:] {
			if text, err := os.ReadFile(files[0]); err == nil {
				data = append(data, text...)
			}
		}
	}
	pieces := slices.Collect(slices.Chunk(data, image.PieceSize))
	if len(pieces) < 32 {
		b.Skipf("only %d bytes of programs and documents are on this machine", len(data))
	}
	return pieces[:len(pieces)-1]
}

// BenchmarkLevels is the measurement behind the constant level. All levels
// pack the same pieces; gzip packs them as one stream.
func BenchmarkLevels(b *testing.B) {
	pieces := usrPieces(b)
	measure := func(name string, pack func() int) {
		b.Run(name, func(b *testing.B) {
			size := 0
			b.SetBytes(int64(len(pieces)) * image.PieceSize)
			for b.Loop() {
				size = pack()
			}
			b.ReportMetric(float64(size)/float64(len(pieces)*image.PieceSize)*100, "%size")
		})
	}
	for _, level := range []int{flate.HuffmanOnly, 1, 2, 3, 4, 5, 6} {
		w, err := flate.NewWriter(nil, level)
		if err != nil {
			b.Fatal(err)
		}
		measure(fmt.Sprint(level), func() (n int) {
			for _, p := range pieces {
				var buf bytes.Buffer
				w.Reset(&buf)
				w.Write(p)
				w.Close()
				n += buf.Len()
			}
			return n
		})
	}
	if _, err := exec.LookPath("gzip"); err == nil {
		measure("gzip", func() int {
			cmd := exec.Command("gzip", "-c")
			cmd.Stdin = bytes.NewReader(bytes.Join(pieces, nil))
			out, err := cmd.Output()
			if err != nil {
				b.Fatal(err)
			}
			return len(out)
		})
	}
}

func BenchmarkEncode(b *testing.B) {
	pieces := append(usrPieces(b), make([]byte, image.PieceSize))
	for name, pieces := range map[string][][]byte{"data": pieces[:len(pieces)-1], "zeros": pieces[len(pieces)-1:]} {
		b.Run(name, func(b *testing.B) {
			w := NewWriter(io.Discard)
			b.SetBytes(image.PieceSize)
			var out []byte
			for i := 0; b.Loop(); i++ {
				out, _ = w.Encode(out[:0], pieces[i%len(pieces)])
			}
		})
	}
}

// BenchmarkAppend is what cannot be done for several pieces at once: hashes
// and file.
func BenchmarkAppend(b *testing.B) {
	piece := usrPieces(b)[0]
	w := NewWriter(io.Discard)
	enc, _ := w.Encode(nil, piece)
	b.SetBytes(image.PieceSize)
	for b.Loop() {
		if err := w.Append(piece, enc); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkDecode(b *testing.B) {
	var members [][]byte
	w := NewWriter(io.Discard)
	for _, p := range usrPieces(b) {
		m, _ := w.Encode(nil, p)
		members = append(members, m)
	}
	dst := make([]byte, image.PieceSize)
	b.SetBytes(image.PieceSize)
	for i := 0; b.Loop(); i++ {
		if err := decodeMember(dst, members[i%len(members)]); err != nil {
			b.Fatal(err)
		}
	}
}
