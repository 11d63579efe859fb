package main

import (
	"fmt"
	"io"
	"log/slog"
	"os"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

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

// counted is a number with what it counts.
func counted(n int64, one, many string) string {
	if n == 1 {
		many = one
	}
	return fmt.Sprintf("%d %s", n, many)
}

func entries(n int64) string { return counted(n, "entry", "entries") }

// Colours of a terminal.
const (
	green = "\x1b[32m"
	red   = "\x1b[31m"
	plain = "\x1b[0m"
)

// uncolour leaves of a text what takes room on a terminal.
var uncolour = strings.NewReplacer(green, "", red, "", plain, "")

// Our colours on their way through tidy.
var (
	hideColours = strings.NewReplacer(green, "\x01", red, "\x02", plain, "\x03")
	showColours = strings.NewReplacer("\x01", green, "\x02", red, "\x03", plain)
)

// tidy takes from a text all that could move the cursor, turn the direction of
// writing or begin a line: lock files and registries are other people's.
func tidy(text string) string {
	return showColours.Replace(strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) || r >= '\x01' && r <= '\x03' {
			return r
		}
		return '\uFFFD'
	}, hideColours.Replace(text)))
}

func width(cell string) int { return utf8.RuneCountInString(uncolour.Replace(cell)) }

// table prints rows aligned in columns, two spaces apart.
func (a *app) table(rows [][]string) {
	var widths []int
	for _, row := range rows {
		for i, cell := range row {
			cell = tidy(cell)
			row[i] = cell
			if i == len(widths) {
				widths = append(widths, 0)
			}
			widths[i] = max(widths[i], width(cell))
		}
	}
	for _, row := range rows {
		var line strings.Builder
		for i, cell := range row {
			line.WriteString(cell)
			if i < len(row)-1 {
				line.WriteString(strings.Repeat(" ", widths[i]-width(cell)+2))
			}
		}
		fmt.Fprintln(a.out, line.String())
	}
}

// logger writes a server's log to the error stream.
func (a *app) logger() *slog.Logger { return a.loggerTo(a.err) }

func (a *app) loggerTo(w io.Writer) *slog.Logger {
	var handler slog.Handler = slog.NewTextHandler(w, nil)
	if a.json {
		handler = slog.NewJSONHandler(w, nil)
	}
	return slog.New(handler)
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
	word, colour := "ok", green
	if !ok {
		word, colour = "FAIL", red
	}
	f, isFile := a.out.(*os.File)
	if !isFile || !term.IsTerminal(int(f.Fd())) || os.Getenv("NO_COLOR") != "" {
		return word
	}
	return colour + word + plain
}
