package browser

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"

	"testbox-imaging/internal/api"
	"testbox-imaging/internal/apiclient"
	"testbox-imaging/internal/bench/rig"
	"testbox-imaging/internal/e2e/browser/chrome"
	"testbox-imaging/internal/e2e/browser/demo"
	"testbox-imaging/internal/ledger"
)

// cutter passes connections on to the server, until it is told not to.
type cutter struct {
	net.Listener
	to string

	mu    sync.Mutex
	cut   bool // no connection lives
	mute  bool // nothing comes back from the server
	conns map[net.Conn]bool
}

func newCutter(t *testing.T) *cutter {
	to := strings.TrimPrefix(world(t).URL, "https://") // first, since it skips the test where its address does not exist
	l, err := net.Listen("tcp", rig.ServerIP+":0")
	must(t, err)
	c := &cutter{Listener: l, to: to, conns: map[net.Conn]bool{}}
	var all sync.WaitGroup
	all.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			all.Go(func() { c.serve(conn) })
		}
	})
	t.Cleanup(func() {
		l.Close()
		c.set(true, false)
		all.Wait()
	})
	return c
}

// set says what becomes of connections from now on.
func (c *cutter) set(cut, mute bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.cut, c.mute = cut, mute
	if cut {
		for conn := range c.conns {
			conn.Close()
		}
	}
}

func (c *cutter) keep(conn net.Conn) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.conns[conn] = true
	return !c.cut
}

func (c *cutter) drop(conn net.Conn) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.conns, conn)
	conn.Close()
}

func (c *cutter) serve(conn net.Conn) {
	defer c.drop(conn)
	if !c.keep(conn) {
		return
	}
	server, err := net.Dial("tcp", c.to)
	if err != nil {
		return
	}
	defer c.drop(server)
	if !c.keep(server) {
		return
	}
	go func() {
		io.Copy(server, conn)
		server.Close()
	}()
	b := make([]byte, 32<<10)
	for {
		n, err := server.Read(b)
		if err != nil {
			return
		}
		c.mu.Lock()
		mute := c.mute
		c.mu.Unlock()
		if !mute {
			if _, err := conn.Write(b[:n]); err != nil {
				return
			}
		}
	}
}

// through is a tab that reaches the server through a cutter, and has logged in.
func through(t *testing.T, c *cutter) (b *chrome.Tab, site string) {
	b = tab(t, chrome.Wide)
	b.Allow = func(text string) bool {
		return strings.Contains(text, "net::ERR_") || strings.Contains(text, "Failed to load resource")
	}
	site = "https://" + c.Addr().String()
	must(t, b.Go(site+"/login"))
	must(t, b.Do(chrome.Type("#token", demo.Tokens[ledger.Operator]), chrome.Click("button.main")))
	must(t, b.Until("location.pathname == '/' && document.readyState == 'complete'"))
	return b, site
}

// TestLostPost loses a form before it reaches the server, and then its answer. Neither is shown as
// done, and sending the form again makes one job in both cases.
func TestLostPost(t *testing.T) {
	for _, reaches := range []bool{false, true} {
		name := "form"
		if reaches {
			name = "answer"
		}
		t.Run(name, func(t *testing.T) {
			c := newCutter(t)
			b, site := through(t, c)
			before := jobs(t, "gpu-06")
			must(t, b.Go(site+"/act/backup?box="+addr(t, "gpu-06")))
			must(t, b.Has("Nothing has been done yet"))
			c.set(!reaches, reaches)
			must(t, b.Eval("document.querySelector('main form button.main').click()", nil))
			if reaches {
				for end := chrome.Patience(); len(jobs(t, "gpu-06")) == len(before); {
					if !end() {
						t.Fatal("the form did not reach the server")
					}
				}
				c.set(true, false)
			}
			must(t, b.Until("location.protocol == 'chrome-error:'"))
			want := len(before)
			if reaches {
				want++
			}
			if n := len(jobs(t, "gpu-06")); n != want {
				t.Fatalf("there are %d jobs, and should be %d", n, want)
			}
			c.set(false, false)
			must(t, b.Do(chrome.Reload()))
			must(t, b.Until("location.pathname.startsWith('/jobs/') && document.readyState == 'complete'"))
			all := jobs(t, "gpu-06")
			if len(all) != len(before)+1 {
				t.Fatalf("%d jobs were made", len(all)-len(before))
			}
			must(t, world(t).Cancel(context.Background(), all[0]))
		})
	}
}

