// Package chrome drives a headless Chromium, and notes what a page does that it should
// not do: errors, dialogs, violations of its policy, requests to other hosts. Test only.
package chrome

import (
	"context"
	"crypto/sha256"
	"crypto/x509"
	_ "embed"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/chromedp/cdproto/audits"
	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/dom"
	"github.com/chromedp/cdproto/emulation"
	cdplog "github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/cdproto/page"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
)

// Limit is how long anything is waited for. It is far more than a page needs, since this
// machine may be busy with other tests.
const Limit = 2 * time.Minute

// Pin is how Start knows the server that has this certificate.
func Pin(certificate string) (string, error) {
	text, err := os.ReadFile(certificate)
	if err != nil {
		return "", err
	}
	block, _ := pem.Decode(text)
	if block == nil {
		return "", fmt.Errorf("%s has no certificate", certificate)
	}
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return "", err
	}
	sum := sha256.Sum256(cert.RawSubjectPublicKeyInfo)
	return base64.StdEncoding.EncodeToString(sum[:]), nil
}

// Browser is a running Chromium.
type Browser struct {
	ctx   context.Context
	close []func()
	host  string
}

// Start starts Chromium. Its profile is in dir. pin is the SHA-256 of the public key in
// base64 by which it knows the server at host, and no other host can be reached.
func Start(dir, host, pin string) (*Browser, error) {
	b := &Browser{host: host}
	opt := []chromedp.ExecAllocatorOption{
		chromedp.ExecPath("chromium"), chromedp.UserDataDir(dir), chromedp.Env("TZ=UTC"),
		chromedp.ModifyCmdFunc(func(cmd *exec.Cmd) { cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL} }),
	}
	for name, value := range map[string]any{
		"no-sandbox": true, "no-first-run": true, "no-default-browser-check": true,
		"ignore-certificate-errors-spki-list": pin,
		"host-resolver-rules":                 "MAP * ~NOTFOUND, EXCLUDE " + host + ", EXCLUDE 127.0.0.1",
		"disable-background-networking":       true, "disable-component-update": true, "disable-sync": true, "disable-extensions": true,
		"disable-default-apps": true, "disable-dev-shm-usage": true, "disable-gpu": true, "hide-scrollbars": true,
		"disable-background-timer-throttling": true, "disable-renderer-backgrounding": true, "disable-backgrounding-occluded-windows": true,
		"force-color-profile": "srgb", "font-render-hinting": "none", "lang": "en-GB",
		"disable-features": "Translate,OptimizationHints,MediaRouter,HttpsUpgrades",
	} {
		opt = append(opt, chromedp.Flag(name, value))
	}
	var cancel func()
	b.ctx, cancel = chromedp.NewContext(context.Background(), chromedp.WithAllocatorOptions(opt...),
		chromedp.WithErrorf(func(string, ...any) {}))
	b.close = append(b.close, cancel)
	if err := chromedp.Do(b.ctx); err != nil {
		b.Close()
		return nil, fmt.Errorf("start Chromium: %w", err)
	}
	return b, nil
}

// Close ends Chromium, and waits for that.
func (b *Browser) Close() {
	ctx, cancel := context.WithTimeout(b.ctx, 20*time.Second)
	chromedp.Cancel(ctx)
	cancel()
	for _, f := range slices.Backward(b.close) {
		f()
	}
}

// View is how somebody looks at a page.
type View struct {
	Width, Height int64
	Dark          bool
	NoScripts     bool
}

// The two sizes that are tested.
var (
	Wide  = View{Width: 1280, Height: 900}
	Phone = View{Width: 390, Height: 844}
)

// Name is how screenshots of the view are called.
func (v View) Name() string {
	name := "wide"
	if v.Width < 600 {
		name = "phone"
	}
	if v.Dark {
		return name + "-dark"
	}
	return name
}

// Tab is a tab of the browser that shares nothing with other tabs. Its context is for
// actions of package chromedp.
type Tab struct {
	context.Context
	host   string
	cancel []func()

	mu       sync.Mutex
	wrong    []string
	dialogs  int
	loads    int
	requests []string
	silent   bool                   // scripts are disabled
	Allow    func(text string) bool // says which errors are meant to be; set before they come
}

// Open opens a tab.
func (b *Browser) Open(v View) (*Tab, error) {
	t := &Tab{host: b.host}
	ctx, cancel := chromedp.NewContext(b.ctx, chromedp.WithNewBrowserContext(), chromedp.WithListener(t.event))
	t.Context = ctx
	t.cancel = append(t.cancel, cancel)
	err := chromedp.Do(ctx) // the tab lives as long as the context of its first call
	if err == nil {
		err = t.Do(command(network.Enable, network.EnableParams{}), command(runtime.Enable, cdp.Empty{}),
			command(cdplog.Enable, cdp.Empty{}), command(page.Enable, page.EnableParams{}), command(audits.Enable, cdp.Empty{}))
	}
	if err == nil {
		err = t.Look(v)
	}
	if err != nil {
		t.Close()
		return nil, fmt.Errorf("open a tab: %w", err)
	}
	return t, nil
}

