package web

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"
	"unicode/utf16"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"phoenix-lab.org/aln-registry/did"
	"phoenix-lab.org/aln-registry/registry"
	"phoenix-lab.org/aln-registry/registry/policy"
	"phoenix-lab.org/aln-registry/registry/record"
	"phoenix-lab.org/aln-registry/storage"
)

// logPage is the body of the page /log.
type logPage struct {
	Size          int64
	Root          string
	Note          string
	Rows          []logRow
	Newer, Older  string // links
	First, Latest int64
}

// logRow is one entry; of a record that the asker may not read, only its place and time.
type logRow struct {
	Index   int64
	Time    time.Time
	Hidden  bool
	Act     string
	Subject subject
	Signer  did.DID
}

// subject is what a record is about, with the page that tells of it.
type subject struct {
	Text, Link string
	DID        did.DID // of a member
}

func (p *Pages) subject(s record.Subject) subject {
	switch {
	case s.Upstream() != "":
		return subject{Text: s.String(), Link: p.Link("upstreams", s.Upstream(), "crates", s.Crate())}
	case s.Version() != "":
		return subject{Text: s.String(), Link: p.Link("artifacts", string(s.Kind()), s.Name(), s.Version())}
	case s.Kind() != "":
		return subject{Text: s.String(), Link: p.Link("artifacts", string(s.Kind()), s.Name())}
	case s.Member() != "":
		return subject{Text: "member " + string(s.Member()), DID: s.Member()}
	}
	return subject{Text: s.String()}
}

// hidden: the policy keeps a record from the asker, or that there is one.
func hidden(err error) bool {
	var denial *policy.Denial
	return errors.As(err, &denial) || errors.Is(err, registry.ErrUnauthenticated) || errors.Is(err, registry.ErrNotFound)
}

func (p *Pages) log(w http.ResponseWriter, r *http.Request, v *visit) error {
	v.Active = "log"
	note, err := p.Registry.Checkpoint(r.Context())
	if err != nil {
		return err
	}
	size, root, err := readNote(note) // and not the registry's, which may have grown since
	if err != nil {
		return err
	}
	before := size
	if text := r.URL.Query().Get("before"); text != "" {
		n, err := strconv.ParseInt(text, 10, 64)
		if err != nil || n < 1 || n > size {
			return errNoPage
		}
		before = n
	}
	body := logPage{Size: size, Root: root, Note: string(note), First: max(0, before-perPage), Latest: before - 1}
	times, err := p.Registry.EntryTimes(r.Context(), body.First, before)
	if err != nil {
		return err
	}
	for i := before - 1; i >= body.First; i-- {
		row := logRow{Index: i, Time: times[i-body.First]}
		stored, err := p.Registry.RecordAt(r.Context(), v.Asker, i)
		switch {
		case hidden(err):
			row.Hidden = true
		case err != nil:
			return err
		default:
			row.Act, row.Subject, row.Signer = stored.Record.Act(), p.subject(stored.Record.Subject()), stored.Record.Header().Signer.DID
		}
		body.Rows = append(body.Rows, row)
	}
	if body.First > 0 {
		body.Older = p.Link("log") + "?before=" + strconv.FormatInt(body.First, 10)
	}
	if before < size {
		body.Newer = p.Link("log") + "?before=" + strconv.FormatInt(min(size, before+perPage), 10)
	}
	return v.render(w, r, http.StatusOK, "log", "Log", body)
}

// readNote is what a checkpoint of ours says: its second and third line (C2SP tlog-checkpoint).
func readNote(note []byte) (size int64, root string, err error) {
	lines := strings.SplitN(string(note), "\n", 4)
	if len(lines) < 4 {
		return 0, "", errors.New("the checkpoint is none")
	}
	size, err = strconv.ParseInt(lines[1], 10, 64)
	return size, lines[2], err
}

// recordPage is the body of the page of one record.
type recordPage struct {
	registry.Stored
	Time      time.Time
	Subject   subject
	Statement string
	// Seen is what an import record says was seen, nil for others.
	Seen *seenFile
}

// seenFile is an index file of another registry.
type seenFile struct {
	Crate, Upstream string
	Snapshot        storage.CID
	Size            int64
	// File is a link to its bytes.
	File string
}

// seenBy is what a record says was seen of another registry, nil where it says nothing of the kind.
func (p *Pages) seenBy(ctx context.Context, stored registry.Stored) (*seenFile, error) {
	if stored.Record.Type() != record.TypeImport {
		return nil, nil
	}
	s, id := stored.Record.Subject(), stored.Record.Snapshot()
	size, err := p.Registry.Blobs.Stat(ctx, id)
	if err != nil {
		return nil, err
	}
	return &seenFile{s.Crate(), s.Upstream(), id, size, p.Link("record", strconv.FormatInt(stored.Index, 10), "snapshot")}, nil
}

func (p *Pages) record(w http.ResponseWriter, r *http.Request, v *visit) error {
	v.Active = "log"
	stored, err := p.stored(r, v)
	if err != nil {
		return err
	}
	times, err := p.Registry.EntryTimes(r.Context(), stored.Index, stored.Index+1)
	if err != nil {
		return err
	}
	statement, err := statementOf(stored.Record.Envelope())
	if err != nil {
		return err
	}
	seen, err := p.seenBy(r.Context(), stored)
	if err != nil {
		return err
	}
	return v.render(w, r, http.StatusOK, "record", "Entry "+strconv.FormatInt(stored.Index, 10), recordPage{
		Stored: stored, Time: times[0], Subject: p.subject(stored.Record.Subject()), Statement: statement, Seen: seen,
	})
}

// statementOf is what an envelope's signature is about, set out for reading:
// the same JSON, in which characters that show nothing or turn the direction of
// what follows are spelled as escapes.
func statementOf(envelope []byte) (string, error) {
	var signed struct {
		Payload []byte `json:"payload"`
	}
	if err := json.Unmarshal(envelope, &signed); err != nil {
		return "", err
	}
	statement := jsontext.Value(signed.Payload)
	if err := statement.Indent(jsontext.WithIndent("  ")); err != nil {
		return "", err
	}
	var told strings.Builder
	for _, r := range string(statement) {
		switch {
		case r == '\n' || !turnsText(r) && !showsNothing(r):
			told.WriteRune(r)
		case r > 0xffff:
			high, low := utf16.EncodeRune(r)
			fmt.Fprintf(&told, `\u%04x\u%04x`, high, low)
		default:
			fmt.Fprintf(&told, `\u%04x`, r)
		}
	}
	return told.String(), nil
}

// stored is the record that the path names, by log index or identity.
func (p *Pages) stored(r *http.Request, v *visit) (registry.Stored, error) {
	text := param(r, "id")
	if index, err := strconv.ParseInt(text, 10, 64); err == nil && strconv.FormatInt(index, 10) == text {
		return p.Registry.RecordAt(r.Context(), v.Asker, index)
	}
	id, err := record.ParseID(text)
	if err != nil {
		return registry.Stored{}, errNoPage
	}
	return p.Registry.Record(r.Context(), v.Asker, id)
}
