package main

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"phoenix-lab.org/aln-registry/client"
	"phoenix-lab.org/aln-registry/registry/cargo"
	"phoenix-lab.org/aln-registry/registry/particle"
	"phoenix-lab.org/aln-registry/registry/record"
	"phoenix-lab.org/aln-registry/registry/verify"
	"phoenix-lab.org/aln-registry/storage"
)

func (a *app) verifyCommand() *cobra.Command {
	source := ""
	c := &cobra.Command{
		Use: "verify [[KIND/]NAME@VERSION | FILE.crate | Cargo.lock]", Short: "Prove that artifacts are what their publishers signed", Args: cobra.MaximumNArgs(1),
		Long: "Prove, from the pinned registry's log, that an artifact's bytes are those that its publisher signed, that\nthe publisher was entitled to, and that the record is in the log: for a version by name (its bytes are\ndownloaded; what is no crate has its kind before it), for a .crate file, or for every crate of a Cargo.lock\nthat comes from a known registry; without an argument, of the Cargo.lock of the project here\n(of a workspace, that of its root). Of a crate of crates.io, or of another registry, that comes through the\nregistry it is proved that the bytes are those that the registry first saw named there: in a Cargo.lock of a\nproject that `login --replace-crates-io` set up, and by name or file with --source.\nExit status 1 when anything does not hold. That nothing was left out of the log is proved by `log check --full`.",
		RunE: func(c *cobra.Command, args []string) error {
			return a.verify(c.Context(), source, append(args, "")[0])
		},
	}
	c.Flags().StringVar(&source, "source", particle.SourceHosted, "`where` the crate is from: hosted, crates-io or upstream/NAME; a Cargo.lock says it itself")
	return c
}

const lockName = "Cargo.lock"

func (a *app) verify(ctx context.Context, source, what string) error {
	if source != particle.SourceHosted && (what == "" || strings.HasSuffix(what, ".lock")) {
		return usageError{errors.New("--source goes with NAME@VERSION or FILE.crate: a Cargo.lock says itself where each crate is from")}
	}
	if what == "" || what == lockName && !isFile(what) {
		path, err := findLock()
		if err != nil {
			return err
		}
		return a.verifyLock(ctx, path)
	}
	reference, err := record.ParseReference(what)
	switch {
	case err == nil && reference.Version() != "":
		return a.verifyVersion(ctx, source, reference)
	case strings.HasSuffix(what, ".lock"):
		return a.verifyLock(ctx, what)
	case strings.HasSuffix(what, ".crate"):
		return a.verifyFile(ctx, source, what)
	}
	if err == nil || strings.Contains(what, "@") {
		_, err := versionReference(what)
		return err
	}
	return usageError{fmt.Errorf("%.80q is neither [KIND/]NAME@VERSION nor a .crate file nor a Cargo.lock", what)}
}

// findLock is the Cargo.lock that cargo would build by here, which lies in the
// root of a workspace; outside of any project, the one here or above.
func findLock() (string, error) {
	project, ok, err := projectFolder()
	if err != nil {
		return "", err
	}
	if ok {
		path := filepath.Join(project, lockName)
		if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
			return "", fmt.Errorf("no Cargo.lock in %s, the root of this project; run `cargo generate-lockfile`", project)
		}
		return path, nil
	}
	folder, err := workingFolder()
	if err != nil {
		return "", err
	}
	for {
		path := filepath.Join(folder, lockName)
		if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
			return path, err
		}
		parent := filepath.Dir(folder)
		if parent == folder {
			return "", errors.New("no Cargo.lock here or above; run `cargo generate-lockfile`")
		}
		folder = parent
	}
}

func crateSubject(name, version string) (record.Subject, error) {
	s, err := record.VersionSubject(record.KindCrate, name, version)
	if err != nil {
		return s, usageError{err}
	}
	return s, nil
}

func (a *app) verifyVersion(ctx context.Context, source string, subject record.Subject) error {
	if upstream, err := upstreamAsked(source, subject.Kind()); err != nil || upstream != "" {
		if err != nil {
			return err
		}
		return a.verifyUpstream(ctx, upstream, subject, storage.CID{})
	}
	r, err := a.open()
	if err != nil {
		return err
	}
	id, _, err := r.Download(ctx, subject, io.Discard)
	if err != nil {
		return a.theirs(ctx, r, subject, err, "`aln-registry verify %s --source %s`")
	}
	return a.verifyOne(ctx, r, verify.Want{Subject: subject, CID: id})
}

