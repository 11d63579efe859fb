package client

import (
	"cmp"
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"phoenix-lab.org/aln-registry/registry/cargo"
	"phoenix-lab.org/aln-registry/registry/particle"
	"phoenix-lab.org/aln-registry/registry/record"
	"phoenix-lab.org/aln-registry/registry/verify"
	"phoenix-lab.org/aln-registry/storage"
)

// mostListed is from how many index files a registry puts one together at least: what was
// dropped upstream in more of them, or where together they are large, it may leave out.
const mostListed = 64

// CompareUpstreams holds what the registry serves of other registries' crates against a
// replayed log: each version's line as it was seen, byte for byte, in order, and no others.
// It has none of those registries asked. It is the log that names them: one that the registry
// leaves out of its list is compared as well, and where no index of it is served, that is a
// difference, unless it is one of ended. A line that is marked yanked, and was not there, has
// to be of a version that the registry says we may not use. Errors as CompareIndex.
func (r *Registry) CompareUpstreams(ctx context.Context, replayed verify.Replayed, ended []string) (Compared, error) {
	crates, err := replayed.Upstreams()
	if err != nil || len(crates) == 0 {
		return Compared{}, err
	}
	listed, offline, err := r.Upstreams(ctx)
	if err != nil {
		return Compared{}, err
	}
	var all Compared
	var failed error
	for len(crates) > 0 {
		name := crates[0].Upstream
		n := slices.IndexFunc(crates, func(c verify.UpstreamCrate) bool { return c.Upstream != name })
		if n < 0 {
			n = len(crates)
		}
		u := upstreamIndex{
			name: name, crates: crates[:n], offline: offline, ended: slices.Contains(ended, name),
			listed: slices.ContainsFunc(listed, func(u Upstream) bool { return u.Name == name }),
		}
		crates = crates[n:]
		found, err := r.compareUpstreamIndex(ctx, u)
		all.Add(found)
		if failed = cmp.Or(failed, err); err != nil && !goesOn(ctx, err) {
			break
		}
	}
	return r.until(ctx, replayed, all, failed)
}

// upstreamIndex is what the log has of an upstream, and what is said of it.
type upstreamIndex struct {
	name   string
	crates []verify.UpstreamCrate
	// listed: the registry says that it takes crates from there; offline: that it asks nobody.
	listed, offline bool
	// ended: whoever compares says that the registry does so no more.
	ended bool
}

// compareUpstreamIndex compares the index of u crate by crate. Of one that is not listed, and of
// which nothing is served, it says only that.
func (r *Registry) compareUpstreamIndex(ctx context.Context, u upstreamIndex) (all Compared, failed error) {
	served, versions := false, 0
	for _, crate := range u.crates {
		if !crate.Private {
			versions += len(crate.Versions)
		}
		file, err := r.upstreamIndexFile(ctx, crate)
		if err == nil {
			var found Compared
			found, err = r.compareUpstream(ctx, crate, file, u)
			all.Add(found)
		}
		served = served || len(file) > 0
		if failed = cmp.Or(failed, err); err != nil && !goesOn(ctx, err) {
			break
		}
	}
	if u.listed || served || versions == 0 || failed != nil {
		return all, failed
	}
	var none Compared
	if u.ended {
		none.leaveOut(LeftOutEnded, versions)
		return none, nil
	}
	none.Differences = []string{fmt.Sprintf(
		"%s: the log has %d of its versions, and the registry neither lists it nor serves its index; if its operator took it away, and told you so by another way, say --ended %s",
		particle.UpstreamSource(u.name), versions, u.name,
	)}
	return none, nil
}

// comparison is one crate's index file, held against the log.
type comparison struct {
	crate verify.UpstreamCrate
	found Compared
	// yanked are versions that the index says are yanked, and the log does not.
	yanked []verify.UpstreamVersion
	// seen are the index files as they were seen that have been fetched.
	seen map[storage.CID]cargo.UpstreamFile
}

const notInIndex = "it is in the log but not in the index"

func (r *Registry) compareUpstream(ctx context.Context, crate verify.UpstreamCrate, file []byte, u upstreamIndex) (Compared, error) {
	c := comparison{crate: crate, seen: map[storage.CID]cargo.UpstreamFile{}}
	if crate.Private {
		if len(file) > 0 {
			c.differs("", "its name is a private one here, and it is served as another registry's")
		}
		return c.found, nil
	}
	lines := strings.SplitAfter(string(file), "\n")
	if last := len(lines) - 1; lines[last] == "" {
		lines = lines[:last]
	}
	mayLack := c.snapshots() > mostListed || len(file) > cargo.MaxUpstreamFile
	for _, v := range crate.Versions {
		lacks := len(lines) == 0 || c.read(lines[0]).Version != v.Version
		switch {
		case !lacks:
		case u.offline:
			c.found.leaveOut(LeftOutOffline, 1)
			continue
		case v.Gone && mayLack:
			c.found.leaveOut(LeftOutGone, 1)
			continue
		case len(file) == 0 && !u.listed: // there may be no index at all
			c.differs(v.Version, notInIndex)
			continue
		}
		snapshot, err := c.snapshotOf(ctx, r, v)
		if err != nil {
			return c.found, err
		}
		if !lacks {
			c.compareLine(lines[0], v, snapshot)
			lines = lines[1:]
		} else if line, ok := snapshot.Line(v.Version, v.CID.Digest(), v.Resolves); !ok || !line.Crashes { // which is served to nobody
			c.differs(v.Version, notInIndex)
		}
	}
	for _, line := range lines {
		c.differs(c.read(line).Version, "the index has a line of it that does not follow from the log")
	}
	err := r.judgeYanked(ctx, &c)
	return c.found, err
}

