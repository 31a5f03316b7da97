package boxpage

import (
	"context"
	"fmt"
	"net/http"
	"net/url"

	"testbox-imaging/internal/api"
	"testbox-imaging/internal/image"
)

// Act does to a backup what a form of the page of a box asks for: pin, unpin, baseline,
// unbaseline, note or delete. An error means that it is not known to be done. A deletion
// wants the id of the backup once more, as typed by whoever asks for it.
func Act(ctx context.Context, a API, addr, id string, form url.Values) error {
	yes, no := true, false
	params := Params{"owner": addr, "backup": id}
	set := api.SetBackup{Why: "from the page"}
	switch form.Get("do") {
	case "pin":
		set.Pinned = &yes
	case "unpin":
		set.Pinned = &no
	case "baseline":
		set.Baseline = &yes
	case "unbaseline":
		set.Baseline = &no
	case "note":
		note := form.Get("note")
		if len(note) > image.MaxNote {
			return wrong("the note has %d bytes; at most %d are kept", len(note), image.MaxNote)
		}
		set.Note = &note
	case "delete":
		if form.Get("confirm") != id {
			return wrong("type the id of the backup, %s, to delete it; nothing was deleted", id)
		}
		return a.Ask(ctx, "delete-backup", Params{"owner": addr, "backup": id, "why": "from the page"}, nil, nil)
	default:
		return wrong("the form asks for nothing that is known; open the page of the box anew")
	}
	return a.Ask(ctx, "set-backup", params, &set, &api.Backup{})
}

func wrong(format string, args ...any) error {
	return &api.Problem{Status: http.StatusBadRequest, Code: api.CodeWrong, Title: http.StatusText(http.StatusBadRequest),
		Detail: fmt.Sprintf(format, args...)}
}