// verifyFile takes name and version from the file's name, as cargo writes it.
func (a *app) verifyFile(ctx context.Context, source, path string) error {
	upstream, err := upstreamAsked(source, record.KindCrate)
	if err != nil {
		return err
	}
	name, version, ok := splitCrateFile(filepath.Base(path))
	if !ok {
		return usageError{fmt.Errorf("%s is not named NAME-VERSION.crate", path)}
	}
	subject, err := crateSubject(name, version)
	if err != nil {
		return err
	}
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	id, err := hashOf(f)
	if err != nil {
		return fmt.Errorf("read %s: %w", path, err)
	}
	if upstream != "" {
		return a.verifyUpstream(ctx, upstream, subject, id)
	}
	r, err := a.open()
	if err != nil {
		return err
	}
	return a.verifyOne(ctx, r, verify.Want{Subject: subject, CID: id})
}

// hashOf reads in to its end and returns the CID of what was read.
func hashOf(in io.Reader) (storage.CID, error) {
	digest := sha256.New()
	if _, err := io.Copy(digest, in); err != nil {
		return storage.CID{}, err
	}
	return storage.CIDFromDigest([sha256.Size]byte(digest.Sum(nil))), nil
}

// splitCrateFile finds the hyphen before the version: names have no dots, so
// only one split gives a name and a SemVer version.
func splitCrateFile(base string) (name, version string, ok bool) {
	base = strings.TrimSuffix(base, ".crate")
	for i := range base {
		if base[i] != '-' {
			continue
		}
		if _, err := cargo.ParseVersion(base[i+1:]); err == nil && cargo.ValidateName(base[:i]) == nil {
			return base[:i], base[i+1:], true
		}
	}
	return "", "", false
}

func (a *app) verifyOne(ctx context.Context, r *client.Registry, want verify.Want) error {
	view, err := r.View(ctx)
	if err != nil {
		return err
	}
	verdict, err := view.Verify(ctx, want)
	if err != nil {
		return err
	}
	return a.printVerdict(verdict)
}

// printVerdict prints a verdict; one that is not OK ends the command with status 1.
func (a *app) printVerdict(v verify.Verdict) error {
	if a.json {
		if err := a.printJSON(struct {
			OK bool `json:"ok"`
			verify.Verdict
		}{v.OK(), v}); err != nil {
			return err
		}
	} else {
		a.printChecks(v)
	}
	if !v.OK() {
		return errSilent
	}
	return nil
}

func (a *app) printChecks(v verify.Verdict) {
	fmt.Fprintln(a.out, tidy(v.Subject))
	var rows [][]string
	for _, check := range v.Checks {
		rows = append(rows, []string{"  " + mark(check.OK), check.Name, check.Detail})
	}
	a.markedTable(rows, 0)
	if v.OK() && v.Yanked {
		fmt.Fprintln(a.out, "  note: this version is yanked")
	}
	for _, note := range notesOn(v.Upstream) {
		fmt.Fprintln(a.out, "  note: "+note)
	}
}

// lockedJSON is one package of a lock for programs.
type lockedJSON struct {
	Package string          `json:"package"`
	Source  string          `json:"source"`
	Status  string          `json:"status"` // verified, failed, foreign, local
	Verdict *verify.Verdict `json:"verdict,omitzero"`
	Error   string          `json:"error,omitzero"`

	upstream string // whose crate it is, "" for one that is hosted
}

const (
	statusVerified = "verified"
	statusFailed   = "failed"
	statusForeign  = "foreign"
	statusLocal    = "local"
)

func (a *app) verifyLock(ctx context.Context, path string) error {
	raw, err := readRegular(path, cargo.MaxLockBytes)
	if err != nil {
		return err
	}
	packages, err := cargo.ParseLock(raw)
	if err != nil {
		return fmt.Errorf("%s is not a Cargo.lock that can be verified: %w", path, err)
	}
	c, err := a.client()
	if err != nil {
		return err
	}
	sources, err := newLockSources(c, path)
	if err != nil {
		return err
	}
	results := []lockedJSON{}
	p := a.progress("verified crates")
	for i, pkg := range packages {
		result := lockedJSON{Package: pkg.Name + "@" + pkg.Version, Source: pkg.Source, Status: statusLocal}
		if pkg.Source != "" {
			if err := verifyLocked(ctx, sources, &result, pkg); err != nil {
				p.done()
				return fmt.Errorf("could not verify %s: %w", path, err)
			}
		}
		results = append(results, result)
		p.at(int64(i+1), int64(len(packages)))
	}
	p.done()
	return a.printLock(results)
}

