package wire

import (
	"os"
	"reflect"
	"strings"
	"testing"

	"testbox-imaging/internal/box"
	"testbox-imaging/internal/image"
	"testbox-imaging/internal/job"
	"testbox-imaging/internal/room"
)

// TestDocument: docs/protocol.md has each field and each word of the messages.
func TestDocument(t *testing.T) {
	b, err := os.ReadFile("../../docs/protocol.md")
	must(t, err)
	doc := string(b)
	for _, m := range []any{Hello{}, Welcome{}, Job{}, Report{}, Line{}, Result{}, Told{}, Open{}, Stored{}, Committed{}, Problem{},
		Firmware{}, image.Receipt{}, image.Stage{}, image.Range{},
		Join{}, Joined{}, RoomAnswer{}, room.Ask{}, room.Peer{}, room.Report{}, room.Count{}} {
		typ := reflect.TypeOf(m)
		for i := range typ.NumField() {
			name, _, _ := strings.Cut(typ.Field(i).Tag.Get("json"), ",")
			if !strings.Contains(doc, "`"+name+"`") && !strings.Contains(doc, `"`+name+`":`) {
				t.Errorf("field %s of %s is not in docs/protocol.md", name, typ.Name())
			}
		}
	}
	words := []string{HelloPath, ReportPath, ResultPath, InventoryPath, FirmwarePath, box.FirmwareFile, box.InfoText, box.InfoJSON,
		box.InfoZip}
	for _, f := range room.Faults {
		words = append(words, "`"+string(f)+"`")
	}
	words = append(words, HavePath, ChunksPath, "/agent/v1/images/N/room")
	for _, c := range codes {
		words = append(words, "`"+string(c.code)+"`")
	}
	for _, w := range []job.Word{job.Work, job.GoOn, job.Stop, job.Restart, job.Retry, job.Hold, job.Refuse} {
		words = append(words, "`"+string(w)+"`")
	}
	for _, s := range Steps {
		words = append(words, "`"+string(s)+"`")
	}
	for _, o := range append(box.Outcomes(), job.Cancelled) {
		words = append(words, "`"+string(o)+"`")
	}
	for _, a := range box.Actions {
		words = append(words, "`"+string(a)+"`")
	}
	for _, k := range []LineKind{LineHello, LineAnnounce, LineError} {
		words = append(words, "`"+string(k)+"`")
	}
	for _, c := range []job.Class{job.ClassBox, job.ClassImage, job.ClassServer, job.ClassNetwork, job.ClassAdmin} {
		words = append(words, "`"+string(c)+"`")
	}
	for _, w := range words {
		if !strings.Contains(doc, w) {
			t.Errorf("docs/protocol.md does not have %s", w)
		}
	}
}
