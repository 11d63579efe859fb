package integration

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"fmt"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/cdproto/page"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
)

// browser is a tab of a real Chromium that notes everything which must not happen.
type browser struct {
	t   *testing.T
	ctx context.Context

	mu       sync.Mutex
	requests []string // URLs asked for
	dialogs  []string
	messages []string // of the console: exceptions, blocked loads, broken policies
}

// newBrowser starts Chromium, installing it where it is missing.
func newBrowser(t *testing.T) *browser {
	t.Helper()
	if out, err := exec.Command("testbed/chromium.sh").CombinedOutput(); err != nil {
		t.Fatalf("chromium is needed for this test: %v\n%s", err, out)
	}
	options := append(chromedp.DefaultExecAllocatorOptions[:],
		chromedp.ExecPath("chromium"), chromedp.NoSandbox, chromedp.UserDataDir(t.TempDir()),
		chromedp.Flag("disable-background-networking", true), chromedp.Flag("disable-component-update", true), chromedp.Flag("disable-sync", true),
	)
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
	t.Cleanup(cancel)
	ctx, cancel = chromedp.NewExecAllocator(ctx, options...)
	t.Cleanup(cancel)
	ctx, cancel = chromedp.NewContext(ctx)
	t.Cleanup(cancel)
	b := &browser{t: t, ctx: ctx}
	b.do(chromedp.Navigate("about:blank"))
	if err := chromedp.Listen(ctx, b.note); err != nil {
		t.Fatal(err)
	}
	for _, enable := range []func() error{
		func() error { _, err := chromedp.Call(ctx, network.Enable, network.EnableParams{}); return err },
		func() error { _, err := chromedp.Call(ctx, log.Enable, cdp.Empty{}); return err },
	} {
		if err := enable(); err != nil {
			t.Fatal(err)
		}
	}
	return b
}

// note is called for every event, in order.
func (b *browser) note(event any) {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch e := event.(type) {
	case *network.EventRequestWillBeSent:
		b.requests = append(b.requests, e.Request.URL)
	case *page.EventJavascriptDialogOpening:
		b.dialogs = append(b.dialogs, e.Message)
		go chromedp.Call(b.ctx, page.HandleJavaScriptDialog, page.HandleJavaScriptDialogParams{Accept: false})
	case *log.EventEntryAdded:
		if !strings.Contains(e.Entry.Text, "the server responded with a status of 4") { // a refusal is not a failure of the page
			b.messages = append(b.messages, e.Entry.Text)
		}
	case *runtime.EventExceptionThrown:
		b.messages = append(b.messages, e.ExceptionDetails.Text)
	case *runtime.EventConsoleAPICalled:
		b.messages = append(b.messages, fmt.Sprintf("console.%s", e.Type))
	}
}

func (b *browser) do(steps ...chromedp.Action[chromedp.Void]) {
	b.t.Helper()
	if err := chromedp.Do(b.ctx, steps...); err != nil {
		b.t.Fatal(err)
	}
}

// open loads url and waits until everything that it loads is there.
func (b *browser) open(url string) {
	b.t.Helper()
	b.do(chromedp.Navigate(url))
}

// text is what a person reads.
func (b *browser) text() string {
	b.t.Helper()
	return run(b, chromedp.Evaluate[string]("document.body.innerText"))
}

// leave clicks on what selector finds, which leads to another page.
func (b *browser) leave(selector string) {
	b.t.Helper()
	if _, err := chromedp.RunResponse(b.ctx, chromedp.Click(chromedp.CSS(selector))); err != nil {
		b.t.Fatal(err)
	}
}

// wantQuiet fails the test if a script ran, a dialog opened, the policy had to
// stop something, or anything was asked of another origin.
func (b *browser) wantQuiet(where, origin string) {
	b.t.Helper()
	time.Sleep(150 * time.Millisecond) // for what would come a moment later
	ran := run(b, chromedp.Evaluate[bool]("'pwned' in window || 'pwned' in document"))
	b.mu.Lock()
	defer b.mu.Unlock()
	if ran || len(b.dialogs) > 0 {
		b.t.Errorf("%s: a script ran (dialogs: %q)", where, b.dialogs)
	}
	if len(b.messages) > 0 {
		b.t.Errorf("%s: the browser complains: %q", where, b.messages)
	}
	for _, url := range b.requests {
		if url != "about:blank" && !strings.HasPrefix(url, origin+"/") {
			b.t.Errorf("%s: the page asks for %s", where, url)
		}
	}
	b.dialogs, b.messages, b.requests = nil, nil, nil
}

func run[T any](b *browser, action chromedp.Action[T]) T {
	b.t.Helper()
	value, err := chromedp.Run(b.ctx, action)
	if err != nil {
		b.t.Fatal(err)
	}
	return value
}

// packCrate makes a .crate of files, given as path and text, Cargo.toml first.
func packCrate(t *testing.T, name, version, manifest string, files ...[2]string) []byte {
	t.Helper()
	var packed bytes.Buffer
	z := gzip.NewWriter(&packed)
	w := tar.NewWriter(z)
	manifest = fmt.Sprintf("[package]\nname = %q\nversion = %q\nedition = \"2021\"\n%s", name, version, manifest)
	for _, file := range append([][2]string{{"Cargo.toml", manifest}, {"src/lib.rs", "pub fn it() {}\n"}}, files...) {
		if err := w.WriteHeader(&tar.Header{Name: name + "-" + version + "/" + file[0], Mode: 0o644, Size: int64(len(file[1]))}); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write([]byte(file[1])); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return packed.Bytes()
}

// put publishes a crate made by packCrate; u owns the name or may take it.
func (u *user) put(l *lab, name, version string, crate []byte) {
	u.t.Helper()
	if status, answer, err := u.signUpload(name, version, crate).send(l); status != 200 || err != nil {
		u.t.Fatalf("publish %s: %d %s %v", name, status, answer, err)
	}
}