// snapshots is how many index files the lines of a crate stand in.
func (c *comparison) snapshots() int {
	all := map[storage.CID]bool{}
	for _, v := range c.crate.Versions {
		all[v.Snapshot] = true
	}
	return len(all)
}

func (c *comparison) differs(version, format string, args ...any) {
	name := particle.UpstreamSource(c.crate.Upstream) + ": " + c.crate.Name
	if version != "" {
		name += "@" + version
	}
	c.found.Differences = append(c.found.Differences, name+": "+fmt.Sprintf(format, args...))
}

// compareLine holds a line against that in the index file as it was seen.
func (c *comparison) compareLine(text string, v verify.UpstreamVersion, snapshot cargo.UpstreamFile) {
	line, ok := snapshot.Line(v.Version, v.CID.Digest(), v.Resolves)
	if !ok { // Apply found it there
		c.differs(v.Version, "the log's snapshot %s has no line of it", v.Snapshot)
		return
	}
	yanked := line.Yanked || v.Gone
	switch text {
	case string(line.Marshal(yanked)):
	case string(line.Marshal(true)):
		c.yanked = append(c.yanked, v)
	default:
		c.differs(v.Version, "%s", c.difference(text, v, yanked))
	}
}

// difference says how a line differs that is of the version v.
func (c *comparison) difference(text string, v verify.UpstreamVersion, yanked bool) string {
	switch line := c.read(text); {
	case line.Digest != v.CID.Digest():
		return fmt.Sprintf("the index says checksum %x, the log %s", line.Digest, v.CID.Hex())
	case line.Resolves != v.Resolves:
		return "the index says other dependencies or features of it than were first seen"
	case line.Yanked != yanked:
		return fmt.Sprintf("the index says yanked %t, the log %t", line.Yanked, yanked)
	}
	return "the index line is not the one that was seen"
}

// read reads one line of the crate's index file; the zero value where it is none.
func (c *comparison) read(text string) cargo.UpstreamLine {
	file, err := cargo.ParseUpstreamFile(c.crate.Name, []byte(text))
	if err != nil || len(file.Lines) != 1 {
		return cargo.UpstreamLine{}
	}
	return file.Lines[0]
}

// judgeYanked asks the registry whether what it says is yanked is what we may not use.
func (r *Registry) judgeYanked(ctx context.Context, c *comparison) error {
	var asked []Judged
	for _, v := range c.yanked {
		asked = append(asked, Judged{Name: c.crate.Name, Version: v.Version, SHA256: v.CID.Hex(), Source: particle.UpstreamSource(c.crate.Upstream)})
	}
	decided, err := r.denials(ctx, asked)
	if err != nil {
		return err
	}
	for i, v := range c.yanked {
		if len(decided) == 0 || !decided[i].admits() {
			c.differs(v.Version, "the index says yanked true, the log false")
			continue
		}
		c.found.deny(named(decided[i]), 1)
	}
	return nil
}

// upstreamIndexFile is empty where the registry has none for us. No upstream is asked.
func (r *Registry) upstreamIndexFile(ctx context.Context, crate verify.UpstreamCrate) (file []byte, err error) {
	path := upstreamPath(crate.Upstream) + "/index/" + cargo.IndexPath(strings.ToLower(crate.Name))
	err = r.asReader(ctx, func(token string) error {
		file, _, err = r.web.bytes(ctx, call{method: http.MethodGet, path: path, token: token, onlyCached: true}, maxIndexFile)
		return err
	})
	if status := statusOf(err); status == http.StatusNotFound || status == http.StatusGatewayTimeout {
		return nil, nil
	}
	return file, err
}

// snapshotOf fetches the index file as it was seen in which the line of v stands.
func (c *comparison) snapshotOf(ctx context.Context, r *Registry, v verify.UpstreamVersion) (cargo.UpstreamFile, error) {
	if file, ok := c.seen[v.Snapshot]; ok {
		return file, nil
	}
	raw, err := r.attachment(ctx, string(v.Record), v.Snapshot, record.MaxSnapshot)
	if err != nil {
		return cargo.UpstreamFile{}, err
	}
	file, err := cargo.ParseUpstreamFile(c.crate.Name, raw)
	if err == nil {
		c.seen[v.Snapshot] = file
	}
	return file, err
}
