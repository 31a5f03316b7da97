package wire

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"reflect"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"testbox-imaging/internal/box"
	"testbox-imaging/internal/efi"
	"testbox-imaging/internal/image"
	"testbox-imaging/internal/job"
)

func hello(t testing.TB) *Hello {
	addr, err := box.ParseAddr("10.0.0.7")
	must(t, err)
	return &Hello{Protocol: Version, Agent: "1.0", Box: addr, Arming: "0123456789abcdef", Secret: "1-00",
		Token: strings.Repeat("a", MinToken), MACs: []string{"52:54:00:12:34:56"}, UUID: "x"}
}

func welcome(known int) *Welcome {
	r := record()
	r.ID = "20260101-000000"
	disks := "sda\n"
	j := &Job{ID: "j1", Action: box.Restore, Attempt: 1, Host: "seven", Selection: &disks, Record: r, Committed: r}
	for range known {
		j.Known = append(j.Known, r)
	}
	return &Welcome{Word: job.Work, Time: time.Unix(1, 0).UTC(), Job: j}
}

func report() *Report {
	return &Report{Number: 3, Writes: true, Step: StepWrite, Text: "half of it", Done: 1, Total: 2,
		Lines: []Line{{Kind: LineHello}, {Text: "a"}, {LineError, "b"}},
		Room:  &RoomState{Boxes: 16, FromServer: 1, FromPeers: 2, ToPeers: 3, Deaf: true, Left: 4}}
}

// What ssh-keygen made.
const someHostKey = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIFyNxM12UGrtNi4LlpQjE4aTuEUk1v3fX6kOuTWQDCC/"

func TestResultHostKeys(t *testing.T) {
	r := &Result{Outcome: box.Rescuing, HostKeys: []string{someHostKey}}
	if again, err := ParseResult(MarshalResult(r)); err != nil || !slices.Equal(again.HostKeys, r.HostKeys) {
		t.Errorf("%+v, %v", again, err)
	}
}

func result() *Result {
	return &Result{Outcome: box.Differs, Class: job.ClassImage, Text: "x", Warnings: []string{"w"}, Receipts: []image.Receipt{{Image: "sda",
		Differ: []image.Range{{Off: 1, Len: 2}}, Stages: []image.Stage{{Name: "read", Bytes: 1, Elapsed: 2, Busy: 0.5, Active: 1}}}}}
}

