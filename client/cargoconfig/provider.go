package cargoconfig

import "strings"

// Provider is what cargo, run somewhere, takes for our credential provider.
type Provider struct {
	// Program is the path in the configuration, "" where our provider is not
	// among those that cargo asks.
	Program string
	// Path is the file in which the providers are listed, "" for none.
	Path string
}

// FindProvider finds the credential provider of ours that cargo asks when it is
// run in dir: by its own name or by an alias.
func FindProvider(dir, cargoHome string) (Provider, error) {
	setting, found, err := Lookup(dir, cargoHome, "registry", "global-credential-providers")
	if err != nil || !found {
		return Provider{}, err
	}
	p := Provider{Path: setting.Path}
	list, _ := setting.Value.([]any)
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