// Look changes how the tab is looked at.
func (t *Tab) Look(v View) error {
	t.mu.Lock()
	t.silent = v.NoScripts
	t.mu.Unlock()
	scheme := "light"
	if v.Dark {
		scheme = "dark"
	}
	return t.Do(
		command(emulation.SetDeviceMetricsOverride, emulation.SetDeviceMetricsOverrideParams{Width: v.Width, Height: v.Height,
			DeviceScaleFactor: 1, Mobile: v.Width < 600}),
		command(emulation.SetTouchEmulationEnabled, emulation.SetTouchEmulationEnabledParams{Enabled: v.Width < 600}),
		command(emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{Features: []*emulation.MediaFeature{
			{Name: "prefers-color-scheme", Value: scheme}, {Name: "prefers-reduced-motion", Value: "reduce"}}}),
		command(emulation.SetTimezoneOverride, emulation.SetTimezoneOverrideParams{TimezoneID: "UTC"}),
		command(emulation.SetScriptExecutionDisabled, emulation.SetScriptExecutionDisabledParams{Value: v.NoScripts}))
}

// command is an action that gives a command of the protocol, whose result does not matter.
func command[P, R any](c cdp.Command[P, R], params P) Action {
	return func(ctx context.Context, t *chromedp.Target) (chromedp.Void, error) {
		_, err := cdp.Call(ctx, t, c, params)
		return chromedp.Void{}, err
	}
}

// Close closes the tab.
func (t *Tab) Close() {
	for _, f := range slices.Backward(t.cancel) {
		f()
	}
}

// Action is something that is done with a tab.
type Action = chromedp.Action[chromedp.Void]

// Do carries actions out, within Limit.
func (t *Tab) Do(actions ...Action) error {
	_, err := do(t, chromedp.Steps(actions...))
	return err
}

func do[T any](t *Tab, a chromedp.Action[T]) (T, error) { return doWithin(t, Limit, a) }

func doWithin[T any](t *Tab, limit time.Duration, a chromedp.Action[T]) (T, error) {
	ctx, cancel := context.WithTimeoutCause(t.Context, limit, errors.New("the page did not do it in time"))
	defer cancel()
	v, err := chromedp.Run(ctx, a)
	if err != nil && ctx.Err() != nil {
		err = fmt.Errorf("%w: %w", context.Cause(ctx), err)
	}
	return v, err
}

// Go goes to an address, and waits until it is loaded.
func (t *Tab) Go(address string) error {
	if err := t.Do(chromedp.Navigate(address)); err != nil {
		return fmt.Errorf("%s: %w", address, err)
	}
	return nil
}

// Eval evaluates an expression in the page, and waits if it is a promise. The result goes
// to where to points, if that is not nil. Where the scripts of pages are disabled it works too,
// since an expression is no script of the page, but promises are never kept there.
func (t *Tab) Eval(expression string, to any) error {
	return t.evalWithin(Limit, expression, to)
}

func (t *Tab) evalWithin(limit time.Duration, expression string, to any) error {
	t.mu.Lock()
	yes, wait := true, !t.silent
	t.mu.Unlock()
	r, err := doWithin(t, limit, func(ctx context.Context, target *chromedp.Target) (runtime.EvaluateResult, error) {
		return cdp.Call(ctx, target, runtime.Evaluate, runtime.EvaluateParams{Expression: expression, AwaitPromise: &wait, ReturnByValue: &yes})
	})
	if err == nil && r.ExceptionDetails != nil {
		err = errors.New(exception(r.ExceptionDetails))
	}
	if err == nil && to != nil {
		err = json.Unmarshal(r.Result.Value, to)
	}
	if err != nil {
		return fmt.Errorf("%.200s: %w", expression, err)
	}
	return nil
}

func exception(e *runtime.ExceptionDetails) string {
	text := e.Text
	if e.Exception != nil {
		text += " " + e.Exception.Description
	}
	return text
}

// once is how long one look of Until may take. One at a page that goes away can be left without an answer.
const once = 20 * time.Second