// notAnswered reports whether err says nothing of an artifact, only that the
// registry did not answer, or not us.
func notAnswered(err error) bool {
	var refused *client.APIError
	if errors.As(err, &refused) {
		return refused.Status != http.StatusNotFound
	}
	for _, target := range []error{client.ErrUnreachable, client.ErrNoIdentity, client.ErrClock, context.Canceled, context.DeadlineExceeded} {
		if errors.Is(err, target) {
			return true
		}
	}
	return false
}

// verifyLocked verifies one package with a source, if somebody answers for that. The error
// is of a registry that cannot be asked.
func verifyLocked(ctx context.Context, sources *lockSources, result *lockedJSON, pkg cargo.Locked) error {
	at, err := sources.of(ctx, pkg.Source)
	var verdict verify.Verdict
	if err == nil && at.foreign == "" {
		result.upstream = at.upstream
		verdict, err = at.verify(ctx, pkg)
	}
	switch {
	case err != nil && notAnswered(err):
		return err
	case err != nil:
		result.Status, result.Error = statusFailed, err.Error()
	case at.foreign != "":
		result.Status, result.Error = statusForeign, at.foreign
	case !verdict.OK():
		result.Status, result.Verdict = statusFailed, &verdict
	default:
		result.Status, result.Verdict = statusVerified, &verdict
	}
	return nil
}

func (a *app) printLock(results []lockedJSON) error {
	count, seen := map[string]int{}, 0
	rows := [][]string{{"PACKAGE", "", "LOG INDEX", "SIGNED BY / REASON"}}
	for _, r := range results {
		count[r.Status]++
		switch r.Status {
		case statusVerified:
			if r.upstream != "" {
				seen++
			}
			rows = append(rows, []string{r.Package, mark(true), fmt.Sprint(r.Verdict.Index), r.signedBy()})
		case statusFailed:
			rows = append(rows, []string{r.Package, mark(false), "", r.reason()})
		case statusForeign:
			rows = append(rows, []string{r.Package, "-", "", r.Error})
		case statusLocal:
			rows = append(rows, []string{r.Package, "-", "", "part of this project"})
		}
	}
	if a.json {
		if err := a.printJSON(struct {
			OK       bool         `json:"ok"`
			Packages []lockedJSON `json:"packages"`
		}{count[statusFailed] == 0 && count[statusForeign] == 0, results}); err != nil {
			return err
		}
	} else {
		a.markedTable(rows, 1)
		fmt.Fprintf(a.out, "%d verified, %d failed, %d from registries not known, %d local\n",
			count[statusVerified], count[statusFailed], count[statusForeign], count[statusLocal])
		if seen > 0 {
			fmt.Fprintf(a.out, "note: of %s is proved that the bytes are those that this registry first saw there, not who made them: nobody signs those\n", counted(int64(seen), "crate of crates.io or another registry it", "crates of crates.io or other registries it"))
		}
	}
	if count[statusFailed]+count[statusForeign] > 0 {
		return errSilent
	}
	return nil
}

// signedBy is who vouches for what was verified, and what there is to know of it.
func (r lockedJSON) signedBy() string {
	by := string(r.Verdict.Signer.DID)
	if seen := r.Verdict.Upstream; seen != nil {
		by = particle.UpstreamSource(r.upstream) + ": first seen " + seen.First.UTC().Format(time.RFC3339) + " by " + by
	}
	return strings.Join(append([]string{by}, notesOn(r.Verdict.Upstream)...), "; ")
}

// reason names the first check that does not hold.
func (r lockedJSON) reason() string {
	if r.Verdict == nil {
		return r.Error
	}
	return firstFailed(*r.Verdict)
}

func firstFailed(v verify.Verdict) string {
	for _, check := range v.Checks {
		if !check.OK {
			return check.Name + ": " + check.Detail
		}
	}
	return ""
}
