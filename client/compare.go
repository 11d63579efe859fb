package client

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sort"
	"strings"
	"time"

	"phoenix-lab.org/aln-registry/registry/cargo"
	"phoenix-lab.org/aln-registry/registry/record"
	"phoenix-lab.org/aln-registry/registry/verify"
)

// ErrGrew: the log grew while something was compared with it; compare again.
var ErrGrew = errors.New("the log grew meanwhile; run this again")

// maxIndexFile bounds one index file, in bytes.
const maxIndexFile = 64 << 20

// CompareIndex holds what the hosted index serves against a replayed log: each
// crate's versions in order, their checksums, times and yanks, and no other
// lines; and each line against the one that follows from the .crate itself, which
// is downloaded for that. It returns the differences in words. ErrGrew when there
// are some, but the log has grown since it was replayed.
func (r *Registry) CompareIndex(ctx context.Context, replayed verify.Replayed) ([]string, error) {
	crates, err := replayed.Crates()
	if err != nil {
		return nil, err
	}
	names := make([]string, 0, len(crates))
	for name := range crates {
		names = append(names, name)
	}
	sort.Strings(names)
	differences := []string{}
	for _, name := range names {
		file, err := r.indexFile(ctx, name)
		if err != nil {
			return nil, err
		}
		found, err := r.compareCrate(ctx, name, crates[name], file)
		if err != nil {
			return nil, err
		}
		differences = append(differences, found...)
	}
	return r.unlessGrown(ctx, replayed, differences)
}

// unlessGrown is differences, or ErrGrew where they may be of what the log says by now.
func (r *Registry) unlessGrown(ctx context.Context, replayed verify.Replayed, differences []string) ([]string, error) {
	if len(differences) == 0 {
		return differences, nil
	}
	now, verdict, err := r.LogCheck(ctx)
	if err == nil {
		err = unproved(r.pin.URL, verdict)
	}
	if err != nil {
		return nil, err
	}
	if now.Size > replayed.Size {
		return nil, ErrGrew
	}
	return differences, nil
}

// indexFile is empty where the index has none.
func (r *Registry) indexFile(ctx context.Context, name string) ([]byte, error) {
	file, _, err := r.read(ctx, "/index/"+cargo.IndexPath(name), maxIndexFile)
	var refused *APIError
	if errors.As(err, &refused) && refused.Status == http.StatusNotFound {
		return nil, nil
	}
	return file, err
}

func (r *Registry) compareCrate(ctx context.Context, name string, logged []verify.CrateVersion, file []byte) (differences []string, err error) {
	lines := strings.SplitAfter(string(file), "\n")
	if last := len(lines) - 1; lines[last] == "" {
		lines = lines[:last]
	}
	for i, want := range logged {
		if i >= len(lines) {
			differences = append(differences, fmt.Sprintf("%s@%s is in the log (entry %d) but not in the index", name, want.Version, want.Index))
			continue
		}
		difference := compareLine(lines[i], want)
		if difference == "" {
			if difference, err = r.compareManifest(ctx, lines[i], want); err != nil {
				return nil, err
			}
		}
		if difference != "" {
			differences = append(differences, fmt.Sprintf("%s@%s: %s", name, want.Version, difference))
		}
	}
	if extra := len(lines) - len(logged); extra > 0 {
		differences = append(differences, fmt.Sprintf("%s: %d lines of the index are not in the log", name, extra))
	}
	return differences, nil
}

// compareLine holds a line against what the log itself says; "" is no difference.
func compareLine(text string, want verify.CrateVersion) string {
	line, err := cargo.ParseLine([]byte(text))
	published := want.Time.UTC().Format(time.RFC3339)
	switch {
	case err != nil:
		return fmt.Sprintf("the index line cannot be read: %v", err)
	case line.Name != want.Name || line.Vers != want.Version:
		return fmt.Sprintf("the index has %s@%s in its place", line.Name, line.Vers)
	case line.Cksum != want.CID.Hex():
		return fmt.Sprintf("the index says checksum %s, the log %s", line.Cksum, want.CID.Hex())
	case line.Pubtime != published:
		return fmt.Sprintf("the index says it was published at %s, the log at %s", line.Pubtime, published)
	case line.Yanked != want.Yanked:
		return fmt.Sprintf("the index says yanked %t, the log %t", line.Yanked, want.Yanked)
	}
	return ""
}

// manifestLimits are above those of any registry: what is held against them here
// was published long ago.
var manifestLimits = cargo.Limits{CrateBytes: MaxDownload, UnpackedBytes: 64 * MaxDownload, Entries: 1 << 24, Ratio: 1 << 20, PathBytes: 1 << 12}

// compareManifest downloads the crate and holds the line against the one that
// follows from its manifest: dependencies, features, links, rust-version.
func (r *Registry) compareManifest(ctx context.Context, text string, want verify.CrateVersion) (string, error) {
	subject, err := record.VersionSubject(record.KindCrate, want.Name, want.Version)
	if err != nil {
		return "", err
	}
	body, in := io.Pipe()
	type inspected struct {
		crate *cargo.Crate
		err   error
	}
	result := make(chan inspected, 1)
	go func() {
		crate, err := cargo.Inspect(body, want.Name, want.Version, manifestLimits)
		_, drained := io.Copy(io.Discard, body)
		result <- inspected{crate, errors.Join(err, drained)}
	}()
	id, _, err := r.Download(ctx, subject, in)
	in.CloseWithError(err)
	got := <-result
	if err != nil {
		return "", err
	}
	if id != want.CID {
		return fmt.Sprintf("the download is %s, the log says %s", id, want.CID), nil
	}
	if got.err != nil {
		return fmt.Sprintf("the crate breaks the rules for crates: %v", got.err), nil
	}
	line, err := got.crate.Line(want.CID.Digest(), want.Time, want.Yanked, want.Settings)
	if err != nil {
		return fmt.Sprintf("the crate breaks the rules for crates: %v", err), nil
	}
	if string(line.Marshal()) != text {
		return "the index line is not the one that follows from the crate's manifest: dependencies, features, links or rust-version differ", nil
	}
	return "", nil
}
