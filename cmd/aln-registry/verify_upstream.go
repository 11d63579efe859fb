package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"path/filepath"
	"slices"
	"time"

	"phoenix-lab.org/aln-registry/client"
	"phoenix-lab.org/aln-registry/client/cargoconfig"
	"phoenix-lab.org/aln-registry/registry/cargo"
	"phoenix-lab.org/aln-registry/registry/particle"
	"phoenix-lab.org/aln-registry/registry/record"
	"phoenix-lab.org/aln-registry/registry/verify"
	"phoenix-lab.org/aln-registry/storage"
)

// upstreamAsked is the upstream that --source names, "" for what is hosted.
func upstreamAsked(source string, kind record.Kind) (string, error) {
	if source == particle.SourceHosted {
		return "", nil
	}
	upstream, ok := particle.UpstreamOf(source)
	if !ok || particle.CheckSource(source) != nil || kind != record.KindCrate {
		return "", usageError{fmt.Errorf("--source %.80q is not hosted, or, for crates, crates-io or upstream/NAME", source)}
	}
	return upstream, nil
}

// verifyUpstream proves that id (zero: what the registry serves) is what was first seen of a
// crate at upstream.
func (a *app) verifyUpstream(ctx context.Context, upstream string, s record.Subject, id storage.CID) error {
	subject, err := record.UpstreamSubject(upstream, s.Name())
	if err != nil {
		return usageError{err}
	}
	r, err := a.open()
	if err != nil {
		return err
	}
	view, err := r.View(ctx)
	if err != nil {
		return err
	}
	want := verify.WantUpstream{Subject: subject, Version: s.Version(), CID: id}
	verdict, err := view.VerifyUpstream(ctx, want)
	if err != nil {
		return err
	}
	if verdict.OK() && id.IsZero() {
		served, _, err := r.DownloadUpstream(ctx, want, verdict.CID, io.Discard)
		if err != nil {
			return err
		}
		if served != verdict.CID {
			return fmt.Errorf("the registry serves bytes with sha256 %s as %s, and what was first seen has %s", served.Hex(), want, verdict.CID.Hex())
		}
	}
	return a.printVerdict(verdict)
}

// notesOn are what people should know of a version of another registry that is proved.
func notesOn(seen *verify.Seen) []string {
	if seen == nil {
		return nil
	}
	var notes []string
	if !seen.Gone.IsZero() {
		notes = append(notes, "since "+seen.Gone.UTC().Format(time.RFC3339)+" it is not listed there any more as it first was")
	}
	for _, o := range seen.Other {
		if o.SameBytes() {
			notes = append(notes, fmt.Sprintf("at %s other dependencies or features were named there for the same bytes, in the index file %s, which is not believed", o.Time.UTC().Format(time.RFC3339), o.Snapshot))
			continue
		}
		notes = append(notes, fmt.Sprintf("at %s other bytes were named there as this version, sha256 %x, which is not believed", o.Time.UTC().Format(time.RFC3339), o.Digest))
	}
	return notes
}

// lockSources are who answers for the sources that a lock names.
type lockSources struct {
	client *client.Client
	// folders are those in which cargo may be run on the lock.
	folders []string
	found   map[string]*lockSource
}

// lockSource is who answers for one.
type lockSource struct {
	view *client.View
	// upstream is of whose crates it has, "" for those that it hosts.
	upstream string
	// foreign is why nobody answers, "" where somebody does.
	foreign string
}

func newLockSources(c *client.Client, lock string) (*lockSources, error) {
	here, err := workingFolder()
	if err != nil {
		return nil, err
	}
	s := &lockSources{client: c, folders: []string{here}, found: map[string]*lockSource{}}
	folder, err := filepath.Abs(filepath.Dir(lock))
	if err != nil {
		return nil, err
	}
	if physical, err := filepath.EvalSymlinks(folder); err == nil {
		folder = physical
	}
	if !slices.Contains(s.folders, folder) {
		s.folders = append(s.folders, folder)
	}
	return s, nil
}

// of finds who answers for source. The error is of a registry that cannot be asked.
func (s *lockSources) of(ctx context.Context, source string) (*lockSource, error) {
	if at, ok := s.found[source]; ok {
		return at, nil
	}
	at, err := s.find(ctx, source)
	if err == nil {
		s.found[source] = at
	}
	return at, err
}

func (s *lockSources) find(ctx context.Context, source string) (*lockSource, error) {
	if client.PlaceOf(source, nil).Kind == client.PlaceCratesIO {
		replaced, err := s.replaced()
		if err != nil {
			return nil, err
		}
		if replaced.Text() == "" {
			return &lockSource{foreign: "from crates.io itself, whose crates nobody here vouches for: type `aln-registry login URL --replace-crates-io` in the project, so that they come through the registry, then this again"}, nil
		}
		source = replaced.Text()
	}
	r, place, err := s.client.Behind(source)
	switch {
	case errors.Is(err, client.ErrNotPinned) || errors.Is(err, client.ErrURL):
		return &lockSource{foreign: "from a registry that was never logged in to: " + source}, nil
	case err != nil:
		return nil, err
	}
	upstream := place.UpstreamOf()
	if place.Kind != client.PlaceHosted && upstream == "" {
		return &lockSource{foreign: "from a part of the registry that cannot be verified: " + source}, nil
	}
	view, err := r.View(ctx)
	if err != nil {
		return nil, err
	}
	return &lockSource{view: view, upstream: upstream}, nil
}

// replaced is what is in the place of crates.io.
func (s *lockSources) replaced() (found cargoconfig.Setting, err error) {
	home, err := cargoHome()
	if err != nil {
		return found, err
	}
	for _, folder := range s.folders {
		if found, err = cargoconfig.Replacement(folder, home); err != nil || found.Text() != "" {
			break
		}
	}
	return found, err
}

// verify judges a package of the lock.
func (at *lockSource) verify(ctx context.Context, pkg cargo.Locked) (verify.Verdict, error) {
	digest, err := hex.DecodeString(pkg.Checksum)
	if err != nil || len(digest) != sha256.Size {
		return verify.Verdict{}, errors.New("the lock has no sha256 checksum for it")
	}
	id := storage.CIDFromDigest([sha256.Size]byte(digest))
	if at.upstream == "" {
		subject, err := crateSubject(pkg.Name, pkg.Version)
		if err != nil {
			return verify.Verdict{}, err
		}
		return at.view.Verify(ctx, verify.Want{Subject: subject, CID: id})
	}
	subject, err := record.UpstreamSubject(at.upstream, pkg.Name)
	if err != nil {
		return verify.Verdict{}, err
	}
	verdict, err := at.view.VerifyUpstream(ctx, verify.WantUpstream{Subject: subject, Version: pkg.Version, CID: id})
	var refused *client.APIError
	if errors.As(err, &refused) && refused.Status == http.StatusNotFound {
		err = errors.New("the registry has seen nothing of it yet, or may not tell you of all that it saw: `aln-registry prefetch Cargo.lock` has it look; then type this again")
	}
	return verdict, err
}
