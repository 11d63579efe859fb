package registry

import (
	"context"
	"encoding/hex"
	"fmt"
	"strings"
	"time"

	"phoenix-lab.org/aln-registry/registry/cargo"
	"phoenix-lab.org/aln-registry/registry/state"
	"phoenix-lab.org/aln-registry/storage"
)

// Difference is a version of which an index file says something else than was first said.
type Difference struct {
	Version string
	// Detail says in words what was said first and what is said now, and where both stand:
	// digests, index files as they were seen, the record that names the new one. What is upstream's in
	// it is quoted and cut. It is "" of versions beyond the first of a kind.
	Detail string
}

const (
	// mostDetailed is of how many versions of a kind it is said what differs.
	mostDetailed = 20
	// mostEarlier is how many earlier index files are read for that.
	mostEarlier = 3
	// maxDiffers bounds what is told of one line, in bytes: with all else it fits an alarm.
	maxDiffers = 500
)

// differing is a version of which upstream says something else, and its line where that says so.
type differing struct {
	version state.UpstreamVersion
	line    cargo.UpstreamLine
}

// different are what an index file changes that upstream should not have changed.
type different struct{ changed, altered, dropped []differing }

// differences are what file changes of what was known that upstream should not have changed.
func differences(before state.Upstream, file cargo.UpstreamFile) (d different) {
	lines := make(map[string][]cargo.UpstreamLine, len(file.Lines))
	for _, l := range file.Lines {
		lines[l.Version] = append(lines[l.Version], l)
	}
	for _, v := range before.Versions {
		listed := false
		var changed, altered *differing
		for _, l := range lines[v.Version] {
			c, other := v.Claim(l)
			listed = listed || v.Lists(l)
			switch {
			case !other || v.Claimed(c):
			case !c.SameBytes() && changed == nil:
				changed = &differing{v, l}
			case c.SameBytes() && altered == nil:
				altered = &differing{v, l}
			}
		}
		switch {
		case changed != nil:
			d.changed = append(d.changed, *changed)
		case altered != nil:
			d.altered = append(d.altered, *altered)
		case !listed && v.Gone.IsZero():
			d.dropped = append(d.dropped, differing{version: v})
		}
	}
	return d
}

// inWords is d, which stands in the index file id that an entry names, as it is told.
func (r *Registry) inWords(ctx context.Context, before state.Upstream, d different, id storage.CID, entered Receipt) (in Imported) {
	place := fmt.Sprintf("entry %d, record %s", entered.Index, entered.Record)
	tell := func(all []differing, words func(differing) string) (told []Difference) {
		for i, one := range all {
			difference := Difference{Version: one.version.Version}
			if i < mostDetailed {
				difference.Detail = words(one)
			}
			told = append(told, difference)
		}
		return told
	}
	in.Changed = tell(d.changed, func(one differing) string {
		return fmt.Sprintf("sha256 %x, and first %x (seen %s, last in index file %s); now in index file %s, %s",
			one.line.Digest, one.version.Digest[:], one.version.First.UTC().Format(time.RFC3339), one.version.Line, id, place)
	})
	earlier := earlierFiles{registry: r, name: before.Name, read: map[storage.CID]cargo.UpstreamFile{}, turn: turn{of: r.large}}
	defer earlier.turn.end()
	in.Altered = tell(d.altered, func(one differing) string {
		return fmt.Sprintf("%s. The sha256 is %s as before; first as in index file %s, now in index file %s, %s",
			earlier.differs(ctx, one), hex.EncodeToString(one.version.Digest[:]), one.version.Line, id, place)
	})
	in.Dropped = tell(d.dropped, func(one differing) string {
		return fmt.Sprintf("of sha256 %x; last in index file %s, gone with %s", one.version.Digest[:], one.version.Line, place)
	})
	return in
}

// earlierFiles are index files of a crate as they were seen, each read once, and few.
type earlierFiles struct {
	registry *Registry
	name     string
	read     map[storage.CID]cargo.UpstreamFile
	turn     turn // while they are in memory
}

// differs is what the line of one says and its first one did not. That it cannot be told is no
// error: what it stands in is named beside it.
func (f *earlierFiles) differs(ctx context.Context, one differing) string {
	const unknown = "what differs, the lines themselves say"
	id := one.version.Line
	file, ok := f.read[id]
	if !ok {
		if len(f.read) == mostEarlier {
			return unknown
		}
		var err error
		if file, err = f.registry.snapshot(ctx, f.name, id, &f.turn); err != nil {
			f.registry.Log.WarnContext(ctx, "cannot read what an index file said before it was altered", "crate", f.name, "snapshot", id, "error", err)
		}
		f.read[id] = file // of no lines where it cannot be read
	}
	first, ok := file.Line(one.version.Version, one.version.Digest, one.version.Resolves)
	if !ok {
		return unknown
	}
	says := first.Differs(one.line)
	if len(says) > maxDiffers {
		says = strings.ToValidUTF8(says[:maxDiffers], "") + "…"
	}
	return says
}
