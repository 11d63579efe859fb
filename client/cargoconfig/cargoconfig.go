// Package cargoconfig writes the two settings that cargo needs to work with a
// registry into cargo's configuration files, and touches nothing else in them.
//
// The project's .cargo/config.toml gets the index URL only, which is safe to
// commit: a credential provider named there and missing on a teammate's PATH
// would break their build. The provider goes by absolute path into CARGO_HOME.
//
// Invariants: comments, order, spelling, line endings, mode and symbolic links
// of a file stay; after an edit the file means what it meant before and the one
// new thing, which is checked by decoding it before and after; a file that
// cannot be edited so is left alone, and the error holds the lines to add by
// hand; doing it twice changes nothing.
package cargoconfig

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"unicode/utf8"

	"phoenix-lab.org/aln-registry/durable"
)

// Errors that callers branch on.
var (
	// ErrManual: the file cannot be edited without risk; the error is a *ManualError.
	ErrManual = errors.New("edit it by hand")
	// ErrName: not a name that cargo takes for a registry.
	ErrName = errors.New("not a name for a registry")
	// ErrNameTaken: the name stands for another registry, or the registry has another name.
	ErrNameTaken = errors.New("name and registry do not go together")
	// ErrReplaced: something else stands in the place of crates.io.
	ErrReplaced = errors.New("crates.io has something else in its place")
	// ErrBinary: the provider's path is not one that cargo can run.
	ErrBinary = errors.New("not a usable path of a credential provider")
)

// ManualError says which lines to add to which file, and why this package does not.
type ManualError struct {
	Path   string
	Reason string
	Lines  string
}

// Error implements error.
func (e *ManualError) Error() string {
	return fmt.Sprintf("%s is left alone: %s; add these lines by hand:\n%s", e.Path, e.Reason, e.Lines)
}

// Unwrap makes errors.Is(err, ErrManual) hold.
func (e *ManualError) Unwrap() error { return ErrManual }

// Change says what was done to a file.
type Change struct {
	// Path is the configuration file as cargo finds it.
	Path string
	// Changed is false when everything was there already.
	Changed bool
}

const (
	// alias is the provider's name where its path has a space in it, and the
	// base name by which an older path of ours is recognised.
	alias = "aln-registry"
	// tokenProvider is cargo's own one, its default.
	tokenProvider = "cargo:token"

	maxFile = 1 << 20 // bytes
)

// SetProvider makes binary, an absolute path, one of cargo's global credential
// providers in cargoHome: the last one, which cargo asks first. An older path of
// ours is replaced; the others stay, cargo:token among them.
func SetProvider(cargoHome, binary string) (Change, error) {
	if !filepath.IsAbs(binary) || !utf8.ValidString(binary) || strings.ContainsFunc(binary, isControl) {
		return Change{}, fmt.Errorf("%w: %q must be absolute and printable", ErrBinary, binary)
	}
	entry, lines := binary, ""
	spaced := strings.ContainsFunc(binary, isSpace)
	if spaced { // cargo splits an entry at white space; an alias may be an array
		entry = alias
		lines = fmt.Sprintf("[credential-alias]\n%s = [%s]\n\n", alias, quote(binary))
	}
	lines += fmt.Sprintf("[registry]\nglobal-credential-providers = [%s, %s]\n", quote(tokenProvider), quote(entry))
	return edit(cargoHome, lines, func(d *document) error {
		if spaced {
			if err := d.setAlias(binary); err != nil {
				return err
			}
		}
		return d.setProvider(entry)
	})
}

func (d *document) setAlias(binary string) error {
	path := []string{"credential-alias", alias}
	want := []any{binary}
	text := "[" + quote(binary) + "]"
	old, found := lookup(d.decoded, path...)
	if !found {
		return d.insert(path, text, want)
	}
	if first := firstWord(old); !isOurs(first) {
		return fmt.Errorf("[credential-alias] %s stands for something else", alias)
	}
	if list, ok := old.([]any); ok && len(list) == 1 && list[0] == binary {
		return nil
	}
	return d.replace(path, text, want)
}

