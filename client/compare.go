package client

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"sort"
	"strings"
	"time"

	"phoenix-lab.org/aln-registry/registry/cargo"
	"phoenix-lab.org/aln-registry/registry/particle"
	"phoenix-lab.org/aln-registry/registry/policy"
	"phoenix-lab.org/aln-registry/registry/record"
	"phoenix-lab.org/aln-registry/registry/verify"
	"phoenix-lab.org/aln-registry/storage"
)

// ErrGrew: the log grew while something was compared with it; compare again.
var ErrGrew = errors.New("the log grew meanwhile; run this again")

// maxIndexFile bounds one index file, in bytes.
const maxIndexFile = 64 << 20

// Compared is what a comparison of the indexes with the log found.
type Compared struct {
	// Differences in words.
	Differences []string
	// Denied counts the versions that are marked yanked for us, since the registry says that it
	// denies them to us, by the rule that it names.
	Denied map[string]int
	// LeftOut counts the versions of other registries' crates that the log has and the indexes
	// need not, by why: LeftOutOffline, LeftOutGone, LeftOutEnded. That it is so is the registry's
	// word, of LeftOutEnded that of whoever compares.
	LeftOut map[string]int
}

// Why a version of another registry's crate may be left out of its index.
const (
	// LeftOutOffline: the registry says that it asks nobody, and so serves only what is held.
	LeftOutOffline = "offline"
	// LeftOutGone: it was dropped there, and stands in an old index file of many.
	LeftOutGone = "gone"
	// LeftOutEnded: no index is served of that registry any more, as whoever compares knows.
	LeftOutEnded = "ended"
)

// Add adds what another comparison found.
func (c *Compared) Add(other Compared) {
	c.Differences = append(c.Differences, other.Differences...)
	for rule, n := range other.Denied {
		c.deny(rule, n)
	}
	for why, n := range other.LeftOut {
		c.leaveOut(why, n)
	}
}

func (c *Compared) deny(rule string, n int) {
	if c.Denied == nil {
		c.Denied = map[string]int{}
	}
	c.Denied[rule] += n
}

func (c *Compared) leaveOut(why string, n int) {
	if c.LeftOut == nil {
		c.LeftOut = map[string]int{}
	}
	c.LeftOut[why] += n
}

// admits reports whether the registry says by d that it denies that version to us: that it has
// no such version, or cannot tell, is no denial of what the log has.
func (d Decision) admits() bool {
	return d.Known && !d.Listed && d.Rule != string(policy.RuleUnknown)
}

// CompareIndex holds what the hosted index serves against a replayed log: each
// crate's versions in order, their checksums, times and yanks, and no other
// lines; and each line against the one that follows from the .crate itself, which
// is downloaded for that. A line that is marked yanked, where the log has no yank, has to be of
// a version that the registry says we may not use; what we may not download is not held against
// its crate. ErrGrew when there are differences, but the log has grown since it was replayed. With
// another error, Compared is what was found all the same.
func (r *Registry) CompareIndex(ctx context.Context, replayed verify.Replayed) (Compared, error) {
	crates, err := replayed.Crates()
	if err != nil {
		return Compared{}, err
	}
	names := make([]string, 0, len(crates))
	for name := range crates {
		names = append(names, name)
	}
	sort.Strings(names)
	var all Compared
	var failed error
	for _, name := range names {
		found, err := r.compareHosted(ctx, name, crates[name])
		all.Add(found)
		if failed = cmp.Or(failed, err); err != nil && !goesOn(ctx, err) {
			break
		}
	}
	return r.until(ctx, replayed, all, failed)
}

func (r *Registry) compareHosted(ctx context.Context, name string, logged []verify.CrateVersion) (Compared, error) {
	file, err := r.indexFile(ctx, name)
	if err != nil {
		return Compared{}, err
	}
	return r.compareCrate(ctx, name, logged, file)
}

// goesOn reports whether the next crate is worth a look though err ended that at one: a registry
// may fail where it likes, and what it says elsewhere is told all the same.
func goesOn(ctx context.Context, err error) bool {
	return ctx.Err() == nil && !errors.Is(err, ErrUnreachable)
}

