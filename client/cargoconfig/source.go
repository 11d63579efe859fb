package cargoconfig

import (
	"fmt"
	"maps"
	"path/filepath"
	"slices"
)

// ReplacedSource is what a project calls a registry that stands in the place of crates.io.
const ReplacedSource = "aln-crates-io"

var (
	replaceWith = []string{"source", cratesIO, "replace-with"}
	sourceIndex = []string{"source", ReplacedSource, "registry"}
)

// ReplaceCratesIO has the project at dir take from the index at indexURL what belongs to
// crates.io: [source.crates-io] replace-with = "aln-crates-io" in its .cargo/config.toml, and
// [source.aln-crates-io] registry = "…". Errors: ErrReplaced where something else stands in
// the place of crates.io already; ErrManual.
func ReplaceCratesIO(dir, indexURL string) (Change, error) {
	folder := filepath.Join(dir, ".cargo")
	lines := fmt.Sprintf("[source.%s]\nreplace-with = %s\n\n[source.%s]\nregistry = %s\n", cratesIO, quote(ReplacedSource), ReplacedSource, quote(indexURL))
	return edit(folder, lines, func(d *document) error {
		if err := notReplaced(folder, d.decoded); err != nil {
			return err
		}
		if _, replaced := lookup(d.decoded, replaceWith...); !replaced {
			if err := d.insert(replaceWith, quote(ReplacedSource), ReplacedSource); err != nil {
				return err
			}
		}
		switch index, found := lookup(d.decoded, sourceIndex...); {
		case !found:
			return d.insert(sourceIndex, quote(indexURL), indexURL)
		case index != indexURL: // where the registry was
			return d.replace(sourceIndex, quote(indexURL), indexURL)
		}
		return nil
	})
}

// MayReplaceCratesIO is ErrReplaced where ReplaceCratesIO would be, or where any file that
// cargo reads in dir, cargoHome's too, has the index at indexURL as a source of another name:
// cargo refuses to work with two sources of one registry. It writes nothing.
func MayReplaceCratesIO(dir, cargoHome, indexURL string) error {
	folder := filepath.Join(dir, ".cargo")
	_, decoded, err := decode(folder)
	if err != nil {
		return err
	}
	if err := notReplaced(folder, decoded); err != nil {
		return err
	}
	known := map[string]bool{ReplacedSource: true}
	for _, folder := range folders(dir, cargoHome) {
		file, decoded, err := decode(folder)
		if err != nil {
			return err
		}
		sources, _ := decoded["source"].(map[string]any)
		for _, name := range slices.Sorted(maps.Keys(sources)) {
			value, _ := lookup(sources, name, "registry")
			index, ok := value.(string)
			if !ok || known[name] {
				continue
			}
			if known[name] = true; sameIndex(index, indexURL) {
				return fmt.Errorf("%w: %s has this registry as source %q already, and cargo takes no two sources of one; remove that one there, or write replace-with = %q below [source.%s] yourself", ErrReplaced, file, name, name, cratesIO)
			}
		}
	}
	return nil
}

func notReplaced(folder string, config map[string]any) error {
	if old, replaced := lookup(config, replaceWith...); replaced && old != ReplacedSource {
		return fmt.Errorf("%w: %s puts %q in the place of crates.io already; remove replace-with of [source.%s] there", ErrReplaced, folder, fmt.Sprint(old), cratesIO)
	}
	return nil
}

// RestoreCratesIO takes back what ReplaceCratesIO wrote: the project at dir goes to crates.io
// itself then, by this file. What else stands in the place of crates.io stays.
func RestoreCratesIO(dir string) (Change, error) {
	lines := fmt.Sprintf("(none: remove replace-with of [source.%s], and [source.%s])\n", cratesIO, ReplacedSource)
	return edit(filepath.Join(dir, ".cargo"), lines, func(d *document) error {
		if old, _ := lookup(d.decoded, replaceWith...); old == ReplacedSource {
			if err := d.remove(replaceWith); err != nil {
				return err
			}
		}
		if _, found := lookup(d.decoded, sourceIndex...); found {
			if err := d.remove(sourceIndex); err != nil {
				return err
			}
		}
		return d.removeEmpty(sourceIndex[:2])
	})
}