// TestLostConnection cuts the connection of a list that follows what happens. The page says so, and is right again
// soon after the connection is back: with a box that came into the list meanwhile, and without one that left it.
func TestLostConnection(t *testing.T) {
	c := newCutter(t)
	b, site := through(t, c)
	must(t, b.Go(site+"/?needs=1"))
	t.Cleanup(func() { setHealth(t, "ci-10", ledger.Good, "") })
	const reason = "changed while nobody could see it"
	for _, h := range []ledger.Health{ledger.Bad, ledger.Good} {
		must(t, b.Until("document.getElementById('lost').hidden"))
		c.set(true, false)
		must(t, b.Until("!document.getElementById('lost').hidden"))
		must(t, b.Has("What you see is from"))
		if h == ledger.Bad {
			setHealth(t, "ci-10", h, reason)
		} else {
			setHealth(t, "ci-10", h, "")
		}
		c.set(false, false)
		must(t, b.Until(fmt.Sprintf("document.body.innerText.includes('%s') == %v", reason, h == ledger.Bad)))
		must(t, b.Until("document.getElementById('lost').hidden"))
	}
}

// TestSilence has nothing come from the server any more, and no connection end. The page finds that out.
func TestSilence(t *testing.T) {
	c := newCutter(t)
	b, site := through(t, c)
	must(t, b.Until("document.getElementById('lost').hidden"))
	c.set(false, true)
	must(t, b.Eval("realNow = Date.now, Date.now = () => realNow() + 60000 * (minutes = 1 + (window.minutes || 0))", nil)) // time flies
	must(t, b.Until("!document.getElementById('lost').hidden"))
	must(t, b.Has("is not heard any more. What you see is from"))
	must(t, b.Eval("Date.now = realNow", nil))
	c.set(true, false)
	c.set(false, false)
	must(t, b.Until("document.getElementById('lost').hidden"))

	must(t, b.Go(site+"/boxes/"+addr(t, "edge-02")))
	must(t, b.Eval("timeout = AbortSignal.timeout, AbortSignal.timeout = () => timeout.call(AbortSignal, 1)", nil))
	c.set(false, true)
	must(t, b.Until("document.querySelector('[data-live] [data-stale]')"))
	must(t, b.Eval("AbortSignal.timeout = timeout", nil))
	c.set(true, false)
	c.set(false, false)
	must(t, b.Until("!document.querySelector('[data-live] [data-stale]')"))
}

// TestHidden changes something while nobody sees the page, which does not follow it then. It is right as soon as it is seen again.
func TestHidden(t *testing.T) {
	lab := world(t)
	b := tab(t, chrome.Wide)
	login(t, b, ledger.Viewer)
	const hide = `is => { Object.defineProperty(document, "hidden", {get: () => is, configurable: true});
		document.dispatchEvent(new Event("visibilitychange")) }`
	must(t, b.Eval("sources = [], EventSource = class extends EventSource { constructor(u) { super(u); sources.push(this) } }", nil))
	must(t, b.Eval("("+hide+")(true)", nil))
	set := func(h ledger.Health, reason string) {
		t.Helper()
		text := string(h)
		must(t, lab.Admin.Do(t.Context(), http.MethodPatch, apiclient.Path("boxes", addr(t, "ci-10")),
			api.SetBox{Health: &text, HealthReason: &reason}, nil))
	}
	set(ledger.Suspect, "changed while nobody looked")
	must(t, b.Eval("("+hide+")(false)", nil))
	must(t, b.Has("changed while nobody looked"))
	set(ledger.Good, "")
	must(t, b.Eval("("+hide+")(true)", nil))
	must(t, b.Until("sources.length == 1 && sources[0].readyState == EventSource.CLOSED"))

	must(t, b.Go(lab.URL+"/boxes/"+addr(t, "edge-02")))
	const state = "document.querySelector('[data-log-state]')"
	must(t, b.Until(state+".innerText.includes('is followed')"))
	must(t, b.Eval("("+hide+")(true)", nil))
	must(t, b.Eval(state+".textContent = ''", nil))
	must(t, b.Eval("("+hide+")(false)", nil))
	must(t, b.Until(state+".innerText.includes('is followed')"))
}

