package image_test

import (
	"testing"
	"time"

	"testbox-imaging/internal/image"
)

// TestBootTestResult: what is no result that could have been made is not noted.
func TestBootTestResult(t *testing.T) {
	good := image.BootTest{Time: time.Unix(1800000000, 0), Verdict: image.BootPassed, Sign: image.SignLogin, Firmware: "bios"}
	if err := good.Check(); err != nil {
		t.Fatal(err)
	}
	for what, spoil := range map[string]func(*image.BootTest){
		"a pass, and too busy":      func(b *image.BootTest) { b.Busy = 1 },
		"a pass by a weak sign":     func(b *image.BootTest) { b.Sign = image.SignWritten },
		"an unknown verdict":        func(b *image.BootTest) { b.Verdict = "fine" },
		"an unknown sign":           func(b *image.BootTest) { b.Sign = "" },
		"a long text":               func(b *image.BootTest) { b.Text = string(make([]byte, image.MaxBootText+1)) },
		"a picture that is none":    func(b *image.BootTest) { b.Picture = []byte("x") },
		"a picture that is too big": func(b *image.BootTest) { b.Picture = make([]byte, image.MaxBootPicture+1) },
	} {
		bad := good
		if spoil(&bad); bad.Check() == nil {
			t.Errorf("%s is taken", what)
		}
	}
}
