package boxapi_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"math"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/zeebo/xxh3"

	"testbox-imaging/internal/backup"
	"testbox-imaging/internal/blob"
	"testbox-imaging/internal/boxapi"
	"testbox-imaging/internal/chunk"
	"testbox-imaging/internal/conform"
	"testbox-imaging/internal/image"
	"testbox-imaging/internal/object"
	"testbox-imaging/internal/remote"
	"testbox-imaging/internal/testenv"
	"testbox-imaging/internal/wire"
)

// attack is a server with backups of two boxes, and a token of a job that may restore
// disk sda of one of them and make a backup of it.
type attack struct {
	*rig
	http         *http.Client
	mine, others *image.Record
	token        string
}

func newAttack(t *testing.T, tune func(*boxapi.Config)) *attack {
	a := &attack{rig: newRig(t, nil, tune)}
	a.http = remote.NewHTTP(a.key)
	t.Cleanup(a.http.CloseIdleConnections)
	a.mine, a.others = a.backup(t, "10.0.0.7", "mixed"), a.backup(t, "10.0.0.8", "noise")
	a.token = a.let(boxapi.Grant{Box: "10.0.0.7", Backup: true, Arming: "0123456789abcdef", Most: 8 * mib,
		MayRead: func(box, id, disk string) bool { return box == a.mine.Box && id == a.mine.ID && disk == "sda" }})
	return a
}

func (r *rig) backup(t *testing.T, of, kind string) *image.Record {
	s, rec := r.store.Begin(), newRecord()
	rec.Box = of
	disks := []backup.Disk{diskOf("sda", conform.Disks(2 * mib)[kind]), diskOf("sdb", conform.Disks(mib)["text"])}
	_, err := backup.Make(t.Context(), s, rec, disks, backup.Options{})
	must(t, errors.Join(err, s.Close()))
	return rec
}

// contents returns everything that the store has.
func (r *rig) contents(t *testing.T) map[string]string {
	t.Helper()
	all := map[string]string{}
	list, err := r.blobs.List(t.Context(), "")
	must(t, err)
	for _, b := range list {
		data, err := blob.ReadAll(t.Context(), r.blobs, b.Name, 1<<30)
		must(t, err)
		all[b.Name] = string(data)
	}
	return all
}

// send sends a request, and returns the status, the code of the problem, and the
// answer.
func (a *attack) send(t *testing.T, token, method, path string, body []byte) (int, wire.Code, []byte) {
	t.Helper()
	status, code, answer, err := a.sendContext(t.Context(), token, method, path, body)
	if err != nil {
		t.Fatalf("%s %s: %v", method, path, err)
	}
	return status, code, answer
}