func (d *document) setProvider(entry string) error {
	path := []string{"registry", "global-credential-providers"}
	old, found := lookup(d.decoded, path...)
	if !found {
		return d.insert(path, "["+quote(tokenProvider)+", "+quote(entry)+"]", []any{tokenProvider, entry})
	}
	list, ok := old.([]any)
	if !ok {
		return errors.New("registry.global-credential-providers is not a list")
	}
	if len(list) == 0 { // to cargo the same as none: its default
		return d.replace(path, "["+quote(tokenProvider)+", "+quote(entry)+"]", []any{tokenProvider, entry})
	}
	want := append([]any{}, list...)
	for i, element := range list {
		if !isOurs(firstWord(element)) {
			continue
		}
		if element == entry {
			return nil
		}
		want[i] = entry
		return d.replaceElement(path, i, quote(entry), want)
	}
	return d.appendElement(path, quote(entry), append(want, entry))
}

// firstWord is the program in a provider's setting: of a text its first word,
// of a list the first element.
func firstWord(v any) string {
	switch v := v.(type) {
	case string:
		if fields := strings.Fields(v); len(fields) > 0 {
			return fields[0]
		}
	case []any:
		if len(v) > 0 {
			s, _ := v[0].(string)
			return s
		}
	}
	return ""
}

// isOurs reports whether program is this command, wherever it lies.
func isOurs(program string) bool {
	base := program[strings.LastIndexAny(program, `/\`)+1:]
	return strings.TrimSuffix(base, ".exe") == alias
}

// edit reads the configuration file in folder, has change edit it, checks that
// nothing but what it meant to change has changed, and writes it back.
func edit(folder, lines string, change func(*document) error) (Change, error) {
	path, err := find(folder)
	if err != nil {
		return Change{}, err
	}
	real, data, mode, err := read(path)
	if err != nil {
		return Change{}, err
	}
	done := Change{Path: path}
	d, err := parse(data)
	if err == nil {
		err = change(d)
	}
	if errors.Is(err, ErrNameTaken) || errors.Is(err, ErrReplaced) || errors.Is(err, ErrCAInfo) {
		return Change{Path: path}, err
	}
	if err == nil && d.edited {
		err = d.check()
	}
	if err != nil {
		return Change{}, &ManualError{Path: path, Reason: err.Error(), Lines: lines}
	}
	if !d.edited {
		return done, nil
	}
	if err := durable.MkdirAll(filepath.Dir(real), 0o755); err != nil {
		return Change{}, err
	}
	done.Changed = true
	return done, durable.WriteFile(real, d.text, mode)
}

// find returns the file that cargo reads in folder: of config and config.toml
// it prefers the older name where both exist.
func find(folder string) (string, error) {
	old := filepath.Join(folder, "config")
	info, err := os.Stat(old)
	if err == nil && info.Mode().IsRegular() {
		return old, nil
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", fmt.Errorf("cargo's configuration: %w", err)
	}
	return filepath.Join(folder, "config.toml"), nil
}

// read returns the file that path leads to through symbolic links, its bytes
// and mode; of a file that does not exist, no bytes and 0644.
func read(path string) (real string, data []byte, mode fs.FileMode, err error) {
	if _, err := os.Lstat(path); errors.Is(err, fs.ErrNotExist) {
		return path, nil, 0o644, nil
	}
	if real, err = filepath.EvalSymlinks(path); err != nil {
		return "", nil, 0, fmt.Errorf("cargo's configuration: %w", err)
	}
	info, err := os.Stat(real)
	if err != nil {
		return "", nil, 0, fmt.Errorf("cargo's configuration: %w", err)
	}
	if !info.Mode().IsRegular() { // opening a pipe would wait for ever
		return "", nil, 0, fmt.Errorf("cargo's configuration: %s is not a regular file", path)
	}
	f, err := os.Open(real)
	if err != nil {
		return "", nil, 0, fmt.Errorf("cargo's configuration: %w", err)
	}
	defer f.Close()
	data, err = io.ReadAll(io.LimitReader(f, maxFile+1))
	if err != nil {
		return "", nil, 0, fmt.Errorf("cargo's configuration: %w", err)
	}
	if len(data) > maxFile {
		return "", nil, 0, fmt.Errorf("%s is longer than %d bytes", path, maxFile)
	}
	return real, data, info.Mode().Perm(), nil
}
