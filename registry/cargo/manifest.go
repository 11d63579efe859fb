package cargo

import (
	"path"
	"slices"
	"strings"
)

// Bounds of texts that indexes and searches carry along. crates.io takes at
// most 5 keywords of 20 characters, and descriptions have some hundred bytes.
const (
	maxDescriptionBytes = 4 << 10
	maxKeywords         = 32
	maxKeywordBytes     = 64
)

// parseManifest reads a packaged Cargo.toml. Keys that decide nothing here are
// not looked at: cargo adds some with every release.
func parseManifest(data []byte, name, version string) (*Crate, error) {
	root, err := manifestFile.parse(data)
	if err != nil {
		return nil, err
	}
	pkg, err := root.sub("package")
	if err != nil {
		return nil, err
	}
	if pkg.values == nil {
		return nil, problem(ErrManifest, CodeManifest, "Cargo.toml has no [package]; build the crate with `cargo package`")
	}
	c := &Crate{}
	if err := c.identity(pkg, name, version); err != nil {
		return nil, err
	}
	if err := c.describe(pkg); err != nil {
		return nil, err
	}
	if err := noInheritance(root, pkg); err != nil {
		return nil, err
	}
	if c.Dependencies, err = dependencies(root); err != nil {
		return nil, err
	}
	if c.Features, err = features(root, c.Dependencies); err != nil {
		return nil, err
	}
	return c, nil
}

// identity demands the very name and version that were announced: everything
// else about the crate is filed under these.
func (c *Crate) identity(pkg table, name, version string) (err error) {
	found := map[string]string{}
	for _, key := range []string{"name", "version"} {
		if found[key], err = pkg.str(key); err != nil {
			return err
		}
	}
	if found["name"] != name || found["version"] != version {
		return problem(ErrManifest, CodeIdentity, "Cargo.toml is about %s, not about %s as announced; send the crate that `cargo package` made for it",
			quote(found["name"]+"@"+found["version"]), quote(name+"@"+version))
	}
	c.Name = name
	c.Version, err = ParseVersion(version)
	return err
}

// describe reads the rest of [package].
func (c *Crate) describe(pkg table) (err error) {
	for _, text := range []struct {
		key   string
		field *string
	}{
		{"links", &c.Links}, {"rust-version", &c.RustVersion}, {"description", &c.Description},
		{"license", &c.License}, {"license-file", &c.LicenseFile}, {"homepage", &c.Homepage},
		{"documentation", &c.Documentation}, {"repository", &c.Repository},
	} {
		if *text.field, err = pkg.str(text.key); err != nil {
			return err
		}
	}
	if c.Keywords, err = pkg.strs("keywords"); err != nil {
		return err
	}
	if c.Categories, err = pkg.strs("categories"); err != nil {
		return err
	}
	if err := c.boundTexts(pkg); err != nil {
		return err
	}
	if _, ok := pkg.values["links"]; ok && c.Links == "" {
		return pkg.wrong("links", "the name of a native library")
	}
	if _, ok := pkg.values["rust-version"]; ok && !isRustVersion(c.RustVersion) {
		return pkg.wrong("rust-version", `a version such as "1.70" or "1.70.1"`)
	}
	c.readmes, err = readmes(pkg)
	return err
}

func (c *Crate) boundTexts(pkg table) error {
	if len(c.Description) > maxDescriptionBytes {
		return problem(ErrManifest, CodeManifest, "Cargo.toml: %q has %d bytes, and at most %d are allowed; shorten it and put the rest into the README", pkg.path("description"), len(c.Description), maxDescriptionBytes)
	}
	tooLong := func(keyword string) bool { return len(keyword) > maxKeywordBytes }
	if len(c.Keywords) > maxKeywords || slices.ContainsFunc(c.Keywords, tooLong) {
		return problem(ErrManifest, CodeManifest, "Cargo.toml: %q may have at most %d keywords of %d bytes each; leave some out or shorten them", pkg.path("keywords"), maxKeywords, maxKeywordBytes)
	}
	return nil
}

// isRustVersion: one to three numbers, no operator, no pre-release.
func isRustVersion(s string) bool {
	parts := strings.Split(s, ".")
	for _, part := range parts {
		if _, rest, ok := numeric(part); !ok || rest != "" {
			return false
		}
	}
	return len(parts) <= 3
}

// readmes are the paths at which the README may be, best first (Cargo
// reference, "The readme field").
func readmes(pkg table) ([]string, error) {
	switch readme := pkg.values["readme"].(type) {
	case nil:
		return []string{"README.md", "README.txt", "README"}, nil
	case bool:
		if !readme {
			return nil, nil
		}
		return []string{"README.md"}, nil
	case string:
		return []string{path.Clean(readme)}, nil
	}
	return nil, pkg.wrong("readme", "a path, true or false")
}

// noInheritance refuses what a workspace would have to fill in: outside of it
// nobody can, and `cargo package` never leaves any.
func noInheritance(root, pkg table) error {
	for _, key := range pkg.keys() {
		if inner, ok := pkg.values[key].(map[string]any); ok && key != "metadata" {
			if _, inherits := inner["workspace"]; inherits {
				return pkg.wrong(key, "written out")
			}
		}
	}
	if lints, ok := root.values["lints"].(map[string]any); ok {
		if _, inherits := lints["workspace"]; inherits {
			return root.wrong("lints", "written out")
		}
	}
	return nil
}
