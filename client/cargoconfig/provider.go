package cargoconfig

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/pelletier/go-toml/v2"
)

// Provider is what cargo, run somewhere, takes for our credential provider.
type Provider struct {
	// Program is the path in the configuration, "" where our provider is not
	// among those that cargo asks.
	Program string
	// Path is the file in which it is listed, "" for none.
	Path string
}

// FindProvider finds the credential provider of ours that cargo asks when it is
// run in dir, by its own name or by an alias: cargo joins the lists of all its
// files. Of several the one in the nearest file is returned.
func FindProvider(dir, cargoHome string) (Provider, error) {
	for _, folder := range folders(dir, cargoHome) {
		p, err := providerIn(folder, dir, cargoHome)
		if err != nil || p.Program != "" {
			return p, err
		}
	}
	return Provider{}, nil
}

func providerIn(folder, dir, cargoHome string) (Provider, error) {
	file, decoded, err := decode(folder)
	if err != nil {
		return Provider{}, err
	}
	value, _ := lookup(decoded, "registry", "global-credential-providers")
	list, _ := value.([]any)
	p := Provider{Path: file}
	for _, element := range list {
		program := firstWord(element)
		if program != "" && !strings.ContainsAny(program, `/\`) {
			aliased, found, err := Lookup(dir, cargoHome, "credential-alias", program)
			if err != nil {
				return Provider{}, err
			}
			if found {
				program = firstWord(aliased.Value)
			}
		}
		if isOurs(program) {
			p.Program = program
		}
	}
	return p, nil
}

// HasCredential reports whether cargo's own file of credentials, in cargoHome,
// has a token for the registry called name.
func HasCredential(cargoHome, name string) (bool, error) {
	path := filepath.Join(cargoHome, "credentials")
	if _, err := os.Stat(path); err != nil {
		path += ".toml"
	}
	_, data, _, err := read(path)
	if err != nil {
		return false, err
	}
	var decoded map[string]any
	if err := toml.Unmarshal(data, &decoded); err != nil {
		return false, fmt.Errorf("%s is not valid TOML", path) // no more: it holds secrets
	}
	_, found := lookup(decoded, "registries", name)
	return found, nil
}