// Until waits until an expression is true.
func (t *Tab) Until(expression string) error {
	end, patience := time.Now().Add(Limit), 2*time.Second
	for {
		var is bool
		err := t.evalWithin(patience, "!!("+expression+")", &is)
		if err == nil && is {
			return nil
		}
		if err != nil {
			patience = min(2*patience, once) // on a busy machine an answer can take long too
		}
		if time.Now().After(end) {
			var text string
			t.evalWithin(once, `document.title + " at " + location.href + "\n" + document.body.innerText`, &text)
			return fmt.Errorf("it never came that %s (%v) in: %.3000s", expression, err, text)
		}
		time.Sleep(50 * time.Millisecond)
	}
}

// Has waits until the page shows a text.
func (t *Tab) Has(text string) error {
	return t.Until("document.body && document.body.innerText.includes(" + Quote(text) + ")")
}

// Quote is a text, a number or a list of such as an expression of JavaScript.
func Quote(v any) string {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err) // those can be marshalled
	}
	return string(b)
}

// event notes what should not be. It is called in order, and must not wait.
func (t *Tab) event(e any) {
	t.mu.Lock()
	defer t.mu.Unlock()
	wrong := func(format string, args ...any) {
		if text := fmt.Sprintf(format, args...); t.Allow == nil || !t.Allow(text) {
			t.wrong = append(t.wrong, text)
		}
	}
	switch e := e.(type) {
	case *runtime.EventExceptionThrown:
		wrong("exception: %s", exception(e.ExceptionDetails))
	case *runtime.EventConsoleAPICalled:
		if e.Type == runtime.ConsoleAPICalledTypeError || e.Type == runtime.ConsoleAPICalledTypeWarning ||
			e.Type == runtime.ConsoleAPICalledTypeAssert {
			var all []string
			for _, a := range e.Args {
				all = append(all, string(a.Value)+a.Description)
			}
			wrong("console %s: %s", e.Type, strings.Join(all, " "))
		}
	case *cdplog.EventEntryAdded:
		if e.Entry.Level == cdplog.EntryLevelError || e.Entry.Level == cdplog.EntryLevelWarning {
			wrong("%s %s: %s %s", e.Entry.Source, e.Entry.Level, e.Entry.Text, e.Entry.URL)
		}
	case *audits.EventIssueAdded:
		if d := e.Issue.Details.ContentSecurityPolicyIssueDetails; d != nil {
			wrong("violation of the policy: %s %s", d.ViolatedDirective, d.BlockedURL)
		}
	case *page.EventJavascriptDialogOpening:
		t.dialogs++
		wrong("dialog: %s", e.Message)
		go chromedp.Do(t.Context, command(page.HandleJavaScriptDialog, page.HandleJavaScriptDialogParams{Accept: true}))
	case *page.EventLoadEventFired:
		t.loads++
	case *network.EventRequestWillBeSent:
		u, err := url.Parse(e.Request.URL)
		if err != nil || u.Hostname() != t.host && u.Scheme != "data" && u.Scheme != "about" && u.Scheme != "blob" {
			wrong("request to another host: %s", e.Request.URL)
		}
		t.requests = append(t.requests, e.Request.Method+" "+e.Request.URL)
	}
}

// Wrong is what was noted since it was called last.
func (t *Tab) Wrong() []string {
	t.mu.Lock()
	defer t.mu.Unlock()
	all := t.wrong
	t.wrong = nil
	return all
}

// Loads counts the pages that were loaded.
func (t *Tab) Loads() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.loads
}

// Requests are all requests of the tab, as "GET https://..." each.
func (t *Tab) Requests() []string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return slices.Clone(t.requests)
}

//go:embed axe/axe.min.js
var axe string

// Finding is what axe-core finds wrong with a page.
type Finding struct {
	ID, Impact, Help string
	Nodes            []struct {
		HTML           string
		Target         []any
		FailureSummary string `json:"failureSummary"`
	}
}

func (f Finding) String() string {
	s := f.Impact + " " + f.ID + ": " + f.Help
	for i, n := range f.Nodes {
		if i == 3 {
			return s + fmt.Sprintf("\n  and %d more", len(f.Nodes)-i)
		}
		s += fmt.Sprintf("\n  %v %.160s\n    %s", n.Target, n.HTML, strings.ReplaceAll(n.FailureSummary, "\n", " "))
	}
	return s
}

// Axe has axe-core look at the page.
func (t *Tab) Axe() (all []Finding, err error) {
	var has bool
	if err := t.Eval("typeof axe == 'object'", &has); err != nil {
		return nil, err
	}
	if !has {
		// The page's policy allows no foreign script, but what the debugger evaluates is none of the page.
		if err := t.Eval(axe+";0", nil); err != nil {
			return nil, fmt.Errorf("load axe-core: %w", err)
		}
	}
	var text string
	if err := t.Eval("axe.run(document, {resultTypes: ['violations']}).then(r => JSON.stringify(r.violations))", &text); err != nil {
		return nil, err
	}
	return all, json.Unmarshal([]byte(text), &all)
}