// TestHostileTexts has texts that would be scripts if they were not escaped.
func TestHostileTexts(t *testing.T) {
	ctx, lab := context.Background(), world(t)
	const evil = `"><img src=x onerror=alert(1)><script>alert(2)</script>` + "'{{.}}"
	a, err := lab.Begin(ctx, "edge-05", "backup")
	must(t, err)
	defer a.Close()
	_, err = a.Works(ctx, "read", 0.4, evil)
	must(t, err)
	bad, reason := string(ledger.Bad), evil
	path := apiclient.Path("boxes", addr(t, "edge-05"))
	must(t, lab.Admin.Do(ctx, http.MethodPatch, path, api.SetBox{Health: &bad, HealthReason: &reason}, nil))
	must(t, a.Fails(ctx, evil))
	b := tab(t, chrome.Wide)
	login(t, b, ledger.Admin)
	for _, at := range []string{"/", "/boxes/" + addr(t, "edge-05"), "/jobs/" + a.Job.ID, "/act/backup?box=" + addr(t, "edge-05")} {
		must(t, b.Go(lab.URL+at))
		must(t, b.Until("!document.querySelector('[aria-busy=true]')"))
		if !strings.HasPrefix(at, "/act/") {
			must(t, b.Has("<img src=x onerror=alert(1)>"))
		}
		var found int
		must(t, b.Eval("document.querySelectorAll('img, body script, [onerror]').length", &found))
		if found != 0 {
			t.Errorf("%s has %d elements out of a text of a box", at, found)
		}
	}
	good, none := string(ledger.Good), ""
	must(t, lab.Admin.Do(ctx, http.MethodPatch, path, api.SetBox{Health: &good, HealthReason: &none}, nil))
}

// TestKeyboard asks for a backup with the keyboard alone.
func TestKeyboard(t *testing.T) {
	b := tab(t, chrome.Wide)
	must(t, b.Go(world(t).URL+"/login"))
	must(t, b.Until("document.activeElement.id == 'token'"))
	must(t, b.Do(chrome.Press(demo.Tokens[ledger.Operator]+"\r")))
	must(t, b.Until("location.pathname == '/' && document.readyState == 'complete'"))
	reach := func(what string) {
		t.Helper()
		for range 300 {
			var there bool
			must(t, b.Eval("document.activeElement.matches("+chrome.Quote(what)+")", &there))
			if there {
				return
			}
			must(t, b.Do(chrome.Press("\t")))
		}
		t.Fatalf("the key Tab does not lead to %s", what)
	}
	must(t, b.Do(chrome.Press("\t")))
	reach("a.skip")
	must(t, b.Do(chrome.Press("\r")))
	must(t, b.Until("document.activeElement.id == 'main'"))
	reach(`a[href="/boxes/` + addr(t, "gpu-04") + `"]`)
	must(t, b.Do(chrome.Press("\r")))
	must(t, b.Until("location.pathname.startsWith('/boxes/') && document.readyState == 'complete'"))
	reach(`a[href^="/act/backup"]`)
	must(t, b.Do(chrome.Press("\r")))
	must(t, b.Until("location.pathname == '/act/backup' && document.readyState == 'complete'"))
	reach("main form button.main")
	must(t, b.Do(chrome.Press("\r")))
	must(t, b.Until("location.pathname.startsWith('/jobs/') && document.readyState == 'complete'"))
	must(t, world(t).Cancel(context.Background(), jobs(t, "gpu-04")[0]))
}

// TestEndedToken deletes the token of somebody who is logged in.
func TestEndedToken(t *testing.T) {
	ctx, lab := context.Background(), world(t)
	var made api.Token
	must(t, lab.Admin.Do(ctx, http.MethodPost, apiclient.Path("tokens"),
		api.NewToken{Name: "ends-soon", Role: string(ledger.Operator)}, &made))
	b := tab(t, chrome.Wide)
	b.Allow = func(text string) bool { return strings.Contains(text, "401") }
	must(t, b.Go(lab.URL+"/login"))
	must(t, b.Do(chrome.Type("#token", made.Secret), chrome.Click("button.main")))
	must(t, b.Until("location.pathname == '/' && document.readyState == 'complete'"))
	before := len(jobs(t, "nas-04"))
	must(t, b.Go(lab.URL+"/act/backup?box="+addr(t, "nas-04")))
	must(t, lab.Admin.Do(ctx, http.MethodDelete, apiclient.Path("tokens", made.ID), nil, nil))
	must(t, b.Do(chrome.Click("main form button.main")))
	must(t, b.Has("Nothing was done"))
	if n := len(jobs(t, "nas-04")) - before; n != 0 {
		t.Errorf("%d jobs were made by an ended token", n)
	}
	must(t, b.Go(lab.URL+"/"))
	must(t, b.Until("location.pathname == '/login'"))
}