// TestJobMessages: what one side writes, the other takes. What cannot be is refused.
func TestJobMessages(t *testing.T) {
	same := func(what string, got, want any, err error) {
		t.Helper()
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%s: %+v became %+v, %v", what, want, got, err)
		}
	}
	h, err := ParseHello(Marshal(hello(t)))
	same("hello", h, hello(t), err)
	b, err := MarshalWelcome(welcome(2))
	must(t, err)
	w, err := ParseWelcome(b)
	same("welcome", w, welcome(2), err)
	r, err := ParseReport(Marshal(report()))
	same("report", r, report(), err)
	s, err := ParseResult(MarshalResult(result()))
	same("result", s, result(), err)
	for _, word := range []job.Word{job.GoOn, job.Stop, job.Restart, job.Retry, job.Hold, job.Refuse} {
		told := &Told{word, time.Unix(1, 0).UTC()}
		got, err := ParseTold(Marshal(told))
		same("told", got, told, err)
	}

	refused := func(what string, err error) {
		t.Helper()
		if err == nil {
			t.Errorf("%s is taken", what)
		}
	}
	for what, spoil := range map[string]func(h *Hello){
		"no box":              func(h *Hello) { h.Box = box.Addr{} },
		"no version":          func(h *Hello) { h.Protocol = 0 },
		"no arming":           func(h *Hello) { h.Arming = "" },
		"an arming with dots": func(h *Hello) { h.Arming = "../../etc/passwd" },
		"no token":            func(h *Hello) { h.Token = "" },
		"a short token":       func(h *Hello) { h.Token = h.Token[1:] },
		"a token with a dot":  func(h *Hello) { h.Token += "." },
		"a long token":        func(h *Hello) { h.Token = strings.Repeat("a", MaxToken+1) },
		"a line end":          func(h *Hello) { h.UUID = "a\nb" },
		"an escape":           func(h *Hello) { h.Agent = "\x1b[2J" },
		"a long secret":       func(h *Hello) { h.Secret = strings.Repeat("a", MaxToken+1) },
		"many cards":          func(h *Hello) { h.MACs = slices.Repeat(h.MACs, MaxMACs+1) },
		"a card with a NUL":   func(h *Hello) { h.MACs = []string{"\x00"} },
	} {
		h := hello(t)
		spoil(h)
		_, err := ParseHello(Marshal(h))
		refused(what, err)
	}
	for what, text := range map[string]string{
		"a field of another version": strings.Replace(string(Marshal(hello(t))), "{", `{"new":1,`, 1),
		"something behind it":        string(Marshal(hello(t))) + "{}",
		"a long one":                 string(Marshal(hello(t))) + strings.Repeat(" ", MaxHello),
	} {
		_, err := ParseHello([]byte(text))
		refused(what, err)
	}
	for what, spoil := range map[string]func(w *Welcome){
		"work without a job": func(w *Welcome) { w.Job = nil },
		"a job without work": func(w *Welcome) { w.Word = job.Hold },
		"a word of another":  func(w *Welcome) { w.Word = job.GoOn },
		"no time":            func(w *Welcome) { w.Time = time.Time{} },
		"no attempt":         func(w *Welcome) { w.Job.Attempt = 0 },
		"no id":              func(w *Welcome) { w.Job.ID = "" },
		"an unknown action":  func(w *Welcome) { w.Job.Action = "format" },
		"a host with a dash": func(w *Welcome) { w.Job.Host = "-rf" },
		"a bad record":       func(w *Welcome) { w.Job.Record = &image.Record{} },
		"a bad known record": func(w *Welcome) { w.Job.Known = []*image.Record{{}} },
		"too many records":   func(w *Welcome) { w.Job.Known = slices.Repeat(w.Job.Known, MaxRecords+1) },
	} {
		w := welcome(1)
		spoil(w)
		_, err := ParseWelcome(Marshal(w))
		refused(what, err)
	}
	for what, spoil := range map[string]func(r *Report){
		"number 0":             func(r *Report) { r.Number = 0 },
		"a large number":       func(r *Report) { r.Number = MaxNumber + 1 },
		"an unknown step":      func(r *Report) { r.Step = "x" },
		"less than nothing":    func(r *Report) { r.Done = -1 },
		"of less than nothing": func(r *Report) { r.Total = -1 },
		"an unknown kind":      func(r *Report) { r.Lines[0].Kind = "x" },
		"too many lines":       func(r *Report) { r.Lines = make([]Line, MaxLines+1) },
		"less than no boxes":   func(r *Report) { r.Room.Boxes = -1 },
		"all boxes there are":  func(r *Report) { r.Room.Boxes = maxRoomBoxes + 1 },
		"less from the server": func(r *Report) { r.Room.FromServer = -1 },
		"much from the server": func(r *Report) { r.Room.FromServer = maxRoomBytes + 1 },
		"less from boxes":      func(r *Report) { r.Room.FromPeers = -1 },
		"much from boxes":      func(r *Report) { r.Room.FromPeers = maxRoomBytes + 1 },
		"done in the past":     func(r *Report) { r.Room.Left = -1 },
		"never done":           func(r *Report) { r.Room.Left = maxRoomLeft + 1 },
		"less to boxes":        func(r *Report) { r.Room.ToPeers = -1 },
		"much to boxes":        func(r *Report) { r.Room.ToPeers = maxRoomBytes + 1 },
	} {
		r := report()
		spoil(r)
		_, err := ParseReport(Marshal(r))
		refused(what, err)
	}
	for what, spoil := range map[string]func(r *Result){
		"an unknown outcome": func(r *Result) { r.Outcome = "fine" },
		"no outcome":         func(r *Result) { r.Outcome = "" },
		"an unknown class":   func(r *Result) { r.Class = "x" },
		"many warnings":      func(r *Result) { r.Warnings = make([]string, MaxWarnings+1) },
		"many receipts":      func(r *Result) { r.Receipts = make([]image.Receipt, MaxReceipts+1) },
		"less than nothing":  func(r *Result) { r.Receipts[0].Written = -1 },
		"less from a server": func(r *Result) { r.Receipts[0].FromServer = -1 },
		"less from boxes":    func(r *Result) { r.Receipts[0].FromPeers = -1 },
		"much from a server": func(r *Result) { r.Receipts[0].FromServer = maxRoomBytes + 1 },
		"much from boxes":    func(r *Result) { r.Receipts[0].FromPeers = maxRoomBytes + 1 },
		"a range below 0":    func(r *Result) { r.Receipts[0].Bad = []image.Range{{Off: -1, Len: 1}} },
		"a range too far":    func(r *Result) { r.Receipts[0].Bad = []image.Range{{Off: 2, Len: 1<<63 - 1}} },
		"too busy":           func(r *Result) { r.Receipts[0].Stages[0].Busy = 2 },
		"less than no time":  func(r *Result) { r.Receipts[0].Stages[0].Active = -1 },
		"a key of no rescue": func(r *Result) { r.HostKeys = []string{someHostKey} },
		"no host key":        func(r *Result) { r.Outcome, r.HostKeys = box.Rescuing, []string{"x"} },
		"a second line":      func(r *Result) { r.Outcome, r.HostKeys = box.Rescuing, []string{someHostKey + "\n* " + someHostKey} },
		"many host keys": func(r *Result) {
			r.Outcome, r.HostKeys = box.Rescuing, slices.Repeat([]string{someHostKey}, box.MaxHostKeys+1)
		},
	} {
		r := result()
		spoil(r)
		_, err := ParseResult(Marshal(r))
		refused(what, err)
	}
	for _, name := range []string{"", ".", "..", "../" + box.InfoText, box.InfoText + "/", "x" + box.InfoText, box.LogFile, box.DisksFile} {
		if ValidInventory(name) {
			t.Errorf("%q is a file of the inventory", name)
		}
	}
}

