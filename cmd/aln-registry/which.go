package main

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	"phoenix-lab.org/aln-registry/client"
	"phoenix-lab.org/aln-registry/client/cargoconfig"
)

// open is the registry that --registry names; without it the only one known, or
// of several the one that the project here uses.
func (a *app) open() (*client.Registry, error) {
	c, err := a.client()
	if err != nil {
		return nil, err
	}
	url, err := registryURL(a.registry)
	if err != nil {
		return nil, err
	}
	r, err := c.Open(url)
	if !errors.Is(err, client.ErrSeveralPins) {
		return r, err
	}
	known, failed := knownToProject(c.Home())
	if failed != nil {
		return nil, failed
	}
	if len(known) == 1 {
		return c.Registry(known[0])
	}
	return nil, err
}

// registryURL is which itself, or the URL of what cargo calls so.
func registryURL(which string) (string, error) {
	if which == "" || strings.Contains(which, "://") {
		return which, nil
	}
	user, err := cargoHome()
	if err != nil {
		return "", err
	}
	folders := []string{user}
	if project, ok, err := projectFolder(); err != nil {
		return "", err
	} else if ok {
		folders = []string{filepath.Join(project, ".cargo"), user}
	}
	for _, folder := range folders {
		named, err := cargoconfig.Registries(folder)
		if err != nil {
			return "", err
		}
		if url, ok := named[which]; ok {
			return url, nil
		}
	}
	return "", usageError{fmt.Errorf("--registry %.80q: neither a URL such as http://127.0.0.1:8585 nor a registry in this project's or your own cargo configuration", which)}
}

// knownToProject lists the pins of the registries that the project here names.
func knownToProject(h client.Home) ([]client.Pin, error) {
	project, ok, err := projectFolder()
	if err != nil || !ok {
		return nil, err
	}
	named, err := cargoconfig.Registries(filepath.Join(project, ".cargo"))
	if err != nil {
		return nil, err
	}
	var pins []client.Pin
	for _, url := range slices.Compact(slices.Sorted(maps.Values(named))) {
		pin, err := h.PinOf(url)
		switch {
		case err == nil:
			pins = append(pins, pin)
		case !errors.Is(err, client.ErrNotPinned) && !errors.Is(err, client.ErrURL):
			return nil, err
		}
	}
	return pins, nil
}

// projectFolder is the folder of cargo's project around the current one, if there is one.
func projectFolder() (string, bool, error) {
	folder, err := workingFolder()
	if err != nil {
		return "", false, err
	}
	project, ok := cargoconfig.FindProject(folder)
	return project, ok, nil
}

// workingFolder is the folder that this is run in, as cargo names it: on Unix without
// symbolic links, so that its parents are the ones whose configuration cargo reads.
func workingFolder() (string, error) {
	folder, err := os.Getwd()
	if err != nil || runtime.GOOS == "windows" {
		return folder, err
	}
	return filepath.EvalSymlinks(folder)
}
