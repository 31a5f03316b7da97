package proc

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/tls"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"testbox-imaging/internal/bootcfg"
	"testbox-imaging/internal/box"
	"testbox-imaging/internal/chunk"
	"testbox-imaging/internal/image"
	"testbox-imaging/internal/job"
	"testbox-imaging/internal/object"
	"testbox-imaging/internal/remote"
	"testbox-imaging/internal/wire"
)

// intruder sends whatever it wants from the host of a box.
type intruder struct {
	t     testing.TB
	http  *http.Client
	base  string
	cmd   *bootcfg.Cmdline // of the boot file
	token string
}

// intruder is somebody on the box who has read its boot file.
func (b *servedBox) intruder() *intruder {
	b.t.Helper()
	b.boot()
	text, err := os.ReadFile(b.path("cmdline"))
	must(b.t, err)
	cmd, err := bootcfg.ParseCmdline(string(text))
	must(b.t, err)
	key, err := wire.ParseFingerprint(cmd.Key)
	must(b.t, err)
	i := &intruder{t: b.t, http: remote.NewHTTP(key), base: "https://" + cmd.Server.String(), cmd: cmd, token: rand.Text()}
	i.http.Transport.(*http.Transport).DialContext = b.host.dial
	return i
}

// dial connects from the host.
func (h host) dial(ctx context.Context, network, addr string) (conn net.Conn, err error) {
	err = h.inside(func() (err error) {
		conn, err = (&net.Dialer{Timeout: 10 * time.Second}).DialContext(ctx, network, addr)
		return err
	})
	return conn, err
}

// send sends a request, and returns the status and the body of the answer.
func (i *intruder) send(method, path string, body io.Reader) (int, string) {
	i.t.Helper()
	status, text, err := i.try(method, path, body)
	must(i.t, err)
	return status, text
}

func (i *intruder) try(method, path string, body io.Reader) (int, string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	q, err := http.NewRequestWithContext(ctx, method, i.base+path, body)
	if err != nil {
		return 0, "", err
	}
	q.Header.Set("Authorization", "Bearer "+i.token)
	a, err := i.http.Do(q)
	if err != nil {
		return 0, "", err
	}
	defer a.Body.Close()
	text, err := io.ReadAll(io.LimitReader(a.Body, 1<<20))
	return a.StatusCode, string(text), err
}

// gets sends a request that must get an answer with this status.
func (i *intruder) gets(status int, what, method, path string, body []byte) string {
	i.t.Helper()
	is, text := i.send(method, path, bytes.NewReader(body))
	if is != status {
		i.t.Errorf("%s: status %d instead of %d: %s", what, is, status, text)
	}
	return text
}

// hello says hello, and returns the server's word.
func (i *intruder) hello() job.Word {
	i.t.Helper()
	h := wire.Hello{Protocol: wire.Version, Agent: "intruder", Box: i.cmd.Address, Arming: i.cmd.Arming, Secret: i.cmd.Secret, Token: i.token}
	var w wire.Welcome
	must(i.t, json.Unmarshal([]byte(i.gets(200, "a hello", "POST", wire.HelloPath, wire.Marshal(&h))), &w))
	return w.Word
}

// files are all files below a folder, with their content.
func files(t testing.TB, dir string) map[string]string {
	t.Helper()
	all := map[string]string{}
	must(t, filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := os.ReadFile(path)
		all[path] = string(b)
		return err
	}))
	return all
}

func frame(o object.Object) []byte { return append(wire.AppendHeader(nil, o), o.Data...) }

func objectOf(kind object.Kind, raw []byte) object.Object {
	return object.Encode(object.Key{Kind: kind, Name: object.NameOf(raw)}, raw, nil)
}

