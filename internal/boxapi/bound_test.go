package boxapi

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"
)

// TestBoundBody: a body that nobody reads and that does not come ends the connection. An
// answer that lasts has all the time that it needs.
func TestBoundBody(t *testing.T) {
	const wait = 200 * time.Millisecond
	ended := make(chan bool, 1)
	h := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodGet {
			select {
			case <-r.Context().Done():
			case <-time.After(4 * wait):
			}
			ended <- r.Context().Err() != nil
		}
	})
	srv := httptest.NewServer(boundBody(h, wait))
	defer srv.Close()
	resp, err := http.Get(srv.URL)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if <-ended {
		t.Error("an answer that lasts was ended")
	}
	c, err := net.Dial("tcp", srv.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	fmt.Fprint(c, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\nx")
	c.SetReadDeadline(time.Now().Add(10 * time.Second))
	if _, err := io.ReadAll(c); err != nil {
		t.Errorf("a silent client: %v", err)
	}
}
