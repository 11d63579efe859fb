package main

import (
	"fmt"
	"io"
	stdlog "log"
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

// tidy takes from a text all that could move the cursor, turn the direction of
// writing, set a colour or begin a line: lock files and registries are other people's.
func tidy(text string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return '\uFFFD'
	}, text)
}

// tidyLines is tidy for a text of ours of several lines, with foreign text in it.
func tidyLines(text string) string {
	lines := strings.Split(text, "\n")
	for i, line := range lines {
		lines[i] = tidy(line)
	}
	return strings.Join(lines, "\n")
}

// table prints rows aligned in columns, two spaces apart.
func (a *app) table(rows [][]string) { printTable(a.out, rows, -1, nil) }

// markedTable is table with marks in one column, in which no foreign text stands.
func (a *app) markedTable(rows [][]string, column int) { printTable(a.out, rows, column, a.paint) }

// printTable paints the cells of one column; all else is shown without colours.
func printTable(out io.Writer, rows [][]string, painted int, paint func(string) string) {
	var widths []int
	for _, row := range rows {
		for i, cell := range row {
			row[i] = tidy(cell)
			if i == len(widths) {
				widths = append(widths, 0)
			}
			widths[i] = max(widths[i], utf8.RuneCountInString(row[i]))
		}
	}
	for _, row := range rows {
		var line strings.Builder
		for i, cell := range row {
			pad := widths[i] - utf8.RuneCountInString(cell) + 2
			if i == painted {
				cell = paint(cell)
			}
			line.WriteString(cell)
			if i < len(row)-1 {
				line.WriteString(strings.Repeat(" ", pad))
			}
		}
		fmt.Fprintln(out, line.String())
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

// logLibraries has log take what libraries write to the standard logger, until undo is called.
func logLibraries(log *slog.Logger) (undo func()) {
	to, flags := stdlog.Writer(), stdlog.Flags()
	stdlog.SetFlags(0)
	stdlog.SetOutput(librariesLog{log})
	return func() {
		stdlog.SetOutput(to)
		stdlog.SetFlags(flags)
	}
}

// librariesLog leaves out what libraries quote, as net/http does with what comes unasked over a
// connection to another registry: that may be anything.
type librariesLog struct{ log *slog.Logger }

// Write implements io.Writer.
func (l librariesLog) Write(line []byte) (int, error) {
	said, _, _ := strings.Cut(string(line), `"`)
	l.log.Warn("a library complains", "problem", strings.TrimSpace(said))
	return len(line), nil
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
		fmt.Fprintf(p.a.err, "\r%s%s\x1b[K", bar(done, all), text)
	} else {
		fmt.Fprintln(p.a.err, text)
	}
}

// barCells is how wide a bar is, in a terminal of eighty columns or fewer.
const barCells = 20

// bar is how far work is, drawn; nothing where that is not known.
func bar(done, all int64) string {
	if all <= 0 {
		return ""
	}
	full := int(min(max(done, 0), all) * barCells / all)
	return "[" + strings.Repeat("#", full) + strings.Repeat(".", barCells-full) + "] "
}

// of is at for work in several parts, each with a name of its own.
func (p *progress) of(what string, done, all int64) {
	p.what = what
	p.at(done, all)
}

func (p *progress) done() {
	if p.terminal && p.shown {
		fmt.Fprint(p.a.err, "\r\x1b[K")
	}
}

// mark is how a check's outcome looks in a table, mark painted elsewhere.
func mark(ok bool) string {
	if ok {
		return checkOK
	}
	return checkFail
}

// paint gives a mark, alone or behind spaces, its colour; only on a terminal and
// without NO_COLOR.
func (a *app) paint(cell string) string {
	if !isTerminal(a.out) || os.Getenv("NO_COLOR") != "" {
		return cell
	}
	return coloured(cell)
}

func coloured(cell string) string {
	word := strings.TrimLeft(cell, " ")
	colour := map[string]string{checkOK: green, checkFail: red}[word]
	if colour == "" {
		return cell
	}
	return strings.TrimSuffix(cell, word) + colour + word + plain
}