// TestServedIntruder has a box that does all it can with the session of a backup.
// Nothing of another box may change or be read, and another box goes on meanwhile.
func TestServedIntruder(t *testing.T) {
	t.Parallel()
	sda := disk("sda", scattered(1))
	s := newServerSite(t, "")
	victim, evil := s.box(11, sda), s.box(12)
	want := sda.hash(t)
	backup, _ := victim.act(done, "backup")
	records := files(t, filepath.Join(s.state, "store", "records"))
	if len(records) != 1 {
		t.Fatalf("the store has the records %v", records)
	}
	var record *image.Record
	for _, text := range records {
		_, text, _ = strings.Cut(text, "\n") // the first line is the form's
		r, err := image.ParseRecord([]byte(text))
		must(t, err)
		record = r
	}
	mine := files(t, filepath.Dir(victim.folder("x")))

	id := evil.ask("backup")
	i := evil.intruder()
	stolen := *i
	if w := i.hello(); w != job.Work {
		t.Fatalf("the hello of a genuine box: %q", w)
	}

	// The images of others.
	open := wire.OpenOf(record, &record.Disks[0])
	i.gets(404, "another box's image", "PUT", wire.ImagePath(1), wire.Marshal(&open))
	i.gets(412, "an image that is not open", "POST", wire.ReadPath(1), wire.AppendPlaces(nil, make([]wire.Place, 1)))
	open.Box = "../" + open.Box
	i.gets(400, "an image of no box", "PUT", wire.ImagePath(1), wire.Marshal(&open))

	// Files that are none of an inventory.
	for _, name := range []string{
		"..%2f10.88.0.11%2ftestbox-info.txt", "%2e%2e", "disk-devices.lst", "last-action.json", "testbox-info.txt%00",
		"testbox-info.txt%2f", "maintenance.log", "testbox-info.txt.", "TESTBOX-INFO.TXT",
	} {
		if status, text := i.send("PUT", wire.InventoryPath+name, strings.NewReader("x")); status < 300 || status >= 500 {
			t.Errorf("a file %s of the inventory: status %d: %s", name, status, text)
		}
	}

	// Objects that are not what they are named, pages and roots that lie.
	chunkObject := objectOf(object.Chunk, noise(5, 5000))
	lie := chunkObject
	lie.Name[0] ^= 1
	i.gets(422, "a chunk with another name", "POST", wire.ObjectsPath(1), frame(lie))
	bomb := objectOf(object.Chunk, make([]byte, 1<<20))
	bomb.RawLen--
	i.gets(422, "a chunk of another length", "POST", wire.ObjectsPath(1), frame(bomb))
	pageObject := func(c ...chunk.Ref) object.Object {
		p := chunk.Page{Chunks: c}
		for _, ref := range c {
			p.Append(image.Data, int64(ref.Len))
		}
		return objectOf(object.Page, p.Marshal())
	}
	// What a page says is looked at when a backup needs it.
	lying := pageObject(chunk.Ref{Name: lie.Name, Len: 5000})
	noPage := objectOf(object.Page, []byte("TBXPAGE1\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff"))
	longer := pageObject(chunk.Ref{Name: chunkObject.Name, Len: 8192})
	rootOf := func(size int64, pages ...object.Object) object.Object {
		r := chunk.Root{Size: size, SectorSize: 512}
		for _, p := range pages {
			r.Pages = append(r.Pages, p.Name)
		}
		return objectOf(object.Root, r.Marshal())
	}
	roots := map[string]object.Object{
		"a page that names a chunk that is not there": rootOf(5000&^511, lying), "a page that is none": rootOf(4096, noPage),
		"a page that is not there":               rootOf(4096, lie),
		"a page that is shorter than its region": rootOf(1<<20, longer),
	}
	i.gets(200, "objects", "POST", wire.ObjectsPath(1), slices.Concat(frame(chunkObject), frame(lying), frame(noPage), frame(longer)))

	// Backups of others.
	changes := map[string]func(*image.Record){
		"another box":                func(r *image.Record) { r.Box = victim.addr },
		"another arming":             func(r *image.Record) { r.Arming = box.NewArming() },
		"an image that is not there": func(r *image.Record) { r.Disks[0].Root = lie.Name },
		"no disk":                    func(r *image.Record) { r.Disks = nil },
	}
	for what, root := range roots {
		i.gets(200, "the root of "+what, "POST", wire.ObjectsPath(1), frame(root))
		changes[what] = func(r *image.Record) {
			parsed, err := root.Decode(nil)
			must(t, err)
			size := int64(binary.LittleEndian.Uint64(parsed[8:]))
			d := &r.Disks[0]
			d.Root, d.Disk.Size, d.Data, d.Zero, d.Unused = root.Name, size, size, 0, 0
		}
	}
	commits := uint64(0)
	for what, change := range changes {
		commits++
		r := *record
		r.ID, r.Time, r.Arming, r.Box = "", time.Time{}, i.cmd.Arming, evil.addr
		r.Disks = append([]image.RecordedDisk(nil), record.Disks...)
		change(&r)
		body, err := json.Marshal(&r)
		must(t, err)
		if status, text := i.send("POST", wire.CommitPath(1, commits), bytes.NewReader(body)); status < 400 {
			t.Errorf("a commit with %s: status %d: %s", what, status, text)
		}
	}

	// Reports.
	many := `{"number":1,"lines":[` + strings.Repeat(`{"text":""},`, 1000) + `{"text":""}]}`
	i.gets(400, "many lines", "POST", wire.ReportPath, []byte(many))
	long := strings.NewReader(`{"number":1,"lines":[` + strings.Repeat(`{"text":""},`, 1e6) + `{"text":""}]}`)
	if status, _, err := i.try("POST", wire.ReportPath, long); err == nil && status/100 != 4 { // or the connection is cut
		t.Errorf("a million lines: status %d", status)
	}
	nasty := "\x1b]0;owned\x07\x1b[2J<script>alert(1)</script>\r\n2026-01-01 00:00:00 10.88.0.11 forged\u202e\u0085"
	i.gets(200, "a report with control characters", "POST", wire.ReportPath,
		wire.Marshal(&wire.Report{Number: 1, Text: nasty, Lines: []wire.Line{{Kind: wire.LineError, Text: nasty}}}))
	i.gets(400, "a number that is too high", "POST", wire.ReportPath, []byte(`{"number":18446744073709551615,"text":"x"}`))
	logged, err := os.ReadFile(evil.folder("maintenance.log"))
	must(t, err)
	for _, out := range []string{string(logged), s.said(), s.command("jobs").out, s.command("log", evil.addr).out} {
		if strings.ContainsAny(out, "\x1b\x07\u202e\u0085") || strings.Contains(out, "\n2026-01-01 00:00:00") {
			t.Errorf("control characters or a forged line:\n%q", out)
		}
	}

	// The token is worth nothing at another address.
	theirs := *i
	theirs.http = victim.intruderHTTP(i)
	theirs.gets(401, "the token from another address", "POST", wire.ReportPath, wire.Marshal(&wire.Report{Number: 2}))
	if w := theirs.hello(); w != job.Refuse {
		t.Errorf("the hello from another address: %q", w)
	}

	// Success without a backup is none.
	text := i.gets(200, "a lie about the outcome", "POST", wire.ResultPath, wire.Marshal(&wire.Result{Outcome: box.Done}))
	if !strings.Contains(text, string(job.Retry)) {
		t.Errorf("a success without a backup: %s", text)
	}
	if j := evil.job(id); j.State != "armed" || j.Attempt != 2 || j.Outcome != "" {
		t.Errorf("after a success without a backup: %+v", j)
	}

	// A used secret ends the job, with an alarm.
	stolen.token = rand.Text()
	if w := stolen.hello(); w != job.Restart {
		t.Errorf("the used secret once more: %q", w)
	}
	if j := evil.job(id); j.State != "ended" || j.Outcome != "failed" || evil.armed() {
		t.Errorf("after the used secret: %+v, armed: %v", j, evil.armed())
	}
	out := s.does(done, []string{"audit"})
	for _, want := range []string{"alarm", "was used twice from " + evil.addr, "tried to read an image that is not of this job",
		"tried to add a backup that is not of this job"} {
		if !strings.Contains(out, want) {
			t.Errorf("the audit log does not have %q:\n%s", want, out)
		}
	}
	text = i.gets(200, "a result after the end", "POST", wire.ResultPath, wire.Marshal(&wire.Result{Outcome: box.Done}))
	if !strings.Contains(text, string(job.Restart)) || evil.job(id).Outcome != "failed" {
		t.Errorf("a result after the end: %s, %+v", text, evil.job(id))
	}

	// The other box has all that it had, and can use it.
	if now := files(t, filepath.Join(s.state, "store", "records")); len(now) != 1 {
		t.Errorf("the store has the records %v", now)
	}
	now := files(t, filepath.Dir(victim.folder("x")))
	for name, text := range mine {
		if now[name] != text {
			t.Errorf("%s has changed", name)
		}
	}
	sda.wreck(t)
	if j, _ := victim.act(done, "restore"); j.Backup != backup.Backup || sda.hash(t) != want {
		t.Errorf("the restore of the other box: %+v", j)
	}
	s.end()
	s.does(done, []string{"store", "scrub"})
	s.does(done, []string{"image", "verify", victim.addr})
}