// TestOtherVersion: the hello of an agent of another version is understood, as far as it
// is needed to answer it.
func TestOtherVersion(t *testing.T) {
	h := hello(t)
	h.Protocol = 2
	got, err := ParseHello([]byte(strings.Replace(string(Marshal(h)), "{", `{"new":{"x":[1]},`, 1)))
	if err != nil || !reflect.DeepEqual(got, h) {
		t.Errorf("it became %+v, %v", got, err)
	}
}

// TestFits: what is too long to be sent is made shorter, and no line is lost.
func TestFits(t *testing.T) {
	r := &Report{Number: 1, Text: strings.Repeat("t", 2*MaxText)}
	var all []string
	for n := range 3 * MaxLines {
		text := fmt.Sprint(n, "\t", strings.Repeat("<", n*7%1500))
		r.Lines = append(r.Lines, Line{Text: text})
		all = append(all, Clean(text))
	}
	before := slices.Clone(r.Lines)
	original := r.Lines
	for rounds := 0; ; rounds++ {
		rest := r.Split()
		b := Marshal(r)
		got, err := ParseReport(b)
		if err != nil || len(b) > MaxReport || rounds > 100 {
			t.Fatalf("round %d has %d bytes: %v", rounds, len(b), err)
		}
		for _, l := range got.Lines {
			if l.Text != all[0] {
				t.Fatalf("%.20q comes in place of %.20q", l.Text, all[0])
			}
			all = all[1:]
		}
		if len(rest) == 0 {
			break
		}
		r.Lines = rest
	}
	if len(all) > 0 || !slices.Equal(original, before) {
		t.Errorf("%d lines are lost, or the caller's were changed", len(all))
	}

	long := result()
	for n := range 2 * MaxWarnings {
		long.Warnings = append(long.Warnings, fmt.Sprint(n, strings.Repeat("<", 2*MaxText)))
	}
	long.Receipts = slices.Repeat(long.Receipts, MaxReceipts+5)
	for i := range long.Receipts {
		long.Receipts[i].Bad = make([]image.Range, 2*MaxRanges)
	}
	b := MarshalResult(long)
	got, err := ParseResult(b)
	if err != nil || len(b) > MaxResult || len(got.Receipts) != MaxReceipts || len(got.Warnings) != MaxWarnings {
		t.Errorf("a long result has %d bytes: %v", len(b), err)
	}
	if last := got.Warnings[MaxWarnings-1]; !strings.Contains(last, "258 further") {
		t.Errorf("the last warning is %.80q", last)
	}

	w := welcome(2 * MaxRecords)
	for i := range w.Job.Known {
		r := *w.Job.Known[i]
		r.Disks = slices.Clone(r.Disks)
		r.Disks[0].Kernel = strings.Repeat("x", 1<<20)
		w.Job.Known[i] = &r
	}
	b, err = MarshalWelcome(w)
	must(t, err)
	back, err := ParseWelcome(b)
	if err != nil || len(back.Job.Known) < MaxRecords/4 || len(w.Job.Known) != 2*MaxRecords {
		t.Errorf("a long welcome has %d bytes, %v", len(b), err)
	}
	w.Job.Record = w.Job.Known[0]
	w.Job.Record.Disks[0].Kernel = strings.Repeat("x", MaxWelcome)
	if _, err := MarshalWelcome(w); err == nil {
		t.Error("a record that is too long was sent")
	}
}

