package api_test

import (
	"flag"
	"os"
	"regexp"
	"testing"
)

var write = flag.Bool("write", false, "write docs/api.md anew instead of comparing it")

const documentPath = "../../docs/api.md"

// TestDocument holds docs/api.md against the routes and types.
func TestDocument(t *testing.T) {
	r := newRig(t)
	want := r.api.Document()
	if *write {
		must(t, os.WriteFile(documentPath, []byte(want), 0o644))
	}
	got, err := os.ReadFile(documentPath)
	must(t, err)
	if string(got) != want {
		t.Errorf("%s is not what the code says; `go test ./internal/api -run TestDocument -write` writes it", documentPath)
	}
}

// TestOpenAPI: the description for programs has every route, and says that a token is
// wanted.
func TestOpenAPI(t *testing.T) {
	r := newRig(t)
	var api struct {
		OpenAPI string
		Paths   map[string]map[string]struct {
			OperationID string
			Security    []map[string][]string
		}
	}
	r.root().want(200, "GET", "/api/v1/openapi.json", nil, &api)
	if api.OpenAPI != "3.1.0" {
		t.Errorf("%+v", api)
	}
	n := 0
	for path, item := range api.Paths {
		for method, op := range item {
			if n++; (len(op.Security) == 1) != (path != "/healthz") {
				t.Errorf("%s %s has the security %v", method, path, op.Security)
			}
		}
	}
	text, err := os.ReadFile(documentPath)
	must(t, err)
	if in := len(regexp.MustCompile("(?m)^`[A-Z]+ /").FindAll(text, -1)); n != in {
		t.Errorf("the description has %d requests, %s has %d", n, documentPath, in)
	}
}
