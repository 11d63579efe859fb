package integration

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"hash/maphash"
	"net/http"
	"path/filepath"
	"strings"
	"testing"

	"phoenix-lab.org/aln-registry/integration/testbed"
	"phoenix-lab.org/aln-registry/registry"
	"phoenix-lab.org/aln-registry/storage"
	"phoenix-lab.org/aln-registry/storage/disk"
)

// recordUpstream runs a server under strace while somebody takes crates of an upstream
// through it. What it acknowledges is each crate's line, once it is served.
func recordUpstream(t *testing.T, lines []testbed.IndexLine) *recording {
	rec := &recording{t: t, root: t.TempDir(), seed: maphash.MakeSeed(), verdicts: map[verdictKey]error{}}
	wrapper, trace := strace(t, productBinary(t))
	crates := testbed.CratesIO(t)
	l := &upstreamLab{&lab{
		t: t, data: filepath.Join(rec.root, "data"), url: "http://" + steadyAddress(t), program: wrapper,
		flags: []string{"--upstream", upstreamSetting(crates)},
	}, crates}
	l.operator = newUserIn(t, filepath.Join(rec.root, "operator"))
	l.start()
	defer l.endTraced()
	l.awaitIntroduction()
	token, client := l.readers(1)[0], plainClient()
	var files [][]upstreamFile
	for _, line := range lines {
		of := filesOf(t, crates, "/crates-io", line)
		files = append(files, of)
		for _, file := range of {
			if f := l.fetch(client, file.path, token); f.status != http.StatusOK || !bytes.Equal(f.body, file.want) {
				t.Fatalf("%s\n%s", f, l.log())
			}
		}
	}
	l.awaitHeld(token, files)
	l.endTraced()
	rec.calls = readTrace(t, trace)
	rec.findLines(lines)
	return rec
}

// plainClient asks for no compression: what it is sent can be read in a trace.
func plainClient() *http.Client {
	return &http.Client{Transport: &http.Transport{DisableCompression: true}}
}

// findLines finds the greeting, and the calls with which each crate's line was sent.
func (rec *recording) findLines(lines []testbed.IndexLine) {
	for i, c := range rec.calls {
		if c.name != "write" {
			continue
		}
		if rec.greeted == 0 && bytes.Contains(c.args[1].bytes, []byte(" serves http")) {
			rec.greeted = i
		}
		if n := len(rec.acks); n < len(lines) && strings.HasPrefix(c.args[0].path, "socket:") && bytes.Contains(c.args[1].bytes, lines[n].Marshal()) {
			rec.acks = append(rec.acks, i)
			rec.promised = append(rec.promised, isSeen(lines[n]))
		}
	}
	if rec.greeted == 0 || len(rec.acks) != len(lines) {
		rec.t.Fatalf("greeting at %d, %d index files of %d are in the trace", rec.greeted, len(rec.acks), len(lines))
	}
}

// isSeen looks for a line of crates.io in its index file.
func isSeen(line testbed.IndexLine) promise {
	return func(ctx context.Context, r *registry.Registry) error {
		file, err := r.UpstreamIndexFile(ctx, anAuditor, "crates-io", strings.ToLower(line.Name), nil)
		if err == nil && !bytes.Contains(file.Plain.Bytes, line.Marshal()) {
			err = fmt.Errorf("the index file of %s is %s", line.Name, file.Plain.Bytes)
		}
		return err
	}
}

// Wherever the power goes while crates of another registry are taken in: what was shown of its
// index is in the log, and of what counts as held all bytes are there.
func TestPowerCutsLeaveNoCrateInPart(t *testing.T) {
	var lines []testbed.IndexLine
	for _, line := range sized(t, 3, 2<<10, 50<<10) {
		if strings.ToLower(line.Name) == line.Name {
			lines = append(lines, line)
		}
	}
	rec := recordUpstream(t, lines)
	ids := make([]storage.CID, len(lines))
	for i, line := range lines {
		digest, err := hex.DecodeString(line.Cksum)
		if err != nil {
			t.Fatal(err)
		}
		ids[i] = storage.CIDFromDigest([sha256.Size]byte(digest))
	}
	most := 0
	rec.also = func(ctx context.Context, r *registry.Registry, store *disk.Store) error {
		held, err := wholeHeld(ctx, r, store, ids)
		most = max(most, held)
		return err
	}
	rec.cutEverywhere()
	if most != len(ids) {
		t.Errorf("after no cut more than %d of %d crates were held", most, len(ids))
	}
}

// wholeHeld says how many of ids count as held, whose bytes have all to be there.
func wholeHeld(ctx context.Context, r *registry.Registry, store *disk.Store, ids []storage.CID) (n int, err error) {
	held, err := r.HeldUpstream(ctx, "crates-io", ids)
	if err != nil {
		return 0, err
	}
	for id := range held {
		blob, err := store.Open(ctx, id) // which hashes it
		if err != nil {
			return 0, fmt.Errorf("%s counts as held: %w", id, err)
		}
		blob.Close()
	}
	return len(held), nil
}