// Serious are those findings that must not be.
func Serious(all []Finding) (some []Finding) {
	for _, f := range all {
		if f.Impact == "serious" || f.Impact == "critical" {
			some = append(some, f)
		}
	}
	return some
}

// Picture is the whole page as a PNG.
func (t *Tab) Picture() ([]byte, error) { return do(t, chromedp.FullScreenshot(100)) }

// Click clicks with the mouse on what a selector finds, as soon as it can be seen and nothing covers it.
// It needs no scripts of the page, and nothing that is known from an earlier page.
func Click(selector string) Action {
	return found(selector, func(ctx context.Context, t *chromedp.Target, id runtime.RemoteObjectID) error {
		if _, err := cdp.Call(ctx, t, dom.ScrollIntoViewIfNeeded, dom.ScrollIntoViewIfNeededParams{ObjectID: id}); err != nil {
			return err
		}
		r, err := cdp.Call(ctx, t, dom.GetContentQuads, dom.GetContentQuadsParams{ObjectID: id})
		if err != nil {
			return err
		}
		if len(r.Quads) == 0 || len(r.Quads[0]) != 8 {
			return errors.New("it cannot be seen")
		}
		q := r.Quads[0] // its corners, as x and y each
		x, y := (q[0]+q[2]+q[4]+q[6])/4, (q[1]+q[3]+q[5]+q[7])/4
		const top = "function(x, y) { const e = document.elementFromPoint(x, y); return !!e && (this.contains(e) || e.contains(this)) }"
		var is bool
		if err := call(ctx, t, id, top, &is, x, y); err != nil {
			return err
		}
		if !is {
			return errors.New("something covers it")
		}
		_, err = chromedp.MouseClickXY(x, y)(ctx, t)
		return err
	})
}

// Type types a text into a field.
func Type(selector, text string) Action {
	focus := found(selector, func(ctx context.Context, t *chromedp.Target, id runtime.RemoteObjectID) error {
		_, err := cdp.Call(ctx, t, dom.Focus, dom.FocusParams{ObjectID: id})
		return err
	})
	return chromedp.Steps(focus, chromedp.KeyEvent(text))
}

// found does something with what a selector finds. Until it succeeds it is tried again, since the page may not be there yet.
func found(selector string, do func(context.Context, *chromedp.Target, runtime.RemoteObjectID) error) Action {
	try := func(ctx context.Context, t *chromedp.Target) error {
		ctx, cancel := context.WithTimeout(ctx, once)
		defer cancel()
		r, err := cdp.Call(ctx, t, runtime.Evaluate, runtime.EvaluateParams{Expression: "document.querySelector(" + Quote(selector) + ")"})
		switch {
		case err != nil:
			return err
		case r.ExceptionDetails != nil:
			return errors.New(exception(r.ExceptionDetails))
		case r.Result.ObjectID == "":
			return errors.New("it is not there")
		}
		return do(ctx, t, r.Result.ObjectID)
	}
	return func(ctx context.Context, t *chromedp.Target) (chromedp.Void, error) {
		for {
			err := try(ctx, t)
			if err == nil {
				return chromedp.Void{}, nil
			}
			select {
			case <-ctx.Done():
				return chromedp.Void{}, fmt.Errorf("%s: %w", selector, err)
			case <-time.After(50 * time.Millisecond):
			}
		}
	}
}

// call calls a function with an object as this.
func call(ctx context.Context, t *chromedp.Target, id runtime.RemoteObjectID, function string, to any, args ...any) error {
	p := runtime.CallFunctionOnParams{FunctionDeclaration: function, ObjectID: id}
	yes := true
	p.ReturnByValue = &yes
	for _, a := range args {
		p.Arguments = append(p.Arguments, &runtime.CallArgument{Value: []byte(Quote(a))})
	}
	r, err := cdp.Call(ctx, t, runtime.CallFunctionOn, p)
	if err == nil && r.ExceptionDetails != nil {
		err = errors.New(exception(r.ExceptionDetails))
	}
	if err == nil {
		err = json.Unmarshal(r.Result.Value, to)
	}
	return err
}

// Press presses keys one after the other, wherever the focus is. Those that are no letters are in package kb of chromedp.
func Press(keys string) Action { return chromedp.KeyEvent(keys) }

// Reload loads the page again, and sends a form again that it is the answer to.
func Reload() Action { return chromedp.Reload() }

// Patience gives a function that waits a moment, and says whether Limit is not over yet.
func Patience() func() bool {
	end := time.Now().Add(Limit)
	return func() bool {
		time.Sleep(50 * time.Millisecond)
		return time.Now().Before(end)
	}
}
