package main

import (
	"fmt"
	"os"
	"text/tabwriter"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	"golang.org/x/term"
)

// printJSON prints v for programs.
func (a *app) printJSON(v any) error {
	raw, err := json.Marshal(v, json.Deterministic(true), jsontext.WithIndent("  "))
	if err != nil {
		return err
	}
	fmt.Fprintf(a.out, "%s\n", raw)
	return nil
}

// table prints rows aligned in columns.
func (a *app) table(rows [][]string) {
	w := tabwriter.NewWriter(a.out, 0, 0, 2, ' ', 0)
	for _, row := range rows {
		for i, cell := range row {
			if i > 0 {
				fmt.Fprint(w, "\t")
			}
			fmt.Fprint(w, cell)
		}
		fmt.Fprintln(w)
	}
	w.Flush()
}

// progress reports long work on the error stream: a line that is written over
// on a terminal, plain lines at most every two seconds elsewhere.
type progress struct {
	a        *app
	what     string
	terminal bool
	last     time.Time
	shown    bool
}

func (a *app) progress(what string) *progress {
	f, ok := a.err.(*os.File)
	return &progress{a: a, what: what, terminal: ok && term.IsTerminal(int(f.Fd())), last: time.Now()}
}

func (p *progress) at(done, all int64) {
	every := 2 * time.Second
	if p.terminal {
		every = 100 * time.Millisecond
	}
	if time.Since(p.last) < every {
		return
	}
	p.last, p.shown = time.Now(), true
	text := fmt.Sprintf("%s: %d", p.what, done)
	if all > 0 {
		text = fmt.Sprintf("%s: %d of %d", p.what, done, all)
	}
	if p.terminal {
		fmt.Fprintf(p.a.err, "\r%s\x1b[K", text)
	} else {
		fmt.Fprintln(p.a.err, text)
	}
}

func (p *progress) done() {
	if p.terminal && p.shown {
		fmt.Fprint(p.a.err, "\r\x1b[K")
	}
}

// mark is how a check's outcome looks; colours only on a terminal and without NO_COLOR.
func (a *app) mark(ok bool) string {
	word, colour := "ok", "\x1b[32m"
	if !ok {
		word, colour = "FAIL", "\x1b[31m"
	}
	f, isFile := a.out.(*os.File)
	if !isFile || !term.IsTerminal(int(f.Fd())) || os.Getenv("NO_COLOR") != "" {
		return word
	}
	return colour + word + "\x1b[0m"
}