// intruderHTTP is a client like that of an intruder, from this box's host.
func (b *servedBox) intruderHTTP(i *intruder) *http.Client {
	key, err := wire.ParseFingerprint(i.cmd.Key)
	must(b.t, err)
	c := remote.NewHTTP(key)
	c.Transport.(*http.Transport).DialContext = b.host.dial
	return c
}

// TestServedFlood has a box that opens as many connections as it can, and lets bodies
// of requests hang. Another box does its job meanwhile.
func TestServedFlood(t *testing.T) {
	t.Parallel()
	sda := disk("sda", scattered(1))
	s := newServerSite(t, "")
	victim, evil := s.box(11, sda), s.box(12)
	evil.ask("backup")
	i := evil.intruder()
	if w := i.hello(); w != job.Work {
		t.Fatalf("the hello of a genuine box: %q", w)
	}
	addr := strings.TrimPrefix(i.base, "https://")
	config := i.http.Transport.(*http.Transport).TLSClientConfig
	open, refused := 0, 0
	for n := range 300 {
		conn, err := evil.host.dial(context.Background(), "tcp", addr)
		must(t, err)
		defer conn.Close()
		if n%3 == 0 {
			open++
			continue // it never says anything
		}
		conn.SetDeadline(time.Now().Add(10 * time.Second))
		c := tls.Client(conn, config)
		if c.Handshake() != nil {
			refused++
			continue
		}
		path := []string{wire.ReportPath, wire.HelloPath, wire.ObjectsPath(1), wire.ResultPath, wire.InventoryPath + "testbox-info.zip"}[n%5]
		method := map[bool]string{true: "PUT", false: "POST"}[strings.HasPrefix(path, wire.InventoryPath)]
		fmt.Fprintf(c, "%s %s HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\nContent-Length: 10000\r\n\r\n{", method, path, i.token)
		open++
	}
	if refused == 0 || open > 200 {
		t.Errorf("of 300 connections of one box %d were refused", refused)
	}
	if j, _ := victim.act(done, "backup"); j.Attempt != 1 {
		t.Errorf("the backup of another box: %+v", j)
	}
	want := sda.hash(t)
	sda.wreck(t)
	if victim.act(done, "restore"); sda.hash(t) != want {
		t.Error("the disk of another box is not restored")
	}
}
