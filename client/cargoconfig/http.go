package cargoconfig

import (
	"errors"
	"fmt"
	"path/filepath"
	"slices"

	"github.com/pelletier/go-toml/v2"
)

// ErrCAInfo: cargo trusts a file of certificates of somebody else's making already.
var ErrCAInfo = errors.New("cargo's http.cainfo is set already")

// SetCAInfo makes bundle, an absolute path, the certificates that cargo trusts
// (all of them: cargo then asks no other file): http.cainfo in cargoHome, since
// the path is this computer's and no business of the project. Errors: ErrCAInfo
// where another file is named, which stays; ErrManual.
func SetCAInfo(cargoHome, bundle string) (Change, error) {
	return edit(cargoHome, fmt.Sprintf("[http]\ncainfo = %s\n", quote(bundle)), func(d *document) error {
		path := []string{"http", "cainfo"}
		old, found := lookup(d.decoded, path...)
		switch {
		case !found:
			return d.insert(path, quote(bundle), bundle)
		case old != bundle:
			return fmt.Errorf("%w: to %.300v; append the certificates in %s to it", ErrCAInfo, old, bundle)
		}
		return nil
	})
}

// Setting is one value of cargo's configuration and the file that it stands in.
type Setting struct {
	Value any
	Path  string
}

// Text is the value where it is a text, "" otherwise.
func (s Setting) Text() string {
	text, _ := s.Value.(string)
	return text
}

// Lookup finds what cargo, run in dir, takes for the setting at path: in the
// nearest .cargo of dir and its parents that has it, or in cargoHome. The
// environment, which goes before files, is the caller's to ask. false where no
// file sets it.
func Lookup(dir, cargoHome string, path ...string) (Setting, bool, error) {
	for _, folder := range folders(dir, cargoHome) {
		file, decoded, err := decode(folder)
		if err != nil {
			return Setting{}, false, err
		}
		if value, ok := lookup(decoded, path...); ok {
			return Setting{Value: value, Path: file}, true, nil
		}
	}
	return Setting{}, false, nil
}

// decode reads the configuration in folder with the files that it includes, an empty one
// where there is none.
func decode(folder string) (path string, decoded map[string]any, err error) {
	path, decoded, err = decodeAlone(folder)
	if err != nil {
		return "", nil, err
	}
	left := mostIncluded
	return path, decoded, include(path, decoded, &left)
}

// decodeAlone is decode without the files that are included.
func decodeAlone(folder string) (path string, decoded map[string]any, err error) {
	if path, err = find(folder); err != nil {
		return "", nil, err
	}
	decoded, err = decodeFile(path)
	return path, decoded, err
}

func decodeFile(path string) (decoded map[string]any, err error) {
	_, data, _, err := read(path)
	if err != nil {
		return nil, err
	}
	if err := toml.Unmarshal(data, &decoded); err != nil {
		return nil, fmt.Errorf("%s is not valid TOML: %w", path, err)
	}
	return decoded, nil
}

// mostIncluded bounds the files that are read for one configuration.
const mostIncluded = 64

// include adds to the configuration at path what it includes, as cargo does from 1.94 on: what
// it says itself goes before that, and of several files the last one's goes first. One that is
// not there says nothing here: cargo itself will tell.
func include(path string, config map[string]any, left *int) error {
	for _, name := range slices.Backward(included(config)) {
		if *left--; *left < 0 {
			return fmt.Errorf("%s includes more than %d files, or itself", path, mostIncluded)
		}
		if !filepath.IsAbs(name) {
			name = filepath.Join(filepath.Dir(path), filepath.FromSlash(name))
		}
		from, err := decodeFile(name)
		if err != nil {
			return err
		}
		if err := include(name, from, left); err != nil {
			return err
		}
		fill(config, from)
	}
	return nil
}

// included are the files that a configuration includes, as it writes them; cargo takes none
// whose name does not end in .toml.
func included(config map[string]any) (names []string) {
	list, ok := config["include"].([]any)
	if !ok {
		list = []any{config["include"]}
	}
	for _, element := range list {
		if table, ok := element.(map[string]any); ok {
			element = table["path"]
		}
		if name, ok := element.(string); ok && filepath.Ext(name) == ".toml" {
			names = append(names, name)
		}
	}
	return names
}

// fill adds to a configuration what one that counts less says: cargo joins lists, the one
// that counts more last.
func fill(config, less map[string]any) {
	for key, value := range less {
		old, found := config[key]
		switch old := old.(type) {
		case map[string]any:
			if table, ok := value.(map[string]any); ok {
				fill(old, table)
			}
		case []any:
			if list, ok := value.([]any); ok && key != "include" {
				config[key] = slices.Concat(list, old)
			}
		default:
			if !found {
				config[key] = value
			}
		}
	}
}

// folders are those whose configuration cargo reads in dir, the first to count first.
func folders(dir, cargoHome string) []string {
	var list []string
	for {
		if folder := filepath.Join(dir, ".cargo"); folder != filepath.Clean(cargoHome) {
			list = append(list, folder)
		}
		parent := filepath.Dir(dir)
		if parent == dir {
			return append(list, cargoHome)
		}
		dir = parent
	}
}
