package api_test

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"testbox-imaging/internal/api"
	"testbox-imaging/internal/ledger"
	"testbox-imaging/internal/testenv"
)

// dialAs connects to the socket as another user. Only one thread becomes that user, and
// it ends with the goroutine.
func dialAs(t *testing.T, path string, uid, gid int, groups []int) net.Conn {
	t.Helper()
	type result struct {
		fd  int
		err error
	}
	got := make(chan result)
	go func() {
		runtime.LockOSThread() // and never unlock it
		list := make([]uint32, len(groups)+1)
		for i, g := range groups {
			list[i] = uint32(g)
		}
		var err error
		for _, call := range [][4]uintptr{
			{unix.SYS_SETGROUPS, uintptr(len(groups)), uintptr(unsafe.Pointer(&list[0]))},
			{unix.SYS_SETRESGID, uintptr(gid), uintptr(gid), uintptr(gid)},
			{unix.SYS_SETRESUID, uintptr(uid), uintptr(uid), uintptr(uid)},
		} {
			if _, _, errno := unix.RawSyscall(call[0], call[1], call[2], call[3]); errno != 0 {
				err = errno
			}
		}
		runtime.KeepAlive(list)
		fd, socketErr := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err == nil {
			err = socketErr
		}
		if err == nil {
			err = unix.Connect(fd, &unix.SockaddrUnix{Name: path})
		}
		got <- result{fd, err}
	}()
	r := <-got
	must(t, r.err)
	f := os.NewFile(uintptr(r.fd), "socket")
	defer f.Close()
	c, err := net.FileConn(f)
	must(t, err)
	t.Cleanup(func() { c.Close() })
	return c
}

// letIn lets all users reach the socket.
func (r *rig) letIn(t *testing.T) {
	t.Helper()
	must(t, os.Chmod(r.dir, 0o755))
	for p := r.dir; p != "/"; p = filepath.Dir(p) {
		st, err := os.Stat(p)
		must(t, err)
		if st.Mode()&0o001 == 0 {
			must(t, os.Chmod(p, st.Mode()|0o011)) // folders of this test alone
		}
	}
}

// TestSudo: the audit log has who called sudo, as what a client says. Nobody but root is
// believed so much, and it gives no rights.
func TestSudo(t *testing.T) {
	testenv.Root(t)
	r := newRig(t)
	r.letIn(t)
	group := 0
	for _, c := range []struct {
		uid        int
		said, from string
	}{
		{0, "alice", "socket (sudo by alice, as the client says)"},
		{0, "", "socket"}, {0, "a b", "socket"}, {0, "x)", "socket"}, {0, strings.Repeat("x", 65), "socket"},
		{65534, "alice", "socket"},
	} {
		conn := dialAs(t, r.socket, c.uid, 0, nil)
		group++
		fmt.Fprintf(conn, "PUT /api/v1/groups/g%d HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 2\r\n%s: %s\r\n\r\n{}",
			group, api.SudoHeader, c.said)
		resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
		must(t, err)
		resp.Body.Close()
		var all api.Entries
		r.root().want(200, "GET", "/api/v1/audit?limit=1", nil, &all)
		if resp.StatusCode != 200 || len(all.Entries) != 1 {
			t.Fatalf("%+v: %s, %+v", c, resp.Status, all)
		}
		if e := all.Entries[0]; e.From != c.from || strings.Contains(e.Who, "alice") || e.On != fmt.Sprint("g", group) {
			t.Errorf("%+v: %+v", c, e)
		}
	}
}

// TestPeers: at the socket the kernel's word counts, and not the mode of the socket.
func TestPeers(t *testing.T) {
	testenv.Root(t)
	r := newRig(t)
	r.letIn(t)
	st, err := os.Stat(r.socket)
	must(t, err)
	if st.Mode().Perm() != 0o660 {
		t.Errorf("the socket has the mode %v", st.Mode())
	}
	must(t, os.Chmod(r.socket, 0o666))
	for _, c := range []struct {
		uid, gid int
		groups   []int
		want     int
	}{
		{0, 0, nil, 200},
		{0, 65534, nil, 200},
		{65534, 65534, nil, 403},
		{65534, 65534, []int{1, 2, 3}, 403},
		{65534, 0, nil, 200}, // the group of the rig is that of root
		{65534, 65534, []int{1, 0, 3}, 200},
	} {
		conn := dialAs(t, r.socket, c.uid, c.gid, c.groups)
		// A token does not help at the socket.
		token := r.token(ledger.Token{Role: ledger.Admin})
		io.WriteString(conn, "GET /api/v1/me HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer "+token+"\r\n\r\n")
		resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
		must(t, err)
		var me api.Me
		must(t, json.NewDecoder(resp.Body).Decode(&me))
		resp.Body.Close()
		name := "root"
		if c.uid != 0 {
			name = "nobody"
		}
		if resp.StatusCode != c.want || c.want == 200 && (me.Role != ledger.Admin || me.Name != name) {
			t.Errorf("%+v: %d, %+v", c, resp.StatusCode, me)
		}
	}
}