func (a *attack) sendContext(ctx context.Context, token, method, path string, body []byte) (int, wire.Code, []byte, error) {
	req, err := http.NewRequestWithContext(ctx, method, "https://"+a.addr+"/", bytes.NewReader(body))
	if err != nil {
		return 0, "", nil, err
	}
	req.URL.Opaque = "//" + a.addr + path // as it is, with dots and all
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	resp, err := a.http.Do(req)
	if err != nil {
		return 0, "", nil, err
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	var p wire.Problem
	json.Unmarshal(answer, &p)
	return resp.StatusCode, p.Code, answer, err
}

// frame is an object as it is sent, with a header that was spoilt and got a new sum.
func frame(o object.Object, spoil func(head []byte)) []byte {
	head := wire.AppendHeader(nil, o)
	if spoil != nil {
		spoil(head)
		binary.LittleEndian.PutUint64(head[56:], xxh3.Hash(head[:56]))
	}
	return append(head, o.Data...)
}

func places(p ...wire.Place) []byte { return wire.AppendPlaces(nil, p) }

func recordText(t *testing.T, r *image.Record, spoil func(r *image.Record)) []byte {
	t.Helper()
	c := *r
	c.Disks = slices.Clone(r.Disks)
	c.ID, c.Time = "", time.Time{}
	spoil(&c)
	b, err := json.Marshal(&c)
	must(t, err)
	return b
}

func openText(r *image.Record, disk string, spoil func(o *wire.Open)) []byte {
	o := wire.OpenOf(r, r.Disk(disk))
	spoil(&o)
	return wire.Marshal(o)
}

// TestHostileClient sends what a box should never send. Everything is refused. Nothing
// that the store had has changed, and nothing that was refused is in it.
func TestHostileClient(t *testing.T) {
	var mu sync.Mutex
	overstepped := map[string]int{}
	a := newAttack(t, func(c *boxapi.Config) {
		c.Overstep = func(token, what string) {
			mu.Lock()
			defer mu.Unlock()
			overstepped[what]++
		}
	})
	reader := a.let(boxapi.Grant{Box: "10.0.0.7", MayRead: anything})
	before := a.contents(t)
	good := object1(1)
	one := frame(good, nil)
	other := object1(2)
	renamed := good
	renamed.Name = other.Name
	flipped := good
	flipped.Data = bytes.Clone(good.Data)
	flipped.Data[len(flipped.Data)/2] ^= 1
	keep := func(*image.Record) {}
	same := func(*wire.Open) {}
	const s, i = "/agent/v1/sessions/5", "/agent/v1/images/1"
	for _, c := range []struct {
		what, token, method, path string
		body                      []byte
		want                      wire.Code
	}{
		{"no token", "", "POST", s + "/missing", one[:33], wire.CodeToken},
		{"another token", strings.Repeat("a", 26), "POST", s + "/missing", one[:33], wire.CodeToken},
		{"a token with a dot", "a.b", "POST", s + "/missing", one[:33], wire.CodeToken},
		{"a long token", strings.Repeat("a", 4000), "POST", s + "/missing", one[:33], wire.CodeToken},
		{"session 0", a.token, "POST", "/agent/v1/sessions/0/missing", one[:33], wire.CodeRefused},
		{"session 01", a.token, "POST", "/agent/v1/sessions/01/missing", one[:33], wire.CodeRefused},
		{"session -1", a.token, "POST", "/agent/v1/sessions/-1/missing", one[:33], wire.CodeRefused},
		{"a session of many digits", a.token, "POST", "/agent/v1/sessions/99999999999999999999/missing", one[:33], wire.CodeRefused},
		{"a session with dots", a.token, "POST", "/agent/v1/sessions/%2e%2e%2f/missing", one[:33], wire.CodeRefused},
		{"a path with dots", a.token, "POST", "/agent/v1/sessions/../../api/missing", one[:33], ""},
		{"another version", a.token, "POST", "/agent/v2/sessions/5/missing", one[:33], ""},
		{"an unknown request", a.token, "POST", s + "/delete", nil, wire.CodeNoRequest},
		{"another method", a.token, "PUT", s + "/missing", one[:33], wire.CodeNoRequest},
		{"delete an object", a.token, "DELETE", s + "/objects", nil, wire.CodeNoRequest},
		{"a backup without leave", reader, "POST", s + "/objects", one, wire.CodeForbidden},
		{"a question without leave", reader, "POST", s + "/missing", wire.AppendKeys(nil, []object.Key{good.Key}), wire.CodeForbidden},
		{"a commit without leave", reader, "POST", s + "/commits/1", recordText(t, a.mine, keep), wire.CodeForbidden},

		{"no name", a.token, "POST", s + "/missing", nil, wire.CodeRefused},
		{"a part of a name", a.token, "POST", s + "/missing", one[:32], wire.CodeRefused},
		{"names of an unknown kind", a.token, "POST", s + "/missing", make([]byte, 33), wire.CodeRefused},
		{"too many names", a.token, "POST", s + "/missing", bytes.Repeat([]byte{1}, 33*(wire.MaxNames+1)), wire.CodeRefused},

		{"no object", a.token, "POST", s + "/objects", nil, wire.CodeRefused},
		{"noise", a.token, "POST", s + "/objects", bytes.Repeat([]byte("noise"), 100), wire.CodeRefused},
		{"half a header", a.token, "POST", s + "/objects", one[:40], wire.CodeRefused},
		{"half an object", a.token, "POST", s + "/objects", one[:len(one)-1], wire.CodeRefused},
		{"another name", a.token, "POST", s + "/objects", frame(renamed, nil), wire.CodeDamaged},
		{"a flipped bit", a.token, "POST", s + "/objects", frame(flipped, nil), wire.CodeDamaged},
		{"another kind", a.token, "POST", s + "/objects", frame(good, func(h []byte) { h[4] = 9 }), wire.CodeRefused},
		{"a length that lies", a.token, "POST", s + "/objects", frame(good, func(h []byte) { h[8]++ }), wire.CodeRefused},
		{"a shorter length", a.token, "POST", s + "/objects", frame(good, func(h []byte) { h[8]-- }), wire.CodeRefused},
		{"a large length", a.token, "POST", s + "/objects", frame(good, func(h []byte) { h[11] = 0x7f }), wire.CodeRefused},
		{"another raw length", a.token, "POST", s + "/objects", frame(good, func(h []byte) { h[12]++ }), wire.CodeDamaged},
		{"a huge raw length", a.token, "POST", s + "/objects", frame(good, func(h []byte) { h[15] = 0x7f }), wire.CodeRefused},
		{"what stands for none", a.token, "POST", s + "/objects", wire.AppendLack(nil, chunk.ErrMissing), wire.CodeRefused},
		{"too many objects", a.token, "POST", s + "/objects", bytes.Repeat(frame(object1(9), nil), wire.MaxObjects+1), wire.CodeRefused},
		{"more than it may", a.token, "POST", s + "/objects", bytes.Repeat(noise(t), 10), wire.CodeFull},

		{"a record that is none", a.token, "POST", s + "/commits/1", []byte("{"), wire.CodeRefused},
		{"a record and more", a.token, "POST", s + "/commits/1", append(recordText(t, a.mine, keep), "{}"...), wire.CodeRefused},
		{"a record of another box", a.token, "POST", s + "/commits/1", recordText(t, a.others, keep), wire.CodeForbidden},
		{"a box with dots", a.token, "POST", s + "/commits/1",
			recordText(t, a.mine, func(r *image.Record) { r.Box = "../10.0.0.7" }), wire.CodeRefused},
		{"another arming", a.token, "POST", s + "/commits/1",
			recordText(t, a.mine, func(r *image.Record) { r.Arming = "fedcba9876543210" }), wire.CodeForbidden},
		{"an id", a.token, "POST", s + "/commits/1", recordText(t, a.mine, func(r *image.Record) { r.ID = a.mine.ID }), wire.CodeRefused},
		{"a time", a.token, "POST", s + "/commits/1", recordText(t, a.mine, func(r *image.Record) { r.Time = time.Now() }), wire.CodeRefused},
		{"a pin", a.token, "POST", s + "/commits/1", recordText(t, a.mine, func(r *image.Record) { r.Pinned = true }), wire.CodeRefused},
		{"a baseline", a.token, "POST", s + "/commits/1", recordText(t, a.mine, func(r *image.Record) { r.Baseline = true }), wire.CodeRefused},
		{"a note", a.token, "POST", s + "/commits/1", recordText(t, a.mine, func(r *image.Record) { r.Note = "x" }), wire.CodeRefused},
		{"a host name with a line end", a.token, "POST", s + "/commits/1",
			recordText(t, a.mine, func(r *image.Record) { r.Host = "a\nb" }), wire.CodeRefused},
		{"a long host name", a.token, "POST", s + "/commits/1",
			recordText(t, a.mine, func(r *image.Record) { r.Host = strings.Repeat("a", 300) }), wire.CodeRefused},
		{"a disk with dots", a.token, "POST", s + "/commits/1",
			recordText(t, a.mine, func(r *image.Record) { r.Disks[0].Name = "../sda" }), wire.CodeRefused},
		{"more stored than there is", a.token, "POST", s + "/commits/1",
			recordText(t, a.mine, func(r *image.Record) { r.Disks[0].Stored = math.MaxInt64 }), wire.CodeRefused},
		{"a disk that is too large", a.token, "POST", s + "/commits/1", recordText(t, a.mine, func(r *image.Record) {
			d := &r.Disks[0]
			d.Disk.Size, d.Data, d.Zero, d.Unused = 1<<62, 1<<62, 0, 0
		}), wire.CodeRefused},
		{"an image that is nowhere", a.token, "POST", s + "/commits/1",
			recordText(t, a.mine, func(r *image.Record) { r.Disks[0].Root[0]++ }), wire.CodeMissing},
		{"a record of many megabytes", a.token, "POST", s + "/commits/1", make([]byte, wire.MaxRecord+1), wire.CodeRefused},

		{"an image of another box", a.token, "PUT", i, openText(a.others, "sda", same), wire.CodeNotFound},
		{"another disk", a.token, "PUT", i, openText(a.mine, "sdb", same), wire.CodeNotFound},
		{"another box's image as one's own", a.token, "PUT", i,
			openText(a.mine, "sda", func(o *wire.Open) { o.Root = a.others.Disks[0].Root }), wire.CodeNotFound},
		{"an id with a slash", a.token, "PUT", i, openText(a.mine, "sda", func(o *wire.Open) { o.ID = "../10.0.0.8/" + a.others.ID }),
			wire.CodeRefused},
		{"a box in the path", a.token, "PUT", i, openText(a.mine, "sda", func(o *wire.Open) { o.Box = "../records/10.0.0.8" }),
			wire.CodeRefused},
		{"an image of another size", a.token, "PUT", i, openText(a.mine, "sda", func(o *wire.Open) { o.Size += 512 }), wire.CodeNotFound},
		{"a long request", a.token, "PUT", i, bytes.Repeat([]byte(" "), wire.MaxOpen+1), wire.CodeRefused},
		{"an image that is not open", a.token, "POST", i + "/read", places(wire.Root), wire.CodeNotOpen},
		{"a check of it", a.token, "POST", i + "/check", places(wire.Root), wire.CodeNotOpen},
		{"no place", a.token, "POST", i + "/read", nil, wire.CodeRefused},
		{"half a place", a.token, "POST", i + "/read", places(wire.Root)[:7], wire.CodeRefused},
		{"a chunk of no region", a.token, "POST", i + "/read", places(wire.Place{Region: wire.Root.Region}), wire.CodeRefused},
		{"too many places", a.token, "POST", i + "/read", bytes.Repeat(places(wire.Root), wire.MaxPlaces+1), wire.CodeRefused},
		{"too many checks", a.token, "POST", i + "/check", bytes.Repeat(places(wire.Root), wire.MaxChecks+1), wire.CodeRefused},
		{"delete a backup", a.token, "DELETE", "/agent/v1/images/1/read", nil, wire.CodeNoRequest},
		{"delete records", a.token, "DELETE", "/agent/v1/sessions/5/commits/1", nil, wire.CodeNoRequest},
	} {
		status, code, _ := a.send(t, c.token, c.method, c.path, c.body)
		if status < 300 || code != c.want {
			t.Errorf("%s: status %d, code %q, want %q", c.what, status, code, c.want)
		}
	}
	if overstepped["to add a backup that is not of this job"] != 5 || overstepped["to read an image that is not of this job"] != 2 {
		t.Errorf("it is said that the box overstepped: %v", overstepped)
	}
	after := a.contents(t)
	maps.DeleteFunc(after, func(name, _ string) bool { return before[name] == "" && strings.HasPrefix(name, "packs/") })
	if !maps.Equal(after, before) {
		t.Errorf("the store has changed, and has %v", slices.Sorted(maps.Keys(after)))
	}
	bad := []object.Key{good.Key, other.Key}
	if missing, err := a.store.Begin().Missing(t.Context(), bad); err != nil || !slices.Equal(missing, bad) {
		t.Errorf("of what was refused, only %v is missing, %v", missing, err)
	}
}

// TestLyingTrees commits records whose objects are all there, and say what cannot be
// true. Each is refused for good, and is no fault of the server.
func TestLyingTrees(t *testing.T) {
	a := newAttack(t, nil)
	const s = "/agent/v1/sessions/1"
	put := func(kind object.Kind, raw []byte) object.Name {
		o := object.Encode(object.Key{Kind: kind, Name: object.NameOf(raw)}, raw, nil)
		if status, code, _ := a.send(t, a.token, "POST", s+"/objects", frame(o, nil)); status != 200 {
			t.Fatal(status, code)
		}
		return o.Name
	}
	raw := conform.Disks(mib)["text"]
	one, two := chunk.Ref{Name: put(object.Chunk, raw[:4096]), Len: 4096}, chunk.Ref{Name: put(object.Chunk, raw[4096:12288]), Len: 8192}
	page := func(refs ...chunk.Ref) []byte {
		p := &chunk.Page{Chunks: refs}
		for _, c := range refs {
			p.Append(image.Data, int64(c.Len))
		}
		return p.Marshal()
	}
	rootOf := func(size int64, page []byte) object.Name {
		r := chunk.Root{Size: size, SectorSize: 512, Pages: []object.Name{put(object.Page, page)}}
		return put(object.Root, r.Marshal())
	}
	n := 0
	for _, c := range []struct {
		what string
		size int64
		root object.Name
		want wire.Code
	}{
		{"other lengths of two chunks", 12288, rootOf(12288, page(chunk.Ref{Name: one.Name, Len: 8192}, chunk.Ref{Name: two.Name, Len: 4096})),
			wire.CodeRefused},
		{"a length that is too short", 3584, rootOf(3584, page(chunk.Ref{Name: one.Name, Len: 3584})), wire.CodeRefused},
		{"a page that is none", 4096, rootOf(4096, []byte("TBXPAGE1\xff")), wire.CodeRefused},
		{"a page of another region", 8192, rootOf(8192, page(one)), wire.CodeRefused},
		{"a root of another disk", 8192, rootOf(4096, page(one)), wire.CodeRefused},
		{"a root that is none", 4096, put(object.Root, []byte("TBXROOT1")), wire.CodeRefused},
		{"nothing that lies", 12288, rootOf(12288, page(one, two)), ""},
	} {
		body := recordText(t, a.mine, func(r *image.Record) {
			d := image.RecordedDisk{Name: "sda", Disk: image.Identity{Size: c.size, SectorSize: 512}, Root: c.root, Data: c.size}
			r.Disks = []image.RecordedDisk{d}
		})
		n++
		_, code, answer := a.send(t, a.token, "POST", fmt.Sprint(s, "/commits/", n), body)
		if code != c.want {
			t.Errorf("%s: code %q, want %q: %s", c.what, code, c.want, answer)
		}
	}
	if records, _, err := a.store.Records(t.Context()); err != nil || len(records) != 3 {
		t.Errorf("there are %d backups, %v", len(records), err)
	}
}

// noise is a MiB that cannot be compressed, as an object.
func noise(t *testing.T) []byte {
	t.Helper()
	raw := conform.Disks(mib)["noise"]
	return frame(object.Encode(object.Key{Kind: object.Chunk, Name: object.NameOf(raw)}, raw, nil), nil)
}

// TestOtherPlaces asks for what an open image does not have.
func TestOtherPlaces(t *testing.T) {
	a := newAttack(t, nil)
	if status, code, _ := a.send(t, a.token, "PUT", "/agent/v1/images/1", openText(a.mine, "sda", func(*wire.Open) {})); status != 204 {
		t.Fatal(status, code)
	}
	ask := []wire.Place{{Region: 1}, {Chunk: 100_000}, {Chunk: 0xfffffffe}, {Region: 0xfffffffe, Chunk: 0xffffffff}, {}, wire.Root}
	_, _, answer := a.send(t, a.token, "POST", "/agent/v1/images/1/read", places(ask...))
	body := bytes.NewReader(answer)
	for n, p := range ask {
		h, err := wire.ReadHeader(body)
		must(t, err)
		if n < 4 {
			if h.Lack == nil || h.Lack.Code != wire.CodeMissing {
				t.Errorf("%v: there is %v, %v", p, h.Key, h.Lack)
			}
			continue
		}
		o, err := h.ReadObject(body, nil)
		must(t, err)
		if _, err := o.Decode(nil); err != nil || o.Kind != p.Kind() {
			t.Errorf("%v is %v, %v", p, o.Key, err)
		}
	}
	must(t, wire.ReadEnd(body))
	if _, _, answer = a.send(t, a.token, "POST", "/agent/v1/images/1/check", places(ask...)); string(answer) != "\x01\x01\x01\x01\x00\x00" {
		t.Errorf("the check says %v", answer)
	}
	other := openText(a.mine, "sda", func(o *wire.Open) { o.Sector = 4096 })
	if _, code, _ := a.send(t, a.token, "PUT", "/agent/v1/images/1", other); code != wire.CodeRefused {
		t.Errorf("another image under the same number: %q", code)
	}
	stranger := a.let(all)
	if _, code, _ := a.send(t, stranger, "POST", "/agent/v1/images/1/read", places(wire.Root)); code != wire.CodeNotOpen {
		t.Errorf("another token's image: %q", code)
	}
	a.api.Forget(a.token)
	if _, code, _ := a.send(t, a.token, "POST", "/agent/v1/images/1/read", places(wire.Root)); code != wire.CodeNotOpen {
		t.Errorf("an image of a token that was forgotten: %q", code)
	}
}

// TestAfterClose: a session that was ended, or that a later one replaced, takes
// nothing. A commit is what it was at first.
func TestAfterClose(t *testing.T) {
	a := newAttack(t, nil)
	one, key := frame(object1(1), nil), wire.AppendKeys(nil, []object.Key{object1(1).Key})
	want := func(method, path string, body []byte, want wire.Code) {
		t.Helper()
		if status, code, _ := a.send(t, a.token, method, "/agent/v1/sessions/"+path, body); code != want {
			t.Errorf("%s %s: status %d, code %q, want %q", method, path, status, code, want)
		}
	}
	text := recordText(t, a.mine, func(*image.Record) {})
	want("POST", "2/objects", one, "")
	want("POST", "2/commits/1", text, "")
	want("POST", "2/commits/1", text, "")
	want("POST", "2/commits/1", recordText(t, a.mine, func(r *image.Record) { r.Host = "other" }), wire.CodeRefused)
	want("POST", "2/commits/2", recordText(t, a.mine, func(r *image.Record) { r.Disks = r.Disks[:1] }), wire.CodeRefused)
	want("POST", "2/commits/1", text, wire.CodeRefused)
	want("POST", "1/objects", one, wire.CodeClosed)
	want("POST", "3/missing", key, "")
	want("POST", "2/objects", one, wire.CodeClosed)
	want("DELETE", "3", nil, "")
	want("DELETE", "3", nil, "")
	want("POST", "3/missing", key, wire.CodeClosed)
	want("POST", "3/objects", one, wire.CodeClosed)
	want("POST", "3/commits/1", text, wire.CodeClosed)
	want("DELETE", "9", nil, "")
	want("POST", "8/objects", one, wire.CodeClosed)
	if n := len(a.records()); n != 3 {
		t.Errorf("there are %d records", n)
	}
}

// rawRequest opens a connection and sends bytes.
func (a *attack) rawRequest(t *testing.T, text string) *tls.Conn {
	t.Helper()
	c, err := tls.Dial("tcp", a.addr, &tls.Config{InsecureSkipVerify: true})
	must(t, err)
	t.Cleanup(func() { c.Close() })
	_, err = io.WriteString(c, text)
	must(t, err)
	return c
}

// TestSlowClients: connections that are silent, slow or endless are cut off, and
// others are served meanwhile.
func TestSlowClients(t *testing.T) {
	const quiet = 700 * time.Millisecond
	a := newAttack(t, func(c *boxapi.Config) { c.Quiet, c.Memory = quiet, 80*mib })
	head := func(path, more string) string {
		return "POST " + path + " HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer " + a.token + "\r\n" + more + "\r\n"
	}
	if status, _, _ := a.send(t, a.token, "PUT", "/agent/v1/images/1", openText(a.mine, "sda", func(*wire.Open) {})); status != 204 {
		t.Fatal(status)
	}
	var cut []func()
	gone := func(what string, c *tls.Conn, trickle string) {
		cut = append(cut, func() {
			start := time.Now()
			go func() {
				for trickle != "" {
					if _, err := io.WriteString(c, trickle); err != nil {
						return
					}
					time.Sleep(50 * time.Millisecond)
				}
			}()
			c.SetReadDeadline(time.Now().Add(20 * time.Second))
			answer, err := io.ReadAll(c)
			if took := time.Since(start); err != nil && strings.Contains(err.Error(), "timeout") {
				t.Errorf("%s: it was not cut off in %v, answer %.50q", what, took, answer)
			}
		})
	}
	object := string(noise(t)[:300_000])
	const objects = "/agent/v1/sessions/1/objects"
	for range 3 {
		gone("silent in the body", a.rawRequest(t, head(objects, "Content-Length: 1100000\r\n")+object), "")
		gone("silent before the body", a.rawRequest(t, head(objects, "Content-Length: 1100000\r\n")), "")
		gone("slow in the body", a.rawRequest(t, head(objects, "Content-Length: 1100000\r\n")+object), "x")
		gone("endless", a.rawRequest(t, head(objects, "Transfer-Encoding: chunked\r\n")+"4\r\nTBXO\r\n"), "1\r\nx\r\n")
	}
	gone("silent in a short body", a.rawRequest(t, head(objects, "Content-Length: 1000\r\n")+"TBXO"), "")
	gone("silent before a short body", a.rawRequest(t, head(objects, "Content-Length: 1000\r\n")), "")
	gone("silent in names", a.rawRequest(t, head("/agent/v1/sessions/1/missing", "Content-Length: 33\r\n")+"\x01"), "")
	gone("silent to an unknown request", a.rawRequest(t, head("/agent/v1/sessions/1/x", "Content-Length: 1000\r\n")+"x"), "")
	gone("silent and unknown", a.rawRequest(t, "POST "+objects+" HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\nx"), "")
	read := head("/agent/v1/images/1/read", "Content-Length: 512\r\n") + strings.Repeat("\x00", 512)
	deaf := a.rawRequest(t, strings.Repeat(read, 40)) // its answers are many megabytes
	var ends sync.WaitGroup
	for _, c := range cut {
		ends.Go(c)
	}
	s := a.client(all).Begin()
	start := time.Now()
	for i := range byte(20) {
		must(t, s.Put(t.Context(), object1(i)))
	}
	if took := time.Since(start); took > 5*time.Second {
		t.Errorf("another box waited for %v", took)
	}
	must(t, s.Close())
	ends.Wait()
	time.Sleep(2 * quiet)
	deaf.SetReadDeadline(time.Now().Add(20 * time.Second))
	if n, err := io.Copy(io.Discard, deaf); n > 30*mib || err != nil && strings.Contains(err.Error(), "timeout") {
		t.Errorf("who does not read got %d bytes, %v", n, err)
	}
}

// TestTooManyAtOnce: a token has so many requests at once and no more.
func TestTooManyAtOnce(t *testing.T) {
	a := newAttack(t, nil)
	for range wire.MaxAtOnce {
		a.rawRequest(t, fmt.Sprintf("POST /agent/v1/sessions/1/objects HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\n"+
			"Content-Length: 1000\r\n\r\n", a.token))
	}
	code := wire.Code("")
	for range 100 {
		if _, code, _ = a.send(t, a.token, "DELETE", "/agent/v1/images/1", nil); code == wire.CodeBusy {
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	if code != wire.CodeBusy {
		t.Errorf("one more request: %q", code)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	must(t, a.client(all).Begin().Put(ctx, object1(1)))
}

// TestPanic: a fault of the server is in its log, and the client tries again.
func TestPanic(t *testing.T) {
	var said atomic.Pointer[string]
	r := newRig(t, nil, func(c *boxapi.Config) {
		begin := c.Begin
		c.Begin = func() chunk.Session { return &panicking{Session: begin()} }
		c.Log = func(format string, args ...any) { s := fmt.Sprintf(format, args...); said.Store(&s) }
	})
	s := r.client(all).Begin()
	must(t, s.Put(t.Context(), object1(1)))
	must(t, s.Close())
	if s := said.Load(); s == nil || !strings.Contains(*s, "a bug") {
		t.Error("the log does not have it")
	}
}

// panicking is a session that panics once.
type panicking struct {
	chunk.Session
	once sync.Once
}

func (p *panicking) Put(ctx context.Context, o object.Object) error {
	p.once.Do(func() { panic("a bug") })
	return p.Session.Put(ctx, o)
}

// TestMemoryHoarded: clients that hold all memory, and send next to nothing, must give it
// back when another one needs some.
func TestMemoryHoarded(t *testing.T) {
	testenv.Long(t, "6 seconds")
	a := newAttack(t, func(c *boxapi.Config) { c.Memory, c.Answer = 80*mib, 2*time.Second })
	root := object.Encode(object.Key{Kind: object.Root, Name: object.NameOf(make([]byte, 20*mib))}, make([]byte, 20*mib), nil)
	head := wire.AppendHeader(nil, root)
	slow := func(text string) *tls.Conn {
		c := a.rawRequest(t, text)
		go drip(c, "x")
		return c
	}
	text := fmt.Sprintf("POST /agent/v1/sessions/1/objects HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\nContent-Length: %d\r\n\r\n%s",
		a.token, len(head)+len(root.Data), head)
	conns := []*tls.Conn{slow(text), slow(text), slow(text)}
	time.Sleep(time.Second) // they have their memory
	ctx, cancel := context.WithTimeout(t.Context(), 15*time.Second)
	defer cancel()
	must(t, a.client(all).Begin().Put(ctx, root))
	ended := 0
	for _, c := range conns {
		c.SetReadDeadline(time.Now().Add(2 * time.Second))
		if _, err := io.ReadAll(c); !errors.Is(err, os.ErrDeadlineExceeded) {
			ended++
		}
	}
	if ended != 1 {
		t.Errorf("%d requests were ended", ended)
	}
}

// TestLateBody: a request whose body stands still for too long is cut off. It is not
// called wrong, since a client would not send it again then.
func TestLateBody(t *testing.T) {
	a := newAttack(t, func(c *boxapi.Config) { c.Quiet = 300 * time.Millisecond })
	for path, body := range map[string]string{"objects": string(noise(t)[:1000]), "missing": "\x01"} {
		c := a.rawRequest(t, fmt.Sprintf("POST /agent/v1/sessions/1/%s HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\n"+
			"Content-Length: 3300\r\n\r\n%s", path, a.token, body))
		c.SetReadDeadline(time.Now().Add(20 * time.Second))
		answer, err := io.ReadAll(c)
		if len(answer) > 0 || errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("%s: %s, %v", path, answer, err)
		}
	}
}