// Replacement is what cargo, run in dir, takes crates from that belong to crates.io: the URL
// of a registry, otherwise its kind and place, with the file that says so. Value is "" where
// nothing is in its place.
func Replacement(dir, cargoHome string) (Setting, error) {
	var decoded []map[string]any
	found := Setting{Value: ""}
	for _, folder := range folders(dir, cargoHome) {
		file, config, err := decode(folder)
		if err != nil {
			return Setting{}, err
		}
		decoded = append(decoded, config)
		if _, ok := lookup(config, replaceWith...); ok && found.Path == "" {
			found.Path = file
		}
	}
	if found.Path != "" {
		found.Value = sourceOf(decoded, cratesIO)
	}
	return found, nil
}

// remove takes away the line that sets path, and the header above it where nothing else
// is below that. A comment behind the value goes with it; those on other lines stay.
func (d *document) remove(path []string) error {
	e, err := d.key(path)
	if err != nil {
		return err
	}
	from, to := d.lineOf(e)
	if at := d.headerOf(e); at >= 0 && d.isAlone(e) {
		if from, _ = d.lineOf(d.expressions[at]); from > 0 && d.blankBefore(from) {
			from = d.lineBefore(from) // the one that was put between them
		}
	}
	d.text = slices.Concat(d.text[:from], d.text[to:])
	d.edited, d.shrunk = true, true
	unassign(d.want, path)
	return d.scan()
}

// removeEmpty takes away the header of a table that has nothing below it but comments, which
// stay: a source without a place is one on which cargo ends.
func (d *document) removeEmpty(table []string) error {
	if slices.ContainsFunc(d.expressions, func(e expression) bool { return !e.header && hasPrefix(e.path, table) }) {
		return nil
	}
	at := slices.IndexFunc(d.expressions, func(e expression) bool { return e.header && !e.array && slices.Equal(e.table, table) })
	if at < 0 {
		return nil
	}
	from, to := d.lineOf(d.expressions[at])
	d.text = slices.Concat(d.text[:from], d.text[to:])
	d.edited, d.shrunk = true, true
	return d.scan()
}

// lineOf is where the lines of an expression begin, and where the next one does.
func (d *document) lineOf(e expression) (from, to int) {
	from = e.end
	if !e.header {
		from = e.valueAt.from
	}
	for from > 0 && d.text[from-1] != '\n' {
		from--
	}
	for to = e.end; to < len(d.text) && d.text[to-1] != '\n'; {
		to++
	}
	return from, to
}

// headerOf finds the header that e stands below, -1 for none.
func (d *document) headerOf(e expression) int {
	return slices.IndexFunc(d.expressions, func(h expression) bool { return h.header && !h.array && slices.Equal(h.table, e.table) })
}

// isAlone reports whether nothing stands below e's header but e, with no line of a comment between them.
func (d *document) isAlone(e expression) bool {
	for _, other := range d.expressions {
		if !other.header && slices.Equal(other.table, e.table) && !slices.Equal(other.path, e.path) {
			return false
		}
	}
	_, begins := d.lineOf(d.expressions[d.headerOf(e)])
	from, to := d.lineOf(e)
	if from != begins {
		return false
	}
	for at := to; at < len(d.text); at++ { // a comment right below belongs to the table
		switch d.text[at] {
		case '#':
			return false
		case ' ', '\t':
		default:
			return true
		}
	}
	return true
}

func (d *document) lineBefore(at int) int {
	for at--; at > 0 && d.text[at-1] != '\n'; {
		at--
	}
	return at
}

func (d *document) blankBefore(at int) bool {
	for _, c := range d.text[d.lineBefore(at):at] {
		if c != '\r' && c != '\n' {
			return false
		}
	}
	return true
}

func unassign(tree map[string]any, path []string) {
	for _, key := range path[:len(path)-1] {
		table, ok := tree[key].(map[string]any)
		if !ok {
			return
		}
		tree = table
	}
	delete(tree, path[len(path)-1])
}

// withoutEmpty is tree without its empty tables, which mean nothing to cargo.
func withoutEmpty(tree map[string]any) map[string]any {
	pruned := maps.Clone(tree)
	for key, value := range tree {
		if table, ok := value.(map[string]any); ok {
			if inner := withoutEmpty(table); len(inner) > 0 {
				pruned[key] = inner
			} else {
				delete(pruned, key)
			}
		}
	}
	return pruned
}
