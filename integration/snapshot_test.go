package integration

import (
	"bytes"
	"database/sql"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"flag"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	_ "modernc.org/sqlite" // the driver "sqlite"

	"phoenix-lab.org/aln-registry/storage"
)

// go test ./integration -run Snapshot -update-snapshot writes the golden file
// anew; look at the difference before you commit it.
var updateSnapshot = flag.Bool("update-snapshot", false, "write testdata/publish.golden anew")

const snapshotFile = "testdata/publish.golden"

// TestSnapshotOfOnePublish holds everything that one `cargo publish` leaves
// behind against a golden file: the answer, what the index serves, every new
// catalog row, every new file, the log's entry and checkpoint. What differs from
// run to run is a placeholder; one number stands for one value, whether it
// appears as hex, base64 or CID.
func TestSnapshotOfOnePublish(t *testing.T) {
	p := newProxy(t)
	l := newLab(t, "--public-url", p.URL)
	p.aim(l.url)
	u := l.operator
	folder := u.crate("demo-one", "0.1.0", "keywords = [\"Snap\", \"shot\"]\n[features]\ndefault = [\"std\"]\nstd = []\n", "pub fn one() {}\n")
	must(t, u.aln(folder, "login", p.URL))
	rows, files := catalogRows(t, l), dataFiles(t, l)
	p.begin(nil)
	must(t, u.cargo(folder, "publish", "--registry", "aln", "--no-verify"))

	s := &snapshot{t: t, names: map[string]string{
		p.URL: "<url>", u.did(): "<operator>", strings.TrimPrefix(u.did(), "did:key:"): "<operator's key>", l.origin(): "<origin>", strings.TrimPrefix(l.origin(), "did:key:"): "<origin's key>",
	}}
	for _, e := range p.exchanges() {
		if e.method == "PUT" {
			s.section("answer to " + e.method + " " + e.path)
			s.line("%d", e.status)
			for _, name := range sortedHeader(e.header) {
				s.line("%s: %s", name, strings.Join(e.header[name], ", "))
			}
			s.line("%s", e.body)
		}
	}
	status, header, index := l.get("/index/de/mo/demo-one", l.readToken(u))
	s.section("index file /index/de/mo/demo-one")
	s.line("%d %s\n%s", status, header.Get("Content-Type"), index)
	_, _, checkpoint := l.get("/log/checkpoint", "")
	s.section("checkpoint")
	s.line("%s", checkpoint)
	_, _, entries := l.get("/log/tile/entries/000.p/3", "")
	s.section("last entry of the log")
	s.line("%s", entries[bytes.LastIndexByte(entries, '{'):])

	l.stop()
	s.section("new or changed rows of the catalog")
	for _, row := range catalogRows(t, l) {
		if !slices.Contains(rows, row) {
			s.line("%s", row)
		}
	}
	s.section("new files")
	s.files(files, dataFiles(t, l), checkpoint)
	s.compare()
}