// TestElements: no text takes much more memory than it has bytes.
func TestElements(t *testing.T) {
	fill := func(head, element, tail string, n int) []byte {
		return []byte(head + element + strings.Repeat(","+element, (n-len(head)-len(tail))/(len(element)+1)-1) + tail)
	}
	wide := `{"off":1,"len":1}`
	result, report, record, hello := parser(ParseResult), parser(ParseReport), parser(ParseRecord), parser(ParseHello)
	for _, c := range []struct {
		parse      func(b []byte) error
		most       int
		head, tail string
		elements   []string
	}{
		{result, MaxResult, `{"outcome":"done","receipts":[`, `]}`, []string{`{}`, `{"read":1}`}},
		{result, MaxResult, `{"outcome":"done","warnings":[`, `]}`, []string{`""`, `null`}},
		{result, MaxResult, `{"outcome":"done","receipts":[{"stages":[`, `]}]}`, []string{`{}`, `{"ns":1}`}},
		{result, MaxResult, `{"outcome":"done","receipts":[{"bad":[`, `]}]}`, []string{`{}`, wide}},
		{report, MaxReport, `{"number":1,"lines":[`, `]}`, []string{`{}`, `{"text":""}`}},
		{record, MaxRecord, `{"format":1,"box":"10.0.0.7","disks":[`, `]}`, []string{`{}`, `{"bad":[]}`, `[]`}},
		{record, MaxRecord, `{"format":1,"box":"10.0.0.7","disks":[{"bad":[`, `]}]}`, []string{`{}`, `[]`, `1`}},
		{hello, MaxHello, `{"protocol":1,"macs":[`, `]}`, []string{`""`}},
		{record, MaxRecord, `{"disks":`, `}`, []string{`[[[[[[[[[[[[[[[[[[`}},
	} {
		for _, e := range c.elements {
			b := fill(c.head, e, c.tail, c.most)
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			err := c.parse(b)
			runtime.ReadMemStats(&after)
			took := after.TotalAlloc - before.TotalAlloc // with what was garbage meanwhile
			if took > uint64(10*len(b)+1<<20) {
				t.Errorf("%d bytes with %s%s took %d bytes: %v", len(b), c.head, e, took, err)
			}
			if (err == nil) != (e == wide) {
				t.Errorf("%s%s: %v", c.head, e, err)
			}
		}
	}
}

func parser[M any](parse func(b []byte) (M, error)) func(b []byte) error {
	return func(b []byte) error { _, err := parse(b); return err }
}

// FuzzElements compares the count with that of a real parser.
func FuzzElements(f *testing.F) {
	for _, s := range []string{`{"a":[1,"[,\\",{"b":[[],[1]]}],"c":[ ]}`, `[1,2]`, `{"a":[`, `[[[[]]]]`, `{"a,":{"b":[1,2]}}`, `{"a":["\\\"",2]}`, `[1e999]`} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		outer, inner, err := countElements([]byte(s))
		if err != nil || !json.Valid([]byte(s)) {
			return
		}
		wantOuter, wantInner, depth := 0, 0, 0
		var lists []bool
		d := json.NewDecoder(strings.NewReader(s))
		d.UseNumber() // one that is too large for a float is valid JSON too
		for {
			tok, err := d.Token()
			if err == io.EOF {
				break
			}
			must(t, err)
			delim, isDelim := tok.(json.Delim)
			if ends := isDelim && (delim == ']' || delim == '}'); ends {
				depth--
				lists = lists[:depth]
				continue
			}
			if depth > 0 && lists[depth-1] {
				if depth <= 2 {
					wantOuter++
				} else {
					wantInner++
				}
			}
			if isDelim {
				depth++
				lists = append(lists, delim == '[')
			}
		}
		if outer != wantOuter || inner != wantInner {
			t.Errorf("%q has %d and %d elements, not %d and %d", s, wantOuter, wantInner, outer, inner)
		}
	})
}

