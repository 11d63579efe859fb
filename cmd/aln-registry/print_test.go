package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"unicode"

	"github.com/go-json-experiment/json"

	"phoenix-lab.org/aln-registry/client"
	"phoenix-lab.org/aln-registry/registry/verify"
)

func TestTableAlignsColouredCells(t *testing.T) {
	rows := func() [][]string {
		return [][]string{{"PACKAGE", "", "REASON"}, {"é@1", mark(true), "x"}, {"b@1", mark(false), "y"}, {"c@1", "-"}, {"d@1", "  " + mark(true), "z"}}
	}
	var out, painted strings.Builder
	(&app{out: &out}).markedTable(rows(), 1)
	printTable(&painted, rows(), 1, coloured)
	want := "PACKAGE        REASON\né@1      ok    x\nb@1      FAIL  y\nc@1      -\nd@1        ok  z\n"
	if out.String() != want {
		t.Errorf("got\n%s\nwant\n%s", out.String(), want)
	}
	if got := strings.NewReplacer(green, "", red, "", plain, "").Replace(painted.String()); got != want {
		t.Errorf("with colours\n%s\nwant\n%s", got, want)
	}
	for _, cell := range []string{green + "ok" + plain + "    x", red + "FAIL" + plain + "  y", "  " + green + "ok" + plain + "  z"} {
		if !strings.Contains(painted.String(), cell) {
			t.Errorf("the colour is gone or covers the spaces: %q", painted.String())
		}
	}
}

// What a lock file or a registry says cannot move the cursor, set a colour or write a line of its own.
func TestTableShowsForeignTextTamely(t *testing.T) {
	for foreign, want := range map[string]string{
		"app\x1b[2Jx": "app\uFFFD[2Jx", "a\nb\u202ec": "a\uFFFDb\uFFFDc", "\x01ok\x03": "\uFFFDok\uFFFD", "\x02": "\uFFFD",
		green + "ok" + plain: "\uFFFD[32mok\uFFFD[0m", "\u009b31m": "\uFFFD31m", "\x9b31m": "\uFFFD31m", "\t": "\uFFFD", "ok": "ok",
	} {
		var out strings.Builder
		printTable(&out, [][]string{{foreign, "FAIL"}}, 1, coloured)
		if got := out.String(); got != want+"  "+red+"FAIL"+plain+"\n" {
			t.Errorf("%q: %q", foreign, got)
		}
		if got := tidyLines("first\n" + foreign); strings.ContainsAny(got, "\x1b\u009b\u202e\x01\x02\x03") || !strings.HasPrefix(got, "first\n") {
			t.Errorf("%q: %q", foreign, got)
		}
	}
}

func TestNearestRole(t *testing.T) {
	for role, want := range map[string]string{
		"publsher": "publisher", "Publisher": "publisher", "publishers": "publisher", "mirorr": "mirror",
		"audit": "auditor", "curator": "", "x": "", "reviwer": "reviewer", "": "",
	} {
		if got := nearestRole(role); got != want {
			t.Errorf("%q: %q, want %q", role, got, want)
		}
	}
}

// Nor can it in an error, whoever's words are in it.
func TestErrorsShowForeignTextTamely(t *testing.T) {
	t.Setenv("ALN_HOME", t.TempDir())
	t.Setenv("CARGO_HOME", t.TempDir())
	for name, answer := range map[string]http.HandlerFunc{
		"redirect": func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "https://%C2%9B31mEVIL/", http.StatusFound)
		},
		"refusal": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			w.WriteHeader(http.StatusForbidden)
			_, _ = w.Write([]byte(`{"error":{"code":"EVIL","detail":"EVIL \u009b31m\u001b[31m\u202e\rEVIL"}}`))
		},
		"checkpoint": func(w http.ResponseWriter, _ *http.Request) {
			_, _ = w.Write([]byte("EVIL \u009b31m\x1b[31m\n1\nAA\n\n— x\n"))
		},
	} {
		server := httptest.NewServer(answer)
		defer server.Close()
		for _, args := range [][]string{{"login", server.URL}, {"login", server.URL, "--json"}} {
			var out, errOut strings.Builder
			if status := run(t.Context(), args, strings.NewReader(""), &out, &errOut); status == 0 {
				t.Errorf("%s: %v succeeded", name, args)
			}
			said := out.String() + errOut.String()
			if !strings.HasPrefix(errOut.String(), "aln-registry: ") || strings.ContainsFunc(said, func(r rune) bool { return r != '\n' && !unicode.IsPrint(r) }) {
				t.Errorf("%s: %v said %q", name, args, said)
			}
		}
	}
}

// What libraries write on their own goes into the server's log, without what came from others.
func TestWhatLibrariesQuoteIsNotLogged(t *testing.T) {
	var out strings.Builder
	before := log.Writer()
	undo := logLibraries((&app{}).loggerTo(&out))
	log.Printf("Unsolicited response received on idle HTTP channel starting with %q; err=%v", "s3cr3t\r\n", nil)
	undo()
	if text := out.String(); !strings.Contains(text, "Unsolicited response received") || strings.Contains(text, "s3cr3t") || log.Writer() != before {
		t.Errorf("logged %q", text)
	}
}

// A log that is believed no more in the middle of a comparison is part of the one document that
// is printed, not one behind it.
func TestAComparisonThatEndsIsOneDocument(t *testing.T) {
	var out bytes.Buffer
	a := &app{out: &out, json: true}
	refused := verify.Verdict{Checks: []verify.Check{{Name: verify.CheckConsistency, Detail: "another past"}}}
	err := a.printCompared(fullJSON{Index: []string{"crates-io: itoa@1.0.0: it lacks"}}, 0, fmt.Errorf("compare: %w", &client.Unproved{URL: "http://127.0.0.1:1", Verdict: refused}))
	var again *client.Unproved
	if err == nil || errors.As(err, &again) || !strings.Contains(err.Error(), "another past") {
		t.Errorf("ends with %v", err)
	}
	var said struct {
		OK      bool
		Verdict verify.Verdict
		Index   []string
	}
	if err := json.Unmarshal(out.Bytes(), &said, json.MatchCaseInsensitiveNames(true)); err != nil || said.OK || len(said.Verdict.Checks) != 1 || len(said.Index) != 1 {
		t.Errorf("%v: %s", err, out.String())
	}
	if err := a.printCompared(fullJSON{}, 0, context.Canceled); !errors.Is(err, context.Canceled) {
		t.Errorf("an interrupt becomes %v", err)
	}
}