func sortedHeader(header map[string][]string) []string {
	var names []string
	for name := range header {
		if name != "Date" {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

// origin is the first line of the log's checkpoint.
func (l *lab) origin() string {
	l.t.Helper()
	_, _, note := l.get("/log/checkpoint", "")
	origin, _, _ := strings.Cut(string(note), "\n")
	return origin
}

// readToken is the read session that u's last command left in ALN_HOME.
func (l *lab) readToken(u *user) string {
	l.t.Helper()
	must(l.t, u.aln(u.folder, "log", "show"))
	for name, data := range readFolder(l.t, filepath.Join(u.home, "sessions")) {
		var session struct{ Token string }
		if strings.HasSuffix(name, ".json") && json.Unmarshal(data, &session) == nil {
			return session.Token
		}
	}
	l.t.Fatal("there is no cached session")
	return ""
}

// catalogRows is every row of every table of the catalog, in order.
func catalogRows(t *testing.T, l *lab) []string {
	t.Helper()
	db, err := sql.Open("sqlite", "file:"+filepath.Join(l.data, "catalog.db")+"?_pragma=query_only(1)&_pragma=busy_timeout(10000)")
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	var all []string
	for _, table := range []string{"head", "entry", "log_hash", "state", "crate_line", "published", "assertion", "meta"} {
		rows, err := db.Query("SELECT * FROM " + table)
		if err != nil {
			t.Fatal(err)
		}
		columns, err := rows.Columns()
		if err != nil {
			t.Fatal(err)
		}
		for rows.Next() {
			values := make([]any, len(columns))
			for i := range values {
				values[i] = new(any)
			}
			if err := rows.Scan(values...); err != nil {
				t.Fatal(err)
			}
			row := table
			for i, column := range columns {
				row += "\n  " + column + " = " + shown(*values[i].(*any))
			}
			all = append(all, row)
		}
		if err := rows.Err(); err != nil {
			t.Fatal(err)
		}
		rows.Close()
	}
	return all
}

// shown is a column's value: text as it is, other bytes as hex.
func shown(v any) string {
	b, ok := v.([]byte)
	switch {
	case !ok:
		return fmt.Sprint(v)
	case utf8.Valid(b) && len(b) != 32:
		return strings.ReplaceAll(strings.TrimSuffix(string(b), "\n"), "\n", "\n    ")
	}
	return hex.EncodeToString(b)
}

// dataFiles is every file below the data folder but the catalog's own.
func dataFiles(t *testing.T, l *lab) map[string][]byte {
	t.Helper()
	files := map[string][]byte{}
	err := filepath.WalkDir(l.data, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || strings.HasPrefix(d.Name(), "catalog.db") {
			return err
		}
		name, err := filepath.Rel(l.data, path)
		if err != nil {
			return err
		}
		files[filepath.ToSlash(name)], err = os.ReadFile(path)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

// snapshot is the text under construction.
type snapshot struct {
	t     *testing.T
	text  strings.Builder
	names map[string]string // values that have a name of their own
}

func (s *snapshot) section(title string) { fmt.Fprintf(&s.text, "\n== %s\n", title) }

func (s *snapshot) line(format string, args ...any) {
	s.text.WriteString(strings.TrimRight(fmt.Sprintf(format, args...), "\n") + "\n")
}

// files shows the files that came, and holds each blob to its name. No file
// that was there may be changed or gone.
func (s *snapshot) files(before, after map[string][]byte, checkpoint []byte) {
	s.t.Helper()
	var names []string
	for name, data := range after {
		if old, was := before[name]; was && !bytes.Equal(old, data) {
			s.t.Errorf("%s was changed", name)
		} else if !was {
			names = append(names, name)
		}
	}
	for name := range before {
		if _, is := after[name]; !is {
			s.t.Errorf("%s is gone", name)
		}
	}
	kind := func(name string) string {
		data := after[name]
		switch {
		case bytes.HasPrefix(data, []byte{0x1f, 0x8b}):
			return "1 crate"
		case strings.Contains(name, "/blobs/"):
			return "2 record"
		}
		return "3 " + name
	}
	slices.SortFunc(names, func(a, b string) int { return strings.Compare(kind(a), kind(b)) })
	for _, name := range names {
		data := after[name]
		if base := filepath.Base(name); strings.Contains(name, "/blobs/") && base != storage.CIDOf(data).String() {
			s.t.Errorf("%s holds %s", name, storage.CIDOf(data))
		}
		name = regexp.MustCompile(`/blobs/[a-z0-9]+/`).ReplaceAllString(name, "/blobs/<shard>/")
		switch {
		case bytes.HasPrefix(data, []byte{0x1f, 0x8b}):
			s.line("%s: the .crate", name)
		case strings.Contains(name, "/blobs/"):
			s.line("%s: the record's envelope", name)
			s.envelope(data)
		default:
			s.line("%s:\n  %s", name, strings.ReplaceAll(strings.TrimSuffix(string(data), "\n"), "\n", "\n  "))
		}
		if strings.Contains(name, "/checkpoint/") && !bytes.Equal(data, checkpoint) {
			s.t.Error("the checkpoint served is not the one stored")
		}
	}
}

func (s *snapshot) envelope(data []byte) {
	s.t.Helper()
	var envelope struct {
		Payload     []byte `json:"payload"`
		PayloadType string `json:"payloadType"`
		Signatures  []struct {
			KeyID string `json:"keyid"`
			Sig   string `json:"sig"`
		} `json:"signatures"`
	}
	if err := json.Unmarshal(data, &envelope); err != nil || len(envelope.Signatures) != 1 {
		s.t.Fatalf("%v: %s", err, data)
	}
	s.line("  payloadType %s\n  keyid %s\n  payload %s", envelope.PayloadType, envelope.Signatures[0].KeyID, envelope.Payload)
}

var (
	hashForm = regexp.MustCompile(`bafkrei[a-z2-7]{52}|\b[0-9a-f]{64}\b|[A-Za-z0-9+/]{43}=`)
	varying  = []struct {
		form *regexp.Regexp
		by   string
	}{
		{regexp.MustCompile(`\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ`), "<time>"},
		{regexp.MustCompile(`(?m)^( *— \S+) [A-Za-z0-9+/]+=*$`), "$1 <signature>"},
		{regexp.MustCompile(`(X-Request-Id: )[0-9a-f]{16}`), "$1<request id>"},
		{regexp.MustCompile(`(jti = )[0-9a-f]{32}`), "$1<jti>"},
		{regexp.MustCompile(`(expires|created) = \d{10}`), "$1 = <unix time>"},
	}
)

// normal replaces what differs from run to run.
func (s *snapshot) normal() string {
	text := s.text.String()
	for _, v := range varying {
		text = v.form.ReplaceAllString(text, v.by)
	}
	for _, value := range slices.SortedFunc(maps.Keys(s.names), func(a, b string) int { return len(b) - len(a) }) {
		text = strings.ReplaceAll(text, value, s.names[value])
	}
	numbers := map[string]int{}
	return hashForm.ReplaceAllStringFunc(text, func(found string) string {
		form, digest := "hex", found
		if cid, err := storage.ParseCID(found); err == nil {
			form, digest = "cid", cid.Hex()
		} else if raw, err := base64.StdEncoding.DecodeString(found); err == nil && len(raw) == 32 {
			form, digest = "base64", hex.EncodeToString(raw)
		}
		if numbers[digest] == 0 {
			numbers[digest] = len(numbers) + 1
		}
		return fmt.Sprintf("<%s %d>", form, numbers[digest])
	})
}

func (s *snapshot) compare() {
	s.t.Helper()
	got := "What one `cargo publish` leaves behind (snapshot_test.go)\n" + s.normal()
	if *updateSnapshot {
		writeFiles(s.t, ".", map[string]string{snapshotFile: got})
	}
	want, err := os.ReadFile(snapshotFile)
	if err != nil {
		s.t.Fatal(err)
	}
	if got != string(want) {
		s.t.Errorf("not as in %s (-update-snapshot writes it anew):\n%s", snapshotFile, got)
	}
}
