package api

import (
	"cmp"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/danielgtaylor/huma/v2"
)

// Document writes docs/api.md from the description of the API.
func (s *Server) Document() string {
	d := document{api: s.huma.OpenAPI(), b: &strings.Builder{}}
	d.printf("%s", documentHead)
	tag := ""
	for _, r := range routes {
		if r.tag != tag {
			tag = r.tag
			d.printf("\n## %s\n", strings.ToUpper(tag[:1])+tag[1:])
		}
		d.route(r)
	}
	d.printf("\n## Types\n\nA field with \"-\" may be left out of a request, and is left out of an answer if there is nothing to say.\n")
	all := d.api.Components.Schemas.Map()
	for _, name := range slices.Sorted(mapKeys(all)) {
		d.schema(name, all[name])
	}
	return d.b.String()
}

const documentHead = `# The admin API

A server has this API at the Unix socket ` + "`/run/testbox/testbox.sock`" + ` and, if it is so configured, over HTTPS. The commands of
` + "`testbox`" + ` use it too. This file is made from the code: ` + "`go test ./internal/api -run TestDocument -write`" + ` writes it. ` + "`GET /api/v1/openapi.json`" + `
is the same for programs.

**Who asks.** At the socket the kernel says it: root and the members of the group ` + "`testbox`" + ` are admins there. Over HTTPS it is the header
` + "`Authorization: Bearer TOKEN`" + `. A token has a role, perhaps an end, and perhaps a group: then it is about the boxes of that group alone, and other
boxes are not there for it.

**Runs.** Programs that share a token say by the header ` + "`Testbox-Run: NAME`" + ` which of their runs asks (the commands of ` + "`testbox`" + ` do so if
` + "`TESTBOX_RUN`" + ` is set). To the server the runs are as different people with the rights of the token, called NAME-OF-THE-TOKEN#RUN: a box that one
run has reserved is refused to the others, and so are their jobs for it. A run takes a box from nobody, whatever the role. Who says no run may cancel the jobs of
all runs of the token, and give their boxes back.

**Roles.** A viewer reads. An operator also asks for jobs, adds backups, and changes, reserves and releases boxes. An admin may do everything. Each role may do what
the one before it may.

**Errors** have the type ` + "`application/problem+json`" + `: ` + "`status`" + `, ` + "`code`" + ` for programs, and ` + "`detail`" + `, which says what to do. After ` + "`wrong`" + ` (400),
` + "`not-found`" + ` (404) and ` + "`refused`" + ` (409) nothing was changed. ` + "`unauthorized`" + ` is 401, ` + "`forbidden`" + ` 403, ` + "`busy`" + ` 503 (try again), ` + "`failed`" + ` 500 or 507.
Fields and parameters that are not known are errors.

**Lists** have pages: ` + "`limit`" + ` entries at most (100 if nothing is said, 1000 at most), and ` + "`next`" + `, which is given as ` + "`after`" + ` for the next page.

**Audit.** All that changes something is in the audit log, with who, from where, what, and why. The reason is given as ` + "`why`" + `.
`

// document is a Markdown file in the making.
type document struct {
	api *huma.OpenAPI
	b   *strings.Builder
}

func (d *document) printf(format string, args ...any) { fmt.Fprintf(d.b, format, args...) }

func mapKeys[V any](m map[string]V) func(yield func(string) bool) {
	return func(yield func(string) bool) {
		for k := range m {
			if !yield(k) {
				return
			}
		}
	}
}

func (d *document) route(r route) {
	d.printf("\n### %s\n\n`%s %s`, for ", r.summary, r.method, r.path)
	switch {
	case r.role == "":
		d.printf("anybody")
	case r.all:
		d.printf("%ss whose token is not limited to a group", r.role)
	default:
		d.printf("%ss", r.role)
	}
	d.printf(".")
	if r.about != "" {
		d.printf(" %s", r.about)
	}
	d.printf("\n")
	item := d.api.Paths[r.path]
	op := map[string]*huma.Operation{"GET": item.Get, "POST": item.Post, "PUT": item.Put, "PATCH": item.Patch, "DELETE": item.Delete}[r.method]
	if len(op.Parameters) > 0 {
		d.printf("\n| parameter | in | type | meaning |\n|---|---|---|---|\n")
		for _, p := range op.Parameters {
			d.printf("| `%s` | %s | %s | %s |\n", p.Name, p.In, d.kind(p.Schema), cell(cmp.Or(p.Description, p.Schema.Description)))
		}
	}
	if op.RequestBody != nil {
		d.printf("\nThe body is %s.", d.kind(op.RequestBody.Content["application/json"].Schema))
	}
	answer := op.Responses[fmt.Sprint(r.status)]
	if c := answer.Content["application/json"]; c != nil {
		if op.RequestBody == nil {
			d.printf("\n")
		} else {
			d.printf(" ")
		}
		d.printf("The answer is %d with %s.\n", r.status, d.kind(c.Schema))
	} else if op.RequestBody != nil {
		d.printf("\n")
	}
}

// kind is a type in a word, with a link if the file has more about it.
func (d *document) kind(s *huma.Schema) string {
	if s.Ref != "" {
		name := s.Ref[strings.LastIndex(s.Ref, "/")+1:]
		return fmt.Sprintf("[%s](#%s)", name, strings.ToLower(name))
	}
	text := cmp.Or(s.Type, "any JSON")
	switch {
	case s.Type == "array":
		text = "list of " + d.kind(s.Items)
	case s.Format == "date-time":
		text = "time"
	case s.Type == "object":
		text = "object"
	}
	if len(s.Enum) > 0 {
		var words []string
		for _, e := range s.Enum {
			words = append(words, fmt.Sprint(e))
		}
		text = strings.Join(words, ", ")
	}
	if s.Default != nil {
		v, _ := json.Marshal(s.Default)
		text += ", else " + strings.Trim(string(v), `"`)
	}
	if s.MaxLength != nil {
		text += fmt.Sprintf(", at most %d characters", *s.MaxLength)
	}
	if s.MaxItems != nil {
		text += fmt.Sprintf(", at most %d", *s.MaxItems)
	}
	return text
}

func (d *document) schema(name string, s *huma.Schema) {
	d.printf("\n### %s\n\n| field | | type | meaning |\n|---|---|---|---|\n", name)
	for _, field := range slices.Sorted(mapKeys(s.Properties)) {
		need := "-"
		if slices.Contains(s.Required, field) {
			need = ""
		}
		p := s.Properties[field]
		d.printf("| `%s` | %s | %s | %s |\n", field, need, d.kind(p), cell(p.Description))
	}
}

// cell makes a text fit for a cell of a table.
func cell(s string) string { return strings.ReplaceAll(s, "|", `\|`) }