// until is what was found, as far as it is not of what the log says by now, and why it is not
// all, if err says that.
func (r *Registry) until(ctx context.Context, replayed verify.Replayed, found Compared, err error) (Compared, error) {
	if err == nil {
		return r.unlessGrown(ctx, replayed, found)
	}
	if _, grown := r.unlessGrown(ctx, replayed, found); errors.Is(grown, ErrGrew) {
		found.Differences = nil
	}
	return found, err
}

// unlessGrown is found, or ErrGrew where its differences may be of what the log says by now.
// Where that cannot be told, it is found and why.
func (r *Registry) unlessGrown(ctx context.Context, replayed verify.Replayed, found Compared) (Compared, error) {
	if len(found.Differences) == 0 {
		return found, nil
	}
	now, verdict, err := r.LogCheck(ctx)
	if err == nil {
		err = unproved(r.pin.URL, verdict)
	}
	if err != nil {
		return found, err
	}
	if now.Size > replayed.Size {
		return Compared{}, ErrGrew
	}
	return found, nil
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

func (r *Registry) compareCrate(ctx context.Context, name string, logged []verify.CrateVersion, file []byte) (found Compared, err error) {
	lines := strings.SplitAfter(string(file), "\n")
	if last := len(lines) - 1; lines[last] == "" {
		lines = lines[:last]
	}
	asked, denied, failed := r.deniedYanks(ctx, lines, logged)
	for i, want := range logged {
		if i >= len(lines) {
			found.Differences = append(found.Differences, fmt.Sprintf("%s@%s is in the log (entry %d) but not in the index", name, want.Version, want.Index))
			continue
		}
		if failed != nil && slices.Contains(asked, i) {
			continue // who knows; what the others say is told all the same
		}
		d, isDenied := denied[i]
		want.Yanked = want.Yanked || isDenied
		difference := compareLine(lines[i], want)
		if difference == "" && (!isDenied || d.Allow) {
			difference, err = r.compareManifest(ctx, lines[i], want)
			if statusOf(err) == http.StatusForbidden && want.Yanked && !isDenied {
				d, isDenied, err = r.deniedDownload(ctx, want, err)
			}
			if err != nil {
				return found, err
			}
		}
		if isDenied {
			found.deny(named(d), 1)
		}
		if difference != "" {
			found.Differences = append(found.Differences, fmt.Sprintf("%s@%s: %s", name, want.Version, difference))
		}
	}
	if extra := len(lines) - len(logged); extra > 0 {
		found.Differences = append(found.Differences, fmt.Sprintf("%s: %d lines of the index are not in the log", name, extra))
	}
	return found, failed
}

// deniedYanks asks the registry which of the lines that say yanked, where the log has no yank,
// are of versions that it denies to us, by their place; asked are the places of all of them.
func (r *Registry) deniedYanks(ctx context.Context, lines []string, logged []verify.CrateVersion) (asked []int, denied map[int]Decision, err error) {
	var judged []Judged
	for i, want := range logged[:min(len(logged), len(lines))] {
		if line, err := cargo.ParseLine([]byte(lines[i])); err == nil && line.Yanked && !want.Yanked {
			judged, asked = append(judged, hosted(want)), append(asked, i)
		}
	}
	decided, err := r.denials(ctx, judged)
	denied = map[int]Decision{}
	for i, d := range decided {
		if d.admits() {
			denied[asked[i]] = d
		}
	}
	return asked, denied, err
}

// deniedDownload asks the registry whether a version that the log says is yanked, and whose
// download it refused, is one that it denies to us; refused where it is not.
func (r *Registry) deniedDownload(ctx context.Context, want verify.CrateVersion, refused error) (Decision, bool, error) {
	decided, err := r.denials(ctx, []Judged{hosted(want)})
	if err != nil {
		return Decision{}, false, err
	}
	if len(decided) == 0 || !decided[0].admits() {
		return Decision{}, false, refused
	}
	return decided[0], true, nil
}

func hosted(v verify.CrateVersion) Judged {
	return Judged{Name: v.Name, Version: v.Version, SHA256: v.CID.Hex(), Source: particle.SourceHosted}
}

// denials is what the registry decides of each that is asked; none where it refuses to say,
// for a registry that does not answer for its denials has none to be believed.
func (r *Registry) denials(ctx context.Context, asked []Judged) ([]Decision, error) {
	decided, err := r.Decide(ctx, storage.CID{}, asked)
	if status := statusOf(err); status == http.StatusNotFound || status == http.StatusForbidden {
		return nil, nil
	}
	return decided, err
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
