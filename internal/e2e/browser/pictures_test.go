package browser

import (
	"bytes"
	"image"
	"image/color"
	"image/draw"
	"image/png"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"testbox-imaging/internal/e2e/browser/chrome"
	"testbox-imaging/internal/ledger"
)

// picturesEnv is the folder that gets the pictures of docs/page.md. `make screenshots` sets it.
const picturesEnv = "TESTBOX_SCREENSHOTS"

const (
	maxPicture  = 150 << 10 // bytes
	maxPictures = 4 << 20   // bytes of all together
)

// TestPictures takes the pictures of the documentation, so they can always be taken.
func TestPictures(t *testing.T) {
	lab := world(t)
	folder := os.Getenv(picturesEnv)
	if folder == "" {
		folder = t.TempDir()
	}
	must(t, os.MkdirAll(folder, 0o755))
	b := tab(t, chrome.Wide)
	must(t, b.Go(lab.URL+"/login"))
	total := 0
	take := func(name, at string, views ...chrome.View) {
		for _, v := range views {
			must(t, b.Look(v))
			must(t, b.Go(lab.URL+at))
			must(t, b.Until("!document.querySelector('[aria-busy=true]') && document.fonts.status == 'loaded'"))
			raw, err := b.Picture()
			must(t, err)
			// What is further down looks the same in all views.
			small, err := shrink(raw, int(2*v.Height))
			must(t, err)
			if total += len(small); len(small) > maxPicture {
				t.Errorf("the picture of %s, %s has %d bytes", at, v.Name(), len(small))
			}
			must(t, os.WriteFile(filepath.Join(folder, name+"-"+v.Name()+".png"), small, 0o644))
		}
	}
	all := []chrome.View{chrome.Wide, {Width: 1280, Height: 900, Dark: true}, chrome.Phone, {Width: 390, Height: 844, Dark: true}}
	take("login", "/login", all[0], all[3])
	login(t, b, ledger.Admin)
	take("boxes", "/", all...)
	take("box", "/boxes/"+addr(t, "gpu-02"), all...)
	must(t, b.Go(lab.URL+"/boxes/"+addr(t, "nas-02")))
	var disks string
	must(t, b.Eval(`document.querySelector('.bx-history a[href*="/disks?"]').getAttribute('href')`, &disks))
	take("disks", disks, all[0], all[3])
	take("restore", "/act/restore?box="+addr(t, "ci-05"), all...)
	take("job", "/jobs/"+jobs(t, "gpu-02")[0], all[0], all[3])
	var more []string
	must(t, b.Eval("[...document.querySelectorAll('header nav a')].map(a => a.getAttribute('href')).filter(h => h != '/')", &more))
	for _, at := range more {
		take(strings.ReplaceAll(strings.Trim(at, "/"), "/", "-"), at, all[0], all[3])
	}
	if total > maxPictures {
		t.Errorf("all pictures have %d bytes", total)
	}
}

// shrink makes a picture small: it has 256 colours, and ends after so many lines.
func shrink(raw []byte, lines int) ([]byte, error) {
	in, err := png.Decode(bytes.NewReader(raw))
	if err != nil {
		return nil, err
	}
	area := in.Bounds()
	area.Max.Y = min(area.Max.Y, area.Min.Y+lines)
	full := image.NewRGBA(area)
	draw.Draw(full, area, in, area.Min, draw.Src)
	counts := map[color.RGBA]int{}
	for y := area.Min.Y; y < area.Max.Y; y++ {
		for x := area.Min.X; x < area.Max.X; x++ {
			counts[full.RGBAAt(x, y)]++
		}
	}
	colours := make([]color.RGBA, 0, len(counts))
	for c := range counts {
		colours = append(colours, c)
	}
	slices.SortFunc(colours, func(a, b color.RGBA) int {
		if n := counts[b] - counts[a]; n != 0 {
			return n
		}
		return int(a.R) - int(b.R) + 256*(int(a.G)-int(b.G)) + 65536*(int(a.B)-int(b.B))
	})
	var palette color.Palette
	for _, c := range colours[:min(256, len(colours))] {
		palette = append(palette, c)
	}
	index := map[color.RGBA]uint8{}
	for _, c := range colours {
		index[c] = uint8(palette.Index(c))
	}
	out := image.NewPaletted(area, palette)
	for y := area.Min.Y; y < area.Max.Y; y++ {
		for x := area.Min.X; x < area.Max.X; x++ {
			out.SetColorIndex(x, y, index[full.RGBAAt(x, y)])
		}
	}
	var b bytes.Buffer
	err = (&png.Encoder{CompressionLevel: png.BestCompression}).Encode(&b, out)
	return b.Bytes(), err
}
