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

// views are those of each page.
var views = []chrome.View{chrome.Wide, {Width: 1280, Height: 900, Dark: true}, chrome.Phone, {Width: 390, Height: 844, Dark: true}}

// picture is a page that is shown in the documentation.
type picture struct{ name, at string }

// pictures are all of them but those that the list of pages has. The login is first, since nobody is logged in then.
func pictures(t *testing.T, b *chrome.Tab) []picture {
	box := func(name string) string { return "box=" + addr(t, name) }
	all := []picture{
		{"boxes", "/"},
		{"box", "/boxes/" + addr(t, "gpu-02")},
		{"job", "/jobs/" + jobs(t, "gpu-02")[0]},
		{"job-ended", "/jobs/" + jobs(t, "nas-02")[1]},
		{"restore", "/act/restore?" + box("ci-05")},
		{"restore-many", "/act/restore?" + box("ci-05") + "&" + box("ci-06") + "&" + box("gpu-03") + "&" + box("ci-10")},
		{"restore-from", "/act/restore?" + box("ci-05") + "&from=ci-04&hook=hostname&hook=machine-id&map=nvme0n1%3Dnvme0n1"},
		{"search", "/search?q=nas"},
		{"task", "/do/add-token"},
	}
	for _, a := range []string{"backup", "verify", "refresh-info", "rescue", "cancel", "hold", "unhold", "health", "power"} {
		all = append(all, picture{a, "/act/" + a + "?" + box("ci-07")})
	}
	all = append(all, picture{"release", "/act/release?" + box("ci-09")})
	must(t, b.Go(world(t).URL+"/boxes/"+addr(t, "nas-02")))
	var disks string
	must(t, b.Eval(`document.querySelector('.bx-history a[href*="/disks?"]').getAttribute('href')`, &disks))
	all = append(all, picture{"disks", disks})
	var more []string
	must(t, b.Eval("[...document.querySelectorAll('header nav a')].map(a => a.getAttribute('href')).filter(h => h != '/')", &more))
	for _, at := range more {
		all = append(all, picture{strings.ReplaceAll(strings.Trim(at, "/"), "/", "-"), at})
	}
	return all
}

// TestPictures takes the pictures of the documentation, so they can always be taken. Without a folder for them it takes a few.
func TestPictures(t *testing.T) {
	lab := world(t)
	folder := os.Getenv(picturesEnv)
	b := tab(t, chrome.Wide)
	must(t, b.Go(lab.URL+"/login"))
	total := 0
	take := func(p picture) {
		for _, v := range views {
			must(t, b.Look(v))
			must(t, b.Go(lab.URL+p.at))
			must(t, b.Until("!document.querySelector('[aria-busy=true]') && document.fonts.status == 'loaded'"))
			must(t, b.Until("[...document.images].every(i => i.complete || i.loading == 'lazy')"))
			raw, err := b.Picture()
			must(t, err)
			most := 3 * v.Height / 2 // what is further down looks the same
			small, err := shrink(raw, int(most))
			must(t, err)
			if total += len(small); len(small) > maxPicture {
				t.Errorf("the picture of %s, %s has %d bytes", p.at, v.Name(), len(small))
			}
			if folder != "" {
				must(t, os.WriteFile(filepath.Join(folder, p.name+"-"+v.Name()+".png"), small, 0o644))
			}
			if folder == "" {
				return // other tests look at all views
			}
		}
	}
	if folder != "" {
		must(t, os.MkdirAll(folder, 0o755))
	}
	take(picture{"login", "/login"})
	login(t, b, ledger.Admin)
	all := pictures(t, b)
	if folder == "" {
		all = all[:3] // other tests look at all pages
	}
	for _, p := range all {
		take(p)
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