func FuzzHello(f *testing.F) {
	f.Add(Marshal(hello(f)))
	f.Fuzz(func(t *testing.T, b []byte) {
		h, err := ParseHello(b)
		if err != nil {
			return
		}
		again, err := ParseHello(Marshal(h))
		if err != nil || !reflect.DeepEqual(again, h) && len(h.MACs) > 0 {
			t.Errorf("%+v became %+v, %v", h, again, err)
		}
		for _, s := range append(slices.Clone(h.MACs), h.UUID, h.Agent, h.Secret, h.Token, string(h.Arming)) {
			if len(s) > MaxToken || Clean(s) != s {
				t.Errorf("%q is taken", s)
			}
		}
	})
}

func FuzzWelcome(f *testing.F) {
	// FuzzRecord tries records. A long seed would be made shorter for most of the time.
	f.Add(Marshal(&Welcome{Word: job.Work, Time: time.Unix(1, 0), Job: &Job{ID: "j", Action: box.Backup, Attempt: 1, Host: "h"}}))
	f.Add(Marshal(&Welcome{Word: job.Hold, Time: time.Unix(1, 0), Text: "x"}))
	f.Fuzz(func(t *testing.T, b []byte) {
		w, err := ParseWelcome(b)
		if err != nil {
			return
		}
		text, err := MarshalWelcome(w)
		must(t, err)
		if _, err := ParseWelcome(text); err != nil {
			t.Errorf("%+v: %v", w, err)
		}
		if (w.Word == job.Work) != (w.Job != nil) || w.Text != Clean(w.Text) {
			t.Errorf("%+v", w)
		}
	})
}

func FuzzReport(f *testing.F) {
	f.Add(Marshal(report()))
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := ParseReport(b)
		if err != nil {
			return
		}
		if len(r.Lines) > MaxLines || r.Number < 1 || r.Text != Clean(r.Text) {
			t.Errorf("%+v", r)
		}
		for _, l := range r.Lines {
			if l.Text != Clean(l.Text) {
				t.Errorf("%+v", l)
			}
		}
		if rest := r.Split(); len(rest) > 0 && len(b) < 10_000 {
			t.Errorf("of %d bytes, %d lines do not fit", len(b), len(rest))
		}
		if again, err := ParseReport(Marshal(r)); err != nil || len(again.Lines) != len(r.Lines) || !reflect.DeepEqual(again.Room, r.Room) {
			t.Errorf("%+v became %+v, %v", r, again, err)
		}
	})
}

func FuzzResult(f *testing.F) {
	f.Add(Marshal(result()))
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := ParseResult(b)
		if err != nil {
			return
		}
		again, err := ParseResult(MarshalResult(r))
		if err != nil || len(again.Receipts) != len(r.Receipts) || again.Outcome != r.Outcome || again.Text != r.Text {
			t.Errorf("%+v became %+v, %v", r, again, err)
		}
	})
}

func FuzzTold(f *testing.F) {
	f.Add(Marshal(Told{job.GoOn, time.Unix(1, 0)}))
	f.Fuzz(func(t *testing.T, b []byte) {
		w, err := ParseTold(b)
		if err != nil {
			return
		}
		if again, err := ParseTold(Marshal(w)); err != nil || again.Word != w.Word {
			t.Errorf("%+v became %+v, %v", w, again, err)
		}
	})
}

// TestWelcomeWithoutFirmware: an agent that does not know the field never gets it.
func TestWelcomeWithoutFirmware(t *testing.T) {
	w := welcome(2)
	state := &efi.State{Kind: efi.UEFI}
	for _, r := range append([]*image.Record{w.Job.Record, w.Job.Committed}, w.Job.Known...) {
		if r != nil {
			r.Firmware = state
		}
	}
	b, err := MarshalWelcome(w)
	must(t, err)
	if bytes.Contains(b, []byte("firmware")) || w.Job.Known[0].Firmware != state {
		t.Errorf("the welcome is %s", b)
	}
}

// TestFirmware: what a server knows of the firmware is checked by the agent.
func TestFirmware(t *testing.T) {
	for text, ok := range map[string]bool{
		`{}`: true, `{"later":1,"image":{"kind":"UEFI","later":2}}`: true, `{"before":{"format":1,"state":{"kind":"BIOS"}}}`: true,
		`{"image":{"kind":"x"}}`: false, `{"before":{"format":2,"state":{"kind":"BIOS"}}}`: false, `[]`: false,
		strings.Repeat(" ", MaxFirmware) + `{}`: false,
	} {
		if _, err := ParseFirmware([]byte(text)); (err == nil) != ok {
			t.Errorf("%.60s: %v", text, err)
		}
	}
}
