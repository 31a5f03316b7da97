package browser

import (
	"strings"
	"testing"

	"testbox-imaging/internal/e2e/browser/chrome"
)

// TestRig shows that what pages must not do is seen.
func TestRig(t *testing.T) {
	lab := world(t)
	b := tab(t, chrome.Phone)
	must(t, b.Go(lab.URL+"/api/v1/openapi.json"))
	const bad = `<img src="https://example.invalid/x.png"><div style="color:#eee;background:#fff">pale</div>`
	must(t, b.Eval("document.body.innerHTML = "+chrome.Quote(bad), nil))
	must(t, b.Eval(`console.error("an error"); setTimeout(() => { throw new Error("thrown") }); setTimeout(() => alert("a dialog"))`, nil))
	all := ""
	for _, want := range []string{"example.invalid", "an error", "thrown", "dialog: a dialog"} {
		for end := chrome.Patience(); !strings.Contains(all, want); all += strings.Join(b.Wrong(), "\n") {
			if !end() {
				t.Fatalf("%q is not noted: %s", want, all)
			}
		}
	}
	found, err := b.Axe()
	must(t, err)
	if len(chrome.Serious(found)) == 0 {
		t.Errorf("axe finds nothing serious in a page without a language and with pale text, but %v", found)
	}
}
